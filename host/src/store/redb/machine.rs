//! What the tables become: each group of writes is applied in its order, and what it does follows from the tables, the
//! group and its time alone. The settings of the store are part of that, as if each group named them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use redb::ReadableTable;

use super::apply::{Apply, Effects};
use super::damage::Marks;
use super::deliveries::Rows;
use super::group::{Answer, Group, Op, Value};
use super::handle::Fault;
use super::ids::Ids;
use super::schema::{MILLIS_KEY, POSITION_KEY, Tables};
use super::usage::Usage;
use crate::domain::SubscriptionId;
use crate::store::{Arrival, Rendering};

/// Applies groups of writes.
pub(super) struct Machine {
    pub(super) dedup_window: Duration,
    /// When targets were last reached, as the table has it.
    pub(super) reached: HashMap<SubscriptionId, Timestamp>,
    /// What is kept for users, as the table has it.
    pub(super) usage: Arc<Usage>,
    pub(super) marks: Marks,
    /// The last minute that was written for each recipient among those with ended deliveries: it saves writing it again.
    pub(super) ended_minutes: HashMap<u128, u64>,
}

impl Machine {
    /// Begins a transaction's work, at the position after the last one.
    pub(super) fn begin<'a, 'txn>(
        &'a self,
        tables: &'a mut Tables<'txn>,
        now: Timestamp,
    ) -> Result<Apply<'a, 'txn>, Fault> {
        let number = |key: &str| Ok::<_, Fault>(tables.meta.get(key)?.map_or(0, |number| number.value()));
        let (position, millis) = (number(POSITION_KEY)? + 1, number(MILLIS_KEY)?);
        tables.meta.insert(POSITION_KEY, position)?;
        Ok(Apply {
            tables,
            ids: Ids::of_group(position, now, millis),
            dedup_window: self.dedup_window,
            now,
            reached: &self.reached,
            usage: &self.usage,
            marks: &self.marks,
            ended_minutes: &self.ended_minutes,
            rows: Rows::default(),
            effects: Effects::default(),
        })
    }

    /// Applies a group at a time, and returns a value for each of its operations.
    pub(super) fn apply(
        &self,
        tables: &mut Tables<'_>,
        now: Timestamp,
        Group { ops, ends }: &Group,
    ) -> Result<(Vec<Answer>, Effects), Fault> {
        let mut apply = self.begin(tables, now)?;
        let mut values = Vec::with_capacity(ops.len());
        let mut accepted = apply.accept(arrivals(ops))?.into_iter();
        let mut rendered = apply.freeze(renderings(ops))?.into_iter();
        for op in ops {
            values.push(match op {
                Op::Accept { .. } => Ok(Value::Ids(accepted.next().expect("one list for each accept"))),
                Op::Freeze(_) => rendered.next().expect("one answer for each").map(Value::Flag),
                other => apply.operation(other)?,
            });
        }
        apply.settle(ends.iter())?;
        Ok((values, apply.finish()?))
    }

    /// Takes over what a commit has changed.
    pub(super) fn remember(&mut self, effects: &mut Effects) {
        self.reached.extend(std::mem::take(&mut effects.reached));
        for id in &effects.forgotten {
            self.reached.remove(id);
            self.ended_minutes.remove(&id.uuid().as_u128());
        }
        self.ended_minutes.extend(std::mem::take(&mut effects.ended_minutes));
        self.usage.publish(std::mem::take(&mut effects.usage.users));
    }
}

impl Apply<'_, '_> {
    /// Applies one operation. Accepts and freezes are applied before the others, all together.
    fn operation(&mut self, op: &Op) -> Result<Answer, Fault> {
        Ok(Ok(match op {
            Op::Accept { .. } | Op::Freeze(_) => unreachable!("they are applied together"),
            Op::PutSubscription { subscription, quota } => {
                return Ok(self.put_subscription(subscription, *quota)?.map(|()| Value::Unit));
            }
            Op::BeginRecovery { recovery, subscription } => {
                return Ok(self.begin_recovery(recovery, subscription.as_deref())?.map(Value::Flag));
            }
            Op::Redeliver(redelivery) => Value::Flag(self.redeliver(redelivery)?),
            Op::Recover(recover) => Value::Recovery(self.recover(recover)?.map(Box::new)),
            Op::Purge { purge, from } => {
                let (report, next) = self.purge(purge, *from)?;
                Value::PurgeReport(report, next)
            }
            Op::CancelPending { subscription, limit, at } => {
                Value::Flag(self.cancel_pending(*subscription, *limit, *at)?)
            }
            Op::Module(change) => {
                self.change_module(change)?;
                Value::Unit
            }
            Op::Forget { deleted } => Value::Forgotten(self.forget(deleted)?),
            Op::Bury { recipient, rows, at } => {
                self.bury(*recipient, rows, *at)?;
                Value::Unit
            }
            Op::Probe => Value::Unit,
        }))
    }

    /// Writes what is gathered, the last step of a group, and returns what is to be published.
    pub(super) fn finish(mut self) -> Result<Effects, Fault> {
        self.write_rows()?;
        self.write_accounts()?;
        if let Some(millis) = self.ids.millis() {
            self.tables.meta.insert(MILLIS_KEY, millis)?;
        }
        Ok(self.effects)
    }
}

fn arrivals(ops: &[Op]) -> impl Iterator<Item = &[Arrival]> {
    ops.iter().filter_map(|op| match op {
        Op::Accept { arrivals } => Some(arrivals.as_slice()),
        _ => None,
    })
}

fn renderings(ops: &[Op]) -> impl Iterator<Item = &Rendering> {
    ops.iter().filter_map(|op| match op {
        Op::Freeze(rendering) => Some(&**rendering),
        _ => None,
    })
}

//! What the tables become: each group of writes is applied in its order, and what it does follows from the tables, the
//! group and its time alone. Settings that decide about writes are in the tables, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use redb::ReadableTable;

use super::apply::{Apply, Effects};
use super::damage::Marks;
use super::deliveries::Rows;
use super::group::{Answer, Group, Op, Settings, Value};
use super::handle::Fault;
use super::ids::Ids;
use super::modules::Files;
use super::read::Reader;
use super::record;
use super::schema::{DEDUP_WINDOW_KEY, MATCHING_KEY, MILLIS_KEY, POSITION_KEY, Tables, USER_BYTES_KEY};
use super::usage::Usage;
use crate::clock;
use crate::domain::{PluginDigest, SubscriptionId};
use crate::store::journal::{Entry, Ticket};
use crate::store::{Arrival, Position, Rendering};

/// Applies groups of writes.
pub(super) struct Machine {
    pub(super) settings: Settings,
    /// When targets were last reached, as the table has it.
    pub(super) reached: HashMap<SubscriptionId, Timestamp>,
    /// What is kept for users, as the table has it.
    pub(super) usage: Arc<Usage>,
    pub(super) marks: Marks,
    /// The last minute that was written for each recipient among those with ended deliveries: it saves writing it again.
    pub(super) ended_minutes: HashMap<u128, u64>,
}

impl Machine {
    /// Reads what it remembers of the tables.
    pub(super) fn load(reader: &Reader) -> Result<Self, Fault> {
        let settings = reader.settings()?.unwrap_or_default();
        Ok(Self {
            settings,
            reached: reader.reached()?.into_iter().collect(),
            usage: Arc::new(Usage::new(reader.accounts()?, settings.user_bytes_max)),
            marks: reader.marks.clone(),
            ended_minutes: HashMap::new(),
        })
    }

    /// Reads it again after a transaction was lost.
    pub(super) fn load_again(&mut self, reader: &Reader) -> Result<(), Fault> {
        let Self { settings, reached, usage, ended_minutes, .. } = Self::load(reader)?;
        self.usage.replace(&usage);
        (self.settings, self.reached, self.ended_minutes) = (settings, reached, ended_minutes);
        Ok(())
    }

    /// Changes the settings of the file, unless it has these.
    pub(super) fn set(&mut self, reader: &Reader, settings: Settings) -> Result<(), Fault> {
        if reader.settings()? == Some(settings) {
            return Ok(());
        }
        let group = Group { ops: vec![Op::Settings(settings)], ends: Vec::new() };
        let written = reader.handle.write(|txn| self.apply(&mut Tables::open(txn)?, clock::now(), &group));
        self.remember(&mut written?.1);
        Ok(())
    }

    /// Begins a transaction's work, at the position after the last one.
    pub(super) fn begin<'a, 'txn>(
        &'a self,
        tables: &'a mut Tables<'txn>,
        now: Timestamp,
    ) -> Result<Apply<'a, 'txn>, Fault> {
        let number = |key: &str| Ok::<_, Fault>(tables.meta.get(key)?.map_or(0, |number| number.value()));
        let (position, millis) = (number(POSITION_KEY)? + 1, number(MILLIS_KEY)?);
        let matching = Position(number(MATCHING_KEY)?);
        tables.meta.insert(POSITION_KEY, position)?;
        Ok(Apply {
            tables,
            ids: Ids::of_group(position, now, millis),
            position: Position(position),
            matching,
            dedup_window: Duration::from_millis(self.settings.dedup_window_ms),
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
                Op::Accept { .. } => Ok(Value::Accepted(accepted.next().expect("one list for each accept"))),
                Op::Freeze(_) => rendered.next().expect("one answer for each").map(Value::Flag),
                other => apply.operation(other)?,
            });
        }
        apply.settle(ends.iter())?;
        Ok((values, apply.finish()?))
    }

    /// Applies an entry of a journal, unless its group was applied before: then nothing but the position changes. Remembers
    /// what it changes at once, for the entries behind it in the transaction: where that fails, load this again.
    pub(super) fn apply_entry(
        &mut self,
        tables: &mut Tables<'_>,
        files: &Files,
        entry: &Entry,
    ) -> Result<(Ticket, AppliedEntry), Fault> {
        let (ticket, mut group) = record::decode_group(&entry.group).map_err(Fault::damaged("journal"))?;
        let expected = tables.meta.get(POSITION_KEY)?.map_or(0, |position| position.value()) + 1;
        if entry.position != Position(expected) {
            return Err(Fault::Closed(format!(
                "the journal gave {:?} instead of {expected}",
                entry.position
            )));
        }
        let is_new = mark(tables, ticket)?;
        if is_new {
            files.write_parts(&group.ops)?;
        } else {
            group = Group::default();
        }
        let (answers, mut effects) = self.apply(tables, entry.at, &group)?;
        self.remember(&mut effects);
        let removed = group.ops.iter().zip(&answers).filter_map(|(op, answer)| match (op, answer) {
            (Op::RemoveModule { digest, .. }, Ok(Value::Flag(true))) => Some(*digest),
            _ => None,
        });
        let removed_modules = removed.collect();
        Ok((ticket, AppliedEntry { answers: is_new.then_some(answers), effects, removed_modules }))
    }

    /// Takes over what a commit has changed.
    pub(super) fn remember(&mut self, effects: &mut Effects) {
        self.reached.extend(std::mem::take(&mut effects.reached));
        for id in &effects.forgotten {
            self.reached.remove(id);
            self.ended_minutes.remove(&id.uuid().as_u128());
        }
        self.ended_minutes.extend(std::mem::take(&mut effects.ended_minutes));
        if let Some(settings) = effects.settings.take() {
            self.settings = settings;
            self.usage.limit(settings.user_bytes_max);
        }
        self.usage.publish(std::mem::take(&mut effects.usage.users));
    }
}

/// What an entry of a journal has led to.
pub(super) struct AppliedEntry {
    /// One for each operation; `None` if its group was applied before.
    pub(super) answers: Option<Vec<Answer>>,
    pub(super) effects: Effects,
    /// Modules whose files are to be removed.
    pub(super) removed_modules: Vec<PluginDigest>,
}

/// How far behind its process's newest group one may be applied: as far as the mask of those that were reaches.
pub(super) const GROUPS_APART_MAX: u64 = 64;

/// Notes that a group is applied; returns whether it was not before.
fn mark(tables: &mut Tables<'_>, Ticket { member, number }: Ticket) -> Result<bool, Fault> {
    let (newest, before) = tables.members.get(member)?.map_or((0, 0), |row| row.value());
    let bit = |back: u64| 1u64.checked_shl(u32::try_from(back - 1).unwrap_or(u32::MAX)).unwrap_or(0);
    let marked = if number > newest {
        let shift = u32::try_from(number - newest).unwrap_or(u32::MAX);
        let shifted = before.checked_shl(shift).unwrap_or(0);
        (number, if newest > 0 { shifted | bit(number - newest) } else { shifted })
    } else {
        // None is appended while one waits that is further back than the mask: it has been applied.
        let back = newest - number;
        if back == 0 || back > GROUPS_APART_MAX || before & bit(back) != 0 {
            return Ok(false);
        }
        (newest, before | bit(back))
    };
    tables.members.insert(member, marked)?;
    Ok(true)
}

impl Apply<'_, '_> {
    /// Applies one operation. Accepts and freezes are applied before the others, all together.
    fn operation(&mut self, op: &Op) -> Result<Answer, Fault> {
        Ok(Ok(match op {
            Op::Accept { .. } | Op::Freeze(_) => unreachable!("they are applied together"),
            Op::PutSubscription(put) => return Ok(self.put_subscription(put)?.map(Value::Put)),
            Op::BeginRecovery(recovery) => Value::Flag(self.begin_recovery(recovery)?),
            Op::Redeliver(redelivery) => Value::Flag(self.redeliver(redelivery)?),
            Op::Recover(recover) => Value::Recovery(self.recover(recover)?.map(Box::new)),
            Op::Purge { purge, from } => {
                let (report, next) = self.purge(purge, *from)?;
                Value::PurgeReport(report, next)
            }
            Op::CancelPending { subscription, limit, at } => {
                Value::Flag(self.cancel_pending(*subscription, *limit, *at)?)
            }
            // Its bytes are written where the entry is read.
            Op::ModulePart { .. } => Value::Unit,
            Op::PutModule(module) => {
                self.put_module(module)?;
                Value::Unit
            }
            Op::RemoveModule { digest, uploaded } => Value::Flag(self.remove_module(*digest, *uploaded)?),
            Op::Forget { deleted } => Value::Forgotten(self.forget(deleted)?),
            Op::Bury { recipient, rows, at } => {
                self.bury(*recipient, rows, *at)?;
                Value::Unit
            }
            Op::Settings(settings) => {
                self.tables.meta.insert(DEDUP_WINDOW_KEY, settings.dedup_window_ms)?;
                self.tables.meta.insert(USER_BYTES_KEY, settings.user_bytes_max)?;
                self.effects.settings = Some(*settings);
                Value::Unit
            }
            Op::Probe => Value::Unit,
        }))
    }

    /// Writes what is gathered, the last step of a group, and returns what is to be published.
    pub(super) fn finish(mut self) -> Result<Effects, Fault> {
        self.write_rows()?;
        let counts = std::mem::take(&mut self.rows.counts);
        counts.write(self.tables, self.marks, self.position)?;
        self.write_accounts()?;
        if let Some(millis) = self.ids.millis() {
            self.tables.meta.insert(MILLIS_KEY, millis)?;
        }
        self.effects.position = self.position;
        Ok(self.effects)
    }
}

fn arrivals(ops: &[Op]) -> impl Iterator<Item = (&[Arrival], Position)> {
    ops.iter().filter_map(|op| match op {
        Op::Accept { arrivals, matched_at } => Some((arrivals.as_slice(), *matched_at)),
        _ => None,
    })
}

fn renderings(ops: &[Op]) -> impl Iterator<Item = &Rendering> {
    ops.iter().filter_map(|op| match op {
        Op::Freeze(rendering) => Some(&**rendering),
        _ => None,
    })
}

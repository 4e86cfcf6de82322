//! Recoveries: their records, the walk along the log, and the deliveries that they enqueue.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use redb::ReadableTable;

use super::apply::Apply;
use super::damage;
use super::deliveries::DeliveryKey;
use super::handle::Fault;
use super::history::Ledger;
use super::ids;
use super::read::Reader;
use super::record::{self, HistoryRecord};
use super::schema::{BATCHES, DUE, RECOVERIES, batch_of};
use crate::domain::recovery::{Mark, ScanProgress, State};
use crate::domain::{Entry, EventId, RecipientId, Recovery, SubscriptionId};
use crate::store::{Backlog, Forward, LoggedEvent, Step, Wake};

/// How far an event's id may be from the time of its receipt: an accept may wait for the disk, and the clock may be
/// changed.
const SLACK: SignedDuration = SignedDuration::from_mins(10);

/// A request to advance a recovery.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recover {
    pub(super) subscription: SubscriptionId,
    pub(super) asked: Timestamp,
    pub(super) step: Step,
    pub(super) at: Timestamp,
}

impl Recover {
    /// Returns about how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        match &self.step {
            Step::Advance(scan) => scan.matched.len() * size_of::<EventId>(),
            Step::Begin | Step::End(_) => 0,
        }
    }
}

impl Apply<'_, '_> {
    /// See [`crate::store::Store::begin_recovery`].
    pub(super) fn begin_recovery(&mut self, recovery: &Recovery) -> Result<bool, Fault> {
        if self.recovery(recovery.subscription)?.is_some_and(|known| known.is_running()) {
            return Ok(false);
        }
        self.put_recovery(recovery)?;
        Ok(true)
    }

    /// See [`crate::store::Store::recover`].
    pub(super) fn recover(&mut self, request: &Recover) -> Result<Option<Recovery>, Fault> {
        let known = self.recovery(request.subscription)?;
        let Some(mut recovery) = known.filter(|known| known.is_running() && known.asked == request.asked)
        else {
            return Ok(None);
        };
        match &request.step {
            _ if self.is_deleted(request.subscription)? => {
                recovery.state = State::Cancelled { at: request.at }
            }
            Step::Begin => recovery.begin(self.newest()?, request.at),
            Step::Advance(scan) => {
                let created = self.backfill(&recovery, scan, request.at)?;
                recovery.advance(scan, created, request.at);
            }
            Step::End(state) => recovery.state = state.clone(),
        }
        self.put_recovery(&recovery)?;
        Ok(Some(recovery))
    }

    /// Enqueues the events that the recovery's subscription never had a delivery of; returns how many these are.
    fn backfill(&mut self, recovery: &Recovery, scan: &ScanProgress, at: Timestamp) -> Result<u64, Fault> {
        let mut by_batch: BTreeMap<u128, Vec<EventId>> = BTreeMap::new();
        for event in &scan.matched {
            if let Some(key) = batch_of(&self.tables.batches, event.uuid().as_u128())? {
                by_batch.entry(key).or_default().push(*event);
            }
        }
        let recipient = RecipientId::from(recovery.subscription);
        let (mut ledger, mut created) = (Ledger::default(), 0);
        for (batch, events) in by_batch {
            // The walk has skipped batches that cannot be read.
            let Ok(logged) = damage::apart(self.batch(batch))? else { continue };
            for (index, logged) in (0u32..).zip(logged.iter()) {
                // An event that was purged since it was read leaves an empty place.
                let Some(logged) = logged.as_ref().filter(|logged| events.contains(&logged.id)) else {
                    continue;
                };
                let event = logged.id.uuid().as_u128();
                let key = DeliveryKey { recipient: recipient.uuid().as_u128(), event, batch, index };
                // What stands there and cannot be read is a delivery, too.
                if damage::apart(self.stand(key))?.map_or(true, |stand| stand.is_some()) {
                    continue;
                }
                if !logged.matched.contains(&recipient) {
                    self.tables.added.insert((batch, index, key.recipient), ())?;
                }
                let entry = Entry::Recovered { at, by: recovery.by.clone() };
                ledger.add(batch, HistoryRecord { index, recipient: key.recipient, entry });
                self.wait_asked(key, at, false)?;
                created += 1;
            }
        }
        ledger.write(self.tables)?;
        if created > 0 {
            let woken = self.effects.woken.entry(recipient).or_default();
            woken.merge(Wake { count: created, ..Wake::read() });
        }
        Ok(created)
    }

    /// Returns a recovery; one that cannot be read counts as ended.
    fn recovery(&self, subscription: SubscriptionId) -> Result<Option<Recovery>, Fault> {
        let row = self.tables.recoveries.get(subscription.uuid().as_u128())?;
        let recovery = row.map(|row| record::decode_recovery(row.value()));
        Ok(recovery.and_then(|recovery| self.marks.pass("recoveries", subscription, recovery)))
    }

    pub(super) fn put_recovery(&mut self, recovery: &Recovery) -> Result<(), Fault> {
        let record = record::encode_recovery(recovery);
        self.tables.recoveries.insert(recovery.subscription.uuid().as_u128(), record.as_slice())?;
        Ok(())
    }

    fn is_deleted(&self, subscription: SubscriptionId) -> Result<bool, Fault> {
        let Some(row) = self.tables.subscriptions.get(subscription.uuid().as_u128())? else {
            return Ok(false);
        };
        let known = record::decode_subscription(row.value()).map_err(Fault::damaged("subscriptions"))?;
        Ok(known.subscription.deleted.is_some())
    }

    /// Returns the newest event, including those of this commit.
    fn newest(&self) -> Result<Option<Mark>, Fault> {
        for row in self.tables.batches.iter()?.rev() {
            let key = row?.0.value();
            // The walk skips a batch that cannot be read, too.
            let Ok(batch) = damage::apart(self.batch(key))? else { continue };
            let newest = batch.iter().flatten().map(|logged| mark(logged)).max_by_key(|mark| mark.event);
            if newest.is_some() {
                return Ok(newest);
            }
        }
        Ok(None)
    }
}

fn mark(logged: &LoggedEvent) -> Mark {
    Mark { event: logged.id, received: logged.received }
}

impl Reader {
    /// See [`crate::store::Store::recovery`].
    pub(super) fn recovery(&self, subscription: SubscriptionId) -> Result<Option<Recovery>, Fault> {
        self.handle.read(|txn| {
            let row = txn.open_table(RECOVERIES)?.get(subscription.uuid().as_u128())?;
            let recovery = row.map(|row| record::decode_recovery(row.value())).transpose();
            recovery.map_err(Fault::damaged("recoveries"))
        })
    }

    /// See [`crate::store::Store::running_recoveries`].
    pub(super) fn running_recoveries(&self) -> Result<Vec<Recovery>, Fault> {
        self.handle.read(|txn| {
            let mut running = Vec::new();
            for row in txn.open_table(RECOVERIES)?.iter()? {
                let (key, recovery) = row?;
                let read = record::decode_recovery(recovery.value());
                let recovery = self.marks.pass("recoveries", key.value(), read);
                running.extend(recovery.filter(Recovery::is_running));
            }
            Ok(running)
        })
    }

    /// See [`crate::store::Store::forward`].
    pub(super) fn forward(&self, forward: Forward) -> Result<Vec<Arc<LoggedEvent>>, Fault> {
        let id = |event: EventId| event.uuid().as_u128();
        let away = |time: Timestamp, by| id(ids::first_at(time.checked_add(by).unwrap_or(time)));
        let first = forward.after.map_or(0, |after| id(after).saturating_add(1));
        let first = first.max(forward.since.map_or(0, |since| away(since, -SLACK)));
        let last = id(forward.last).min(forward.until.map_or(u128::MAX, |until| away(until, SLACK)));
        // The range may start inside the first batch.
        let begun = self.handle.read(|txn| Ok(batch_of(&txn.open_table(BATCHES)?, first)?))?;
        let (mut found, mut bytes, mut from) = (Vec::new(), 0, begun.unwrap_or(first));
        // One transaction for each batch: a long walk does not hold back the reuse of pages.
        while from <= last && found.len() < forward.events {
            let more = self.handle.read(|txn| {
                let Some(row) = txn.open_table(BATCHES)?.range(from..=last)?.next().transpose()? else {
                    return Ok(false);
                };
                from = row.0.value();
                let batch = match self.batch(txn, from) {
                    Ok(batch) => batch,
                    // The damaged batch is marked, and the walk goes on after it.
                    Err(Fault::Damaged { .. }) => Arc::default(),
                    Err(fault @ (Fault::Redb(_) | Fault::Closed(_))) => return Err(fault),
                };
                from = from.saturating_add(1);
                let wanted = batch.iter().flatten().filter(|logged| (first..=last).contains(&id(logged.id)));
                let wanted: Vec<_> = wanted.collect();
                // A batch is split only if it is too large alone: each part rewrites the whole batch.
                if !found.is_empty() && found.len() + wanted.len() > forward.events {
                    return Ok(false);
                }
                for logged in wanted.into_iter().take(forward.events) {
                    bytes += logged.event.size();
                    if bytes > forward.bytes && !found.is_empty() {
                        return Ok(false);
                    }
                    found.push(Arc::clone(logged));
                }
                Ok(true)
            })?;
            if !more {
                break;
            }
        }
        Ok(found)
    }

    /// See [`crate::store::Store::backlog`].
    pub(super) fn backlog(
        &self,
        subscription: RecipientId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Backlog, Fault> {
        self.handle.read(|txn| {
            let due = txn.open_table(DUE)?;
            let subscription = subscription.uuid().as_u128();
            let whole = (subscription, i64::MIN, 0)..=(subscription, i64::MAX, u128::MAX);
            let mut backlog = Backlog::default();
            for row in due.range(whole)?.take(limit) {
                let (_, due, _) = row?.0.value();
                backlog.all += 1;
                backlog.due += usize::from(due <= now.as_microsecond());
            }
            Ok(backlog)
        })
    }
}

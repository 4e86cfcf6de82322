//! Removing events from the log, a few batches in each transaction.

use std::collections::HashMap;

use redb::ReadableTable;

use super::apply::Apply;
use super::damage;
use super::expire::OpenEvent;
use super::handle::Fault;
use super::history;
use super::ids;
use super::record::{self, Batch, HistoryRecord};
use super::schema::batch_of;
use super::usage::{self, Kind};
use crate::domain::{EventId, RecipientId, State};
use crate::store::{LoggedEvent, Purge, PurgeReport};

/// The most batches that one transaction reads, so that accepts do not wait long for the writer.
const BATCHES_AT_ONCE: usize = 16;
/// After giving up this many deliveries, a transaction reads no further batch.
const EXPIRED_AT_ONCE: u64 = 4_096;

impl Apply<'_, '_> {
    /// Purges from batch `from` on; returns what was done and where to go on, if there is more.
    pub(super) fn purge(
        &mut self,
        purge: &Purge,
        from: EventId,
    ) -> Result<(PurgeReport, Option<EventId>), Fault> {
        let (mut keys, end) = match purge {
            Purge::Events(events) => (self.batches_of(events, from)?, u128::MAX),
            Purge::Before(time) | Purge::Expired(time) => {
                let keys = self.tables.batches.range(from.uuid().as_u128()..)?.take(BATCHES_AT_ONCE + 1);
                let keys =
                    keys.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, redb::StorageError>>()?;
                (keys, ids::first_at(*time).uuid().as_u128())
            }
        };
        let next = (keys.len() > BATCHES_AT_ONCE).then(|| record::event_id(keys[BATCHES_AT_ONCE]));
        keys.truncate(BATCHES_AT_ONCE);
        let mut purged = PurgeReport::default();
        for (place, key) in keys.iter().enumerate() {
            let meant = match damage::apart(self.batch(*key))? {
                Ok(batch) => self.purge_batch(*key, batch, purge, *key < end, &mut purged)?,
                // A batch that cannot be read is purged once it is old enough.
                Err(_) => self.purge_damaged(*key, purge, *key < end, &mut purged)?,
            };
            // An event gets its id a little after it was received; the purge therefore ends at the first batch without
            // a match.
            if meant == 0 && *key >= end {
                return Ok((purged, None));
            }
            if purged.expired >= EXPIRED_AT_ONCE
                && let Some(next) = keys.get(place + 1)
            {
                return Ok((purged, Some(record::event_id(*next))));
            }
        }
        Ok((purged, next))
    }

    fn batches_of(&self, events: &[EventId], from: EventId) -> Result<Vec<u128>, Fault> {
        let mut keys = Vec::new();
        for event in events {
            keys.extend(batch_of(&self.tables.batches, event.uuid().as_u128())?);
        }
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| *key >= from.uuid().as_u128());
        Ok(keys)
    }

    /// Purges one batch; returns how many of its events the purge covers. `is_old` tells whether the whole batch is
    /// older than the purge's limit.
    fn purge_batch(
        &mut self,
        key: u128,
        mut batch: Batch,
        purge: &Purge,
        is_old: bool,
        purged: &mut PurgeReport,
    ) -> Result<u64, Fault> {
        let mut counted = HashMap::new();
        let is_state = |record: &HistoryRecord| {
            tally(&mut counted, record);
            !record.entry.is_run()
        };
        let histories =
            history::of_batch(&self.tables.history, &self.tables.pieces, key, self.marks, is_state)?;
        let before = *purged;
        for (index, place) in (0u32..).zip(batch.iter_mut()) {
            let Some(logged) = place.as_deref().filter(|logged| is_meant(purge, logged)) else { continue };
            let entries = |recipient: RecipientId| {
                let entries = histories.entries.get(&(index, recipient.uuid().as_u128()));
                entries.map_or(&[][..], Vec::as_slice)
            };
            let mut open = Vec::new();
            for recipient in &logged.matched {
                let entries = entries(*recipient);
                let is_open = if histories.is_whole {
                    !State::after(entries).is_final()
                } else {
                    self.has_row(*recipient, logged.id, key, index)?
                };
                if is_open {
                    open.push((*recipient, entries));
                }
            }
            let expired = match purge {
                Purge::Expired(time) => self.expire(OpenEvent { key, index, logged }, &open, *time)?,
                Purge::Before(_) | Purge::Events(_) => 0,
            };
            purged.expired += expired as u64;
            if open.len() > expired {
                purged.kept += 1;
            } else {
                self.unfix(logged)?;
                *place = None;
                purged.purged += 1;
            }
        }
        if is_old && is_by_time(purge) {
            purged.purged += batch.damaged.len() as u64;
            batch.damaged.clear();
        }
        if purged.purged > before.purged {
            self.replace_batch(key, &batch)?;
            if batch.damaged.is_empty() && batch.iter().all(Option::is_none) {
                self.remove_history(key, counted)?;
            }
        }
        Ok(purged.purged + purged.kept - before.purged - before.kept)
    }

    /// Purges a batch that cannot be read, once all of it is old. It counts as one event: how many it had is unknown.
    fn purge_damaged(
        &mut self,
        key: u128,
        purge: &Purge,
        is_old: bool,
        purged: &mut PurgeReport,
    ) -> Result<u64, Fault> {
        if !is_old || !is_by_time(purge) {
            return Ok(0);
        }
        let mut counted = HashMap::new();
        let none = |record: &HistoryRecord| {
            tally(&mut counted, record);
            false
        };
        history::of_batch(&self.tables.history, &self.tables.pieces, key, self.marks, none)?;
        self.remove_history(key, counted)?;
        self.tables.batches.remove(key)?;
        self.effects.changed.push(key);
        purged.purged += 1;
        Ok(1)
    }

    /// Removes the history of a batch, and what it has `counted` for subscriptions.
    fn remove_history(&mut self, key: u128, counted: HashMap<u128, u64>) -> Result<(), Fault> {
        history::remove(self.tables, key)?;
        for (recipient, bytes) in counted {
            self.recount(recipient, Kind::Story, bytes, 0)?;
        }
        Ok(())
    }

    /// Tells whether a delivery is pending when part of its history cannot be read: then only its rows tell.
    fn has_row(&self, recipient: RecipientId, event: EventId, key: u128, index: u32) -> Result<bool, Fault> {
        let (of, event) = (recipient.uuid().as_u128(), event.uuid().as_u128());
        // A row that cannot be read is no reason to keep the event: its delivery becomes a dead letter.
        if damage::apart(self.is_fresh(of, key, index))?.unwrap_or(false) {
            return Ok(true);
        }
        for row in self.tables.retries.range((of, i64::MIN, 0)..=(of, i64::MAX, u128::MAX))? {
            let (_, _, waiting) = row?.0.value();
            if waiting == event {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Adds the bytes that an entry counts for its subscription.
fn tally(counted: &mut HashMap<u128, u64>, record: &HistoryRecord) {
    let bytes = usage::of_entry(&record.entry);
    if bytes > 0 {
        *counted.entry(record.recipient).or_default() += bytes;
    }
}

/// Tells whether a purge covers all events before a time, including those that cannot be read.
fn is_by_time(purge: &Purge) -> bool {
    match purge {
        Purge::Before(_) | Purge::Expired(_) => true,
        Purge::Events(_) => false,
    }
}

fn is_meant(purge: &Purge, logged: &LoggedEvent) -> bool {
    match purge {
        Purge::Events(events) => events.contains(&logged.id),
        Purge::Before(time) | Purge::Expired(time) => logged.received < *time,
    }
}

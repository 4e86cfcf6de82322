//! Removing events from the log, a few batches in each transaction.

use std::collections::{BTreeSet, HashMap};

use redb::{ReadableTable, ReadableTableMetadata};

use super::apply::Apply;
use super::damage;
use super::deliveries::DeliveryKey;
use super::handle::Fault;
use super::history;
use super::ids;
use super::record::{self, Batch, HistoryRecord};
use super::schema::batch_of;
use super::usage::{self, Kind};
use crate::domain::EventId;
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
        let (before, mut recipients) = (*purged, BTreeSet::new());
        for (index, place) in (0u32..).zip(batch.iter_mut()) {
            let Some(logged) = place.as_deref().filter(|logged| is_meant(purge, logged)) else { continue };
            let keys = self.keys_of(key, index, logged)?;
            let mut open = Vec::new();
            for key in &keys {
                // A record that cannot be read is no reason to keep the event.
                if let Ok(Some(stand)) = damage::apart(self.stand(*key))?
                    && !stand.is_final()
                {
                    open.push((*key, stand));
                }
            }
            let expired = match purge {
                Purge::Expired(time) => self.expire(&open, logged.received, *time)?,
                Purge::Before(_) | Purge::Events(_) => 0,
            };
            purged.expired += expired as u64;
            if open.len() > expired {
                purged.kept += 1;
            } else {
                self.remove_deliveries(&keys)?;
                recipients.extend(keys.iter().map(|key| key.recipient));
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
                self.remove_history(key)?;
                self.forget_minutes(recipients)?;
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
        self.remove_history(key)?;
        self.tables.batches.remove(key)?;
        let rows = self.tables.ended.range((key, 0)..=(key, u128::MAX))?;
        let recipients =
            rows.map(|row| Ok(row?.0.value().1)).collect::<Result<Vec<_>, redb::StorageError>>()?;
        for recipient in &recipients {
            self.remove_batch_rows(*recipient, key)?;
        }
        self.forget_minutes(recipients)?;
        self.effects.changed.push(key);
        purged.purged += 1;
        Ok(1)
    }

    /// Returns all deliveries of an event.
    fn keys_of(&self, batch: u128, index: u32, logged: &LoggedEvent) -> Result<Vec<DeliveryKey>, Fault> {
        let event = logged.id.uuid().as_u128();
        let added = self.added(batch, index)?;
        let recipients = logged.matched.iter().map(|id| id.uuid().as_u128()).chain(added);
        Ok(recipients.map(|recipient| DeliveryKey { recipient, event, batch, index }).collect())
    }

    /// Removes the deliveries of an event, with what is rendered of them.
    fn remove_deliveries(&mut self, keys: &[DeliveryKey]) -> Result<(), Fault> {
        let has_rendered = !self.tables.rendered.is_empty()?;
        for key in keys {
            drop(damage::apart(self.leave(*key))?);
            self.tables.added.remove((key.batch, key.index, key.recipient))?;
            if has_rendered {
                self.discard_rendered((key.recipient, key.event))?;
            }
        }
        Ok(())
    }

    /// Removes the history of a batch, and what it counts for subscriptions.
    fn remove_history(&mut self, key: u128) -> Result<(), Fault> {
        let mut counted = HashMap::new();
        let none = |record: &HistoryRecord| {
            tally(&mut counted, record);
            false
        };
        history::of_batch(&self.tables.history, &self.tables.pieces, key, self.marks, none)?;
        history::remove(self.tables, key)?;
        for (recipient, bytes) in counted {
            self.recount(recipient, Kind::Story, bytes, 0)?;
        }
        Ok(())
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

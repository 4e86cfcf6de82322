//! Removing events from the log, a few batches in each transaction.

use std::collections::HashMap;

use redb::ReadableTable;

use super::apply::Apply;
use super::expire::Waiting;
use super::handle::Fault;
use super::history;
use super::ids;
use super::record::{self, HistoryRecord};
use super::schema::batch_of;
use super::usage::{self, Kind};
use crate::domain::{EventId, State, SubscriptionId};
use crate::store::{Logged, Purge, Purged};

/// The most batches that one transaction looks at, so that receivers do not wait long for their turn.
const BATCHES_AT_ONCE: usize = 16;
/// From how many deliveries on that it gives up a transaction looks at no further batch.
const EXPIRED_AT_ONCE: u64 = 4_096;

impl Apply<'_, '_> {
    /// Purges from batch `from` on; returns what was done and where to go on, if there is more.
    pub(super) fn purge(&mut self, purge: &Purge, from: EventId) -> Result<(Purged, Option<EventId>), Fault> {
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
        let mut purged = Purged::default();
        for (place, key) in keys.iter().enumerate() {
            let meant = self.purge_batch(*key, purge, &mut purged)?;
            // An event gets its id a little after it was received, so the end is the first batch without any.
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

    /// Purges one batch; returns how many of its events were meant.
    fn purge_batch(&mut self, key: u128, purge: &Purge, purged: &mut Purged) -> Result<u64, Fault> {
        let mut batch = self.batch(key)?;
        let mut counted: HashMap<u128, u64> = HashMap::new();
        let is_state = |record: &HistoryRecord| {
            let bytes = usage::of_entry(&record.entry);
            if bytes > 0 {
                *counted.entry(record.subscription).or_default() += bytes;
            }
            !record.entry.is_run()
        };
        let histories = history::of_batch(&self.tables.history, &self.tables.pieces, key, is_state)?;
        let before = *purged;
        for (index, place) in (0u32..).zip(&mut batch) {
            let Some(logged) = place.as_deref().filter(|logged| is_meant(purge, logged)) else { continue };
            let entries = |subscription: SubscriptionId| {
                let entries = histories.get(&(index, subscription.uuid().as_u128()));
                entries.map_or(&[][..], Vec::as_slice)
            };
            let open = logged.matched.iter().map(|id| (*id, entries(*id)));
            let open: Vec<_> = open.filter(|(_, entries)| !State::after(entries).is_final()).collect();
            let expired = match purge {
                Purge::Expired(time) => self.expire(Waiting { key, index, logged }, &open, *time)?,
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
        if purged.purged > before.purged {
            self.replace_batch(key, &batch)?;
            if batch.iter().all(Option::is_none) {
                history::remove(self.tables, key)?;
                for (subscription, bytes) in counted {
                    self.recount(subscription, Kind::Story, bytes, 0)?;
                }
            }
        }
        Ok(purged.purged + purged.kept - before.purged - before.kept)
    }
}

fn is_meant(purge: &Purge, logged: &Logged) -> bool {
    match purge {
        Purge::Events(events) => events.contains(&logged.id),
        Purge::Before(time) | Purge::Expired(time) => logged.received < *time,
    }
}

//! Removing events from the log, a few batches in each transaction.

use redb::ReadableTable;

use super::apply::Apply;
use super::handle::Fault;
use super::history;
use super::ids;
use super::record::{self, HistoryRecord};
use super::schema::batch_of;
use crate::domain::{EventId, State};
use crate::store::{Logged, Purge, Purged};

/// The most batches that one transaction looks at, so that receivers do not wait long for their turn.
const BATCHES_AT_ONCE: usize = 16;

impl Apply<'_, '_> {
    /// Purges from batch `from` on; returns what was done and where to go on, if there is more.
    pub(super) fn purge(&mut self, purge: &Purge, from: EventId) -> Result<(Purged, Option<EventId>), Fault> {
        let (mut keys, end) = match purge {
            Purge::Events(events) => (self.batches_of(events, from)?, u128::MAX),
            Purge::Before(time) => {
                let keys = self.tables.batches.range(from.uuid().as_u128()..)?.take(BATCHES_AT_ONCE + 1);
                let keys =
                    keys.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, redb::StorageError>>()?;
                (keys, ids::first_at(*time).uuid().as_u128())
            }
        };
        let next = (keys.len() > BATCHES_AT_ONCE).then(|| record::event_id(keys[BATCHES_AT_ONCE]));
        keys.truncate(BATCHES_AT_ONCE);
        let mut purged = Purged::default();
        for key in keys {
            let meant = self.purge_batch(key, purge, &mut purged)?;
            // An event gets its id a little after it was received, so the end is the first batch without any.
            if meant == 0 && key >= end {
                return Ok((purged, None));
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
        let is_state = |record: &HistoryRecord| !record.entry.is_run();
        let histories = history::of_batch(&self.tables.history, key, is_state)?;
        let before = *purged;
        for (index, place) in (0u32..).zip(&mut batch) {
            let Some(logged) = place.as_deref().filter(|logged| is_meant(purge, logged)) else { continue };
            let open = logged.matched.iter().any(|subscription| {
                let entries = histories.get(&(index, subscription.uuid().as_u128()));
                !State::after(entries.map_or(&[], Vec::as_slice)).is_final()
            });
            if open {
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
                self.tables.history.retain_in((key, 0)..=(key, u64::MAX), |_, _| false)?;
            }
        }
        Ok(purged.purged + purged.kept - before.purged - before.kept)
    }
}

fn is_meant(purge: &Purge, logged: &Logged) -> bool {
    match purge {
        Purge::Events(events) => events.contains(&logged.id),
        Purge::Before(time) => logged.received < *time,
    }
}

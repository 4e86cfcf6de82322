//! Removing events from the log, a few batches in each transaction.

use redb::ReadableTable;

use super::apply::Apply;
use super::handle::Fault;
use super::history;
use super::ids;
use super::record;
use super::schema::batch_of;
use crate::domain::{EventId, State};
use crate::store::{Logged, Purge, Purged};

/// The most batches that one transaction looks at, so that receivers do not wait long for their turn.
const BATCHES_AT_ONCE: usize = 16;

impl Apply<'_, '_> {
    /// Purges from batch `from` on; returns what was done and where to go on, if there is more.
    pub(super) fn purge(&mut self, purge: &Purge, from: EventId) -> Result<(Purged, Option<EventId>), Fault> {
        let mut keys = match purge {
            Purge::Events(events) => self.batches_of(events, from)?,
            Purge::Before(time) => {
                let range = from.uuid().as_u128()..ids::first_at(*time).uuid().as_u128().max(from.uuid().as_u128());
                let keys = self.tables.batches.range(range)?.take(BATCHES_AT_ONCE + 1);
                keys.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, redb::StorageError>>()?
            }
        };
        let next = (keys.len() > BATCHES_AT_ONCE).then(|| record::event_id(keys[BATCHES_AT_ONCE]));
        keys.truncate(BATCHES_AT_ONCE);
        let mut purged = Purged::default();
        for key in keys {
            self.purge_batch(key, purge, &mut purged)?;
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

    fn purge_batch(&mut self, key: u128, purge: &Purge, purged: &mut Purged) -> Result<(), Fault> {
        let mut batch = self.batch(key)?;
        let histories = history::of_batch(&self.tables.history, key)?;
        let mut changed = false;
        for (index, place) in (0u32..).zip(&mut batch) {
            let Some(logged) = place.as_deref().filter(|logged| is_meant(purge, logged)) else { continue };
            let open = logged.matched.iter().any(|subscription| {
                let entries = histories.get(&(index, subscription.uuid().as_u128()));
                !State::after(entries.map_or(&[], Vec::as_slice)).is_final()
            });
            if open {
                purged.kept += 1;
            } else {
                *place = None;
                purged.purged += 1;
                changed = true;
            }
        }
        if changed {
            self.replace_batch(key, &batch)?;
            if batch.iter().all(Option::is_none) {
                self.tables.history.retain_in((key, 0)..=(key, u64::MAX), |_, _| false)?;
            }
        }
        Ok(())
    }
}

fn is_meant(purge: &Purge, logged: &Logged) -> bool {
    match purge {
        Purge::Events(events) => events.contains(&logged.id),
        Purge::Before(time) => logged.received < *time,
    }
}

//! The newest batches, so that what has just been accepted is delivered without being read from the file.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::record::Batch;
use crate::LoggedEvent;
use waypost_domain::RecipientId;

/// The most bytes of events that are kept, together with their recipients.
const BYTES_MAX: usize = 6 * 1024 * 1024;

/// A few batches by their key, oldest dropped first.
#[derive(Default)]
pub(super) struct Recent(Mutex<BatchCache>);

#[derive(Default)]
struct BatchCache {
    batches: VecDeque<(u128, Arc<Batch>, usize)>,
    bytes: usize,
}

impl BatchCache {
    /// Returns the index of a batch. Batches are sorted by key; the search must be quick, since a replay asks for many
    /// that are not here.
    fn place(&self, key: u128) -> Option<usize> {
        self.batches.binary_search_by_key(&key, |(known, ..)| *known).ok()
    }
}

impl Recent {
    /// Returns a batch if it is still here.
    pub(super) fn get(&self, key: u128) -> Option<Arc<Batch>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.place(key).map(|place| Arc::clone(&kept.batches[place].1))
    }

    /// Keeps a batch.
    pub(super) fn put(&self, key: u128, batch: Arc<Batch>) {
        let pending = |logged: &LoggedEvent| logged.matched.capacity() * size_of::<RecipientId>();
        let bytes = batch.iter().flatten().map(|logged| logged.event.size() + 256 + pending(logged)).sum();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        kept.batches.push_back((key, batch, bytes));
        while kept.bytes > BYTES_MAX {
            let Some((.., bytes)) = kept.batches.pop_front() else { break };
            kept.bytes -= bytes;
        }
    }

    /// Drops a batch that has changed on disk.
    pub(super) fn drop_batch(&self, key: u128) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = kept.place(key) {
            let (.., bytes) = kept.batches.remove(place).expect("the place has just been found");
            kept.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_domain::event::{SpecVersion, Wire};
    use waypost_domain::{Event, EventId};
    use waypost_runtime::clock;

    fn batch(matched: usize) -> Arc<Batch> {
        let wire = Wire::Structured { content_type: None, body: vec![b' '; 100].into() };
        let event = Event::from_parts(SpecVersion::V1_0, "1".into(), "/s".into(), "t".into(), wire);
        let (id, received, sender) = (EventId::MAX, clock::now(), String::new());
        let matched = vec![RecipientId::MAX; matched];
        let events = vec![Some(Arc::new(LoggedEvent { id, event, received, sender, matched }))];
        Arc::new(Batch { events, damaged: Vec::new() })
    }

    /// Small events for 10,000 subscriptions each took 30 times the memory that was counted for them.
    #[test]
    fn the_recipients_of_an_event_count() {
        for (matched, kept) in [(0, 17_000..18_000), (10_000, 30..40)] {
            let recent = Recent::default();
            (0..20_000).for_each(|key| recent.put(key, batch(matched)));
            let left = (0..20_000).filter(|key| recent.get(*key).is_some()).count();
            assert!(kept.contains(&left), "{matched}: {left}");
        }
    }
}

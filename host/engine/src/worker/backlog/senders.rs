//! Where the senders stand of whose runs enough wait in memory: what follows of theirs is passed, and read again when they
//! have nothing there. So a sender with any number of runs hides none of another.

use std::collections::{HashMap, VecDeque};

use waypost_domain::EventId;
use waypost_store::PendingDelivery;

/// How many first attempts of one sender wait in memory.
const WAITING_MAX: usize = 16;

/// The senders whose runs were passed, each with the event behind which their batches are.
#[derive(Default)]
pub(super) struct SenderCursors(HashMap<String, EventId>);

/// How many runs of each sender wait.
pub(super) struct SenderCounts(HashMap<String, usize>);

impl SenderCounts {
    pub(super) fn of(waiting: &VecDeque<PendingDelivery>) -> Self {
        let mut counts = HashMap::<String, usize>::new();
        for pending in waiting {
            match counts.get_mut(&pending.event.sender) {
                Some(count) => *count += 1,
                None => drop(counts.insert(pending.event.sender.clone(), 1)),
            }
        }
        Self(counts)
    }

    /// Counts one more, if there is room for it.
    pub(super) fn take(&mut self, sender: &str) -> bool {
        match self.0.get_mut(sender) {
            Some(count) if *count >= WAITING_MAX => return false,
            Some(count) => *count += 1,
            None => drop(self.0.insert(sender.to_owned(), 1)),
        }
        true
    }
}

impl SenderCursors {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Notes that a run of a batch was passed.
    pub(super) fn pass(&mut self, sender: &str, batch: EventId) {
        let before = batch.before();
        match self.0.get_mut(sender) {
            Some(cursor) => *cursor = before.min(*cursor),
            None => drop(self.0.insert(sender.to_owned(), before)),
        }
    }

    /// Returns from where to read again, for the senders of whom nothing waits.
    pub(super) fn next(&self, waiting: &VecDeque<PendingDelivery>) -> Option<EventId> {
        if self.is_empty() {
            return None;
        }
        let counts = SenderCounts::of(waiting);
        let starving = self.0.iter().filter(|(sender, _)| !counts.0.contains_key(*sender));
        starving.map(|(_, cursor)| *cursor).min()
    }

    /// Forgets where senders stand in a part of the log that was read again, and returns them.
    pub(super) fn take(&mut self, after: EventId, to: EventId) -> Vec<String> {
        self.0.extract_if(|_, cursor| (after..to).contains(cursor)).map(|(sender, _)| sender).collect()
    }

    /// Lets a sender go on behind this event, unless one of its runs before that was passed.
    pub(super) fn go_on(&mut self, sender: String, after: EventId) {
        self.0.entry(sender).or_insert(after);
    }
}

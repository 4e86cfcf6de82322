//! Whose run begins next: the senders of the events that wait take turns.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use waypost_store::PendingDelivery;

/// What the senders of a worker's runs have had.
#[derive(Default)]
pub(crate) struct Turns(Mutex<State>);

#[derive(Default)]
struct State {
    /// The senders that have a run, or had one and have more waiting.
    senders: HashMap<String, SenderUse>,
    /// How many turns have ended.
    ended: u64,
}

#[derive(Default)]
struct SenderUse {
    runs: usize,
    /// When its last turn ended.
    last: u64,
}

/// A run of a sender. Dropping it ends the turn, which counts only if the run has begun.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    sender: String,
    pub(super) has_begun: bool,
}

impl Turns {
    /// Returns the place of the next run: the oldest of the sender with the fewest runs under way, and among those of the
    /// one whose last turn is the longest ago.
    pub(super) fn next(self: &Arc<Self>, waiting: &VecDeque<PendingDelivery>) -> Option<(usize, Turn)> {
        let mut state = self.lock();
        let State { senders, .. } = &mut *state;
        let wanting: HashSet<_> = waiting.iter().map(|pending| pending.event.sender.as_str()).collect();
        senders.retain(|sender, usage| usage.runs > 0 || wanting.contains(sender.as_str()));
        let rank = |sender: &str| senders.get(sender).map_or((0, 0), |usage| (usage.runs, usage.last));
        let places = waiting.iter().enumerate();
        let (place, pending) = places.min_by_key(|(_, pending)| rank(&pending.event.sender))?;
        let sender = pending.event.sender.clone();
        senders.entry(sender.clone()).or_default().runs += 1;
        Some((place, Turn { turns: Arc::clone(self), sender, has_begun: false }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        let State { senders, ended } = &mut *state;
        let Some(usage) = senders.get_mut(&self.sender) else { return };
        usage.runs -= 1;
        if self.has_begun {
            *ended += 1;
            usage.last = *ended;
        }
    }
}

//! The set of recipients with new work. The store adds to it after each commit, and [`waypost_engine::directory`] after each
//! change of a subscription.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;

use waypost_domain::RecipientId;

/// A hint that a recipient has new work. It carries no deliveries: workers read them from the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wake {
    /// Whether the work may be other than first attempts, such as redelivered events.
    pub due: bool,
    /// Whether the delivery that is due next may be attempted before its time.
    pub early: bool,
    /// Whether deliveries of older events than the newest may be new, or an end of theirs undone.
    pub older: bool,
    /// How many deliveries are new.
    pub count: u64,
}

impl Wake {
    /// Returns a wake for work of any kind.
    pub fn read() -> Self {
        Self { due: true, ..Self::default() }
    }

    /// Returns a wake for work of any kind, that of the delivery that is due next included, though its time has not come.
    pub fn early() -> Self {
        Self { early: true, ..Self::read() }
    }

    /// Returns a wake for this many deliveries of older events.
    pub fn older(count: u64) -> Self {
        Self { older: true, count, ..Self::read() }
    }

    /// Returns a wake for this many first attempts.
    pub fn accepted(count: u64) -> Self {
        Self { count, ..Self::default() }
    }

    /// Adds a later wake.
    pub fn merge(&mut self, later: Self) {
        self.due |= later.due;
        self.early |= later.early;
        self.older |= later.older;
        self.count += later.count;
    }
}

/// Wakes that have not been drained yet, one for each recipient.
///
/// It is a hint, not a queue: the next sweep of the store finds what a lost wake was about.
#[derive(Debug, Default)]
pub struct WakeSet {
    waiting: Mutex<BTreeMap<RecipientId, Wake>>,
    notify: Notify,
    /// The recipients whose wakes go to another set.
    diverted: OnceLock<Diversion>,
}

/// Recipients with a set of their own.
#[derive(Debug)]
struct Diversion {
    whose: HashSet<RecipientId>,
    wakes: Arc<WakeSet>,
}

impl WakeSet {
    /// Returns the set that receives the wakes of these recipients from now on: handlers have a set of their own. Only
    /// the first call sets the recipients.
    pub fn divert(&self, whose: HashSet<RecipientId>) -> Arc<WakeSet> {
        Arc::clone(&self.diverted.get_or_init(|| Diversion { whose, wakes: Arc::default() }).wakes)
    }

    /// Adds wakes.
    pub fn push(&self, woken: impl IntoIterator<Item = (RecipientId, Wake)>) {
        let Some(diverted) = self.diverted.get() else { return self.push_here(woken) };
        let (there, here): (Vec<_>, Vec<_>) =
            woken.into_iter().partition(|(recipient, _)| diverted.whose.contains(recipient));
        diverted.wakes.push_here(there);
        self.push_here(here);
    }

    fn push_here(&self, woken: impl IntoIterator<Item = (RecipientId, Wake)>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = waiting.is_empty();
        for (recipient, wake) in woken {
            waiting.entry(recipient).or_default().merge(wake);
        }
        if was_empty && !waiting.is_empty() {
            self.notify.notify_one();
        }
    }

    /// Waits until there are wakes, and takes them all. Cancel safe.
    pub async fn drain(&self) -> BTreeMap<RecipientId, Wake> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }
}

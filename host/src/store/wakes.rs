//! Who has new work: the only thing that a store tells to others. [`crate::directory`] adds whose subscription has
//! changed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::PendingDelivery;
use crate::domain::RecipientId;

/// The most deliveries that news carry; more are read from the store.
const FIRST_ATTEMPTS_MAX: usize = 64;

/// What is new for one subscription.
#[derive(Debug, Default)]
pub struct Wake {
    /// First attempts that have just become owed, oldest first, so that whoever has read everything before need not
    /// read the store again.
    pub first_attempts: Vec<PendingDelivery>,
    /// There is more than `fresh` says: the store must be read.
    pub read: bool,
    /// How many deliveries are new.
    pub count: u64,
}

impl Wake {
    /// Returns the news that the store must be read.
    pub fn read() -> Self {
        Self { read: true, ..Self::default() }
    }

    /// Adds later news.
    pub fn merge(&mut self, later: Self) {
        self.count += later.count;
        self.read |=
            later.read || self.first_attempts.len() + later.first_attempts.len() > FIRST_ATTEMPTS_MAX;
        if self.read {
            self.first_attempts = Vec::new();
        } else {
            self.first_attempts.extend(later.first_attempts);
        }
    }
}

/// News for subscriptions since somebody last looked.
///
/// It is a hint, not a queue: what is lost here is found by the next reading of the store.
#[derive(Debug, Default)]
pub struct WakeSet {
    waiting: Mutex<HashMap<RecipientId, Wake>>,
    notify: Notify,
    /// Those that somebody else listens to.
    diverted: OnceLock<Diverted>,
}

/// Recipients that have a listener of their own.
#[derive(Debug)]
struct Diverted {
    whose: HashSet<RecipientId>,
    wakes: Arc<WakeSet>,
}

impl WakeSet {
    /// Returns where the news for these recipients are left from now on: handlers have a listener of their own. The
    /// first one who asks gets them.
    pub fn divert(&self, whose: HashSet<RecipientId>) -> Arc<WakeSet> {
        Arc::clone(&self.diverted.get_or_init(|| Diverted { whose, wakes: Arc::default() }).wakes)
    }

    /// Leaves news, in the order of the commits that made them.
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

    /// Waits until there are any, and takes them. Cancel safe.
    pub async fn drain(&self) -> HashMap<RecipientId, Wake> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }
}

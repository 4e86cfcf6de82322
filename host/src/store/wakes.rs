//! The set of recipients with new work. The store adds to it after each commit, and [`crate::directory`] after each
//! change of a subscription.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::PendingDelivery;
use crate::domain::RecipientId;

/// The most deliveries that a wake carries; more are read from the store.
const FIRST_ATTEMPTS_MAX: usize = 64;

/// The new work of one recipient.
#[derive(Debug, Default)]
pub struct Wake {
    /// Deliveries that have just been enqueued, oldest first. A worker that has read everything before them need not
    /// read the store again.
    pub first_attempts: Vec<PendingDelivery>,
    /// There are more than `first_attempts` holds: the store must be read.
    pub read: bool,
    /// How many deliveries are new.
    pub count: u64,
}

impl Wake {
    /// Returns a wake that says to read the store.
    pub fn read() -> Self {
        Self { read: true, ..Self::default() }
    }

    /// Adds a later wake.
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

/// Wakes that have not been drained yet, one for each recipient.
///
/// It is a hint, not a queue: the next sweep of the store finds what a lost wake was about.
#[derive(Debug, Default)]
pub struct WakeSet {
    waiting: Mutex<HashMap<RecipientId, Wake>>,
    notify: Notify,
    /// The recipients whose wakes go to another set.
    diverted: OnceLock<Diverted>,
}

/// Recipients with a set of their own.
#[derive(Debug)]
struct Diverted {
    whose: HashSet<RecipientId>,
    wakes: Arc<WakeSet>,
}

impl WakeSet {
    /// Returns the set that receives the wakes of these recipients from now on: handlers have a set of their own. Only
    /// the first call sets the recipients.
    pub fn divert(&self, whose: HashSet<RecipientId>) -> Arc<WakeSet> {
        Arc::clone(&self.diverted.get_or_init(|| Diverted { whose, wakes: Arc::default() }).wakes)
    }

    /// Adds wakes, in the order of the commits that made them.
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

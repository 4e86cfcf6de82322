//! Who has new work: the only thing that a store tells to others. [`crate::directory`] adds whose subscription has
//! changed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::Owed;
use crate::domain::RecipientId;

/// The most deliveries that news carry; more are read from the store.
const FRESH_MAX: usize = 64;

/// What is new for one subscription.
#[derive(Debug, Default)]
pub struct News {
    /// First attempts that have just become owed, oldest first, so that whoever has read everything before need not
    /// read the store again.
    pub fresh: Vec<Owed>,
    /// There is more than `fresh` says: the store must be read.
    pub read: bool,
    /// How many deliveries are new.
    pub count: u64,
}

impl News {
    /// Returns the news that the store must be read.
    pub fn read() -> Self {
        Self { read: true, ..Self::default() }
    }

    /// Adds later news.
    pub fn add(&mut self, later: Self) {
        self.count += later.count;
        self.read |= later.read || self.fresh.len() + later.fresh.len() > FRESH_MAX;
        if self.read {
            self.fresh = Vec::new();
        } else {
            self.fresh.extend(later.fresh);
        }
    }
}

/// News for subscriptions since somebody last looked.
///
/// It is a hint, not a queue: what is lost here is found by the next reading of the store.
#[derive(Debug, Default)]
pub struct Wakes {
    waiting: Mutex<HashMap<RecipientId, News>>,
    notify: Notify,
    /// Those that somebody else listens to.
    apart: OnceLock<Apart>,
}

/// Recipients that have a listener of their own.
#[derive(Debug)]
struct Apart {
    whose: HashSet<RecipientId>,
    wakes: Arc<Wakes>,
}

impl Wakes {
    /// Returns where the news for these recipients are left from now on: handlers have a listener of their own. The
    /// first one who asks gets them.
    pub fn apart(&self, whose: HashSet<RecipientId>) -> Arc<Wakes> {
        Arc::clone(&self.apart.get_or_init(|| Apart { whose, wakes: Arc::default() }).wakes)
    }

    /// Leaves news, in the order of the commits that made them.
    pub fn leave(&self, woken: impl IntoIterator<Item = (RecipientId, News)>) {
        let Some(apart) = self.apart.get() else { return self.leave_here(woken) };
        let (there, here): (Vec<_>, Vec<_>) =
            woken.into_iter().partition(|(recipient, _)| apart.whose.contains(recipient));
        apart.wakes.leave_here(there);
        self.leave_here(here);
    }

    fn leave_here(&self, woken: impl IntoIterator<Item = (RecipientId, News)>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = waiting.is_empty();
        for (recipient, news) in woken {
            waiting.entry(recipient).or_default().add(news);
        }
        if was_empty && !waiting.is_empty() {
            self.notify.notify_one();
        }
    }

    /// Waits until there are any, and takes them. Cancel safe.
    pub async fn take(&self) -> HashMap<RecipientId, News> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }
}

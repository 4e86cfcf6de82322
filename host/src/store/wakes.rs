//! Who has new work: the only thing that a store tells to others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::domain::SubscriptionId;

/// The subscriptions with new work since somebody last looked, and how many deliveries each.
///
/// It is a hint, not a queue: what is lost here is found by the next reading of the store.
#[derive(Debug, Default)]
pub struct Wakes {
    waiting: Mutex<HashMap<SubscriptionId, u64>>,
    notify: Notify,
}

impl Wakes {
    /// Leaves subscriptions with the count of their new deliveries.
    pub fn leave(&self, woken: impl IntoIterator<Item = (SubscriptionId, u64)>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waiting.len();
        for (subscription, count) in woken {
            *waiting.entry(subscription).or_default() += count;
        }
        if waiting.len() > before {
            self.notify.notify_one();
        }
    }

    /// Waits until there are any, and takes them. Cancel safe.
    pub async fn take(&self) -> HashMap<SubscriptionId, u64> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }
}

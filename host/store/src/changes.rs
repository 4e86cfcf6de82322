//! What has changed about subscriptions: the directory follows it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Position, StoredSubscription};
use waypost_domain::SubscriptionId;

/// The newest version of each subscription that has changed since the last look; `None` for one that was removed for good.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The last group of writes that changed one.
    pub position: Position,
    /// The subscriptions.
    pub subscriptions: BTreeMap<SubscriptionId, Option<StoredSubscription>>,
}

/// The changes that have not been looked at. At most one version of each subscription waits.
#[derive(Debug, Default)]
pub struct ChangeSet {
    changes: Mutex<Changes>,
    told: Notify,
}

impl ChangeSet {
    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a group of writes has changed: first those that were created or replaced, in order.
    pub(super) fn push(
        &self,
        position: Position,
        put: Vec<StoredSubscription>,
        forgotten: Vec<SubscriptionId>,
    ) {
        if put.is_empty() && forgotten.is_empty() {
            return;
        }
        let put = put.into_iter().map(|stored| (stored.subscription.id, Some(stored)));
        let mut changes = self.lock();
        changes.position = position;
        changes.subscriptions.extend(put.chain(forgotten.into_iter().map(|id| (id, None))));
        drop(changes);
        self.told.notify_one();
    }

    /// Waits for changes and takes them. Cancel safe, for one reader.
    pub async fn take(&self) -> Changes {
        loop {
            let changes = std::mem::take(&mut *self.lock());
            if !changes.subscriptions.is_empty() {
                return changes;
            }
            self.told.notified().await;
        }
    }
}

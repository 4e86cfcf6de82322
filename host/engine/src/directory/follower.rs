//! The task that makes snapshots of what the store has changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::snapshot::{self, Snapshot};
use super::{CompiledSubscription, has_same_filter};
use waypost_domain::{RecipientId, Subscription, SubscriptionId};
use waypost_matching::Filter;
use waypost_store::{ChangeSet, Changes, Position, StoredSubscription, Wake, WakeSet};

/// The filters of changes that this process is writing: they were compiled to be checked, and need not be again.
#[derive(Default)]
pub(super) struct PendingFilters(Mutex<HashMap<SubscriptionId, PendingFilter>>);

struct PendingFilter {
    /// How many changes of the subscription are on their way.
    writers: usize,
    /// The last one of them.
    subscription: Subscription,
    filter: Option<Arc<Filter>>,
}

impl PendingFilters {
    /// Keeps a filter until the result is dropped.
    pub(super) fn keep(&self, subscription: &Subscription, filter: Option<Arc<Filter>>) -> FilterGuard<'_> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let writers = all.get(&subscription.id).map_or(0, |kept| kept.writers) + 1;
        all.insert(subscription.id, PendingFilter { writers, subscription: subscription.clone(), filter });
        FilterGuard { compiled: self, id: subscription.id }
    }

    /// Returns the filter of a subscription, if it is the one on its way.
    fn of(&self, subscription: &Subscription) -> Option<Option<Arc<Filter>>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get(&subscription.id)?;
        let is_same = kept.subscription.deleted == subscription.deleted
            && has_same_filter(&kept.subscription, subscription);
        is_same.then(|| kept.filter.clone())
    }
}

/// A filter that is kept.
pub(super) struct FilterGuard<'a> {
    compiled: &'a PendingFilters,
    id: SubscriptionId,
}

impl Drop for FilterGuard<'_> {
    fn drop(&mut self) {
        let mut all = self.compiled.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = all.get_mut(&self.id) {
            kept.writers -= 1;
            if kept.writers == 0 {
                all.remove(&self.id);
            }
        }
    }
}

/// Makes the snapshots. It alone replaces them.
pub(super) struct Follower {
    pub(super) changes: Arc<ChangeSet>,
    pub(super) now: Arc<ArcSwap<Snapshot>>,
    pub(super) compiled: Arc<PendingFilters>,
    pub(super) followed: watch::Sender<Position>,
    pub(super) wakes: Arc<WakeSet>,
}

impl Follower {
    /// Follows the store until it is stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        while let Some(changes) = stop.run_until_cancelled(self.changes.take()).await {
            self.follow(changes).await;
        }
    }

    async fn follow(&self, Changes { position, subscriptions }: Changes) {
        let mut next = Snapshot::clone(&self.now.load());
        let mut woken = Vec::with_capacity(subscriptions.len());
        for (id, stored) in subscriptions {
            // The first snapshot may have been read after the change.
            let is_known = |stored: &StoredSubscription| {
                next.get(id).is_some_and(|known| known.revision >= stored.revision)
            };
            match stored {
                Some(stored) if is_known(&stored) => {}
                Some(stored) => {
                    let has_letters = |of: &Subscription| of.dead_letter_url.is_some();
                    let had_letters = next.get(id).is_some_and(|known| has_letters(&known.subscription));
                    if had_letters || has_letters(&stored.subscription) {
                        woken.push((RecipientId::dead_letters_of(id), Wake::read()));
                    }
                    next.put(self.compile(next.get(id), stored).await);
                    woken.push((id.into(), Wake::read()));
                }
                None => next.remove(id),
            }
        }
        next.position = next.position.max(position);
        let position = next.position;
        self.now.store(Arc::new(next));
        self.followed.send_replace(position);
        self.wakes.push(woken);
    }

    /// Returns a subscription with its filter.
    async fn compile(
        &self,
        before: Option<&CompiledSubscription>,
        stored: StoredSubscription,
    ) -> CompiledSubscription {
        let StoredSubscription { subscription, revision } = &stored;
        let is_same = |before: &&CompiledSubscription| {
            before.subscription.deleted.is_none() && has_same_filter(&before.subscription, subscription)
        };
        let known = match before.filter(is_same) {
            Some(_) if subscription.deleted.is_some() => Some(None),
            Some(before) => Some(before.filter.clone()),
            None => self.compiled.of(subscription),
        };
        match known {
            Some(filter) => {
                let (subscription, revision) = (Arc::clone(subscription), *revision);
                CompiledSubscription { subscription, filter, revision }
            }
            // A filter may take long to compile.
            #[cfg(test)]
            None if waypost_runtime::clock::simulated::is_set() => snapshot::compile(stored),
            None => {
                let compiling = tokio::task::spawn_blocking(move || snapshot::compile(stored));
                compiling.await.expect("compiling a filter does not panic, and the runtime runs")
            }
        }
    }
}

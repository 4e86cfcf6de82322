//! All subscriptions, with the index of their filters: the store's contents, held in memory.
//!
//! Readers get an immutable snapshot. A change is written to the store first and then becomes the next snapshot. Workers
//! are woken only after the snapshot is swapped; otherwise one could read the old snapshot and go back to sleep.

mod snapshot;

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::task::TaskTracker;

use crate::domain::{Activity, RecipientId, Recovery, Subscription, SubscriptionId};
use crate::matching::{self, Filter, FilterError, Matches};
use crate::store::{self, Quota, Store, Wake};

pub use snapshot::CompiledSubscription;
use snapshot::Snapshot;

/// How many changes of different subscriptions are in progress at once, at most.
const STRIPES: u8 = 64;

/// The subscriptions. Shared by REST, matching and delivery.
pub struct Directory {
    store: Arc<Store>,
    now: Arc<ArcSwap<Snapshot>>,
    /// The handlers that have a route, in the order in which their filters are tried.
    routes: Vec<Route>,
    /// A change of a subscription holds the lock of its stripe until it is in the snapshot. Changes in other stripes go on
    /// and share the store's commits.
    writing: [Arc<Mutex<()>>; STRIPES as usize],
    /// Changes that are being written. They end by themselves: the store answers each one, even when it closes.
    changes: TaskTracker,
}

/// A handler that is chosen by a filter.
#[derive(Clone, Debug)]
pub struct Route {
    /// The recipient of its runs.
    pub recipient: RecipientId,
    /// The filter of its events.
    pub filter: Arc<Filter>,
}

/// Why a subscription was not changed. Nothing of the change was kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its filter does not parse.
    #[error("failed to parse the filter")]
    Filter(#[source] FilterError),
    /// The store cannot write.
    #[error("failed to store the subscription")]
    Store(#[source] store::Error),
}

impl Directory {
    /// Reads all subscriptions; `routes` are the operator's own, in their order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(store: Arc<Store>, routes: Vec<Route>) -> Result<Self, store::Error> {
        let subscriptions = store.subscriptions().await?;
        let reading = tokio::task::spawn_blocking(move || Snapshot::read(subscriptions));
        let mut snapshot = reading.await.expect("reading filters does not panic");
        for route in &routes {
            snapshot.index.insert(route.recipient, Arc::clone(&route.filter));
        }
        let now = Arc::new(ArcSwap::from_pointee(snapshot));
        let writing = std::array::from_fn(|_| Arc::default());
        Ok(Self { store, now, routes, writing, changes: TaskTracker::new() })
    }

    /// Returns a subscription, also a deleted one.
    pub fn get(&self, id: SubscriptionId) -> Option<Arc<Subscription>> {
        self.now.load().get(id).map(|known| Arc::clone(&known.subscription))
    }

    /// Returns a subscription with its filter, also a deleted one.
    pub fn compiled(&self, id: SubscriptionId) -> Option<CompiledSubscription> {
        self.now.load().get(id).cloned()
    }

    /// Returns how an active subscription's filter is found: `equality on $.eventType`, or `scan`; `None` for one
    /// that is not matched.
    pub fn access_path(&self, id: SubscriptionId) -> Option<String> {
        self.now.load().index.access_path(id.into())
    }

    /// Returns the subscriptions that were deleted before this time.
    pub fn deleted_before(&self, time: Timestamp) -> Vec<SubscriptionId> {
        let snapshot = self.now.load();
        let is_old =
            |known: &&CompiledSubscription| known.subscription.deleted.is_some_and(|deleted| deleted < time);
        snapshot.all().filter(is_old).map(|known| known.subscription.id).collect()
    }

    /// Removes the subscriptions that the store has removed.
    pub fn forget(&self, deleted: &[SubscriptionId]) {
        self.now.rcu(|snapshot| {
            let mut next = Snapshot::clone(snapshot);
            deleted.iter().for_each(|id| next.remove(*id));
            next
        });
    }

    /// Returns a user's subscriptions that are not deleted, in the order of their creation.
    pub fn of_user(&self, user: &str) -> Vec<Arc<Subscription>> {
        self.now.load().of_user(user, None).map(|known| Arc::clone(&known.subscription)).collect()
    }

    /// Returns the first `limit` of a user's subscriptions that are not deleted, or of those created after `after`;
    /// `None` where `after` is not one of them.
    pub fn page_of_user(
        &self,
        user: &str,
        after: Option<SubscriptionId>,
        limit: usize,
    ) -> Option<Vec<CompiledSubscription>> {
        let snapshot = self.now.load();
        let is_own = |found: &&CompiledSubscription| {
            found.subscription.user == user && found.subscription.deleted.is_none()
        };
        let after = match after {
            None => None,
            Some(id) => Some(&*snapshot.get(id).filter(is_own)?.subscription),
        };
        Some(snapshot.of_user(user, after).take(limit).cloned().collect())
    }

    /// Returns the active subscriptions whose filter finds at least one node in an event's JSON, followed by the first
    /// route that does.
    ///
    /// # Errors
    /// When the bytes are not JSON.
    pub fn matches(&self, event_json: &[u8]) -> Result<Matches, matching::Error> {
        let now = self.now.load();
        let owner =
            |id: RecipientId| now.get(id.subscription_id()).map(|known| known.subscription.user.as_str());
        let matches = now.index.matches(event_json, owner)?;
        Ok(if self.routes.is_empty() { matches } else { self.first_route(matches) })
    }

    /// Returns the routes of handlers, in the order in which their filters are tried.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Tells whether a recipient is a handler that a route chooses.
    pub fn is_route(&self, id: RecipientId) -> bool {
        self.routes.iter().any(|route| route.recipient == id)
    }

    /// Keeps only the first of the routes that match.
    fn first_route(&self, mut matches: Matches) -> Matches {
        let place = |id: RecipientId| self.routes.iter().position(|route| route.recipient == id);
        let routes = matches.matched.extract_if(.., |id| place(*id).is_some());
        let first = routes.min_by_key(|id| place(*id));
        matches.matched.extend(first);
        matches
    }

    /// Creates a subscription and returns it. Dropping the future may or may not undo it, but never leaves it half done.
    ///
    /// # Errors
    /// When the filter does not parse or the store cannot write; then nothing has changed.
    pub async fn create(&self, subscription: Subscription) -> Result<CompiledSubscription, Error> {
        let writing = self.lock_stripe(subscription.id).await;
        self.write(writing, None, subscription, None, Quota::Holds).await
    }

    /// Creates a subscription together with its first recovery, as [`Self::create`] does.
    ///
    /// # Errors
    /// When the filter does not parse or the store cannot write; then nothing has changed.
    pub async fn create_recovering(
        &self,
        subscription: Subscription,
        recovery: Recovery,
    ) -> Result<CompiledSubscription, Error> {
        let writing = self.lock_stripe(subscription.id).await;
        self.write(writing, None, subscription, Some(recovery), Quota::Holds).await
    }

    /// Changes a subscription that is not deleted and returns it; `None` when there is none, or when `change`
    /// declines. Dropping the future is as for [`Self::create`].
    ///
    /// # Errors
    /// When the filter does not parse or the store cannot write; then nothing has changed.
    pub async fn change(
        &self,
        id: SubscriptionId,
        change: impl FnOnce(&Subscription) -> Option<Subscription>,
    ) -> Result<Option<CompiledSubscription>, Error> {
        self.change_within(id, change, quota).await
    }

    /// Disables a subscription because of a failure of the version that was `tried`, unless it is disabled already or
    /// its owner has changed it since: an old failure says nothing about the new target.
    ///
    /// # Errors
    /// When the filter does not parse or the store cannot write; then nothing has changed.
    pub async fn disable(&self, tried: &Subscription, since: Timestamp, error: String) -> Result<(), Error> {
        let disabled = |current: &Subscription| {
            let is_same = current.activity == Activity::Enabled && current.updated == tried.updated;
            is_same.then(|| Subscription {
                activity: Activity::Disabled { since, error: Some(error) },
                ..current.clone()
            })
        };
        self.change_within(tried.id, disabled, |_, _| Quota::Exempt).await.map(drop)
    }

    /// Changes a subscription as [`Self::change`] does; `quota` compares it before and after and tells whether the
    /// change counts against the disk quota.
    async fn change_within(
        &self,
        id: SubscriptionId,
        change: impl FnOnce(&Subscription) -> Option<Subscription>,
        quota: fn(&Subscription, &Subscription) -> Quota,
    ) -> Result<Option<CompiledSubscription>, Error> {
        let writing = self.lock_stripe(id).await;
        let current = self.compiled(id).filter(|found| found.subscription.deleted.is_none());
        let Some(current) = current else { return Ok(None) };
        let Some(changed) = change(&current.subscription) else { return Ok(None) };
        let quota = quota(&current.subscription, &changed);
        self.write(writing, Some(current), changed, None, quota).await.map(Some)
    }

    /// Takes the lock of the subscription's stripe.
    async fn lock_stripe(&self, id: SubscriptionId) -> OwnedMutexGuard<()> {
        let stripe = id.uuid().as_bytes()[15] % STRIPES;
        Arc::clone(&self.writing[usize::from(stripe)]).lock_owned().await
    }

    /// Writes in a task of its own: when the caller is cancelled, as by a client that hangs up, the store must not get
    /// ahead of the snapshot.
    async fn write(
        &self,
        writing: OwnedMutexGuard<()>,
        current: Option<CompiledSubscription>,
        subscription: Subscription,
        recovery: Option<Recovery>,
        quota: Quota,
    ) -> Result<CompiledSubscription, Error> {
        let known = CompiledSubscription {
            filter: filter(current, &subscription)?,
            subscription: subscription.into(),
        };
        let (store, now) = (Arc::clone(&self.store), Arc::clone(&self.now));
        let change = self.changes.spawn(async move {
            let _writing = writing;
            let subscription = Subscription::clone(&known.subscription);
            match recovery {
                None => store.put_subscription(subscription, quota).await?,
                // A new subscription cannot have another recovery already.
                Some(recovery) => drop(store.begin_recovery(recovery, Some(subscription)).await?),
            }
            now.rcu(|snapshot| {
                let mut next = Snapshot::clone(snapshot);
                next.put(known.clone());
                next
            });
            store.wakes().push([(known.subscription.id.into(), Wake::read())]);
            Ok(known)
        });
        match change.await {
            Ok(changed) => changed.map_err(Error::Store),
            Err(ended) => match ended.try_into_panic() {
                // The caller must not take the change for done.
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(Error::Store(store::Error::Closed)),
            },
        }
    }
}

/// Tells whether an owner's change counts against the disk quota: deleting and pausing do not.
fn quota(before: &Subscription, after: &Subscription) -> Quota {
    if after.deleted.is_some() {
        return Quota::Exempt;
    }
    let error = |of: &Subscription| match &of.activity {
        Activity::Disabled { error: Some(error), .. } => error.len(),
        Activity::Disabled { error: None, .. } | Activity::Enabled => 0,
    };
    let rest = Subscription { activity: before.activity.clone(), updated: before.updated, ..after.clone() };
    if rest == *before && error(after) <= error(before) { Quota::Exempt } else { Quota::Holds }
}

/// Returns the compiled filter of a subscription that is about to be written. An unchanged filter need not parse, so a
/// subscription whose stored filter is invalid can still be renamed, disabled and deleted.
fn filter(current: Option<CompiledSubscription>, next: &Subscription) -> Result<Option<Arc<Filter>>, Error> {
    if next.deleted.is_some() {
        return Ok(None);
    }
    let is_same =
        |of: &Subscription| of.jsonpath == next.jsonpath && of.filter_dialect == next.filter_dialect;
    if let Some(current) = current.filter(|current| is_same(&current.subscription)) {
        return Ok(current.filter);
    }
    let filter = Filter::parse(&next.jsonpath, next.filter_dialect).map_err(Error::Filter)?;
    Ok(Some(Arc::new(filter)))
}

#[cfg(test)]
mod tests;

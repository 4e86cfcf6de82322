//! All subscriptions as they are now, with the index of their filters: the store's truth held in memory.
//!
//! Readers get an immutable snapshot; a change is written to the store first and then becomes the next snapshot.
//! Whoever delivers is woken by the store's own note of the change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::domain::{Activity, Subscription, SubscriptionId};
use crate::matching::{self, Filter, Index};
use crate::store::{self, Store};

/// The subscriptions. Shared by REST, matching and delivery.
pub struct Directory {
    store: Arc<dyn Store>,
    now: ArcSwap<Snapshot>,
    writing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Snapshot {
    by_id: imbl::HashMap<SubscriptionId, Arc<Subscription>>,
    index: Index,
}

impl Snapshot {
    fn put(&mut self, subscription: Subscription) {
        self.index.remove(subscription.id);
        if subscription.is_active() {
            match Filter::parse(&subscription.jsonpath) {
                Ok(filter) => self.index.insert(subscription.id, Arc::new(filter)),
                Err(error) => tracing::error!(subscription = %subscription.id, %error, "a stored filter does not parse"),
            }
        }
        self.by_id.insert(subscription.id, Arc::new(subscription));
    }
}

impl Directory {
    /// Reads all subscriptions.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, store::Error> {
        let mut snapshot = Snapshot::default();
        for subscription in store.subscriptions().await? {
            snapshot.put(subscription);
        }
        Ok(Self { store, now: ArcSwap::from_pointee(snapshot), writing: tokio::sync::Mutex::default() })
    }

    /// Returns a subscription, also a deleted one.
    pub fn get(&self, id: SubscriptionId) -> Option<Arc<Subscription>> {
        self.now.load().by_id.get(&id).map(Arc::clone)
    }

    /// Returns a user's subscriptions that are not deleted, in the order of their creation.
    pub fn of_user(&self, user: &str) -> Vec<Arc<Subscription>> {
        let snapshot = self.now.load();
        let own = snapshot.by_id.values().filter(|found| found.user == user && found.deleted.is_none());
        let mut own: Vec<_> = own.map(Arc::clone).collect();
        own.sort_by_key(|subscription| (subscription.created, subscription.id));
        own
    }

    /// Returns the active subscriptions whose filter finds at least one node in an event's JSON.
    ///
    /// # Errors
    /// When the bytes are not JSON.
    pub fn matches(&self, event_json: &[u8]) -> Result<Vec<SubscriptionId>, matching::Error> {
        self.now.load().index.matches(event_json)
    }

    /// Creates a subscription.
    ///
    /// # Errors
    /// When the store cannot write; then nothing has changed.
    pub async fn create(&self, subscription: Subscription) -> Result<(), store::Error> {
        let _writing = self.writing.lock().await;
        self.write(subscription).await
    }

    /// Changes a subscription that is not deleted and returns it; `None` when there is none, or when `change`
    /// declines.
    ///
    /// # Errors
    /// When the store cannot write; then nothing has changed.
    pub async fn change(
        &self,
        id: SubscriptionId,
        change: impl FnOnce(&Subscription) -> Option<Subscription>,
    ) -> Result<Option<Arc<Subscription>>, store::Error> {
        let _writing = self.writing.lock().await;
        let Some(current) = self.get(id).filter(|found| found.deleted.is_none()) else { return Ok(None) };
        let Some(changed) = change(&current) else { return Ok(None) };
        self.write(changed).await?;
        Ok(self.get(id))
    }

    /// Disables a subscription because of what went wrong, unless it is disabled already.
    ///
    /// # Errors
    /// When the store cannot write; then nothing has changed.
    pub async fn disable(&self, id: SubscriptionId, since: Timestamp, error: String) -> Result<(), store::Error> {
        let disabled = |current: &Subscription| {
            (current.activity == Activity::Enabled).then(|| Subscription {
                activity: Activity::Disabled { since, error: Some(error) },
                ..current.clone()
            })
        };
        self.change(id, disabled).await.map(drop)
    }

    async fn write(&self, subscription: Subscription) -> Result<(), store::Error> {
        self.store.put_subscription(subscription.clone()).await?;
        let mut next = Snapshot::clone(&self.now.load());
        next.put(subscription);
        self.now.store(Arc::new(next));
        Ok(())
    }
}

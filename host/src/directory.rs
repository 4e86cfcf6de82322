//! All subscriptions as they are now, with the index of their filters: the store's truth held in memory.
//!
//! Readers get an immutable snapshot; a change is written to the store first and then becomes the next snapshot.
//! Whoever delivers is woken by the store's own note of the change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::domain::{Activity, Subscription, SubscriptionId};
use crate::matching::{self, Filter, FilterError, Index};
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
    /// Adds or replaces a subscription; one without a filter is never matched.
    fn put(&mut self, subscription: Subscription, filter: Option<Filter>) {
        self.index.remove(subscription.id);
        if let Some(filter) = filter.filter(|_| subscription.is_active()) {
            self.index.insert(subscription.id, Arc::new(filter));
        }
        self.by_id.insert(subscription.id, Arc::new(subscription));
    }
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
    /// Reads all subscriptions.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, store::Error> {
        let mut snapshot = Snapshot::default();
        for subscription in store.subscriptions().await? {
            let filter = Filter::parse(&subscription.jsonpath);
            if let Err(error) = &filter {
                tracing::error!(subscription = %subscription.id, %error, "a stored filter does not parse: it matches nothing");
            }
            snapshot.put(subscription, filter.ok());
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
    /// When the filter does not parse or the store cannot write; then nothing has changed.
    pub async fn create(&self, subscription: Subscription) -> Result<(), Error> {
        let _writing = self.writing.lock().await;
        self.write(subscription).await
    }

    /// Changes a subscription that is not deleted and returns it; `None` when there is none, or when `change`
    /// declines.
    ///
    /// # Errors
    /// When the filter does not parse or the store cannot write; then nothing has changed.
    pub async fn change(
        &self,
        id: SubscriptionId,
        change: impl FnOnce(&Subscription) -> Option<Subscription>,
    ) -> Result<Option<Arc<Subscription>>, Error> {
        let _writing = self.writing.lock().await;
        let Some(current) = self.get(id).filter(|found| found.deleted.is_none()) else { return Ok(None) };
        let Some(changed) = change(&current) else { return Ok(None) };
        self.write(changed).await?;
        Ok(self.get(id))
    }

    /// Disables a subscription because of what went wrong, unless it is disabled already.
    ///
    /// # Errors
    /// When the filter does not parse or the store cannot write; then nothing has changed.
    pub async fn disable(&self, id: SubscriptionId, since: Timestamp, error: String) -> Result<(), Error> {
        let disabled = |current: &Subscription| {
            (current.activity == Activity::Enabled).then(|| Subscription {
                activity: Activity::Disabled { since, error: Some(error) },
                ..current.clone()
            })
        };
        self.change(id, disabled).await.map(drop)
    }

    async fn write(&self, subscription: Subscription) -> Result<(), Error> {
        let filter = Filter::parse(&subscription.jsonpath).map_err(Error::Filter)?;
        self.store.put_subscription(subscription.clone()).await.map_err(Error::Store)?;
        let mut next = Snapshot::clone(&self.now.load());
        next.put(subscription, Some(filter));
        self.now.store(Arc::new(next));
        Ok(())
    }
}

//! All subscriptions as they are now, with the index of their filters: the store's truth held in memory.
//!
//! Readers get an immutable snapshot; a change is written to the store first, then becomes the next snapshot, and
//! only then is whoever delivers woken: earlier, he would look at the old one and go to sleep again.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::task::TaskTracker;

use crate::domain::{Activity, Recovery, Subscription, SubscriptionId};
use crate::matching::{self, Filter, FilterError, Index};
use crate::store::{self, News, Store};

/// The subscriptions. Shared by REST, matching and delivery.
pub struct Directory {
    store: Arc<dyn Store>,
    now: Arc<ArcSwap<Snapshot>>,
    writing: Arc<Mutex<()>>,
    /// Changes on their way to the disk. They end by themselves: the store answers each, also when it closes.
    changes: TaskTracker,
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
        let now = Arc::new(ArcSwap::from_pointee(snapshot));
        Ok(Self { store, now, writing: Arc::default(), changes: TaskTracker::new() })
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

    /// Creates a subscription. Dropping the future may or may not undo it, but never leaves it half done.
    ///
    /// # Errors
    /// When the filter does not parse or the store cannot write; then nothing has changed.
    pub async fn create(&self, subscription: Subscription) -> Result<(), Error> {
        let writing = Arc::clone(&self.writing).lock_owned().await;
        self.write(writing, subscription, None).await
    }

    /// Creates a subscription together with its first recovery, as [`Self::create`] does.
    ///
    /// # Errors
    /// When the filter does not parse or the store cannot write; then nothing has changed.
    pub async fn create_recovering(
        &self,
        subscription: Subscription,
        recovery: Recovery,
    ) -> Result<(), Error> {
        let writing = Arc::clone(&self.writing).lock_owned().await;
        self.write(writing, subscription, Some(recovery)).await
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
    ) -> Result<Option<Arc<Subscription>>, Error> {
        let writing = Arc::clone(&self.writing).lock_owned().await;
        let Some(current) = self.get(id).filter(|found| found.deleted.is_none()) else { return Ok(None) };
        let Some(changed) = change(&current) else { return Ok(None) };
        self.write(writing, changed, None).await?;
        Ok(self.get(id))
    }

    /// Disables a subscription because of what went wrong with it as it was `tried`, unless it is disabled already
    /// or its owner has changed it meanwhile: an old failure says nothing about the new target.
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
        self.change(tried.id, disabled).await.map(drop)
    }

    /// Writes in a task of its own: a caller who goes away, such as a client that hangs up, must not leave the
    /// store ahead of the snapshot.
    async fn write(
        &self,
        writing: OwnedMutexGuard<()>,
        subscription: Subscription,
        recovery: Option<Recovery>,
    ) -> Result<(), Error> {
        let filter = Filter::parse(&subscription.jsonpath).map_err(Error::Filter)?;
        let (store, now) = (Arc::clone(&self.store), Arc::clone(&self.now));
        let change = self.changes.spawn(async move {
            let _writing = writing;
            let id = subscription.id;
            match recovery {
                None => store.put_subscription(subscription.clone()).await?,
                // A new subscription has no other recovery that could be in the way.
                Some(recovery) => drop(store.begin_recovery(recovery, Some(subscription.clone())).await?),
            }
            let mut next = Snapshot::clone(&now.load());
            next.put(subscription, Some(filter));
            now.store(Arc::new(next));
            store.wakes().leave([(id, News::read())]);
            Ok(())
        });
        // A task that cannot end: the runtime is going down.
        change.await.unwrap_or(Err(store::Error::Closed)).map_err(Error::Store)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::store::redb::RedbStore;

    async fn directory(folder: &tempfile::TempDir) -> Directory {
        let store = RedbStore::open(folder.path(), Duration::ZERO).unwrap();
        Directory::open(Arc::new(store)).await.unwrap()
    }

    fn subscription() -> Subscription {
        let target = "http://localhost:1/".parse().unwrap();
        Subscription::new("u".to_owned(), "n".to_owned(), "$".to_owned(), target, clock::now())
    }

    async fn soon(what: impl Future<Output = ()>) {
        tokio::time::timeout(Duration::from_secs(10), what).await.unwrap();
    }

    /// A client hung up in the middle of POST /eventmatch: the subscription was on disk, but until the next start
    /// nobody knew it.
    #[tokio::test]
    async fn a_change_is_whole_though_its_caller_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(&folder).await;
        let created = subscription();
        let id = created.id;
        tokio::select! {
            biased;
            _ = directory.create(created) => unreachable!("a commit takes longer than one look"),
            () = std::future::ready(()) => {}
        }
        soon(async {
            while directory.get(id).is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(directory.matches(b"{}").unwrap(), [id]);
    }

    /// The store's own wake came before the snapshot: a subscription that was enabled again slept on, for half a
    /// minute, over its backlog.
    #[tokio::test]
    async fn who_is_woken_by_a_change_sees_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(&folder).await;
        let created = subscription();
        let id = created.id;
        directory.create(created).await.unwrap();
        let wakes = directory.store.wakes();
        for round in 0..100 {
            let name = round.to_string();
            let changed =
                directory.change(id, |now| Some(Subscription { name: name.clone(), ..now.clone() }));
            let woken = async {
                while directory.get(id).is_none_or(|now| now.name != name) {
                    wakes.take().await;
                }
            };
            soon(async { drop(tokio::join!(changed, woken)) }).await;
        }
    }

    #[tokio::test]
    async fn an_old_failure_does_not_disable_what_its_owner_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(&folder).await;
        let tried = subscription();
        directory.create(tried.clone()).await.unwrap();
        let later = tried.updated + jiff::SignedDuration::from_secs(1);
        let changed = directory
            .change(tried.id, |now| Some(Subscription { updated: later, ..now.clone() }))
            .await
            .unwrap()
            .unwrap();
        directory.disable(&tried, later, "old".to_owned()).await.unwrap();
        assert!(directory.get(tried.id).unwrap().is_active());
        directory.disable(&changed, later, "new".to_owned()).await.unwrap();
        let disabled = directory.get(tried.id).unwrap();
        assert_eq!(disabled.activity, Activity::Disabled { since: later, error: Some("new".to_owned()) });
        assert_eq!(disabled.updated, later, "its owner did not change it");
    }
}

//! All subscriptions, with the index of their filters: the store's contents, held in memory.
//!
//! Readers get an immutable snapshot. One task follows the changes that the store has applied, makes the next snapshot of
//! them, and then wakes the workers concerned: one that is woken sees the change. A caller that changes a subscription waits
//! until the snapshot has the change. A change names the version that it was made from; where that is not the newest any
//! more, it is made again from the newest.

mod audit;
mod follower;
mod operators;
mod snapshot;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use waypost_domain::{
    Activity, Actor, AuditEntry, PluginDigest, RecipientId, Recovery, Subscription, SubscriptionId,
};
use waypost_matching::{self as matching, Filter, FilterError, Matches};
use waypost_store::{self as store, Position, Put, Quota, Store};

use follower::{Follower, PendingFilters};
pub use snapshot::CompiledSubscription;
use snapshot::Snapshot;

/// The subscriptions. Shared by REST, matching and delivery.
pub struct Directory {
    store: Arc<Store>,
    now: Arc<ArcSwap<Snapshot>>,
    /// The position of the last change in the snapshot.
    followed: watch::Receiver<Position>,
    /// Filters of changes on their way.
    compiled: Arc<PendingFilters>,
    /// The handlers that have a route, in the order in which their filters are tried.
    routes: Vec<Route>,
    /// The users who get operator events.
    admins: HashSet<String>,
    /// Where dead letters go whose subscriptions say nothing else.
    dead_letters: Option<Arc<Subscription>>,
    /// No change is queued before this time.
    quiet_until: Mutex<Instant>,
    /// Ends with this.
    _follower: JoinSet<()>,
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
    /// A new one has the id of another one.
    #[error("there is a subscription {0} already")]
    Exists(SubscriptionId),
    /// There is no such module.
    #[error("there is no module {0}: upload it first, with POST /plugins")]
    NoModule(PluginDigest),
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
        let (position, subscriptions) = store.subscriptions().await?;
        let reading = tokio::task::spawn_blocking(move || Snapshot::read(position, subscriptions));
        let mut snapshot = reading.await.expect("reading filters does not panic");
        for route in &routes {
            snapshot.index.insert(route.recipient, Arc::clone(&route.filter));
        }
        let now = Arc::new(ArcSwap::from_pointee(snapshot));
        let (sender, followed) = watch::channel(position);
        let (alarm, compiled) = (store.alarm(), Arc::<PendingFilters>::default());
        let follower = Follower {
            changes: store.changes(),
            now: Arc::clone(&now),
            compiled: Arc::clone(&compiled),
            followed: sender,
            wakes: store.wakes(),
        };
        let (stop, mut tasks) = (alarm.stop_token(), JoinSet::new());
        tasks.spawn(alarm.watch("the list of subscriptions", stop.clone(), follower.run(stop)));
        let quiet_until = Mutex::new(Instant::now());
        let (admins, dead_letters) = (HashSet::new(), None);
        Ok(Self {
            store,
            now,
            followed,
            compiled,
            routes,
            admins,
            dead_letters,
            quiet_until,
            _follower: tasks,
        })
    }

    /// Returns the position of the last change that [`Self::matches`] knows, at least.
    pub fn position(&self) -> Position {
        self.now.load().position
    }

    /// Waits until the change at this position is known. Cancel safe.
    pub async fn follow(&self, position: Position) {
        // It fails when the follower has ended, and with it the service.
        drop(self.followed.clone().wait_for(|followed| *followed >= position).await);
    }

    /// Puts off changes of subscriptions that are not queued yet, so that events can be matched and logged between them.
    /// Each waits once.
    pub fn pause_changes(&self, time: Duration) {
        let mut until = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Instant::now() + time);
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

    /// Returns the subscriptions that are not deleted and whose target is the function of this name.
    pub fn with_function(&self, name: &str) -> Vec<SubscriptionId> {
        let snapshot = self.now.load();
        let is_its = |known: &&CompiledSubscription| {
            let subscription = &known.subscription;
            subscription.deleted.is_none() && subscription.target_url.function() == Some(name)
        };
        snapshot.all().filter(is_its).map(|known| known.subscription.id).collect()
    }

    /// Returns a user's subscriptions that are not deleted, in the order of their creation.
    pub fn of_user(&self, user: &str) -> Vec<Arc<Subscription>> {
        self.now.load().of_user(user, None).map(|known| Arc::clone(&known.subscription)).collect()
    }

    /// Tells whether all subscriptions that are not deleted are one user's.
    pub(crate) fn has_one_user(&self) -> bool {
        self.now.load().has_one_user()
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

    /// Changes subscriptions in the name of somebody, as the audit has it.
    pub fn by<'a>(&'a self, actor: &'a Actor) -> Editor<'a> {
        Editor { directory: self, actor }
    }

    /// Creates a subscription in the name of its owner, as [`Editor::create`] does.
    ///
    /// # Errors
    /// When the filter does not parse, there is no such module, or the store cannot write; then nothing has changed.
    pub async fn create(&self, subscription: Subscription) -> Result<CompiledSubscription, Error> {
        self.by(&Actor::program(&*subscription.user)).create(subscription, None).await
    }

    /// Changes a subscription in the name of the embedding program, as [`Editor::change`] does.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub async fn change(
        &self,
        id: SubscriptionId,
        mut change: impl FnMut(&Subscription) -> Option<Subscription>,
    ) -> Result<Option<CompiledSubscription>, Error> {
        self.by(&Actor::program("")).change(id, |current| change(&current.subscription)).await
    }

    /// Disables a subscription because of a failure of the version that was `tried`, unless it is disabled already or
    /// its owner has changed it since: an old failure says nothing about the new target.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub async fn disable(&self, tried: &Subscription, since: Timestamp, error: String) -> Result<(), Error> {
        let disabled = |current: &CompiledSubscription| {
            let current = &current.subscription;
            let is_same = current.activity == Activity::Enabled && current.updated == tried.updated;
            is_same.then(|| Subscription {
                activity: Activity::Disabled { since, error: Some(error.clone()) },
                ..Subscription::clone(current)
            })
        };
        self.by(&Actor::program("")).change_within(tried.id, disabled, |_, _| Quota::Exempt).await.map(drop)
    }

    /// Writes a subscription in place of `current`.
    async fn write(
        &self,
        current: Option<CompiledSubscription>,
        subscription: Subscription,
        recovery: Option<Recovery>,
        quota: Quota,
        note: AuditEntry,
    ) -> Result<ChangeResult, Error> {
        let replaces = current.as_ref().map(|current| current.revision);
        let filter = filter(current, &subscription)?;
        let quiet_until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet_until > Instant::now() {
            tokio::time::sleep_until(quiet_until).await;
        }
        let _compiled = self.compiled.keep(&subscription, filter.clone());
        let written = subscription.clone();
        match self
            .store
            .put_subscription(subscription, replaces, recovery, quota, Some(note))
            .await
            .map_err(Error::Store)?
        {
            Put::Done(revision) => {
                self.follow(revision).await;
                let subscription = Arc::new(written);
                Ok(ChangeResult::Done(CompiledSubscription { subscription, filter, revision }))
            }
            Put::Changed(position) => {
                self.follow(position).await;
                Ok(ChangeResult::Changed)
            }
            Put::Gone => Ok(ChangeResult::Gone),
            Put::NoModule(digest) => Err(Error::NoModule(digest)),
        }
    }
}

/// Changes subscriptions in the name of somebody.
#[derive(Clone, Copy)]
pub struct Editor<'a> {
    directory: &'a Directory,
    actor: &'a Actor,
}

impl Editor<'_> {
    /// Creates a subscription, with its first recovery if it has one, and returns it. Dropping the future may or may not
    /// undo it, but never leaves it half done.
    ///
    /// # Errors
    /// When the filter does not parse, there is no such module, or the store cannot write; then nothing has changed.
    pub async fn create(
        self,
        subscription: Subscription,
        recovery: Option<Recovery>,
    ) -> Result<CompiledSubscription, Error> {
        let (id, note) = (subscription.id, audit::created(&subscription, self.actor));
        match self.directory.write(None, subscription, recovery, Quota::Holds, note).await? {
            ChangeResult::Done(created) => Ok(created),
            ChangeResult::Changed | ChangeResult::Gone => Err(Error::Exists(id)),
        }
    }

    /// Changes a subscription that is not deleted and returns it; `None` when there is none, or when `change`
    /// declines. `change` is asked again where another change comes before it. Dropping the future is as for
    /// [`Self::create`].
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub async fn change(
        self,
        id: SubscriptionId,
        change: impl FnMut(&CompiledSubscription) -> Option<Subscription>,
    ) -> Result<Option<CompiledSubscription>, Error> {
        self.change_within(id, change, quota).await
    }

    /// Changes a subscription as [`Self::change`] does; `quota` compares it before and after and tells whether the
    /// change counts against the disk quota.
    async fn change_within(
        self,
        id: SubscriptionId,
        mut change: impl FnMut(&CompiledSubscription) -> Option<Subscription>,
        quota: fn(&Subscription, &Subscription) -> Quota,
    ) -> Result<Option<CompiledSubscription>, Error> {
        loop {
            let current = self.directory.compiled(id).filter(|found| found.subscription.deleted.is_none());
            let Some(current) = current else { return Ok(None) };
            let Some(changed) = change(&current) else { return Ok(None) };
            let quota = quota(&current.subscription, &changed);
            let note = audit::changed(&current.subscription, &changed, self.actor);
            match self.directory.write(Some(current), changed, None, quota, note).await? {
                ChangeResult::Done(changed) => return Ok(Some(changed)),
                ChangeResult::Changed => {}
                ChangeResult::Gone => return Ok(None),
            }
        }
    }
}

/// What has become of a change.
enum ChangeResult {
    Done(CompiledSubscription),
    /// Another version was there, and is known by now.
    Changed,
    /// The subscription was removed.
    Gone,
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
    if let Some(current) = current.filter(|current| has_same_filter(&current.subscription, next)) {
        return Ok(current.filter);
    }
    let filter = Filter::parse(&next.jsonpath, next.filter_dialect).map_err(Error::Filter)?;
    Ok(Some(Arc::new(filter)))
}

fn has_same_filter(one: &Subscription, other: &Subscription) -> bool {
    one.jsonpath == other.jsonpath && one.filter_dialect == other.filter_dialect
}

#[cfg(test)]
mod tests;

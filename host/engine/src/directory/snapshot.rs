//! All subscriptions at one moment. A copy is cheap: it shares everything that does not change.

use std::sync::Arc;
use std::thread;

use jiff::Timestamp;

use waypost_domain::{Subscription, SubscriptionId};
use waypost_matching::{Filter, Index};
use waypost_store::{Position, StoredSubscription};

/// A subscription with its filter.
#[derive(Clone, Debug)]
pub struct CompiledSubscription {
    /// The subscription.
    pub subscription: Arc<Subscription>,
    /// Its filter; `None` where the subscription is deleted, or where a stored filter does not parse and matches nothing.
    pub filter: Option<Arc<Filter>>,
    /// The version of it.
    pub revision: Position,
}

/// One of a user's subscriptions that are not deleted; sorts by user, then in the order of creation.
type Own = (Arc<str>, Timestamp, SubscriptionId);

#[derive(Clone, Default)]
pub(super) struct Snapshot {
    /// The last change that it has.
    pub(super) position: Position,
    by_id: imbl::OrdMap<SubscriptionId, CompiledSubscription>,
    by_user: imbl::OrdSet<Own>,
    pub(super) index: Index,
}

impl Snapshot {
    /// Parses the filters, on all cores, and indexes them.
    pub(super) fn read(position: Position, subscriptions: Vec<StoredSubscription>) -> Self {
        let mut snapshot = Self { position, ..Self::default() };
        for known in parse(subscriptions) {
            snapshot.put(known);
        }
        snapshot
    }

    pub(super) fn get(&self, id: SubscriptionId) -> Option<&CompiledSubscription> {
        self.by_id.get(&id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &CompiledSubscription> {
        self.by_id.values()
    }

    /// Removes a deleted subscription, which only `by_id` still has.
    pub(super) fn remove(&mut self, id: SubscriptionId) {
        self.by_id.remove(&id);
    }

    /// Returns a user's subscriptions that are not deleted, in the order of their creation, starting behind `after`.
    pub(super) fn of_user(
        &self,
        user: &str,
        after: Option<&Subscription>,
    ) -> impl Iterator<Item = &CompiledSubscription> {
        let user: Arc<str> = user.into();
        let first = after.map_or((Timestamp::MIN, SubscriptionId::NIL), |after| (after.created, after.id));
        let (first, last) =
            ((Arc::clone(&user), first.0, first.1), (user, Timestamp::MAX, SubscriptionId::MAX));
        let own = self.by_user.range(first.clone()..=last).skip_while(move |own| **own == first);
        own.filter_map(|(_, _, id)| self.by_id.get(id))
    }

    /// Adds or replaces a subscription; one without a filter is never matched.
    pub(super) fn put(&mut self, known: CompiledSubscription) {
        let subscription = &*known.subscription;
        match known.filter.as_ref().filter(|_| subscription.is_active()) {
            Some(filter) => self.index.insert(subscription.id, Arc::clone(filter)),
            None => self.index.remove(subscription.id),
        }
        let own = (self.shared_name(&subscription.user), subscription.created, subscription.id);
        if subscription.deleted.is_none() {
            self.by_user.insert(own);
        } else {
            self.by_user.remove(&own);
        }
        self.by_id.insert(subscription.id, known);
    }

    /// Tells whether all subscriptions that are not deleted are one user's.
    pub(super) fn has_one_user(&self) -> bool {
        let user = |own: Option<&Own>| own.map(|(user, ..)| Arc::clone(user));
        user(self.by_user.get_min()) == user(self.by_user.get_max())
    }

    /// Returns a user's name, sharing the string with that user's other subscriptions if there are any.
    fn shared_name(&self, user: &str) -> Arc<str> {
        let first = (Arc::from(user), Timestamp::MIN, SubscriptionId::NIL);
        let next = self.by_user.range(first.clone()..).next().filter(|(name, ..)| **name == *user);
        next.map_or(first.0, |(name, ..)| Arc::clone(name))
    }
}

/// Parses the filters of all subscriptions: with 100,000 of them, this is the longest part of a start.
fn parse(mut subscriptions: Vec<StoredSubscription>) -> Vec<CompiledSubscription> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let each = subscriptions.len().div_ceil(cores).max(1);
    let mut parts = Vec::with_capacity(cores);
    while !subscriptions.is_empty() {
        parts.push(subscriptions.split_off(subscriptions.len().saturating_sub(each)));
    }
    thread::scope(|scope| {
        let parts = parts
            .into_iter()
            .map(|part| scope.spawn(move || part.into_iter().map(compile).collect::<Vec<_>>()));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().expect("parsing a filter does not panic")).collect()
    })
}

/// Parses the filter of a stored subscription.
pub(super) fn compile(stored: StoredSubscription) -> CompiledSubscription {
    let StoredSubscription { subscription, revision } = stored;
    if subscription.deleted.is_some() {
        return CompiledSubscription { subscription, filter: None, revision };
    }
    let filter = Filter::parse(&subscription.jsonpath, subscription.filter_dialect);
    if let Err(error) = &filter {
        tracing::error!(subscription = %subscription.id, %error, "a stored filter does not parse: it matches nothing");
    }
    CompiledSubscription { subscription, filter: filter.ok().map(Arc::new), revision }
}

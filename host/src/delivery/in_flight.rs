//! The state of deliveries that is in memory only: attempts in flight, what holds deliveries back, and when each target
//! was last reached.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::domain::{EventId, Holder, RecipientId, SubscriptionId};

/// Locks. A panic elsewhere leaves these sets consistent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Deliveries with an attempt in flight.
#[derive(Default)]
pub(super) struct InFlight(Mutex<HashSet<(EventId, RecipientId)>>);

/// Removes a delivery from [`InFlight`] when its attempt ends or is dropped.
pub(super) struct InFlightGuard<'a>(&'a InFlight, (EventId, RecipientId));

impl InFlight {
    pub(super) fn enter(&self, event: EventId, recipient: RecipientId) -> InFlightGuard<'_> {
        lock(&self.0).insert((event, recipient));
        InFlightGuard(self, (event, recipient))
    }

    pub(super) fn contains(&self, event: EventId, recipient: RecipientId) -> bool {
        lock(&self.0).contains(&(event, recipient))
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).remove(&self.1);
    }
}

/// What holds subscriptions' deliveries, other than their targets and plugins, and since when.
#[derive(Default)]
pub(super) struct Holds(Mutex<HashMap<RecipientId, (Holder, Timestamp)>>);

impl Holds {
    /// Notes that a delivery was put off.
    pub(super) fn note(&self, recipient: RecipientId, by: Holder, at: Timestamp) {
        let mut holds = lock(&self.0);
        let hold = holds.entry(recipient).or_insert((by, at));
        if hold.0 != by {
            *hold = (by, at);
        }
    }

    /// Notes that deliveries are attempted again.
    pub(super) fn clear(&self, recipient: RecipientId) {
        lock(&self.0).remove(&recipient);
    }

    pub(super) fn of(&self, recipient: RecipientId) -> Option<(Holder, Timestamp)> {
        lock(&self.0).get(&recipient).copied()
    }
}

/// When each target was last reached.
pub(super) struct LastSuccess(Mutex<HashMap<SubscriptionId, Timestamp>>);

impl LastSuccess {
    pub(super) fn new(known: impl IntoIterator<Item = (SubscriptionId, Timestamp)>) -> Self {
        Self(Mutex::new(known.into_iter().collect()))
    }

    pub(super) fn note(&self, subscription: SubscriptionId, at: Timestamp) {
        lock(&self.0).insert(subscription, at);
    }

    /// Adds what the store remembers, which may be older than what is known here.
    pub(super) fn merge(&self, reached: impl IntoIterator<Item = (SubscriptionId, Timestamp)>) {
        let mut known = lock(&self.0);
        for (subscription, at) in reached {
            let last = known.entry(subscription).or_insert(at);
            *last = at.max(*last);
        }
    }

    pub(super) fn forget(&self, subscription: SubscriptionId) {
        lock(&self.0).remove(&subscription);
    }

    pub(super) fn since(&self, subscription: SubscriptionId, time: Timestamp) -> bool {
        lock(&self.0).get(&subscription).is_some_and(|reached| *reached >= time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_in_flight_until_its_guard_goes() {
        let (event, recipient) = (EventId::MAX, RecipientId::MAX);
        let in_flight = InFlight::default();
        let guard = in_flight.enter(event, recipient);
        assert!(in_flight.contains(event, recipient));
        drop(guard);
        assert!(!in_flight.contains(event, recipient));
    }
}

//! When each target was last reached.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;

use waypost_domain::SubscriptionId;

/// When each target was last reached, in memory; the store remembers it roughly.
pub(super) struct LastSuccess(Mutex<HashMap<SubscriptionId, Timestamp>>);

impl LastSuccess {
    pub(super) fn new(known: impl IntoIterator<Item = (SubscriptionId, Timestamp)>) -> Self {
        Self(Mutex::new(known.into_iter().collect()))
    }

    pub(super) fn note(&self, subscription: SubscriptionId, at: Timestamp) {
        self.0.lock().insert(subscription, at);
    }

    /// Adds what the store remembers, which may be older than what is known here.
    pub(super) fn merge(&self, reached: impl IntoIterator<Item = (SubscriptionId, Timestamp)>) {
        let mut known = self.0.lock();
        for (subscription, at) in reached {
            let last = known.entry(subscription).or_insert(at);
            *last = at.max(*last);
        }
    }

    pub(super) fn forget(&self, subscription: SubscriptionId) {
        self.0.lock().remove(&subscription);
    }

    pub(super) fn since(&self, subscription: SubscriptionId, time: Timestamp) -> bool {
        self.0.lock().get(&subscription).is_some_and(|reached| *reached >= time)
    }
}

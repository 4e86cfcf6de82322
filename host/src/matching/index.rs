//! All subscriptions' filters at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::error::Error;
use super::filter::Filter;
use crate::domain::ids::SubscriptionId;

/// The filters of all active subscriptions.
#[derive(Clone, Debug, Default)]
pub struct Index {
    filters: BTreeMap<SubscriptionId, Arc<Filter>>,
}

impl Index {
    /// Adds a subscription, or gives it another filter.
    pub fn insert(&mut self, id: SubscriptionId, filter: Arc<Filter>) {
        self.filters.insert(id, filter);
    }

    /// Forgets a subscription; one that is not there is no mistake.
    pub fn remove(&mut self, id: SubscriptionId) {
        self.filters.remove(&id);
    }

    /// Returns the subscriptions whose filters match, in the order of their ids.
    ///
    /// # Errors
    ///
    /// The bytes are not JSON.
    pub fn matches(&self, event_json: &[u8]) -> Result<Vec<SubscriptionId>, Error> {
        let event: Value = serde_json::from_slice(event_json).map_err(|source| Error::Read { source })?;
        Ok(self.filters.iter().filter(|(_, filter)| filter.matches(&event)).map(|(id, _)| *id).collect())
    }
}

//! All subscriptions' filters at once: from an event's bytes to the ids of those that match.

use std::sync::Arc;

use super::document::Document;
use super::error::Error;
use super::evaluate::Failure;
use super::filter::Filter;
use crate::domain::ids::SubscriptionId;

/// The filters of all active subscriptions.
#[derive(Clone, Debug, Default)]
pub struct Index {
    filters: imbl::OrdMap<SubscriptionId, Arc<Filter>>,
}

/// Who wants an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// The subscriptions whose filters match, in the order of their ids.
    pub matched: Vec<SubscriptionId>,
    /// The subscriptions whose filters gave no answer, in the order of their ids.
    pub failed: Vec<(SubscriptionId, Failure)>,
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

    /// Returns the number of subscriptions.
    pub fn len(&self) -> usize {
        self.filters.len()
    }

    /// Tells whether there is no subscription.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Returns how a subscription's filter is found: `equality on $.eventType`, or `scan` where it is tried on every
    /// event; `None` for a subscription that is not here.
    pub fn filing(&self, id: SubscriptionId) -> Option<String> {
        self.filters.get(&id).map(|_| "scan".to_owned())
    }

    /// Returns who wants an event.
    ///
    /// # Errors
    ///
    /// The bytes are not JSON.
    pub fn matches(&self, event_json: &[u8]) -> Result<Matches, Error> {
        let event = Document::parse(event_json)?;
        let mut matches = Matches::default();
        for (id, filter) in &self.filters {
            match filter.matches(&event) {
                Ok(true) => matches.matched.push(*id),
                Ok(false) => {}
                Err(failure) => matches.failed.push((*id, failure)),
            }
        }
        Ok(matches)
    }
}

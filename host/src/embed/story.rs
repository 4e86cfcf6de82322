//! What became of an event.

use std::sync::Arc;

use jiff::Timestamp;

use crate::http::story::{self, View};
use waypost_domain::{Entry, Event, EventId, State, SubscriptionId, operator};
use waypost_store::LoggedEvent;

/// An event of the log with what became of it, as far as a user may see it.
#[derive(Debug)]
pub struct EventStory {
    event: Arc<LoggedEvent>,
    deliveries: Vec<DeliveryStory>,
}

/// What became of one delivery.
#[derive(Debug)]
pub struct DeliveryStory {
    subscription: Option<SubscriptionId>,
    handler: Option<String>,
    state: State,
    history: Vec<Entry>,
}

impl EventStory {
    /// Returns what a user may see, unless that is no more than that a filter has failed on the event.
    pub(super) fn of(view: View) -> Option<Self> {
        let View { event, deliveries, failed: _, shows_event } = view;
        let deliveries = deliveries.into_iter().map(DeliveryStory::of).collect();
        shows_event.then_some(Self { event, deliveries })
    }

    /// Returns its id in the log.
    pub fn id(&self) -> EventId {
        self.event.id
    }

    /// Returns the event.
    pub fn event(&self) -> &Event {
        &self.event.event
    }

    /// Returns who sent it: `waypost` for what Waypost tells its operators.
    pub fn sender(&self) -> &str {
        operator::shown(&self.event.sender)
    }

    /// Returns when it was received.
    pub fn received(&self) -> Timestamp {
        self.event.received
    }

    /// Returns its deliveries.
    pub fn deliveries(&self) -> &[DeliveryStory] {
        &self.deliveries
    }
}

impl DeliveryStory {
    fn of(delivery: story::Delivery) -> Self {
        let (handler, recipient) = (delivery.handler.clone(), delivery.recipient);
        let subscription = handler.is_none().then(|| recipient.subscription_id());
        Self { subscription, handler, state: delivery.state.clone(), history: delivery.into_history() }
    }

    /// Returns the subscription that it is for; `None` for a run of a handler.
    pub fn subscription(&self) -> Option<SubscriptionId> {
        self.subscription
    }

    /// Returns the handler that it is a run of.
    pub fn handler(&self) -> Option<&str> {
        self.handler.as_deref()
    }

    /// Returns where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns its attempts, and what else happened to it, oldest first.
    pub fn history(&self) -> &[Entry] {
        &self.history
    }
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{HandlerRun, PluginRun, Progress, Time, words};

/// One event for one subscription or handler, with what has happened to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// Its id: the header `webhook-id` of its requests.
    pub id: Uuid,
    /// The subscription, or the id of the handler.
    pub subscription: Uuid,
    /// The name of the handler; null for a subscription.
    pub handler: Option<String>,
    /// The name of the subscription or the handler.
    pub name: Option<String>,
    /// The owner of the subscription.
    pub user: Option<String>,
    /// The target, as it is now.
    pub target_url: Option<String>,
    /// Its state.
    pub state: DeliveryState,
    /// Why it is in this state.
    pub reason: Option<String>,
    /// When the next attempt is due.
    pub due: Option<Time>,
    /// What it is held for, which is neither its target nor its plugin.
    pub held: Option<Hold>,
    /// How far the run of a handler has come, while it is under way.
    pub progress: Option<Progress>,
    /// All attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// Who asked for the recovery that made it, and when.
    pub recovered: Option<RequestedBy>,
    /// Who asked for it again, and when.
    #[serde(default)]
    pub redeliveries: Vec<RequestedBy>,
}

/// A delivery in the list of a subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionDelivery {
    /// The event.
    pub event: Uuid,
    /// When the event was received.
    pub received: Time,
    /// The delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
}

/// A page of the deliveries of a subscription, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Deliveries {
    /// How many there are in each state.
    pub counts: DeliveryCounts,
    /// The deliveries.
    pub deliveries: Vec<SubscriptionDelivery>,
    /// The path of the next page; null at the end.
    pub next: Option<String>,
}

/// How many deliveries of a subscription are in each state; null where policy keeps that from you.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryCounts {
    /// Those that wait for their first attempt.
    pub pending: Option<u64>,
    /// Those that wait for their next attempt.
    pub retrying: Option<u64>,
    /// Those that wait for something of the service.
    pub held: Option<u64>,
    /// Those that the target took.
    pub delivered: Option<u64>,
    /// Those that policy or the plugin did not allow.
    pub denied: Option<u64>,
    /// Those that the plugin left out.
    pub skipped: Option<u64>,
    /// Those that were given up.
    pub dead: Option<u64>,
}

words! {
    /// The state of a delivery.
    DeliveryState {
        /// It waits for its first attempt.
        Pending = "pending",
        /// An attempt is under way.
        Delivering = "delivering",
        /// It waits for its next attempt, or for something of the service: see `held`.
        Retrying = "retrying",
        /// The target took it.
        Delivered = "delivered",
        /// Policy or the plugin did not allow it.
        Denied = "denied",
        /// The plugin left it out.
        Skipped = "skipped",
        /// It was given up.
        Dead = "dead",
    }
}

/// What holds deliveries back. Being held uses up no attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    /// The part that is missing: `policy`, `plugins`, `store`, `host`, `quota`. Or what keeps them from the target:
    /// `rate_limit`, `order` (another one comes first), `target` (it has asked for a pause), `breaker` (it is down).
    pub by: String,
    /// Since when.
    pub since: Time,
    /// When the next delivery may go, where that is known.
    #[serde(default)]
    pub until: Option<Time>,
}

/// Who began something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestedBy {
    /// When.
    pub at: Time,
    /// Who.
    pub by: String,
}

/// One attempt of a delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// Which: 1 for the first since the event was accepted or redelivered.
    pub number: u32,
    /// When it began.
    pub at: Time,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<String>,
    /// What the policy server answered; null if it was not asked.
    pub policy: Option<Answer>,
    /// What the plugin did; null if it was not called.
    pub plugin: Option<PluginRun>,
    /// What the handler did; null for a subscription.
    pub run: Option<HandlerRun>,
    /// What the target answered; null if it did not.
    pub target: Option<Answer>,
}

words! {
    /// What came of an attempt.
    Outcome {
        /// The target took the event.
        Delivered = "delivered",
        /// Policy or the plugin did not allow it.
        Denied = "denied",
        /// The plugin left it out.
        Skipped = "skipped",
        /// It failed, and another one follows.
        Retry = "retry",
        /// It failed, and none follows.
        Dead = "dead",
    }
}

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The beginning of its body.
    #[serde(default)]
    pub body: String,
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{DeliveryState, FilterDialect};

/// Why each subscription of a user has a delivery of an event, or has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Whose subscriptions.
    pub user: String,
    /// The subscriptions, in the order in which they were made.
    pub subscriptions: Vec<SubscriptionExplanation>,
    /// The routes of handlers, in their order; null unless you are an admin.
    pub handlers: Option<Vec<HandlerExplanation>>,
    /// The path of the next page; null at the end.
    pub next: Option<String>,
}

/// Why a subscription has a delivery of an event, or has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionExplanation {
    /// The subscription.
    pub subscription: Uuid,
    /// Its name.
    pub name: String,
    /// Whether its filter matches the event now.
    pub matches: bool,
    /// The state of the delivery; null if there is none.
    pub delivery: Option<DeliveryState>,
    /// Why.
    pub reason: String,
    /// What the filter does with the event now; null if it does not parse any more.
    pub filter: Option<FilterExplanation>,
}

/// Why a handler gets an event, or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HandlerExplanation {
    /// Its name.
    pub handler: Option<String>,
    /// Whether its filter matches.
    pub matches: bool,
    /// What the filter does with the event.
    pub filter: FilterExplanation,
}

/// What a filter does with an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FilterExplanation {
    /// In which dialect it is read.
    pub dialect: FilterDialect,
    /// What is odd about it.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Why it matches or does not.
    pub reason: String,
    /// How it failed, if it did.
    pub failure: Option<String>,
    /// What each part of its path found.
    pub steps: Vec<Step>,
}

/// What a part of a filter's path found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// The path up to here.
    pub path: String,
    /// How many nodes it found.
    pub found: usize,
    /// The conditions of this part.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What a condition of a filter did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    /// Its text.
    pub condition: String,
    /// How many nodes it was tested on.
    pub tested: usize,
    /// How many of them passed.
    pub passed: usize,
    /// Values that it saw.
    #[serde(default)]
    pub seen: Vec<String>,
    /// What is probably wrong with it.
    pub problem: Option<String>,
    /// What the parts of the paths within it found.
    #[serde(default)]
    #[schema(no_recursion)]
    pub steps: Vec<Step>,
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Answer, FilterExplanation, PluginRun, words};

/// What would happen to an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DryRun {
    /// Whether the filter matches.
    pub matches: bool,
    /// What the filter does with it.
    pub filter: FilterExplanation,
    /// What policy says; null if it would not be asked.
    pub policy: Option<PolicyAnswer>,
    /// What the plugin does; null if it would not be called.
    pub plugin: Option<PluginRun>,
    /// Where the target leads; null if nothing would be sent.
    pub target: Option<Target>,
    /// The requests that would be sent.
    pub requests: Vec<Request>,
}

/// What policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyAnswer {
    /// Whether the user may see the event.
    pub verdict: PolicyVerdict,
    /// Why there is no answer.
    pub reason: Option<String>,
    /// What the policy server answered.
    pub answer: Option<Answer>,
}

words! {
    /// Whether a user may see an event.
    PolicyVerdict {
        /// Yes.
        Allowed = "allowed",
        /// No.
        Denied = "denied",
        /// That cannot be told now.
        Unavailable = "unavailable",
    }
}

/// Where a target leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// Whether it may lead there.
    pub verdict: TargetVerdict,
    /// Why not, or who decides.
    pub reason: Option<String>,
    /// The addresses of its name.
    #[serde(default)]
    pub addresses: Vec<Address>,
}

words! {
    /// Whether a target may lead somewhere.
    TargetVerdict {
        /// Yes.
        Allowed = "allowed",
        /// No.
        Refused = "refused",
        /// Its name cannot be resolved now.
        Unavailable = "unavailable",
    }
}

/// An address of a target's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Address {
    /// The address.
    pub address: String,
    /// Why it is refused; null if it is not.
    pub refused: Option<String>,
}

/// A request that would be sent, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Request {
    /// Why it cannot be made; then it has no other member.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// Its method.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub method: Option<String>,
    /// Its URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub url: Option<String>,
    /// Names and values of its headers; the value of a secret one is `(secret)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<Vec<String>>>)]
    pub headers: Option<Vec<(String, String)>>,
    /// Its body, where that is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub body: Option<String>,
    /// Its body in base64, where that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub body_base64: Option<String>,
}

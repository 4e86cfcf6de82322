use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Time, words};

/// A recovery: the log is matched again for one subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recovery {
    /// The subscription.
    pub subscription: Uuid,
    /// Its state.
    pub state: RecoveryState,
    /// Why it failed.
    pub reason: Option<String>,
    /// What it waits for.
    pub waiting: Option<String>,
    /// From when on: a time, or `earliest`.
    pub since: String,
    /// Until when; null for the time of the request.
    pub until: Option<Time>,
    /// When it was asked for.
    pub asked: Time,
    /// By whom.
    pub by: String,
    /// When it ended.
    pub ended: Option<Time>,
    /// How many events it has looked at; null, as the following ones, where policy keeps that from you.
    pub looked_at: Option<u64>,
    /// How many matched.
    pub matched: Option<u64>,
    /// How many deliveries it has made.
    pub created: Option<u64>,
    /// On how many the filter failed.
    pub failed: Option<u64>,
    /// The first event.
    pub oldest: Option<Mark>,
    /// The event that it has come to.
    pub position: Option<Mark>,
    /// The last event.
    pub end: Option<Mark>,
}

words! {
    /// The state of a recovery.
    RecoveryState {
        /// It is under way.
        Running = "running",
        /// It has come to the end.
        Done = "done",
        /// It failed.
        Failed = "failed",
        /// Somebody cancelled it.
        Cancelled = "cancelled",
    }
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mark {
    /// The event.
    pub event: Uuid,
    /// When it was received.
    pub received: Time,
}

/// A recovery to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewRecovery {
    /// From when on: a time, or `earliest`.
    #[schema(examples("earliest", "2026-01-31T12:00:00Z"))]
    pub since: String,
    /// Until when; null for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("2026-01-31T13:00:00Z"))]
    pub until: Option<String>,
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{RecoveryState, Time, words};

/// A job on the deliveries of one subscription: they are sent again, or given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// The subscription.
    pub subscription: Uuid,
    /// What is done.
    pub kind: JobKind,
    /// Its state.
    pub state: RecoveryState,
    /// Why it failed.
    pub failure: Option<String>,
    /// What it waits for.
    pub waiting: Option<String>,
    /// Which deliveries it is about.
    pub of: JobScope,
    /// Why deliveries are given up; null for those that are sent again.
    pub reason: Option<String>,
    /// When it was asked for.
    pub asked: Time,
    /// By whom.
    pub by: String,
    /// When it ended.
    pub ended: Option<Time>,
    /// How many deliveries were in the state when it was asked for; null where `since` or `until` is set, and, as the following
    /// ones, where policy keeps that from you.
    pub total: Option<u64>,
    /// How many it has looked at.
    pub looked_at: Option<u64>,
    /// How many it has sent again, or given up.
    pub changed: Option<u64>,
}

/// Which deliveries a job is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobScope {
    /// Those in this state.
    pub state: String,
    /// Only those of events received at this time or later.
    pub since: Option<Time>,
    /// Only those of events received before this time.
    pub until: Option<Time>,
}

words! {
    /// A kind of jobs.
    JobKind {
        /// Deliveries are sent again.
        Redeliver = "redeliver",
        /// Deliveries are given up.
        Discard = "discard",
    }
}

/// A job to begin that sends deliveries again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewRedeliver {
    /// Those in this state: `dead`, unless it is set, `skipped` or `denied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("dead"))]
    pub state: Option<String>,
    /// Only those of events received at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("2026-01-31T12:00:00Z"))]
    pub since: Option<String>,
    /// Only those of events received before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("2026-01-31T13:00:00Z"))]
    pub until: Option<String>,
}

/// A job to begin that gives deliveries up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewDiscard {
    /// Those in this state: `dead`, `pending`, `retrying` or `held`.
    #[schema(examples("dead"))]
    pub state: String,
    /// Why, in at most 1000 characters.
    #[schema(examples("the target was wrong"))]
    pub reason: String,
    /// Only those of events received at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("2026-01-31T12:00:00Z"))]
    pub since: Option<String>,
    /// Only those of events received before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("2026-01-31T13:00:00Z"))]
    pub until: Option<String>,
}

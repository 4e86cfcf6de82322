//! Deliveries to subscriptions' targets: the first deliverer of the worker engine (`host/engine/src/worker`).
//!
//! The [`Dispatcher`] is the handle of the stage. `targets` makes the attempts: each asks [`crate::policy`], then the
//! subscription's plugin (`pipeline`), makes the request, sends it, and classifies the response (`outcome`, which is
//! pure). A failure of the target or the plugin is data here, never an `Err`. A failure of neither, such as a policy
//! server that is down, or a shortage of descriptors or of the user's quota, holds the delivery and is not counted. A
//! plugin that fails repeatedly is not called for a while (`breaker`), and a target that is down, wants a pause or has a rate
//! limit is left alone (`gate`); both breakers are a `circuit`.

mod answer;
mod attempt;
mod breaker;
mod circuit;
mod clients;
mod credentials;
mod dispatcher;
mod dry_run;
mod failure;
mod functions;
mod gate;
mod handshake;
mod last_success;
mod oauth;
mod order;
mod outcome;
mod outputs;
mod pipeline;
mod request;
mod state_cache;
mod targets;

use std::time::Duration;

use http::HeaderValue;

use waypost_domain::RetrySchedule;

pub use breaker::BreakerState;
pub use dispatcher::{Dispatcher, StartError};
pub use dry_run::DryRun;
pub use functions::{Function, FunctionCall, FunctionError};
pub use gate::{GateHold, HeldBy, TargetPhase, TargetState};
#[cfg(test)]
pub(crate) use order::order;
#[cfg(test)]
pub(crate) use targets::{RULES, standing};

/// How much is delivered concurrently, and how long it may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most attempts at once, of all subscriptions.
    pub in_flight_max: usize,
    /// The most attempts at once for one subscription.
    pub subscription_in_flight_max: usize,
    /// While at most this many connections to targets are open, an idle one is kept for further requests.
    pub kept_connections_max: usize,
    /// The longest one attempt may take, unless its subscription says otherwise.
    pub attempt_timeout: Duration,
    /// The longest that connecting may take.
    pub connect_timeout: Duration,
    /// The DNS name that targets are asked to consent to.
    pub webhook_origin: HeaderValue,
    /// Waits between attempts, unless the subscription says otherwise.
    pub retry_schedule: RetrySchedule,
    /// The most bytes of a plugin's log that the story keeps of a call that did not fail.
    pub success_log_bytes: usize,
}

//! The input and the result of a plugin's call.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::state::State;
use waypost_domain::plugin::{Output, PluginRun, Verdict};
use waypost_domain::{Event, PluginDigest, PluginUse, Subscription};

/// The input of a call.
pub struct Call {
    /// The event.
    pub event: Event,
    /// The subscription that the delivery is for.
    pub subscription: Arc<Subscription>,
    /// The plugin's configuration and grants.
    pub plugin: Arc<PluginUse>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The time of the call.
    pub now: Timestamp,
    /// The state that earlier calls left.
    pub state: State,
    /// Which interfaces are called.
    pub steps: Steps,
    /// What the call is for.
    pub purpose: Purpose,
}

/// Which interfaces of a plugin are called, as far as it exports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// `policy`, `filter` and `transform`, until one says no.
    All,
    /// Only `policy`: the operator's.
    Policy,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A delivery.
    Deliver,
    /// A dry run: HTTP requests that are not safe (RFC 9110 §9.2.1) are refused.
    Try,
}

/// The result of a call.
pub struct CallResult {
    /// What goes into the history.
    pub run: PluginRun,
    /// What to send, where the verdict is [`Verdict::Transformed`].
    pub outputs: Vec<Output>,
    /// The state after the call; drop it if the call failed.
    pub state: State,
}

/// Returns the record of a call of which only the verdict is known.
pub(super) fn blank(
    digest: PluginDigest,
    attempt: u32,
    at: Timestamp,
    took: Duration,
    verdict: Verdict,
) -> PluginRun {
    PluginRun {
        digest,
        at,
        attempt,
        took,
        verdict,
        answered: Vec::new(),
        logs: Vec::new(),
        logs_dropped: 0,
        stderr: String::new(),
        memory_bytes: 0,
    }
}

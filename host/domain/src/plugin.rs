//! Plugins as values: the one that a subscription uses, what it did for an event, and what it rendered.
//!
//! `waypost_sandbox` runs them.

mod allow_host;
mod digest;
mod report;
mod run;
mod state;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use allow_host::{AllowHost, AllowHostError};
pub use digest::{DigestError, PluginDigest};
pub use report::{Import, Manifest, Offer, Report};
pub use run::{Failure, LogLevel, LogLine, Output, PluginResult, PluginRun, RenderedPayload, Verdict};
pub use state::{StateChange, StateMap, StateValue, apply};

/// The most outputs of one transform, each a delivery of its own: as many as `waypost_store::Progress::sent` has bits.
pub const OUTPUTS_MAX: usize = 64;

/// The plugin of a subscription, with its configuration and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginUse {
    /// Which module.
    pub digest: PluginDigest,
    /// Its configuration, checked against the manifest's schema and by the plugin itself.
    pub config: Map<String, Value>,
    /// The hosts that it may call by HTTP; none by default.
    pub allow_hosts: Vec<AllowHost>,
    /// What happens to a delivery when the plugin fails.
    pub on_error: OnError,
    /// Limits below the service's.
    pub limits: PluginLimits,
}

impl PluginUse {
    /// Returns the hash of the configuration.
    pub fn config_digest(&self) -> PluginDigest {
        PluginDigest::of(&serde_json::to_vec(&self.config).expect("a JSON object is JSON"))
    }
}

impl PluginUse {
    /// Makes a use of a module without a configuration or grants, with the service's limits.
    pub fn new(digest: PluginDigest) -> Self {
        Self {
            digest,
            config: Map::new(),
            allow_hosts: Vec::new(),
            on_error: OnError::default(),
            limits: PluginLimits::default(),
        }
    }

    /// Returns the same use of another module; if there was none, a use of that module alone.
    pub fn moved(known: Option<&Self>, digest: PluginDigest) -> Self {
        known.map_or_else(|| Self::new(digest), |known| Self { digest, ..known.clone() })
    }
}

/// What happens to a delivery whose plugin fails: a trap, a limit, `internal`, or a module that cannot be loaded.
///
/// The plugin's other errors have reactions of their own ([`Failure`]). A failing `policy` is always retried: an event
/// that it has not allowed is not sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It is retried as if the target had failed.
    #[default]
    Retry,
    /// It is skipped.
    Skip,
    /// The event is sent as it was received, unfiltered and untransformed.
    Deliver,
    /// It is given up.
    DeadLetter,
}

/// A subscription's own limits for its plugin; each can only lower the service's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PluginLimits {
    /// The longest that one delivery's run may take.
    pub time: Option<Duration>,
    /// The most bytes of memory, all linear memories together.
    pub memory_bytes: Option<usize>,
    /// The most bytes of output, all outputs together.
    pub output_bytes: Option<usize>,
    /// The most bytes of log lines in one delivery.
    pub log_bytes: Option<usize>,
    /// The most bytes of state, keys and values.
    pub state_bytes: Option<usize>,
    /// The most keys of state.
    pub state_keys: Option<usize>,
}

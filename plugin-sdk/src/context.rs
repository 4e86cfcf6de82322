//! What the host knows about a call beyond the event itself.

use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::host;

/// What the host knows about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The owner of the subscription.
    pub user: String,
    /// The subscription's UUID.
    pub subscription: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How long the call may take before the host ends it.
    pub deadline: Duration,
    /// The host's time of the call, in milliseconds since 1970.
    pub now_ms: u64,
    /// The W3C trace parent.
    pub trace_parent: Option<String>,
    /// Additions of later host versions; ignore names that you do not know.
    pub labels: Vec<(String, String)>,
}

impl Context {
    /// Returns the time of the call.
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.now_ms)
    }

    /// Returns a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Reads the subscription's configuration of this plugin: a JSON object, `{}` where none was given.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] when it does not have the shape of `T`. A schema in the [`Manifest`](crate::Manifest)
    /// refuses such a configuration before any event arrives.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&host::config()).map_err(|error| Error::InvalidConfig(error.to_string()))
    }

    /// Returns one member of the configuration: a string without its quotes, anything else as JSON text.
    pub fn config_member(&self, name: &str) -> Option<String> {
        host::config_member(name)
    }
}

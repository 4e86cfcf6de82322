use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words;

/// What a plugin did in an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PluginRun {
    /// The module.
    pub digest: String,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// The interfaces that answered, in order: `policy`, `filter`, `transform`.
    #[serde(default)]
    pub answered: Vec<String>,
    /// What followed from it.
    pub verdict: PluginVerdict,
    /// Why.
    pub reason: Option<String>,
    /// How many requests it made of the event; null unless it transformed it.
    pub outputs: Option<u32>,
    /// Its log lines, within their limit.
    #[serde(default)]
    pub logs: Vec<LogLine>,
    /// How many lines did not fit.
    #[serde(default)]
    pub logs_dropped: u32,
    /// The end of what it wrote to stderr and stdout: a panic's text.
    #[serde(default)]
    pub stderr: String,
    /// Its memory at the end, in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
}

words! {
    /// What followed from a plugin's call.
    PluginVerdict {
        /// The event is delivered unchanged.
        Deliver = "deliver",
        /// It is delivered as the plugin has made it.
        Transformed = "transformed",
        /// It is not allowed.
        Denied = "denied",
        /// It is left out.
        Skipped = "skipped",
        /// The plugin failed.
        Failed = "failed",
    }
}

/// A line of a plugin's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// How severe it is.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// Names with values.
    #[serde(default)]
    #[schema(value_type = Vec<Vec<String>>)]
    pub fields: Vec<(String, String)>,
}

words! {
    /// How severe a log line is.
    LogLevel {
        /// Everything.
        Trace = "trace",
        /// For the author.
        Debug = "debug",
        /// For the user.
        Info = "info",
        /// Something odd.
        Warn = "warn",
        /// A failure.
        Error = "error",
    }
}

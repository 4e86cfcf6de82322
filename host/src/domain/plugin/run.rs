//! One run of a plugin about one event, as the event's story keeps it.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PluginDigest;
use crate::domain::Event;

/// What a plugin did about an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRun {
    /// Which module.
    pub digest: PluginDigest,
    /// When it began.
    #[serde(with = "jiff::fmt::serde::timestamp::microsecond::required")]
    pub at: Timestamp,
    /// In which attempt: 1 for the first since the event was accepted or redelivered.
    pub attempt: u32,
    /// How long it took.
    pub took: Duration,
    /// What followed from it.
    pub verdict: Verdict,
    /// The interfaces that answered, in order: `policy`, `filter`, `transform`.
    pub answered: Vec<String>,
    /// Its log lines, within their limit.
    pub logs: Vec<LogLine>,
    /// How many lines did not fit.
    pub logs_dropped: u32,
    /// The end of what it wrote to stderr and stdout: a panic's text.
    pub stderr: String,
    /// Its linear memory at the end, in bytes.
    pub memory_bytes: u64,
}

impl PluginRun {
    /// Returns about how many bytes its texts have.
    pub fn size(&self) -> usize {
        let fields =
            |line: &LogLine| line.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let logs = self.logs.iter().map(|line| line.message.len() + fields(line)).sum::<usize>();
        self.stderr.len() + logs
    }
}

/// What a plugin decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The event is to be sent as it is.
    Deliver,
    /// It is to be sent as what the transform made of it.
    Transformed {
        /// How many outputs.
        outputs: u32,
    },
    /// Its policy says no.
    Denied {
        /// Why.
        reason: String,
    },
    /// There is nothing to send.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It failed.
    Failed(Failure),
}

/// How a plugin failed. Each has one reaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// It can never process this event: a dead letter.
    InvalidEvent(String),
    /// Its configuration is wrong: the subscription is disabled.
    InvalidConfig(String),
    /// Something that it needs is away: retried.
    Unavailable {
        /// What.
        message: String,
        /// The shortest wait that it asks for.
        retry_after: Option<Duration>,
    },
    /// Any other error of its own: as the subscription's `on_error` says, and counted by the breaker.
    Internal(String),
    /// It went over a limit; a sentence with the limit's name and value. As for [`Failure::Internal`].
    Limit(String),
    /// It trapped or panicked, or gave what no plugin may give. As for [`Failure::Internal`].
    Trap(String),
    /// It cannot be loaded or run here now. As for [`Failure::Internal`].
    Host(String),
}

impl Failure {
    /// Returns the failure in one sentence, as an outcome's reason: `plugin: time limit of 250 ms`.
    pub fn reason(&self) -> String {
        match self {
            Self::InvalidEvent(message) => format!("plugin: invalid event: {message}"),
            Self::InvalidConfig(message) => format!("plugin: invalid configuration: {message}"),
            Self::Unavailable { message, .. } => format!("plugin: unavailable: {message}"),
            Self::Internal(message) => format!("plugin: internal error: {message}"),
            Self::Limit(message) | Self::Trap(message) | Self::Host(message) => format!("plugin: {message}"),
        }
    }
}

/// One line that a plugin logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How severe.
    pub level: LogLevel,
    /// What.
    pub message: String,
    /// With which fields.
    pub fields: Vec<(String, String)>,
}

/// How severe a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For the author.
    Debug,
    /// What happened.
    Info,
    /// What may become an error.
    Warn,
    /// What went wrong.
    Error,
}

/// Something that a transform made to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// An event, encoded as the subscription wants it.
    Event(Event),
    /// Exactly this body.
    Raw {
        /// Its content type.
        content_type: String,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
}

/// What a delivery sends, fixed by the first success of its plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The module that made it.
    pub digest: PluginDigest,
    /// What it is; `None` is the event as it came.
    pub outputs: Option<Vec<Output>>,
}

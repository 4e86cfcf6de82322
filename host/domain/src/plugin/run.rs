//! One run of a plugin for one event, as the event's story keeps it.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::{PluginDigest, PluginUse};
use crate::Event;

/// The overhead of a log line besides its texts, in bytes.
const LINE_BYTES: usize = 16;

/// What a plugin did for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRun {
    /// Which module.
    pub digest: PluginDigest,
    /// When it began.
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
    /// Makes the record of a run that did not happen.
    pub fn failed(digest: PluginDigest, attempt: u32, at: Timestamp, failure: Failure) -> Self {
        Self {
            digest,
            at,
            attempt,
            took: Duration::ZERO,
            verdict: Verdict::Failed(failure),
            answered: Vec::new(),
            logs: Vec::new(),
            logs_dropped: 0,
            stderr: String::new(),
            memory_bytes: 0,
        }
    }

    /// Returns about how many bytes its texts have.
    pub fn size(&self) -> usize {
        self.stderr.len() + self.logs.iter().map(LogLine::size).sum::<usize>()
    }

    /// Keeps the end of its texts, at most `bytes`: the newest log lines, and the end of stderr in what they leave.
    pub fn keep_end(&mut self, bytes: usize) {
        let mut left = bytes;
        let fits = |line: &&LogLine| match left.checked_sub(line.size()) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let kept = self.logs.iter().rev().take_while(fits).count();
        let dropped = self.logs.len() - kept;
        self.logs.drain(..dropped);
        self.logs.shrink_to_fit();
        self.logs_dropped = self.logs_dropped.saturating_add(u32::try_from(dropped).unwrap_or(u32::MAX));
        let cut = self.stderr.len().saturating_sub(left);
        self.stderr.drain(..self.stderr.ceil_char_boundary(cut));
    }
}

/// What a plugin decided.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It can never process this event, which becomes a dead letter.
    InvalidEvent(String),
    /// Its configuration is wrong: the subscription is disabled.
    InvalidConfig(String),
    /// A dependency of it is unavailable: retried.
    Unavailable {
        /// What.
        message: String,
        /// The shortest wait that it asks for.
        retry_after: Option<Duration>,
    },
    /// Any other error of its own: handled as the subscription's `on_error` says, and counted by the breaker.
    Internal(String),
    /// It exceeded a limit; a sentence with the limit's name and value. As for [`Failure::Internal`].
    Limit(String),
    /// It trapped or panicked, or returned an invalid result. As for [`Failure::Internal`].
    Trap(String),
    /// It cannot be loaded or run here now, which is not its fault: the delivery is held, and nothing is counted.
    Host(String),
    /// It was not called, because it has failed repeatedly. As for [`Failure::Internal`].
    Breaker(String),
}

impl Failure {
    /// Returns the failure in one sentence, as an outcome's reason: `plugin: time limit of 250 ms`.
    pub fn reason(&self) -> String {
        match self {
            Self::InvalidEvent(message) => format!("plugin: invalid event: {message}"),
            Self::InvalidConfig(message) => format!("plugin: invalid configuration: {message}"),
            Self::Unavailable { message, .. } => format!("plugin: unavailable: {message}"),
            Self::Internal(message) => format!("plugin: internal error: {message}"),
            Self::Limit(message) | Self::Trap(message) | Self::Host(message) | Self::Breaker(message) => {
                format!("plugin: {message}")
            }
        }
    }
}

/// One line that a plugin logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// How severe.
    pub level: LogLevel,
    /// What.
    pub message: String,
    /// With which fields.
    pub fields: Vec<(String, String)>,
}

impl LogLine {
    /// Returns about how many bytes it has.
    pub fn size(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| name.len() + value.len());
        LINE_BYTES + self.message.len() + fields.sum::<usize>()
    }
}

/// How severe a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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

impl Output {
    fn size(&self) -> usize {
        match self {
            Self::Event(event) => event.size(),
            Self::Raw { content_type, headers, body } => {
                let headers = headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                content_type.len() + headers + body.len()
            }
        }
    }
}

/// The payload of a delivery, rendered by the first success of its plugin and frozen from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedPayload {
    /// The module that rendered it.
    pub digest: PluginDigest,
    /// The hash of the module's configuration.
    pub config: PluginDigest,
    /// Its result.
    pub result: PluginResult,
}

/// What a plugin makes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginResult {
    /// The event is sent as it was received.
    Event,
    /// These outputs are sent, at least one.
    Outputs(Vec<Output>),
    /// The plugin's policy says no.
    Denied {
        /// Why.
        reason: String,
    },
    /// There is nothing to send.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl RenderedPayload {
    /// Returns about how many bytes it holds.
    pub fn size(&self) -> usize {
        match &self.result {
            PluginResult::Event => 0,
            PluginResult::Denied { reason } | PluginResult::Skipped { reason } => reason.len(),
            PluginResult::Outputs(outputs) => outputs.iter().map(|output| 64 + output.size()).sum(),
        }
    }

    /// Makes the payload that `plugin` has rendered.
    pub fn by(plugin: &PluginUse, result: PluginResult) -> Self {
        Self { digest: plugin.digest, config: plugin.config_digest(), result }
    }

    /// Tells whether a subscription's present plugin, with its configuration, has rendered it.
    pub fn is_by(&self, plugin: Option<&PluginUse>) -> bool {
        plugin.is_some_and(|plugin| self.digest == plugin.digest && self.config == plugin.config_digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &[&str], stderr: &str) -> PluginRun {
        let failure = Failure::Host(String::new());
        let line = |message: &&str| LogLine {
            level: LogLevel::Info,
            message: (*message).to_owned(),
            fields: vec![("k".to_owned(), "v".to_owned())],
        };
        PluginRun {
            logs: lines.iter().map(line).collect(),
            logs_dropped: 1,
            stderr: stderr.to_owned(),
            ..PluginRun::failed(PluginDigest::of(b""), 1, Timestamp::UNIX_EPOCH, failure)
        }
    }

    #[test]
    fn the_end_of_a_run_is_kept_whole_lines_first() {
        let whole = run(&["first", "second", "third"], "pänic");
        let mut kept = whole.clone();
        kept.keep_end(whole.size());
        assert_eq!(kept, whole);
        kept.keep_end(whole.size() - 1);
        assert_eq!(kept, run(&["first", "second", "third"], "änic"));
        kept.keep_end(24 + 23 + 3);
        let messages: Vec<_> = kept.logs.iter().map(|line| line.message.as_str()).collect();
        assert_eq!((messages, kept.logs_dropped, kept.stderr.as_str()), (vec!["second", "third"], 2, "nic"));
        kept.keep_end(0);
        assert_eq!((kept.logs.len(), kept.logs_dropped, kept.stderr.as_str()), (0, 4, ""));
    }
}

//! The record of a plugin's run, in an entry of the history.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::choice::choice;
use super::digest::DigestRecord;
use super::{Error, timestamp};
use crate::domain::plugin::{Failure, LogLevel, LogLine, PluginRun, Verdict};

/// What a plugin did for an event.
#[derive(Serialize, Deserialize)]
pub(super) struct PluginRunRecord<'a> {
    #[serde(borrow)]
    digest: DigestRecord<'a>,
    /// Microseconds since 1970.
    at: i64,
    attempt: u32,
    took: Duration,
    #[serde(borrow)]
    verdict: VerdictRecord<'a>,
    answered: Cow<'a, [String]>,
    #[serde(borrow)]
    logs: Vec<LogLineRecord<'a>>,
    logs_dropped: u32,
    #[serde(borrow)]
    stderr: Cow<'a, str>,
    memory_bytes: u64,
}

/// What a plugin decided.
#[derive(Serialize, Deserialize)]
enum VerdictRecord<'a> {
    Deliver,
    Transformed {
        outputs: u32,
    },
    Denied {
        #[serde(borrow)]
        reason: Cow<'a, str>,
    },
    Skipped {
        #[serde(borrow)]
        reason: Cow<'a, str>,
    },
    #[serde(borrow)]
    Failed(FailureRecord<'a>),
}

/// How a plugin failed.
#[derive(Serialize, Deserialize)]
enum FailureRecord<'a> {
    #[serde(borrow)]
    InvalidEvent(Cow<'a, str>),
    #[serde(borrow)]
    InvalidConfig(Cow<'a, str>),
    Unavailable {
        #[serde(borrow)]
        message: Cow<'a, str>,
        retry_after: Option<Duration>,
    },
    #[serde(borrow)]
    Internal(Cow<'a, str>),
    #[serde(borrow)]
    Limit(Cow<'a, str>),
    #[serde(borrow)]
    Trap(Cow<'a, str>),
    #[serde(borrow)]
    Host(Cow<'a, str>),
    #[serde(borrow)]
    Breaker(Cow<'a, str>),
}

/// A line that a plugin logged.
#[derive(Serialize, Deserialize)]
struct LogLineRecord<'a> {
    level: LogLevelRecord,
    #[serde(borrow)]
    message: Cow<'a, str>,
    fields: Cow<'a, [(String, String)]>,
}

choice! {
    /// How severe a line is.
    LogLevelRecord of LogLevel { Trace, Debug, Info, Warn, Error, }
}

impl<'a> From<&'a PluginRun> for PluginRunRecord<'a> {
    fn from(run: &'a PluginRun) -> Self {
        let PluginRun {
            digest,
            at,
            attempt,
            took,
            verdict,
            answered,
            logs,
            logs_dropped,
            stderr,
            memory_bytes,
        } = run;
        Self {
            digest: (*digest).into(),
            at: at.as_microsecond(),
            attempt: *attempt,
            took: *took,
            verdict: verdict.into(),
            answered: answered.into(),
            logs: logs.iter().map(LogLineRecord::from).collect(),
            logs_dropped: *logs_dropped,
            stderr: stderr.into(),
            memory_bytes: *memory_bytes,
        }
    }
}

impl TryFrom<PluginRunRecord<'_>> for PluginRun {
    type Error = Error;

    fn try_from(record: PluginRunRecord<'_>) -> Result<Self, Error> {
        let PluginRunRecord {
            digest,
            at,
            attempt,
            took,
            verdict,
            answered,
            logs,
            logs_dropped,
            stderr,
            memory_bytes,
        } = record;
        Ok(Self {
            digest: digest.try_into()?,
            at: timestamp(at)?,
            attempt,
            took,
            verdict: verdict.into(),
            answered: answered.into_owned(),
            logs: logs.into_iter().map(LogLine::from).collect(),
            logs_dropped,
            stderr: stderr.into_owned(),
            memory_bytes,
        })
    }
}

impl<'a> From<&'a Verdict> for VerdictRecord<'a> {
    fn from(verdict: &'a Verdict) -> Self {
        match verdict {
            Verdict::Deliver => Self::Deliver,
            Verdict::Transformed { outputs } => Self::Transformed { outputs: *outputs },
            Verdict::Denied { reason } => Self::Denied { reason: reason.into() },
            Verdict::Skipped { reason } => Self::Skipped { reason: reason.into() },
            Verdict::Failed(failure) => Self::Failed(failure.into()),
        }
    }
}

impl From<VerdictRecord<'_>> for Verdict {
    fn from(record: VerdictRecord<'_>) -> Self {
        match record {
            VerdictRecord::Deliver => Self::Deliver,
            VerdictRecord::Transformed { outputs } => Self::Transformed { outputs },
            VerdictRecord::Denied { reason } => Self::Denied { reason: reason.into_owned() },
            VerdictRecord::Skipped { reason } => Self::Skipped { reason: reason.into_owned() },
            VerdictRecord::Failed(failure) => Self::Failed(failure.into()),
        }
    }
}

impl<'a> From<&'a Failure> for FailureRecord<'a> {
    fn from(failure: &'a Failure) -> Self {
        match failure {
            Failure::InvalidEvent(message) => Self::InvalidEvent(message.into()),
            Failure::InvalidConfig(message) => Self::InvalidConfig(message.into()),
            Failure::Unavailable { message, retry_after } => {
                Self::Unavailable { message: message.into(), retry_after: *retry_after }
            }
            Failure::Internal(message) => Self::Internal(message.into()),
            Failure::Limit(message) => Self::Limit(message.into()),
            Failure::Trap(message) => Self::Trap(message.into()),
            Failure::Host(message) => Self::Host(message.into()),
            Failure::Breaker(message) => Self::Breaker(message.into()),
        }
    }
}

impl From<FailureRecord<'_>> for Failure {
    fn from(record: FailureRecord<'_>) -> Self {
        match record {
            FailureRecord::InvalidEvent(message) => Self::InvalidEvent(message.into_owned()),
            FailureRecord::InvalidConfig(message) => Self::InvalidConfig(message.into_owned()),
            FailureRecord::Unavailable { message, retry_after } => {
                Self::Unavailable { message: message.into_owned(), retry_after }
            }
            FailureRecord::Internal(message) => Self::Internal(message.into_owned()),
            FailureRecord::Limit(message) => Self::Limit(message.into_owned()),
            FailureRecord::Trap(message) => Self::Trap(message.into_owned()),
            FailureRecord::Host(message) => Self::Host(message.into_owned()),
            FailureRecord::Breaker(message) => Self::Breaker(message.into_owned()),
        }
    }
}

impl<'a> From<&'a LogLine> for LogLineRecord<'a> {
    fn from(line: &'a LogLine) -> Self {
        let LogLine { level, message, fields } = line;
        Self { level: (*level).into(), message: message.into(), fields: fields.into() }
    }
}

impl From<LogLineRecord<'_>> for LogLine {
    fn from(record: LogLineRecord<'_>) -> Self {
        let LogLineRecord { level, message, fields } = record;
        Self { level: level.into(), message: message.into_owned(), fields: fields.into_owned() }
    }
}

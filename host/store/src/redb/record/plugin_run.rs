//! The record of a plugin's run, in an entry of the history.

use std::borrow::Cow;
use std::time::Duration;

use super::form::record;
use waypost_domain::plugin::{Failure, LogLevel, LogLine, PluginRun, Verdict};

record! {
    /// What a plugin did for an event.
    pub(super) struct PluginRunRecord<'a> of PluginRun {
        digest: Cow<'a, str>,
        /// Microseconds since 1970.
        at: i64,
        attempt: u32,
        took: Duration,
        verdict: VerdictRecord<'a>,
        answered: Cow<'a, [String]>,
        logs: Vec<LogLineRecord<'a>>,
        logs_dropped: u32,
        stderr: Cow<'a, str>,
        memory_bytes: u64,
    }
}

record! {
    /// What a plugin decided.
    enum VerdictRecord<'a> of Verdict {
        Deliver,
        Transformed { outputs: u32 },
        Denied { reason: Cow<'a, str> },
        Skipped { reason: Cow<'a, str> },
        Failed(FailureRecord<'a>),
    }
}

record! {
    /// How a plugin failed.
    enum FailureRecord<'a> of Failure {
        InvalidEvent(Cow<'a, str>),
        InvalidConfig(Cow<'a, str>),
        Unavailable { message: Cow<'a, str>, retry_after: Option<Duration> },
        Internal(Cow<'a, str>),
        Limit(Cow<'a, str>),
        Trap(Cow<'a, str>),
        Host(Cow<'a, str>),
        Breaker(Cow<'a, str>),
    }
}

record! {
    /// A line that a plugin logged.
    struct LogLineRecord<'a> of LogLine {
        level: LogLevelRecord,
        message: Cow<'a, str>,
        fields: Cow<'a, [(String, String)]>,
    }
}

record! {
    /// How severe a line is.
    enum LogLevelRecord of LogLevel {
        Trace,
        Debug,
        Info,
        Warn,
        Error,
    }
}

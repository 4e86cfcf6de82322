//! The record of an entry of the history: what happened to one delivery.
//!
//! Every delivery writes at least one. The texts stay borrowed while an entry is written, so that an attempt becomes a
//! record without an allocation.

use std::borrow::Cow;
use std::time::Duration;

use super::form::record;
use super::handler_run::HandlerRunRecord;
use super::plugin_run::PluginRunRecord;
use waypost_domain::{Answer, Attempt, Entry, Holder, Outcome};

record! {
    /// An entry; times are microseconds since 1970.
    pub(super) enum EntryRecord<'a> of Entry {
        Attempt(AttemptRecord<'a>),
        Redelivery { at: i64, by: Cow<'a, str> },
        Dropped { at: i64, reason: Cow<'a, str> },
        FilterFailed { at: i64, reason: Cow<'a, str> },
        Recovered { at: i64, by: Cow<'a, str> },
        Plugin(PluginRunRecord<'a>),
        Run(HandlerRunRecord<'a>),
        Held { since: i64, by: HolderRecord, reason: Cow<'a, str>, due: i64 },
    }
}

record! {
    /// An attempt.
    pub(super) struct AttemptRecord<'a> of Attempt {
        number: u32,
        at: i64,
        took: Duration,
        policy: Option<AnswerRecord<'a>>,
        target: Option<AnswerRecord<'a>>,
        outcome: OutcomeRecord<'a>,
    }
}

record! {
    /// The answer of a server.
    struct AnswerRecord<'a> of Answer {
        status: u16,
        body: Cow<'a, str>,
    }
}

record! {
    /// What follows from an attempt.
    enum OutcomeRecord<'a> of Outcome {
        Delivered,
        Denied,
        Skipped { reason: Cow<'a, str> },
        Retry { reason: Cow<'a, str>, due: i64 },
        Dead { reason: Cow<'a, str> },
    }
}

record! {
    /// What holds a delivery.
    pub(super) enum HolderRecord of Holder {
        Policy,
        Plugins,
        Store,
        Host,
        Quota,
    }
}

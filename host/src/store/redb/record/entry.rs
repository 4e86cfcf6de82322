//! The record of an entry of the history: what happened to one delivery.
//!
//! Every delivery writes at least one. The texts stay borrowed while an entry is written or read, so that an attempt
//! becomes a record without an allocation.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::choice::choice;
use super::handler_run::HandlerRunRecord;
use super::plugin_run::PluginRunRecord;
use super::{Error, timestamp};
use crate::domain::{Answer, Attempt, Entry, Holder, Outcome};

/// An entry; times are microseconds since 1970.
#[derive(Serialize, Deserialize)]
pub(super) enum EntryRecord<'a> {
    #[serde(borrow)]
    Attempt(AttemptRecord<'a>),
    Redelivery {
        at: i64,
        #[serde(borrow)]
        by: Cow<'a, str>,
    },
    Dropped {
        at: i64,
        #[serde(borrow)]
        reason: Cow<'a, str>,
    },
    FilterFailed {
        at: i64,
        #[serde(borrow)]
        reason: Cow<'a, str>,
    },
    Recovered {
        at: i64,
        #[serde(borrow)]
        by: Cow<'a, str>,
    },
    #[serde(borrow)]
    Plugin(PluginRunRecord<'a>),
    #[serde(borrow)]
    Run(HandlerRunRecord<'a>),
    Held {
        since: i64,
        by: HolderRecord,
        #[serde(borrow)]
        reason: Cow<'a, str>,
        due: i64,
    },
}

/// An attempt.
#[derive(Serialize, Deserialize)]
pub(super) struct AttemptRecord<'a> {
    number: u32,
    at: i64,
    took: Duration,
    #[serde(borrow)]
    policy: Option<AnswerRecord<'a>>,
    #[serde(borrow)]
    target: Option<AnswerRecord<'a>>,
    #[serde(borrow)]
    outcome: OutcomeRecord<'a>,
}

/// The answer of a server.
#[derive(Serialize, Deserialize)]
struct AnswerRecord<'a> {
    status: u16,
    #[serde(borrow)]
    body: Cow<'a, str>,
}

/// What follows from an attempt.
#[derive(Serialize, Deserialize)]
enum OutcomeRecord<'a> {
    Delivered,
    Denied,
    Skipped {
        #[serde(borrow)]
        reason: Cow<'a, str>,
    },
    Retry {
        #[serde(borrow)]
        reason: Cow<'a, str>,
        due: i64,
    },
    Dead {
        #[serde(borrow)]
        reason: Cow<'a, str>,
    },
}

choice! {
    /// What holds a delivery.
    HolderRecord of Holder { Policy, Plugins, Store, Host, Quota, }
}

impl<'a> From<&'a Entry> for EntryRecord<'a> {
    fn from(entry: &'a Entry) -> Self {
        match entry {
            Entry::Attempt(attempt) => Self::Attempt(attempt.into()),
            Entry::Redelivery { at, by } => Self::Redelivery { at: at.as_microsecond(), by: by.into() },
            Entry::Dropped { at, reason } => Self::Dropped { at: at.as_microsecond(), reason: reason.into() },
            Entry::FilterFailed { at, reason } => {
                Self::FilterFailed { at: at.as_microsecond(), reason: reason.into() }
            }
            Entry::Recovered { at, by } => Self::Recovered { at: at.as_microsecond(), by: by.into() },
            Entry::Plugin(run) => Self::Plugin((&**run).into()),
            Entry::Run(run) => Self::Run((&**run).into()),
            Entry::Held { since, by, reason, due } => Self::Held {
                since: since.as_microsecond(),
                by: (*by).into(),
                reason: reason.into(),
                due: due.as_microsecond(),
            },
        }
    }
}

impl TryFrom<EntryRecord<'_>> for Entry {
    type Error = Error;

    fn try_from(record: EntryRecord<'_>) -> Result<Self, Error> {
        Ok(match record {
            EntryRecord::Attempt(attempt) => Self::Attempt(attempt.try_into()?),
            EntryRecord::Redelivery { at, by } => {
                Self::Redelivery { at: timestamp(at)?, by: by.into_owned() }
            }
            EntryRecord::Dropped { at, reason } => {
                Self::Dropped { at: timestamp(at)?, reason: reason.into_owned() }
            }
            EntryRecord::FilterFailed { at, reason } => {
                Self::FilterFailed { at: timestamp(at)?, reason: reason.into_owned() }
            }
            EntryRecord::Recovered { at, by } => Self::Recovered { at: timestamp(at)?, by: by.into_owned() },
            EntryRecord::Plugin(run) => Self::Plugin(Box::new(run.try_into()?)),
            EntryRecord::Run(run) => Self::Run(Box::new(run.try_into()?)),
            EntryRecord::Held { since, by, reason, due } => Self::Held {
                since: timestamp(since)?,
                by: by.into(),
                reason: reason.into_owned(),
                due: timestamp(due)?,
            },
        })
    }
}

impl<'a> From<&'a Attempt> for AttemptRecord<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        let Attempt { number, at, took, policy, target, outcome } = attempt;
        Self {
            number: *number,
            at: at.as_microsecond(),
            took: *took,
            policy: policy.as_ref().map(AnswerRecord::from),
            target: target.as_ref().map(AnswerRecord::from),
            outcome: outcome.into(),
        }
    }
}

impl TryFrom<AttemptRecord<'_>> for Attempt {
    type Error = Error;

    fn try_from(record: AttemptRecord<'_>) -> Result<Self, Error> {
        let AttemptRecord { number, at, took, policy, target, outcome } = record;
        Ok(Self {
            number,
            at: timestamp(at)?,
            took,
            policy: policy.map(Answer::from),
            target: target.map(Answer::from),
            outcome: outcome.try_into()?,
        })
    }
}

impl<'a> From<&'a Answer> for AnswerRecord<'a> {
    fn from(answer: &'a Answer) -> Self {
        let Answer { status, body } = answer;
        Self { status: *status, body: body.into() }
    }
}

impl From<AnswerRecord<'_>> for Answer {
    fn from(record: AnswerRecord<'_>) -> Self {
        let AnswerRecord { status, body } = record;
        Self { status, body: body.into_owned() }
    }
}

impl<'a> From<&'a Outcome> for OutcomeRecord<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        match outcome {
            Outcome::Delivered => Self::Delivered,
            Outcome::Denied => Self::Denied,
            Outcome::Skipped { reason } => Self::Skipped { reason: reason.into() },
            Outcome::Retry { reason, due } => {
                Self::Retry { reason: reason.into(), due: due.as_microsecond() }
            }
            Outcome::Dead { reason } => Self::Dead { reason: reason.into() },
        }
    }
}

impl TryFrom<OutcomeRecord<'_>> for Outcome {
    type Error = Error;

    fn try_from(record: OutcomeRecord<'_>) -> Result<Self, Error> {
        Ok(match record {
            OutcomeRecord::Delivered => Self::Delivered,
            OutcomeRecord::Denied => Self::Denied,
            OutcomeRecord::Skipped { reason } => Self::Skipped { reason: reason.into_owned() },
            OutcomeRecord::Retry { reason, due } => {
                Self::Retry { reason: reason.into_owned(), due: timestamp(due)? }
            }
            OutcomeRecord::Dead { reason } => Self::Dead { reason: reason.into_owned() },
        })
    }
}

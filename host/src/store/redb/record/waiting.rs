//! The record of a delivery that waits for an attempt at a time of its own: for any but its first one.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::HolderRecord;
use super::{Error, body, read, timestamp, versioned};
use crate::domain::Holder;
use crate::store::{Progress, StoredState};

/// A delivery that waits.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store::redb) struct Waiting {
    /// The batch of the event, and its place there.
    pub(in crate::store::redb) batch: u128,
    pub(in crate::store::redb) index: u32,
    /// When the attempt is due.
    pub(in crate::store::redb) due: Timestamp,
    pub(in crate::store::redb) why: Why,
    pub(in crate::store::redb) progress: Progress,
    pub(in crate::store::redb) origin: Origin,
}

/// Why it waits.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store::redb) enum Why {
    /// It was redelivered or recovered, and has not been attempted since.
    Asked,
    /// An attempt failed.
    Failed { reason: String },
    /// Something is missing that is not its target's or plugin's.
    Held { by: Holder, reason: String },
}

/// What stays with a delivery from one state to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store::redb) struct Origin {
    /// When it was last redelivered or recovered.
    pub(in crate::store::redb) asked: Option<Timestamp>,
    /// Whether policy has ever let its user see the event.
    pub(in crate::store::redb) was_allowed: bool,
}

impl Why {
    /// Returns the state of a delivery that waits for this.
    pub(in crate::store::redb) fn state(&self) -> StoredState {
        match self {
            Self::Asked => StoredState::Pending,
            Self::Failed { .. } => StoredState::Retrying,
            Self::Held { .. } => StoredState::Held,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct WaitingRecord<'a> {
    batch: u128,
    index: u32,
    due: i64,
    #[serde(borrow)]
    why: WhyRecord<'a>,
    asked: Option<i64>,
    was_allowed: bool,
    progress: ProgressRecord,
}

#[derive(Serialize, Deserialize)]
enum WhyRecord<'a> {
    Asked,
    #[serde(borrow)]
    Failed(Cow<'a, str>),
    Held {
        by: HolderRecord,
        #[serde(borrow)]
        reason: Cow<'a, str>,
    },
}

/// How far a delivery has come.
#[derive(Serialize, Deserialize)]
pub(super) struct ProgressRecord {
    failed: u32,
    first_attempt: Option<i64>,
    allowed: bool,
    passed: bool,
    sent: u64,
    held: Option<i64>,
}

impl Waiting {
    /// Writes the record.
    pub(in crate::store::redb) fn encode(&self) -> Vec<u8> {
        let record = WaitingRecord {
            batch: self.batch,
            index: self.index,
            due: self.due.as_microsecond(),
            why: match &self.why {
                Why::Asked => WhyRecord::Asked,
                Why::Failed { reason } => WhyRecord::Failed(reason.into()),
                Why::Held { by, reason } => WhyRecord::Held { by: (*by).into(), reason: reason.into() },
            },
            asked: self.origin.asked.map(Timestamp::as_microsecond),
            was_allowed: self.origin.was_allowed,
            progress: self.progress.into(),
        };
        versioned(|buffer| postcard::to_extend(&record, buffer))
    }

    /// Reads the record.
    pub(in crate::store::redb) fn decode(row: &[u8]) -> Result<Self, Error> {
        let record: WaitingRecord<'_> = read(body(row)?)?;
        Ok(Self {
            batch: record.batch,
            index: record.index,
            due: timestamp(record.due)?,
            why: match record.why {
                WhyRecord::Asked => Why::Asked,
                WhyRecord::Failed(reason) => Why::Failed { reason: reason.into_owned() },
                WhyRecord::Held { by, reason } => Why::Held { by: by.into(), reason: reason.into_owned() },
            },
            progress: record.progress.try_into()?,
            origin: Origin {
                asked: record.asked.map(timestamp).transpose()?,
                was_allowed: record.was_allowed,
            },
        })
    }
}

impl From<Progress> for ProgressRecord {
    fn from(progress: Progress) -> Self {
        let Progress { failed, first_attempt, allowed, passed, sent, held } = progress;
        let [first_attempt, held] = [first_attempt, held].map(|time| time.map(Timestamp::as_microsecond));
        Self { failed, first_attempt, allowed, passed, sent, held }
    }
}

impl TryFrom<ProgressRecord> for Progress {
    type Error = Error;

    fn try_from(record: ProgressRecord) -> Result<Self, Error> {
        let ProgressRecord { failed, first_attempt, allowed, passed, sent, held } = record;
        let first_attempt = first_attempt.map(timestamp).transpose()?;
        let held = held.map(timestamp).transpose()?;
        Ok(Self { failed, first_attempt, allowed, passed, sent, held })
    }
}

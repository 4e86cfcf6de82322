//! The record of a delivery that waits for an attempt at a time of its own: for any but its first one.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{self, Error, timestamp};
use crate::domain::Holder;
use crate::store::{Progress, StoredState};

/// A delivery that waits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    /// The batch of the event, and its place there.
    pub(super) batch: u128,
    pub(super) index: u32,
    /// When the attempt is due.
    pub(super) due: Timestamp,
    pub(super) why: Why,
    pub(super) progress: Progress,
    pub(super) origin: Origin,
}

/// Why it waits.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Why {
    /// It was redelivered or recovered, and has not been attempted since.
    Asked,
    /// An attempt failed.
    Failed { reason: String },
    /// Something is missing that is not its target's or plugin's.
    Held { by: Holder, reason: String },
}

/// What stays with a delivery from one state to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// When it was last redelivered or recovered.
    pub(super) asked: Option<Timestamp>,
    /// Whether policy has ever let its user see the event.
    pub(super) was_allowed: bool,
}

impl Why {
    /// Returns the state of a delivery that waits for this.
    pub(super) fn state(&self) -> StoredState {
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

#[derive(Clone, Copy, Serialize, Deserialize)]
enum HolderRecord {
    Policy,
    Plugins,
    Store,
    Host,
    Quota,
}

#[derive(Serialize, Deserialize)]
struct ProgressRecord {
    failed: u32,
    first_attempt: Option<i64>,
    allowed: bool,
    passed: bool,
    sent: u64,
    held: Option<i64>,
}

fn holder_record(holder: Holder) -> HolderRecord {
    match holder {
        Holder::Policy => HolderRecord::Policy,
        Holder::Plugins => HolderRecord::Plugins,
        Holder::Store => HolderRecord::Store,
        Holder::Host => HolderRecord::Host,
        Holder::Quota => HolderRecord::Quota,
    }
}

fn holder(record: HolderRecord) -> Holder {
    match record {
        HolderRecord::Policy => Holder::Policy,
        HolderRecord::Plugins => Holder::Plugins,
        HolderRecord::Store => Holder::Store,
        HolderRecord::Host => Holder::Host,
        HolderRecord::Quota => Holder::Quota,
    }
}

impl Waiting {
    /// Writes the record.
    pub(super) fn encode(&self) -> Vec<u8> {
        let micros = |time: Option<Timestamp>| time.map(Timestamp::as_microsecond);
        let Progress { failed, first_attempt, allowed, passed, sent, held } = self.progress;
        let (first_attempt, held) = (micros(first_attempt), micros(held));
        let record = WaitingRecord {
            batch: self.batch,
            index: self.index,
            due: self.due.as_microsecond(),
            why: match &self.why {
                Why::Asked => WhyRecord::Asked,
                Why::Failed { reason } => WhyRecord::Failed(reason.into()),
                Why::Held { by, reason } => WhyRecord::Held { by: holder_record(*by), reason: reason.into() },
            },
            asked: micros(self.origin.asked),
            was_allowed: self.origin.was_allowed,
            progress: ProgressRecord { failed, first_attempt, allowed, passed, sent, held },
        };
        record::versioned(|buffer| postcard::to_extend(&record, buffer))
    }

    /// Reads the record.
    pub(super) fn decode(row: &[u8]) -> Result<Self, Error> {
        let record: WaitingRecord<'_> = record::read(record::body(row)?)?;
        let ProgressRecord { failed, first_attempt, allowed, passed, sent, held } = record.progress;
        let first_attempt = first_attempt.map(timestamp).transpose()?;
        let held = held.map(timestamp).transpose()?;
        Ok(Self {
            batch: record.batch,
            index: record.index,
            due: timestamp(record.due)?,
            why: match record.why {
                WhyRecord::Asked => Why::Asked,
                WhyRecord::Failed(reason) => Why::Failed { reason: reason.into_owned() },
                WhyRecord::Held { by, reason } => Why::Held { by: holder(by), reason: reason.into_owned() },
            },
            progress: Progress { failed, first_attempt, allowed, passed, sent, held },
            origin: Origin {
                asked: record.asked.map(timestamp).transpose()?,
                was_allowed: record.was_allowed,
            },
        })
    }
}

//! The record of a delivery that waits for an attempt at a time of its own: for any but its first one.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;

use super::entry::HolderRecord;
use super::form::{Form as _, record};
use super::{Error, body, read, versioned};
use crate::{Progress, StoredState};
use waypost_domain::Holder;

/// A delivery that waits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    /// The batch of the event, and its place there.
    pub(crate) batch: u128,
    pub(crate) index: u32,
    /// When the attempt is due.
    pub(crate) due: Timestamp,
    pub(crate) why: Why,
    pub(crate) progress: Progress,
    pub(crate) origin: Origin,
}

/// Why it waits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Why {
    /// It was redelivered or recovered, and has not been attempted since.
    Asked,
    /// An attempt failed.
    Failed { reason: String },
    /// Something is missing that is not its target's or plugin's.
    Held { by: Holder, reason: String },
}

/// What stays with a delivery from one state to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// When it was last redelivered or recovered.
    pub(crate) asked: Option<Timestamp>,
    /// Whether policy has ever let its user see the event.
    pub(crate) was_allowed: bool,
}

impl Why {
    /// Returns the state of a delivery that waits for this.
    pub(crate) fn state(&self) -> StoredState {
        match self {
            Self::Asked => StoredState::Pending,
            Self::Failed { .. } => StoredState::Retrying,
            Self::Held { .. } => StoredState::Held,
        }
    }
}

record! {
    struct WaitingRecord<'a> of Waiting {
        batch: u128,
        index: u32,
        due: i64,
        why: WhyRecord<'a>,
        origin: OriginRecord,
        progress: ProgressRecord,
    }
}

record! {
    enum WhyRecord<'a> of Why {
        Asked,
        Failed { reason: Cow<'a, str> },
        Held { by: HolderRecord, reason: Cow<'a, str> },
    }
}

record! {
    struct OriginRecord of Origin {
        asked: Option<i64>,
        was_allowed: bool,
    }
}

record! {
    /// How far a delivery has come.
    pub(super) struct ProgressRecord of Progress {
        failed: u32,
        first_attempt: Option<i64>,
        allowed: bool,
        passed: bool,
        sent: u64,
        held: Option<i64>,
    }
}

impl Waiting {
    /// Writes the record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        versioned(&WaitingRecord::of(self))
    }

    /// Reads the record.
    pub(crate) fn decode(row: &[u8]) -> Result<Self, Error> {
        read::<WaitingRecord<'_>>(body(row)?)?.read(&Bytes::new())
    }
}

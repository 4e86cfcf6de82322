//! The record of a recovery, as JSON.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::form::{Form as _, record};
use super::{Error, body, json};
use waypost_domain::Recovery;
use waypost_domain::recovery::{Mark, State};

record! {
    /// A recovery.
    struct RecoveryRecord<'a> of Recovery {
        subscription: Uuid,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        asked: Timestamp,
        by: Cow<'a, str>,
        end: Option<MarkRecord>,
        oldest: Option<MarkRecord>,
        position: Option<MarkRecord>,
        looked_at: u64,
        matched: u64,
        created: u64,
        failed: u64,
        state: StateRecord<'a>,
    }
}

record! {
    /// An event as a place in the log.
    struct MarkRecord of Mark {
        event: Uuid,
        received: Timestamp,
    }
}

record! {
    /// The state of a recovery.
    pub(super) enum StateRecord<'a> of State {
        Running,
        Done { at: Timestamp },
        Cancelled { at: Timestamp },
        Failed { at: Timestamp, reason: Cow<'a, str> },
    }
}

/// Writes a recovery.
pub(crate) fn encode_recovery(recovery: &Recovery) -> Vec<u8> {
    json(&RecoveryRecord::of(recovery))
}

/// Reads a recovery.
pub(crate) fn decode_recovery(record: &[u8]) -> Result<Recovery, Error> {
    serde_json::from_slice::<RecoveryRecord<'_>>(body(record)?)?.read(&Bytes::new())
}

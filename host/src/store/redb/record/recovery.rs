//! The record of a recovery, as JSON.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, SEALED, body, seal};
use crate::domain::recovery::{Mark, State};
use crate::domain::{EventId, Recovery, SubscriptionId};

/// A recovery.
#[derive(Serialize, Deserialize)]
struct RecoveryRecord<'a> {
    subscription: Uuid,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    asked: Timestamp,
    #[serde(borrow)]
    by: Cow<'a, str>,
    end: Option<MarkRecord>,
    oldest: Option<MarkRecord>,
    position: Option<MarkRecord>,
    looked_at: u64,
    matched: u64,
    created: u64,
    failed: u64,
    #[serde(borrow)]
    state: StateRecord<'a>,
}

/// An event as a place in the log.
#[derive(Serialize, Deserialize)]
struct MarkRecord {
    event: Uuid,
    received: Timestamp,
}

/// The state of a recovery.
#[derive(Serialize, Deserialize)]
enum StateRecord<'a> {
    Running,
    Done {
        at: Timestamp,
    },
    Cancelled {
        at: Timestamp,
    },
    Failed {
        at: Timestamp,
        #[serde(borrow)]
        reason: Cow<'a, str>,
    },
}

/// Writes a recovery.
pub(in crate::store::redb) fn encode_recovery(recovery: &Recovery) -> Vec<u8> {
    let mut buffer = vec![SEALED];
    serde_json::to_writer(&mut buffer, &RecoveryRecord::from(recovery))
        .expect("a recovery has only string keys");
    seal(buffer)
}

/// Reads a recovery.
pub(in crate::store::redb) fn decode_recovery(record: &[u8]) -> Result<Recovery, Error> {
    Ok(serde_json::from_slice::<RecoveryRecord<'_>>(body(record)?)?.into())
}

impl<'a> From<&'a Recovery> for RecoveryRecord<'a> {
    fn from(recovery: &'a Recovery) -> Self {
        let Recovery {
            subscription,
            since,
            until,
            asked,
            by,
            end,
            oldest,
            position,
            looked_at,
            matched,
            created,
            failed,
            state,
        } = recovery;
        Self {
            subscription: subscription.uuid(),
            since: *since,
            until: *until,
            asked: *asked,
            by: by.into(),
            end: end.map(MarkRecord::from),
            oldest: oldest.map(MarkRecord::from),
            position: position.map(MarkRecord::from),
            looked_at: *looked_at,
            matched: *matched,
            created: *created,
            failed: *failed,
            state: state.into(),
        }
    }
}

impl From<RecoveryRecord<'_>> for Recovery {
    fn from(record: RecoveryRecord<'_>) -> Self {
        let RecoveryRecord {
            subscription,
            since,
            until,
            asked,
            by,
            end,
            oldest,
            position,
            looked_at,
            matched,
            created,
            failed,
            state,
        } = record;
        Self {
            subscription: SubscriptionId::from_uuid(subscription),
            since,
            until,
            asked,
            by: by.into_owned(),
            end: end.map(Mark::from),
            oldest: oldest.map(Mark::from),
            position: position.map(Mark::from),
            looked_at,
            matched,
            created,
            failed,
            state: state.into(),
        }
    }
}

impl From<Mark> for MarkRecord {
    fn from(mark: Mark) -> Self {
        let Mark { event, received } = mark;
        Self { event: event.uuid(), received }
    }
}

impl From<MarkRecord> for Mark {
    fn from(record: MarkRecord) -> Self {
        let MarkRecord { event, received } = record;
        Self { event: EventId::from_uuid(event), received }
    }
}

impl<'a> From<&'a State> for StateRecord<'a> {
    fn from(state: &'a State) -> Self {
        match state {
            State::Running => Self::Running,
            State::Done { at } => Self::Done { at: *at },
            State::Cancelled { at } => Self::Cancelled { at: *at },
            State::Failed { at, reason } => Self::Failed { at: *at, reason: reason.into() },
        }
    }
}

impl From<StateRecord<'_>> for State {
    fn from(record: StateRecord<'_>) -> Self {
        match record {
            StateRecord::Running => Self::Running,
            StateRecord::Done { at } => Self::Done { at },
            StateRecord::Cancelled { at } => Self::Cancelled { at },
            StateRecord::Failed { at, reason } => Self::Failed { at, reason: reason.into_owned() },
        }
    }
}

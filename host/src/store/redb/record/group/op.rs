//! The records of operations.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::arrival::{ArrivalRecord, read_arrival};
use super::recover::RecoverRecord;
use super::rendering::{RenderingRecord, read_rendering};
use super::{IdRecord, List, TimeRecord, read_ids};
use crate::domain::{EventId, RecipientId, SubscriptionId};
use crate::store::redb::damage::DeadRow;
use crate::store::redb::group::{Op, PutSubscription, Redelivery, Settings};
use crate::store::redb::record::choice::choice;
use crate::store::redb::record::digest::DigestRecord;
use crate::store::redb::record::{
    Error, decode_module, decode_recovery, decode_subscription, encode_module, encode_recovery,
    encode_subscription,
};
use crate::store::{Arrival, Position, Purge, Quota};

/// An operation. New ones go to the end.
#[derive(Serialize, Deserialize)]
pub(super) enum OpRecord<'a> {
    Accept {
        #[serde(borrow)]
        arrivals: List<'a, Arrival, ArrivalRecord<'a>>,
        matched_at: u64,
    },
    #[serde(borrow)]
    PutSubscription(PutSubscriptionRecord<'a>),
    Redeliver {
        event: IdRecord,
        #[serde(borrow)]
        recipients: List<'a, RecipientId, IdRecord>,
        #[serde(borrow)]
        by: Cow<'a, str>,
        at: TimeRecord,
    },
    #[serde(borrow)]
    Freeze(Box<RenderingRecord<'a>>),
    /// With the record of its table.
    BeginRecovery(#[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>),
    #[serde(borrow)]
    Recover(RecoverRecord<'a>),
    Purge {
        #[serde(borrow)]
        purge: PurgeRecord<'a>,
        from: IdRecord,
    },
    CancelPending {
        subscription: IdRecord,
        limit: usize,
        at: TimeRecord,
    },
    /// With the record of its table.
    PutModule(#[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>),
    RemoveModule {
        #[serde(borrow)]
        digest: DigestRecord<'a>,
        uploaded: TimeRecord,
    },
    Bury {
        recipient: IdRecord,
        #[serde(borrow)]
        rows: List<'a, DeadRow, DeadRowRecord>,
        at: TimeRecord,
    },
    Forget {
        #[serde(borrow)]
        deleted: List<'a, SubscriptionId, IdRecord>,
    },
    Settings {
        dedup_window_ms: u64,
        user_bytes_max: u64,
    },
    Probe,
    ModulePart {
        #[serde(borrow)]
        digest: DigestRecord<'a>,
        offset: u64,
        #[serde(borrow, with = "serde_bytes")]
        bytes: &'a [u8],
    },
}

/// A subscription to be created or replaced, and a recovery that begins with it: the records of their tables.
#[derive(Serialize, Deserialize)]
pub(super) struct PutSubscriptionRecord<'a> {
    #[serde(borrow, with = "serde_bytes")]
    subscription: Cow<'a, [u8]>,
    replaces: Option<u64>,
    #[serde(borrow, with = "serde_bytes")]
    recovery: Option<Cow<'a, [u8]>>,
    quota: QuotaRecord,
}

choice! {
    /// Whether a write may be refused because of its user's quota.
    QuotaRecord of Quota { Holds, Exempt, }
}

/// Which events to remove.
#[derive(Serialize, Deserialize)]
pub(super) enum PurgeRecord<'a> {
    #[serde(borrow)]
    Events(List<'a, EventId, IdRecord>),
    Before(TimeRecord),
    Expired(TimeRecord),
}

/// A row of a pending delivery that cannot be loaded; times are microseconds since 1970, as in its key.
#[derive(Serialize, Deserialize)]
pub(super) enum DeadRowRecord {
    Fresh { batch: u128 },
    Due { due: i64, event: u128 },
}

impl<'a> From<&'a Op> for OpRecord<'a> {
    fn from(op: &'a Op) -> Self {
        match op {
            Op::Accept { arrivals, matched_at: Position(matched_at) } => {
                Self::Accept { arrivals: List::Borrowed(arrivals), matched_at: *matched_at }
            }
            Op::PutSubscription(put) => Self::PutSubscription((&**put).into()),
            Op::Redeliver(Redelivery { event, recipients, by, at }) => Self::Redeliver {
                event: event.into(),
                recipients: List::Borrowed(recipients),
                by: by.into(),
                at: (*at).into(),
            },
            Op::Freeze(rendering) => Self::Freeze(Box::new((&**rendering).into())),
            Op::BeginRecovery(recovery) => Self::BeginRecovery(encode_recovery(recovery).into()),
            Op::Recover(recover) => Self::Recover((&**recover).into()),
            Op::Purge { purge, from } => Self::Purge { purge: purge.into(), from: from.into() },
            Op::CancelPending { subscription, limit, at } => {
                Self::CancelPending { subscription: subscription.into(), limit: *limit, at: (*at).into() }
            }
            Op::PutModule(module) => Self::PutModule(encode_module(module).into()),
            Op::RemoveModule { digest, uploaded } => {
                Self::RemoveModule { digest: (*digest).into(), uploaded: (*uploaded).into() }
            }
            Op::Bury { recipient, rows, at } => {
                Self::Bury { recipient: recipient.into(), rows: List::Borrowed(rows), at: (*at).into() }
            }
            Op::Forget { deleted } => Self::Forget { deleted: List::Borrowed(deleted) },
            Op::Settings(Settings { dedup_window_ms, user_bytes_max }) => {
                Self::Settings { dedup_window_ms: *dedup_window_ms, user_bytes_max: *user_bytes_max }
            }
            Op::Probe => Self::Probe,
            Op::ModulePart { digest, offset, bytes } => {
                Self::ModulePart { digest: (*digest).into(), offset: *offset, bytes }
            }
        }
    }
}

/// Reads an operation; bodies and parts share the record's buffer.
pub(super) fn read_op(shared: &Bytes, record: OpRecord<'_>) -> Result<Op, Error> {
    Ok(match record {
        OpRecord::Accept { arrivals, matched_at } => Op::Accept {
            arrivals: arrivals.read(|arrival| read_arrival(shared, arrival))?,
            matched_at: Position(matched_at),
        },
        OpRecord::PutSubscription(put) => Op::PutSubscription(Box::new(put.try_into()?)),
        OpRecord::Redeliver { event, recipients, by, at } => Op::Redeliver(Redelivery {
            event: event.into(),
            recipients: read_ids(recipients)?,
            by: by.into_owned(),
            at: at.try_into()?,
        }),
        OpRecord::Freeze(rendering) => Op::Freeze(Box::new(read_rendering(shared, *rendering)?)),
        OpRecord::BeginRecovery(recovery) => Op::BeginRecovery(Box::new(decode_recovery(&recovery)?)),
        OpRecord::Recover(recover) => Op::Recover(Box::new(recover.try_into()?)),
        OpRecord::Purge { purge, from } => Op::Purge { purge: purge.try_into()?, from: from.into() },
        OpRecord::CancelPending { subscription, limit, at } => {
            Op::CancelPending { subscription: subscription.into(), limit, at: at.try_into()? }
        }
        OpRecord::PutModule(module) => Op::PutModule(Box::new(decode_module(&module)?)),
        OpRecord::RemoveModule { digest, uploaded } => {
            Op::RemoveModule { digest: digest.try_into()?, uploaded: uploaded.try_into()? }
        }
        OpRecord::Bury { recipient, rows, at } => Op::Bury {
            recipient: recipient.into(),
            rows: rows.read(|row| Ok(row.into()))?,
            at: at.try_into()?,
        },
        OpRecord::Forget { deleted } => Op::Forget { deleted: read_ids(deleted)? },
        OpRecord::Settings { dedup_window_ms, user_bytes_max } => {
            Op::Settings(Settings { dedup_window_ms, user_bytes_max })
        }
        OpRecord::Probe => Op::Probe,
        OpRecord::ModulePart { digest, offset, bytes } => {
            Op::ModulePart { digest: digest.try_into()?, offset, bytes: shared.slice_ref(bytes) }
        }
    })
}

impl<'a> From<&'a PutSubscription> for PutSubscriptionRecord<'a> {
    fn from(put: &'a PutSubscription) -> Self {
        let PutSubscription { subscription, replaces, recovery, quota } = put;
        Self {
            // Its revision is the position at which the group will be applied.
            subscription: encode_subscription(subscription, Position::default()).into(),
            replaces: replaces.map(|Position(replaces)| replaces),
            recovery: recovery.as_ref().map(|recovery| encode_recovery(recovery).into()),
            quota: (*quota).into(),
        }
    }
}

impl TryFrom<PutSubscriptionRecord<'_>> for PutSubscription {
    type Error = Error;

    fn try_from(record: PutSubscriptionRecord<'_>) -> Result<Self, Error> {
        let PutSubscriptionRecord { subscription, replaces, recovery, quota } = record;
        let stored = decode_subscription(&subscription)?;
        Ok(Self {
            subscription: Arc::unwrap_or_clone(stored.subscription),
            replaces: replaces.map(Position),
            recovery: recovery.map(|recovery| decode_recovery(&recovery)).transpose()?,
            quota: quota.into(),
        })
    }
}

impl<'a> From<&'a Purge> for PurgeRecord<'a> {
    fn from(purge: &'a Purge) -> Self {
        match purge {
            Purge::Events(events) => Self::Events(List::Borrowed(events)),
            Purge::Before(time) => Self::Before((*time).into()),
            Purge::Expired(time) => Self::Expired((*time).into()),
        }
    }
}

impl TryFrom<PurgeRecord<'_>> for Purge {
    type Error = Error;

    fn try_from(record: PurgeRecord<'_>) -> Result<Self, Error> {
        Ok(match record {
            PurgeRecord::Events(events) => Self::Events(read_ids(events)?),
            PurgeRecord::Before(time) => Self::Before(time.try_into()?),
            PurgeRecord::Expired(time) => Self::Expired(time.try_into()?),
        })
    }
}

impl From<&DeadRow> for DeadRowRecord {
    fn from(row: &DeadRow) -> Self {
        match *row {
            DeadRow::Fresh { batch } => Self::Fresh { batch },
            DeadRow::Due { due, event } => Self::Due { due, event },
        }
    }
}

impl From<DeadRowRecord> for DeadRow {
    fn from(record: DeadRowRecord) -> Self {
        match record {
            DeadRowRecord::Fresh { batch } => Self::Fresh { batch },
            DeadRowRecord::Due { due, event } => Self::Due { due, event },
        }
    }
}

//! The records of operations.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::arrival::ArrivalRecord;
use super::job::AdvanceJobRecord;
use super::recover::RecoverRecord;
use super::rendering::RenderingRecord;
use crate::redb::damage::DeadRow;
use crate::redb::group::{Audited, ExpireBacklog, Op, PutSubscription, Redelivery, Settings};
use crate::redb::record::form::{Form, List, Nanos, forms, record};
use crate::redb::record::{
    Error, decode_job, decode_module, decode_recovery, decode_subscription, encode_job, encode_module,
    encode_recovery, encode_subscription,
};
use crate::{AnnouncementPlace, Arrival, CountLimits, Module, Position, Purge, Quota, StoredState};
use waypost_domain::{EventId, Job, RecipientId, Recovery, Subscription, SubscriptionId, TokenId};

record! {
    /// An operation. New ones go to the end. Subscriptions, recoveries and modules are the records of their tables.
    pub(super) enum OpRecord<'a> of Op {
        Accept {
            #[serde(borrow)]
            arrivals: List<'a, Arrival, ArrivalRecord<'a>>,
            matched_at: u64,
        },
        #[serde(borrow)]
        PutSubscription(PutSubscriptionRecord<'a>),
        Redeliver(RedeliveryRecord<'a>),
        #[serde(borrow)]
        Freeze(Box<RenderingRecord<'a>>),
        BeginRecovery(#[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>),
        Recover(RecoverRecord<'a>),
        Purge { purge: PurgeRecord<'a>, from: u128 },
        CancelPending { subscription: u128, limit: usize, at: Nanos },
        PutModule(#[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>),
        RemoveModule { digest: Cow<'a, str>, uploaded: Nanos },
        Bury { recipient: u128, rows: List<'a, DeadRow, DeadRowRecord>, at: Nanos },
        Forget { deleted: List<'a, SubscriptionId, u128> },
        Settings(SettingsRecord),
        Probe,
        ModulePart {
            digest: Cow<'a, str>,
            offset: u64,
            #[serde(borrow, with = "serde_bytes")]
            bytes: &'a [u8],
        },
        PutToken {
            #[serde(borrow, with = "serde_bytes")]
            token: Cow<'a, [u8]>,
            most: u32,
        },
        RemoveToken { id: u128 },
        TokensUsed(List<'a, (TokenId, Timestamp), (u128, Nanos)>),
        #[serde(borrow)]
        Audited(Box<AuditedRecord<'a>>),
        PurgeAudit { before: Nanos },
        BeginRecoveryWithin {
            #[serde(borrow, with = "serde_bytes")]
            recovery: Cow<'a, [u8]>,
            limits: CountLimitsRecord,
        },
        BeginJob {
            #[serde(borrow, with = "serde_bytes")]
            job: Cow<'a, [u8]>,
            limits: CountLimitsRecord,
        },
        #[serde(borrow)]
        AdvanceJob(Box<AdvanceJobRecord<'a>>),
        AcceptOnce {
            #[serde(borrow)]
            arrivals: List<'a, Arrival, ArrivalRecord<'a>>,
            matched_at: u64,
            key: u128,
        },
        ExpireBacklog(ExpireBacklogRecord),
        Announce {
            #[serde(borrow)]
            arrivals: List<'a, Arrival, ArrivalRecord<'a>>,
            matched_at: u64,
            rows: Option<(AnnouncementPlaceRecord, AnnouncementPlaceRecord)>,
        },
    }
}

record! {
    /// Where a delivery stands.
    pub(super) enum StoredStateRecord of StoredState {
        Pending,
        Retrying,
        Held,
        Delivered,
        Denied,
        Skipped,
        Dead,
    }
}

record! {
    /// A request to give up what waits for a disabled subscription.
    pub(super) struct ExpireBacklogRecord of ExpireBacklog {
        recipient: u128,
        state: StoredStateRecord,
        before: Nanos,
        from: u128,
        at: Nanos,
        rows: u32,
    }
}

record! {
    /// The place of an announcement.
    pub(super) struct AnnouncementPlaceRecord of AnnouncementPlace {
        group: u64,
        index: u32,
    }
}

record! {
    /// An operation, with the entry of the audit, which is the record of its table.
    pub(super) struct AuditedRecord<'a> of Audited {
        #[serde(borrow)]
        op: OpRecord<'a>,
        #[serde(borrow, with = "serde_bytes")]
        entry: Cow<'a, [u8]>,
    }
}

record! {
    /// A subscription to be created or replaced, and a recovery that begins with it.
    pub(crate) struct PutSubscriptionRecord<'a> of PutSubscription {
        #[serde(borrow, with = "serde_bytes")]
        subscription: Cow<'a, [u8]>,
        replaces: Option<u64>,
        #[serde(borrow, with = "serde_bytes")]
        recovery: Option<Cow<'a, [u8]>>,
        quota: QuotaRecord,
    }
}

record! {
    /// Whether a write may be refused because of its user's quota.
    enum QuotaRecord of Quota {
        Holds,
        Exempt,
        New(CountLimitsRecord),
    }
}

record! {
    /// How much of what is counted each user may have.
    pub(super) struct CountLimitsRecord of CountLimits {
        subscriptions: u32,
        recoveries: u32,
        tokens: u32,
    }
}

record! {
    /// A request to send an event again.
    pub(super) struct RedeliveryRecord<'a> of Redelivery {
        event: u128,
        recipients: List<'a, RecipientId, u128>,
        by: Cow<'a, str>,
        at: Nanos,
    }
}

record! {
    /// Which events to remove.
    pub(super) enum PurgeRecord<'a> of Purge {
        Events(List<'a, EventId, u128>),
        Before(Nanos),
        Expired(Nanos),
    }
}

record! {
    /// A row of a pending delivery that cannot be loaded; times are microseconds since 1970, as in its key.
    pub(super) enum DeadRowRecord of DeadRow {
        Fresh { batch: u128 },
        Due { due: i64, event: u128 },
    }
}

record! {
    /// What decides about writes besides the tables.
    pub(super) struct SettingsRecord of Settings {
        dedup_window_ms: u64,
        user_bytes_max: u64,
    }
}

forms! {
    // Its revision is the position at which the group will be applied.
    Cow<'a, [u8]> => Subscription: |value| encode_subscription(value, Position::default()).into(),
        |record, _| Ok(Arc::unwrap_or_clone(decode_subscription(&record)?.subscription));
    Cow<'a, [u8]> => Recovery: |value| encode_recovery(value).into(), |record, _| decode_recovery(&record);
    Cow<'a, [u8]> => Box<Recovery>: |value| encode_recovery(value).into(),
        |record, _| decode_recovery(&record).map(Box::new);
    Cow<'a, [u8]> => Box<Job>: |value| encode_job(value).into(), |record, _| decode_job(&record).map(Box::new);
    Cow<'a, [u8]> => Box<Module>: |value| encode_module(value).into(),
        |record, _| decode_module(&record).map(Box::new);
}

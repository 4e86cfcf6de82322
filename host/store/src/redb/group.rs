//! A group of writes: what one commit applies, as plain data. What an operation does is in the tables' own modules.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;

use super::damage::DeadRow;
use super::record;
use crate::{
    Accepted, AnnouncementPlace, Arrival, CountLimits, DELIVERY_BYTES, Error, JobStep, Module, Position,
    Purge, PurgeReport, Put, Quota, Release, Rendering, Settlement, Step, StoredState,
};
use waypost_domain::job::{Job, Kind};
use waypost_domain::{
    AuditEntry, EventId, PluginDigest, RecipientId, Recovery, Subscription, SubscriptionId, Token, TokenId,
};

/// The content of one commit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub(super) ops: Vec<Op>,
    /// Ends of attempts. They are applied after the operations.
    pub(super) ends: Vec<End>,
}

/// A write whose caller waits until it is durable.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    /// Events that were matched with all changes of subscriptions up to a position.
    Accept {
        arrivals: Vec<Arrival>,
        matched_at: Position,
    },
    PutSubscription(Box<PutSubscription>),
    Redeliver(Redelivery),
    Freeze(Box<Rendering>),
    BeginRecovery(Box<Recovery>),
    Recover(Box<Recover>),
    Purge {
        purge: Purge,
        from: EventId,
    },
    CancelPending {
        subscription: SubscriptionId,
        limit: usize,
        at: Timestamp,
    },
    /// A part of a module's bytes, on the way through a journal.
    ModulePart {
        digest: PluginDigest,
        offset: u64,
        bytes: Bytes,
    },
    PutModule(Box<Module>),
    /// Removes a module that was uploaded last at this time.
    RemoveModule {
        digest: PluginDigest,
        uploaded: Timestamp,
    },
    Bury {
        recipient: RecipientId,
        rows: Vec<DeadRow>,
        at: Timestamp,
    },
    Forget {
        deleted: Vec<SubscriptionId>,
    },
    Settings(Settings),
    Probe,
    /// Writes a token or session.
    PutToken {
        token: Box<Token>,
        /// The most that its user may have.
        most: u32,
    },
    /// Removes a token with its sessions, or a session.
    RemoveToken {
        id: TokenId,
    },
    TokensUsed(Vec<(TokenId, Timestamp)>),
    /// An operation, with an entry of the audit if it does something.
    Audited(Box<Audited>),
    PurgeAudit {
        before: Timestamp,
    },
    /// A recovery that counts among those of its subscription's user.
    BeginRecoveryWithin {
        recovery: Box<Recovery>,
        limits: CountLimits,
    },
    /// A job that counts among the recoveries of its subscription's user.
    BeginJob {
        job: Box<Job>,
        limits: CountLimits,
    },
    AdvanceJob(Box<AdvanceJob>),
    /// Events whose producer knows the request by a key: one that comes with it again logs nothing again.
    AcceptOnce {
        arrivals: Vec<Arrival>,
        matched_at: Position,
        key: u128,
    },
    ExpireBacklog(ExpireBacklog),
    /// Operator events, instead of the announcements from the first to the last of `rows`; without these, of something that
    /// is not kept.
    Announce {
        arrivals: Vec<Arrival>,
        matched_at: Position,
        rows: Option<(AnnouncementPlace, AnnouncementPlace)>,
    },
}

/// An operation that somebody answers for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Audited {
    pub(super) op: Op,
    pub(super) entry: AuditEntry,
}

/// A subscription to be created or replaced.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PutSubscription {
    pub(super) subscription: Subscription,
    /// The version that it was made from; `None` for a new one.
    pub(super) replaces: Option<Position>,
    /// A recovery that begins with it.
    pub(super) recovery: Option<Recovery>,
    pub(super) quota: Quota,
}

/// What decides about writes besides the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// See [`Options::dedup_window`](super::Options), in milliseconds.
    pub(super) dedup_window_ms: u64,
    /// See [`Options::user_bytes_max`](super::Options).
    pub(super) user_bytes_max: u64,
}

/// What it takes to know an event again by the key of its producer, in bytes.
const KEY_BYTES: usize = 128;
/// The overhead of a write, in bytes.
const OP_BYTES: usize = 256;
/// About the size of a recovery's record, in bytes.
const RECOVERY_BYTES: usize = 1024;

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dedup_window_ms, user_bytes_max } = self;
        write!(f, "dedup_window = {dedup_window_ms} ms, user_bytes_max = {user_bytes_max}")
    }
}

impl Op {
    /// Returns the operation itself, without what is noted of it.
    pub(super) fn inner(&self) -> &Self {
        match self {
            Self::Audited(audited) => &audited.op,
            op => op,
        }
    }

    /// Tells whether it logs events.
    pub(super) fn is_accept(&self) -> bool {
        matches!(self, Self::Accept { .. } | Self::AcceptOnce { .. })
    }

    /// Returns about how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        OP_BYTES
            + match self {
                Self::Accept { arrivals, .. } | Self::Announce { arrivals, .. } => {
                    arrivals.iter().map(Arrival::size).sum()
                }
                Self::AcceptOnce { arrivals, .. } => {
                    arrivals.iter().map(|arrival| arrival.size() + KEY_BYTES).sum()
                }
                Self::Freeze(rendering) => rendering.size(),
                Self::Redeliver(redelivery) => redelivery.recipients.len() * DELIVERY_BYTES,
                Self::Recover(recover) => recover.size(),
                Self::PutSubscription(put) => {
                    // Whatever its revision will be.
                    record::encode_subscription(&put.subscription, Position::default()).len()
                        + put.recovery.as_ref().map_or(0, |_| RECOVERY_BYTES)
                }
                Self::BeginRecovery(_) | Self::BeginRecoveryWithin { .. } => RECOVERY_BYTES,
                Self::BeginJob { job, .. } => record::encode_job(job).len(),
                Self::ModulePart { bytes, .. } => bytes.len(),
                Self::PutModule(module) => record::encode_module(module).len(),
                Self::Forget { deleted } => deleted.len() * size_of::<SubscriptionId>(),
                Self::Bury { rows, .. } => rows.len() * size_of::<DeadRow>(),
                Self::PutToken { token, .. } => record::encode_token(token).len(),
                Self::TokensUsed(uses) => uses.len() * size_of::<(TokenId, Timestamp)>(),
                Self::Audited(audited) => audited.op.size() + record::encode_audit(&audited.entry).len(),
                Self::AdvanceJob(_)
                | Self::ExpireBacklog(_)
                | Self::Purge { .. }
                | Self::CancelPending { .. }
                | Self::RemoveModule { .. }
                | Self::Settings(_)
                | Self::RemoveToken { .. }
                | Self::PurgeAudit { .. }
                | Self::Probe => 0,
            }
    }

    /// Tells whether it comes from outside, and may therefore be refused when there is no room. The service's own
    /// operations have few callers, each of which waits for its answer.
    pub(super) fn is_asked_for(&self) -> bool {
        match self {
            Self::Accept { .. }
            | Self::AcceptOnce { .. }
            | Self::Freeze(_)
            | Self::PutSubscription(_)
            | Self::Redeliver(_)
            | Self::BeginRecovery(_)
            | Self::BeginRecoveryWithin { .. }
            | Self::BeginJob { .. }
            | Self::ModulePart { .. }
            | Self::PutToken { .. }
            | Self::PutModule(_) => true,
            Self::Audited(audited) => audited.op.is_asked_for(),
            Self::Recover(_)
            | Self::Announce { .. }
            | Self::AdvanceJob(_)
            | Self::ExpireBacklog(_)
            | Self::Purge { .. }
            | Self::CancelPending { .. }
            | Self::Forget { .. }
            | Self::Bury { .. }
            | Self::RemoveModule { .. }
            | Self::Settings(_)
            | Self::RemoveToken { .. }
            | Self::TokensUsed(_)
            | Self::PurgeAudit { .. }
            | Self::Probe => false,
        }
    }
}

/// A request to send an event again.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Redelivery {
    pub(super) event: EventId,
    pub(super) recipients: Vec<RecipientId>,
    pub(super) by: String,
    pub(super) at: Timestamp,
}

/// A request to advance a recovery.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recover {
    pub(super) subscription: SubscriptionId,
    pub(super) asked: Timestamp,
    pub(super) step: Step,
    pub(super) at: Timestamp,
}

/// A request to give up what waits for a disabled subscription, in one state, since before a time: at most so many rows, of
/// the events from one on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ExpireBacklog {
    pub(super) recipient: RecipientId,
    pub(super) state: StoredState,
    pub(super) before: Timestamp,
    pub(super) from: EventId,
    pub(super) at: Timestamp,
    pub(super) rows: u32,
}

/// A request to advance a job.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AdvanceJob {
    pub(super) subscription: SubscriptionId,
    pub(super) kind: Kind,
    pub(super) asked: Timestamp,
    pub(super) step: JobStep,
    pub(super) at: Timestamp,
}

impl Recover {
    /// Returns about how many bytes it holds.
    fn size(&self) -> usize {
        match &self.step {
            Step::Advance(scan) => scan.matched.len() * size_of::<EventId>(),
            Step::Begin | Step::End(_) => 0,
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// With an outcome.
    Settled(Settlement),
    /// Without one that counts.
    Released(Release),
}

impl End {
    /// Returns about how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Settled(settlement) => settlement.size(),
            Self::Released(release) => size_of::<Release>() + release.reason.len(),
        }
    }
}

/// What an operation, or the end of an attempt, returns.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Accepted(Accepted),
    Put(Put),
    Unit,
    Flag(bool),
    /// And where the purge goes on, if it is not over.
    PurgeReport(PurgeReport, Option<EventId>),
    /// How many deliveries were given up, and where to go on, if it is not over.
    Expired(u64, Option<EventId>),
    Recovery(Option<Box<Recovery>>),
    Job(Option<Box<Job>>),
    Forgotten(Vec<SubscriptionId>),
}

/// What an operation returns; an error where nothing was done.
pub(super) type Answer = Result<Value, Error>;

impl Value {
    /// Tells whether something was done.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Put(put) => matches!(put, Put::Done(_)),
            Self::Flag(done) => *done,
            Self::Recovery(found) => found.is_some(),
            Self::Job(found) => found.is_some(),
            Self::PurgeReport(report, _) => report.purged > 0,
            Self::Expired(expired, _) => *expired > 0,
            Self::Accepted(_) | Self::Unit | Self::Forgotten(_) => true,
        }
    }

    pub(super) fn accepted(self) -> Accepted {
        let Self::Accepted(accepted) = self else { unreachable!("an accept returns this") };
        accepted
    }

    pub(super) fn put(self) -> Put {
        let Self::Put(put) = self else { unreachable!("a put returns this") };
        put
    }

    pub(super) fn flag(self) -> bool {
        let Self::Flag(flag) = self else { unreachable!("the operation returns a flag") };
        flag
    }

    pub(super) fn purge_report(self) -> (PurgeReport, Option<EventId>) {
        let Self::PurgeReport(report, next) = self else { unreachable!("a purge returns a report") };
        (report, next)
    }

    pub(super) fn expired(self) -> (u64, Option<EventId>) {
        let Self::Expired(expired, next) = self else { unreachable!("an expiry returns a number") };
        (expired, next)
    }

    pub(super) fn recovery(self) -> Option<Recovery> {
        let Self::Recovery(recovery) = self else { unreachable!("a step returns the recovery") };
        recovery.map(|recovery| *recovery)
    }

    pub(super) fn job(self) -> Option<Job> {
        let Self::Job(job) = self else { unreachable!("a step returns the job") };
        job.map(|job| *job)
    }

    pub(super) fn forgotten(self) -> Vec<SubscriptionId> {
        let Self::Forgotten(forgotten) = self else { unreachable!("the operation returns subscriptions") };
        forgotten
    }
}

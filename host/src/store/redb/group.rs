//! A group of writes: what one commit applies, as plain data. What an operation does is in the tables' own modules.

use jiff::Timestamp;

use super::damage::DeadRow;
use super::modules;
use super::record;
use super::recover::Recover;
use crate::domain::{EventId, RecipientId, Recovery, Subscription, SubscriptionId};
use crate::store::{
    Arrival, DELIVERY_BYTES, Error, Purge, PurgeReport, Quota, Release, Rendering, Settlement,
};

/// The content of one commit.
#[derive(Default)]
pub(super) struct Group {
    pub(super) ops: Vec<Op>,
    /// Ends of attempts. They are applied after the operations.
    pub(super) ends: Vec<End>,
}

/// A write whose caller waits until it is durable.
pub(super) enum Op {
    Accept { arrivals: Vec<Arrival> },
    PutSubscription { subscription: Box<Subscription>, quota: Quota },
    Redeliver(Redelivery),
    Freeze(Box<Rendering>),
    BeginRecovery { recovery: Box<Recovery>, subscription: Option<Box<Subscription>> },
    Recover(Box<Recover>),
    Purge { purge: Purge, from: EventId },
    CancelPending { subscription: SubscriptionId, limit: usize, at: Timestamp },
    Module(Box<modules::Change>),
    Bury { recipient: RecipientId, rows: Vec<DeadRow>, at: Timestamp },
    Forget { deleted: Vec<SubscriptionId> },
    Probe,
}

/// The overhead of a write, in bytes.
const OP_BYTES: usize = 256;
/// About the size of a recovery's record, in bytes.
const RECOVERY_BYTES: usize = 1024;

impl Op {
    /// Returns about how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        OP_BYTES
            + match self {
                Self::Accept { arrivals } => arrivals.iter().map(Arrival::size).sum(),
                Self::Freeze(rendering) => rendering.size(),
                Self::Redeliver(redelivery) => redelivery.recipients.len() * DELIVERY_BYTES,
                Self::Recover(recover) => recover.size(),
                Self::PutSubscription { subscription, .. } => subscription_bytes(subscription),
                Self::BeginRecovery { subscription, .. } => {
                    RECOVERY_BYTES + subscription.as_deref().map_or(0, subscription_bytes)
                }
                Self::Module(change) => change.size(),
                Self::Forget { deleted } => deleted.len() * size_of::<SubscriptionId>(),
                Self::Bury { rows, .. } => rows.len() * size_of::<DeadRow>(),
                Self::Purge { .. } | Self::CancelPending { .. } | Self::Probe => 0,
            }
    }

    /// Tells whether it comes from outside, and may therefore be refused when there is no room. The service's own
    /// operations have few callers, each of which waits for its answer.
    pub(super) fn is_asked_for(&self) -> bool {
        match self {
            Self::Accept { .. }
            | Self::Freeze(_)
            | Self::PutSubscription { .. }
            | Self::Redeliver(_)
            | Self::BeginRecovery { .. }
            | Self::Module(_) => true,
            Self::Recover(_)
            | Self::Purge { .. }
            | Self::CancelPending { .. }
            | Self::Forget { .. }
            | Self::Bury { .. }
            | Self::Probe => false,
        }
    }
}

/// Returns the size of a subscription's record.
fn subscription_bytes(subscription: &Subscription) -> usize {
    record::encode_subscription(subscription).len()
}

/// A request to send an event again.
pub(super) struct Redelivery {
    pub(super) event: EventId,
    pub(super) recipients: Vec<RecipientId>,
    pub(super) by: String,
    pub(super) at: Timestamp,
}

/// How an attempt ended.
pub(super) enum End {
    /// With an outcome.
    Settled(Settlement),
    /// Without one that counts.
    Released(Release),
}

impl End {
    pub(super) fn is_run(&self) -> bool {
        match self {
            Self::Settled(settlement) => settlement.run.is_some(),
            Self::Released(_) => false,
        }
    }

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
    Ids(Vec<EventId>),
    Unit,
    Flag(bool),
    /// And where the purge goes on, if it is not over.
    PurgeReport(PurgeReport, Option<EventId>),
    Recovery(Option<Box<Recovery>>),
    Forgotten(Vec<SubscriptionId>),
}

/// What an operation returns; an error where nothing was done.
pub(super) type Answer = Result<Value, Error>;

impl Value {
    pub(super) fn ids(self) -> Vec<EventId> {
        let Self::Ids(ids) = self else { unreachable!("an accept returns ids") };
        ids
    }

    pub(super) fn flag(self) -> bool {
        let Self::Flag(flag) = self else { unreachable!("the operation returns a flag") };
        flag
    }

    pub(super) fn purge_report(self) -> (PurgeReport, Option<EventId>) {
        let Self::PurgeReport(report, next) = self else { unreachable!("a purge returns a report") };
        (report, next)
    }

    pub(super) fn recovery(self) -> Option<Recovery> {
        let Self::Recovery(recovery) = self else { unreachable!("a step returns the recovery") };
        recovery.map(|recovery| *recovery)
    }

    pub(super) fn forgotten(self) -> Vec<SubscriptionId> {
        let Self::Forgotten(forgotten) = self else { unreachable!("the operation returns subscriptions") };
        forgotten
    }
}

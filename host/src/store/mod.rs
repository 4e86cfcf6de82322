//! Everything durable: the event log, subscriptions, pending deliveries, and the history of attempts.
//!
//! [`Store`] is the boundary. Today [`redb`] implements it; where one machine is not enough, NATS JetStream will. The
//! modules above depend on neither. A store makes no callbacks: it adds the ids of recipients with new work to
//! [`WakeSet`], and their workers read the store again.

mod deliveries;
#[cfg(test)]
pub(crate) mod faulty;
mod pending;
pub mod redb;
mod wakes;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::domain::plugin::{PluginRun, RenderedPayload, Report, StateChange, StateMap};
use crate::domain::recovery::ScanProgress;
use crate::domain::{
    Event, EventId, PluginDigest, RecipientId, Recovery, Subscription, SubscriptionId, recovery,
};
use crate::stage::Alarm;

pub use deliveries::{DeliveriesQuery, Delivery, DeliveryCounts, ListedDelivery, StoredState};
pub use pending::{PendingDelivery, Progress, QueuePosition, ReadyPage, ReadyQuery, Release, Settlement};
pub use wakes::{Wake, WakeSet};

/// Why a store operation failed. Nothing of the request was kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The disk is full or broken, or the store is still being reopened after that; it recovers by itself.
    #[error("the store cannot write now: {reason}")]
    Unavailable {
        /// The storage engine's error.
        reason: String,
    },
    /// A record on disk cannot be read.
    #[error("a record of table `{table}` is damaged: {reason}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No more may be kept for a user.
    #[error(
        "what is kept for the user `{user}` has {kept} bytes and would get {bytes} more: the most is {max} (the setting \
         user_bytes_max)"
    )]
    Quota {
        /// The user.
        user: String,
        /// What is kept, in bytes.
        kept: u64,
        /// What would be kept besides.
        bytes: u64,
        /// The most.
        max: u64,
    },
    /// The write queue is full.
    #[error("what waits for the disk has {max} bytes, as many as may (the setting accept_bytes_max)")]
    Busy {
        /// The most bytes that may be queued.
        max: usize,
    },
    /// The service is shutting down.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// Tells whether the same request may succeed later, when there is room: nothing is wrong with it.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Quota { .. } | Self::Busy { .. } | Self::Closed => true,
            Self::Damaged { .. } => false,
        }
    }
}

/// What is kept for a user, in bytes: subscriptions, and what their plugins make, keep and say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserUsage {
    /// What is kept now.
    pub bytes: u64,
    /// The most that may be.
    pub max: u64,
}

/// Whether a write may be refused because of its user's quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// It is refused where it needs room that is not there.
    Holds,
    /// It is never refused: it needs next to nothing, like a deletion or a pause.
    Exempt,
}

/// An event on its way into the log.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The event.
    pub event: Event,
    /// When it came.
    pub received: Timestamp,
    /// Who sent it.
    pub sender: String,
    /// The recipients whose filter matched.
    pub matched: Vec<RecipientId>,
    /// The recipients whose filter gave no answer, and why not.
    pub failed: Vec<(RecipientId, String)>,
}

/// About how many bytes one delivery takes besides its event, in memory and in a commit.
pub const DELIVERY_BYTES: usize = 64;

impl Arrival {
    /// Returns about how many bytes the event takes on its way to the disk, including everything that it causes.
    pub fn size(&self) -> usize {
        let failed = self.failed.iter().map(|(_, reason)| DELIVERY_BYTES + reason.len()).sum::<usize>();
        self.event.size() + self.sender.len() + DELIVERY_BYTES * self.matched.len() + failed
    }
}

/// An event in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedEvent {
    /// Its place in the log.
    pub id: EventId,
    /// The event.
    pub event: Event,
    /// When it came.
    pub received: Timestamp,
    /// Who sent it.
    pub sender: String,
    /// The recipients whose filter matched when it was received.
    pub matched: Vec<RecipientId>,
}

/// An event and its deliveries: those of [`LoggedEvent::matched`] in its order, then those that a redelivery or a
/// recovery added.
#[derive(Clone, Debug, PartialEq)]
pub struct EventHistory {
    /// The event.
    pub event: Arc<LoggedEvent>,
    /// Its deliveries.
    pub deliveries: Vec<Delivery>,
    /// The filters that gave no answer when the event came, in the order of their subscriptions.
    pub failed: Vec<FailedFilter>,
}

/// A filter that gave no answer about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedFilter {
    /// Whose filter.
    pub recipient: RecipientId,
    /// When it was asked.
    pub at: Timestamp,
    /// Why there was no answer.
    pub reason: String,
}

/// Which part of the log to list, newest first.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Only events older than this one.
    pub before: Option<EventId>,
    /// Only events received at this time or later.
    pub since: Option<Timestamp>,
    /// Only events received before this time.
    pub until: Option<Timestamp>,
    /// How many at most.
    pub limit: usize,
}

/// Which events to remove from the log.
#[derive(Clone, Debug)]
pub enum Purge {
    /// These.
    Events(Vec<EventId>),
    /// Everything received before this time.
    Before(Timestamp),
    /// The same, past its retention: deliveries that have been pending since before this time for disabled
    /// subscriptions are given up, and do not keep their events.
    Expired(Timestamp),
}

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// Events removed.
    pub purged: u64,
    /// Events that are kept because they have an open delivery.
    pub kept: u64,
    /// Deliveries of disabled subscriptions that are given up.
    pub expired: u64,
}

/// Which part of the log to read next, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// Only events after this one.
    pub after: Option<EventId>,
    /// No event after this one.
    pub last: EventId,
    /// Every event received at this time or later; of older ones, possibly some.
    pub since: Option<Timestamp>,
    /// Every event received before this time; of later ones, possibly some.
    pub until: Option<Timestamp>,
    /// How many at most.
    pub events: usize,
    /// How many bytes of events, but at least one event.
    pub bytes: usize,
}

/// The next step of a running recovery.
#[derive(Clone, Debug)]
pub enum Step {
    /// It begins, or its end is set again: to the newest event of the log now. No event of an earlier [`Store::accept`]
    /// is newer.
    Begin,
    /// It enqueues the events that it has found, unless its subscription has such a delivery, and moves on.
    Advance(ScanProgress),
    /// It ends.
    End(recovery::State),
}

/// How many deliveries of a subscription are pending that were attempted, redelivered or recovered before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// All of them.
    pub all: usize,
    /// Those that are due.
    pub due: usize,
}

/// A rendered payload, with everything that becomes durable with it.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// Whose delivery.
    pub recipient: RecipientId,
    /// Of which event.
    pub event: EventId,
    /// Where its row stands.
    pub position: QueuePosition,
    /// What the plugin did.
    pub run: Box<PluginRun>,
    /// What becomes of the delivery.
    pub payload: RenderedPayload,
    /// What the plugin changed in its state.
    pub state: Vec<StateChange>,
}

impl Rendering {
    /// Returns about how many bytes it holds.
    pub fn size(&self) -> usize {
        let state = |change: &StateChange| {
            64 + change.key.len() + change.value.as_ref().map_or(0, |value| value.bytes.len())
        };
        self.run.size() + self.payload.size() + self.state.iter().map(state).sum::<usize>()
    }
}

/// An uploaded module.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// What is known of it.
    pub report: Report,
    /// When it was uploaded last.
    pub uploaded: Timestamp,
    /// Who uploaded it first.
    pub by: String,
    /// The users who have uploaded it lately, and when each of them last did.
    pub uploads: BTreeMap<String, Timestamp>,
}

impl Module {
    /// Makes a module that has just been uploaded.
    pub fn new(report: Report, by: &str, now: Timestamp) -> Self {
        let uploads = BTreeMap::from([(by.to_owned(), now)]);
        Self { report, uploaded: now, by: by.to_owned(), uploads }
    }
}

/// The durable state of the service. Every write is durable when its future resolves, except [`Store::settle`] of
/// anything but a run, and [`Store::release`].
///
/// Cancelling the future does not cancel the write. The exception is events that are still queued: when room is needed,
/// those whose future was dropped are discarded.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Logs events together with everything that they cause, in one transaction, and returns their ids in order.
    ///
    /// With a dedup window, an event whose `source` and `id` were logged within it gets the first one's id. When the
    /// queue is full, the call fails with [`Error::Busy`].
    async fn accept(&self, arrivals: Vec<Arrival>) -> Result<Vec<EventId>, Error>;

    /// Returns one event with the history of its deliveries.
    async fn story(&self, id: EventId) -> Result<Option<EventHistory>, Error>;

    /// Returns events with the histories of their deliveries, newest first.
    async fn stories(&self, range: Range) -> Result<Vec<EventHistory>, Error>;

    /// Lists deliveries of a recipient, those of the newest events first.
    async fn deliveries(&self, query: DeliveriesQuery) -> Result<Vec<ListedDelivery>, Error>;

    /// Returns those of these events that are in the log, each with its delivery to this recipient alone, in any order.
    async fn deliveries_of(
        &self,
        recipient: RecipientId,
        events: Vec<EventId>,
    ) -> Result<Vec<EventHistory>, Error>;

    /// Counts the deliveries of a recipient by state.
    async fn counts(&self, recipient: RecipientId) -> Result<DeliveryCounts, Error>;

    /// Removes events from the log, but for those with an open delivery.
    async fn purge(&self, purge: Purge) -> Result<PurgeReport, Error>;

    /// Enqueues an event (again) for these recipients; returns `false` when there is no such event.
    ///
    /// A rendered payload is kept, unless the subscription has another plugin or configuration now.
    async fn redeliver(
        &self,
        id: EventId,
        recipients: Vec<RecipientId>,
        by: String,
        at: Timestamp,
    ) -> Result<bool, Error>;

    /// Returns all subscriptions, deleted ones included.
    async fn subscriptions(&self) -> Result<Vec<Arc<Subscription>>, Error>;

    /// Creates or replaces a subscription. One without a plugin loses the state of the plugin that it had.
    async fn put_subscription(&self, subscription: Subscription, quota: Quota) -> Result<(), Error>;

    /// Returns how much is kept for a user.
    fn usage_of(&self, user: &str) -> UserUsage;

    /// Keeps a new recovery, and with it its subscription where that is new too, in one transaction; does neither and
    /// returns `false` while another recovery of the subscription runs.
    async fn begin_recovery(
        &self,
        recovery: Recovery,
        subscription: Option<Subscription>,
    ) -> Result<bool, Error>;

    /// Returns a subscription's running or last recovery.
    async fn recovery(&self, subscription: SubscriptionId) -> Result<Option<Recovery>, Error>;

    /// Returns all running recoveries.
    async fn running_recoveries(&self) -> Result<Vec<Recovery>, Error>;

    /// Advances a recovery by one step, with everything that the step causes, in one transaction, and returns its new
    /// state; `None` when it is over, or has been replaced. The recovery of a deleted subscription is cancelled.
    async fn recover(
        &self,
        subscription: SubscriptionId,
        asked: Timestamp,
        step: Step,
        at: Timestamp,
    ) -> Result<Option<Recovery>, Error>;

    /// Returns the next part of the log, oldest first; nothing when there is no more.
    async fn forward(&self, forward: Forward) -> Result<Vec<Arc<LoggedEvent>>, Error>;

    /// Counts a recipient's pending deliveries besides first attempts, up to `limit`.
    async fn backlog(&self, recipient: RecipientId, now: Timestamp, limit: usize) -> Result<Backlog, Error>;

    /// Returns the recipients that have pending deliveries.
    async fn recipients_with_backlog(&self) -> Result<Vec<RecipientId>, Error>;

    /// Returns a recipient's ready deliveries: first attempts, oldest first, from batches after `after`, and further
    /// attempts that are due at `now`, most overdue first. It is the only way by which deliveries reach a worker.
    async fn ready(&self, query: ReadyQuery) -> Result<ReadyPage, Error>;

    /// Records an attempt. The future resolves when every reader sees it; a crash may still lose it, which only causes
    /// a repeat. The end of a run is durable by then, and does not wait to be grouped with others.
    async fn settle(&self, settlement: Settlement) -> Result<(), Error>;

    /// Puts a delivery off without counting an attempt; does nothing if it is not pending at its position any more. The
    /// future resolves as that of [`Self::settle`] does.
    async fn release(&self, release: Release) -> Result<(), Error>;

    /// Freezes the rendered payload of a delivery, with the run of its plugin and the changes of its state, in one
    /// transaction. Does nothing and returns `false` if the delivery is not pending at its position any more; does
    /// nothing and fails with [`Error::Quota`] if its user has no more room.
    async fn freeze(&self, rendering: Rendering) -> Result<bool, Error>;

    /// Returns the rendered payload of a delivery, if its plugin has rendered it.
    async fn rendered(
        &self,
        event: EventId,
        recipient: RecipientId,
    ) -> Result<Option<RenderedPayload>, Error>;

    /// Returns the state of a subscription's plugin. It may contain expired values until the next change.
    async fn plugin_state(&self, subscription: SubscriptionId) -> Result<StateMap, Error>;

    /// Keeps a module; an existing one gets the new record.
    async fn put_module(&self, module: Module, wasm: Bytes) -> Result<(), Error>;

    /// Returns what is known of a module.
    async fn module(&self, digest: PluginDigest) -> Result<Option<Module>, Error>;

    /// Returns a module's bytes.
    async fn module_bytes(&self, digest: PluginDigest) -> Result<Option<Bytes>, Error>;

    /// Returns what is known of all modules.
    async fn modules(&self) -> Result<Vec<Module>, Error>;

    /// Removes a module.
    async fn remove_module(&self, digest: PluginDigest) -> Result<(), Error>;

    /// Cancels the pending deliveries of a deleted subscription, at most `limit` rows; returns whether there may be more.
    async fn cancel_pending(&self, subscription: SubscriptionId, limit: usize) -> Result<bool, Error>;

    /// Removes deleted subscriptions that nothing in the log refers to any more, and returns which these were.
    async fn forget(&self, deleted: Vec<SubscriptionId>) -> Result<Vec<SubscriptionId>, Error>;

    /// Remembers when a subscription's target was last reached.
    async fn reached(&self) -> Result<Vec<(SubscriptionId, Timestamp)>, Error>;

    /// Writes something and waits until it is durable.
    async fn probe(&self) -> Result<(), Error>;

    /// Returns the set to which the ids of recipients with new work are added.
    fn wakes(&self) -> Arc<WakeSet>;

    /// Returns how many damaged records were met since the store was opened. They are skipped; deliveries that need one
    /// become dead letters.
    fn damaged(&self) -> u64;

    /// Returns the alarm that everything on top of this store shares. The store raises it itself when a part of it has
    /// died and it cannot write any more.
    fn alarm(&self) -> Alarm;

    /// Writes what is queued, and closes. Later calls get [`Error::Closed`].
    async fn close(&self);
}

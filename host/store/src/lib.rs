//! Everything durable: the event log, subscriptions, pending deliveries, and the history of attempts.
//!
//! [`Store`] is the boundary: the modules above know nothing of [`redb`]. A store makes no callbacks: it adds the ids of
//! recipients with new work to [`WakeSet`], and their workers read the store again.

mod changes;
mod deliveries;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod journal;
mod pending;
pub mod redb;
mod share;
#[cfg(any(test, feature = "testing"))]
mod shorthand;
pub(crate) mod tokens;
mod wakes;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use waypost_domain::plugin::{PluginRun, RenderedPayload, Report, StateChange};
use waypost_domain::recovery::ScanProgress;
use waypost_domain::{
    Action, Announcement, AuditEntry, Event, EventId, PluginDigest, RecipientId, Subscription, recovery,
};

pub use self::redb::Store;
pub use changes::{ChangeSet, Changes};
pub use deliveries::{DeliveriesQuery, Delivery, DeliveryCounts, ListedDelivery, StoredState};
pub use pending::{
    LetterPlace, OrderedPage, OrderedQuery, PageEnd, PendingDelivery, Progress, QueuePosition, ReadyPage,
    ReadyQuery, Release, Settlement,
};
pub use share::{Fence, Gains, HashSlot, Share, Term};
pub use tokens::{KnownToken, Tokens};
pub use wakes::{Wake, WakeSet};

/// Why a store operation failed. Nothing of the request was kept, except as [`Error::Uncertain`] says.
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
    /// A user has as many of something as may be.
    #[error("the user `{user}` has {most} {}, as many as may be (the setting {})", counted.name(), counted.setting())]
    TooMany {
        /// The user.
        user: String,
        /// Of what.
        counted: Counted,
        /// The most.
        most: u32,
    },
    /// A user has as many tokens as may be.
    #[error(
        "the user `{user}` has {most} tokens, as many as may be (the setting user_tokens_max): revoke one first"
    )]
    TooManyTokens {
        /// The user.
        user: String,
        /// The most.
        most: u32,
    },
    /// The write queue is full.
    #[error("what waits for the disk has {max} bytes, as many as may (the setting accept_bytes_max)")]
    Busy {
        /// The most bytes that may be queued.
        max: usize,
    },
    /// It is not known whether anything of the request is kept: the journal has not answered.
    #[error("the journal has not answered: what was asked may have been done, or be done yet")]
    Uncertain,
    /// A write is larger than what the journal takes.
    #[error("a write of {bytes} bytes does not fit into the journal, which takes {max} at once")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most.
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
            Self::Uncertain | Self::TooMany { .. } | Self::TooManyTokens { .. } => true,
            Self::Damaged { .. } | Self::TooLarge { .. } => false,
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
    /// The same as [`Quota::Holds`] for a new subscription, which counts among its user's, as does a recovery with it.
    New(CountLimits),
}

/// What a user has a limited number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Subscriptions that are not deleted.
    Subscriptions,
    /// Recoveries of these that have not ended.
    Recoveries,
}

impl Counted {
    fn name(self) -> &'static str {
        match self {
            Self::Subscriptions => "subscriptions",
            Self::Recoveries => "running recoveries",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Subscriptions => "user_subscriptions_max",
            Self::Recoveries => "user_recoveries_max",
        }
    }
}

/// How much of what is counted each user may have. A write brings it along, so that all processes that apply the write
/// decide alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountLimits {
    /// The most subscriptions that are not deleted.
    pub subscriptions: u32,
    /// The most of their recoveries that run at once.
    pub recoveries: u32,
    /// The most tokens that are not revoked.
    pub tokens: u32,
}

impl Default for CountLimits {
    fn default() -> Self {
        Self { subscriptions: u32::MAX, recoveries: u32::MAX, tokens: u32::MAX }
    }
}

/// The place of a group of writes in the order of all groups, from 1; zero is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

/// A subscription, and the group of writes that wrote this version of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSubscription {
    /// The subscription.
    pub subscription: Arc<Subscription>,
    /// Where it was written.
    pub revision: Position,
}

/// What [`Store::accept`] returns.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// The events are logged, each with its receipt.
    Logged(Vec<Receipt>),
    /// Nothing is logged: the events were matched without a subscription's change. They are to be matched again with the
    /// change at this position.
    Stale(Position, Vec<Arrival>),
}

/// What an event is logged under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its id; that of the first one if it is a repeat.
    pub id: EventId,
    /// Whether it was logged before, within the dedup window, and is not logged again.
    pub is_repeat: bool,
}

/// What [`Store::put_subscription`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is written, at this position.
    Done(Position),
    /// Nothing is written: there is another version than the one to be replaced, and it was there at this position.
    Changed(Position),
    /// Nothing is written: the version to be replaced was removed for good.
    Gone,
    /// Nothing is written: there is no such module.
    NoModule(PluginDigest),
}

/// The place of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AnnouncementPlace {
    /// The group of writes that it came with.
    pub group: u64,
    /// Its place among those of the group.
    pub index: u32,
}

/// The oldest announcements that have not been logged.
#[derive(Clone, Debug, PartialEq)]
pub struct AnnouncementPage {
    /// The place of the first.
    pub first: AnnouncementPlace,
    /// The place of the last.
    pub last: AnnouncementPlace,
    /// Those that can be read.
    pub found: Vec<AnnouncementRow>,
}

/// An announcement that has not been logged.
#[derive(Clone, Debug, PartialEq)]
pub struct AnnouncementRow {
    /// Its place.
    pub place: AnnouncementPlace,
    /// The announcement.
    pub announcement: Announcement,
    /// What names the event that it is about, if that is still in the log.
    pub event: Option<EventName>,
}

/// What names an event to those who do not see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventName {
    /// The `id` that its producer gave it.
    pub id: String,
    /// Its `source`.
    pub source: String,
    /// Its `type`.
    pub ty: String,
}

/// The place of an entry in the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPlace {
    /// The group of writes that it came with.
    pub group: u64,
    /// Its place among those of the group.
    pub index: u32,
}

/// Which part of the audit to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Only entries before this one.
    pub before: Option<AuditPlace>,
    /// Only those from this time on.
    pub since: Option<Timestamp>,
    /// Only those before this time.
    pub until: Option<Timestamp>,
    /// Only what this user did, or what was done to what is this user's.
    pub user: Option<String>,
    /// Only this.
    pub action: Option<Action>,
    /// Only what was done to this.
    pub id: Option<String>,
    /// How many at most.
    pub limit: usize,
}

impl AuditQuery {
    fn fits(&self, entry: &AuditEntry) -> bool {
        let is_of = |user: &String| entry.by.user == *user || entry.user.as_ref() == Some(user);
        self.until.is_none_or(|until| entry.at < until)
            && self.user.as_ref().is_none_or(is_of)
            && self.action.is_none_or(|action| action == entry.action)
            && self.id.as_ref().is_none_or(|id| *id == entry.id)
    }
}

/// An event on its way into the log.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
pub enum Purge {
    /// These.
    Events(Vec<EventId>),
    /// Everything received before this time.
    Before(Timestamp),
    /// The same, after what has waited for disabled subscriptions since before this time is given up. Journals of older
    /// versions have it; see [`Store::expire_backlog`].
    Expired(Timestamp),
}

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// Events removed.
    pub purged: u64,
    /// Events that are kept because they have an open delivery.
    pub kept: u64,
}

/// How much of the disk the store's file takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// What it takes; none if it is in memory.
    pub file: u64,
    /// About what it would take if it held nothing but what is there: an estimate that leaves out the engine's own part.
    pub live: u64,
    /// About how many deliveries wait: rows of them, each with one or more.
    pub waiting: u64,
}

impl DiskUse {
    /// Returns how much of the file is not needed: what giving room back would give, in bytes. A third of what is there is the
    /// engine's own.
    pub fn spare(self) -> u64 {
        self.file.saturating_sub(self.live + self.live / 3)
    }
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
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It begins, or its end is set again: to the newest event of the log now. Later events were matched with its
    /// subscription as it is ([`Accepted::Stale`]).
    Begin,
    /// It enqueues the events that it has found, unless its subscription has such a delivery, and moves on.
    Advance(ScanProgress),
    /// It ends.
    End(recovery::State),
}

/// The next step of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobStep {
    /// The next deliveries.
    Advance {
        /// How many at most, roughly: those of one event batch are handled together.
        rows: u32,
    },
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
#[derive(Clone, Debug, PartialEq)]
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

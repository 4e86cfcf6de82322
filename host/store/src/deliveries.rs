//! Deliveries as the tables have them: each is in exactly one state, and every reader sees the same.

use jiff::Timestamp;

use waypost_domain::job::Scope;
use waypost_domain::{Entry, EventId, RecipientId, State};

/// The states by which deliveries are stored, listed and counted. An attempt in flight is not stored: its delivery is
/// pending, retrying or held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoredState {
    /// It waits for its first attempt, or for the first one after a redelivery or recovery.
    Pending,
    /// It waits for another attempt after one that failed.
    Retrying,
    /// It is held for something that is not its target's or plugin's ([`waypost_domain::Holder`]).
    Held,
    /// The target has it.
    Delivered,
    /// Policy or the plugin said no.
    Denied,
    /// There was nothing to send, or it was cancelled.
    Skipped,
    /// Given up: a dead letter.
    Dead,
}

impl From<Scope> for StoredState {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Dead => Self::Dead,
            Scope::Skipped => Self::Skipped,
            Scope::Denied => Self::Denied,
            Scope::Pending => Self::Pending,
            Scope::Retrying => Self::Retrying,
            Scope::Held => Self::Held,
        }
    }
}

impl StoredState {
    /// All of them, in the order of [`DeliveryCounts`].
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Retrying, Self::Held, Self::Delivered, Self::Denied, Self::Skipped, Self::Dead];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::Denied => "denied",
            Self::Skipped => "skipped",
            Self::Dead => "dead",
        }
    }

    /// Tells whether the delivery is over.
    pub fn is_final(self) -> bool {
        self >= Self::Delivered
    }
}

/// How many deliveries of a recipient are in each state, of the events in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts(pub(super) [u64; StoredState::ALL.len()]);

impl DeliveryCounts {
    /// Returns how many are in this state.
    pub fn of(&self, state: StoredState) -> u64 {
        self.0[state as usize]
    }

    /// Returns how many there are in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Which deliveries of a recipient to list.
#[derive(Clone, Copy, Debug)]
pub struct DeliveriesQuery {
    /// The recipient.
    pub recipient: RecipientId,
    /// Only those in this state; all for `None`.
    pub state: Option<StoredState>,
    /// Only those of events that were received at this time or later.
    pub since: Option<Timestamp>,
    /// Only those of events that were received before this time.
    pub until: Option<Timestamp>,
    /// Only those of events older than this one.
    pub before: Option<EventId>,
    /// How many at most.
    pub limit: usize,
}

impl DeliveriesQuery {
    /// Tells whether an event that was received at this time is within the query's times.
    pub(crate) fn has_received(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }
}

/// A delivery in a list, in which the newest event comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedDelivery {
    /// Of which event.
    pub event: EventId,
    /// When its next attempt is due; `None` if it is over, or pending its first attempt.
    pub due: Option<Timestamp>,
}

/// One delivery of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Whose.
    pub recipient: RecipientId,
    /// Where it stands.
    pub state: State,
    /// Whether policy has ever let this recipient's user see the event.
    pub was_allowed: bool,
    /// What has happened to it, oldest first. It explains the state, and does not decide it.
    pub history: Vec<Entry>,
}

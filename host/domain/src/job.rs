//! A job: sends all dead letters of a subscription again, or gives up all of its deliveries in a state.
//!
//! It walks the deliveries in the order of the log, from the oldest to those of the event that was the newest when it began,
//! so that what ends again behind it is not met again. A subscription has one job of each kind at a time.

use jiff::Timestamp;

use crate::recovery::State;
use crate::{EventId, SubscriptionId};

/// A job on the deliveries of one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// What is done with each delivery.
    pub work: Work,
    /// The state of the deliveries that it is about.
    pub of: Scope,
    /// Only deliveries of events received at this time or later.
    pub since: Option<Timestamp>,
    /// Only deliveries of events received before this time.
    pub until: Option<Timestamp>,
    /// When it was requested; distinguishes the jobs of one kind of one subscription.
    pub asked: Timestamp,
    /// Who requested it.
    pub by: String,
    /// How many deliveries were in the state when it was requested; `None` where only some of them are meant.
    pub total: Option<u64>,
    /// The newest event when it began; `None` until then.
    pub end: Option<EventId>,
    /// The last event that the walk has passed.
    pub position: Option<EventId>,
    /// How many deliveries were looked at.
    pub looked_at: u64,
    /// How many were sent again, or given up.
    pub changed: u64,
    /// Its state.
    pub state: State,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Sends deliveries again.
    Redeliver,
    /// Gives deliveries up.
    Discard {
        /// Why, for those who read of it later.
        reason: String,
    },
}

/// The kinds of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`Work::Redeliver`].
    Redeliver,
    /// [`Work::Discard`].
    Discard,
}

/// A state of the deliveries that a job is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that were given up.
    Dead,
    /// Those with nothing to send, or that were cancelled.
    Skipped,
    /// Those that policy or the plugin refused.
    Denied,
    /// Those that wait for their first attempt, or for the first one after a redelivery or recovery.
    Pending,
    /// Those that wait for another attempt.
    Retrying,
    /// Those that are held.
    Held,
}

/// What a step of a job has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobProgress {
    /// The last event that it passed; `None` at the end of the walk.
    pub position: Option<EventId>,
    /// How many deliveries it looked at.
    pub looked_at: u64,
    /// How many it changed.
    pub changed: u64,
}

impl Job {
    /// Tells whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// Tells whether it is about the deliveries of an event received at this time.
    pub fn asks_for(&self, received: Timestamp) -> bool {
        self.since.is_none_or(|since| received >= since) && self.until.is_none_or(|until| received < until)
    }

    /// Begins the walk, up to the newest event. With an empty log it ends at once.
    pub fn begin(&mut self, newest: Option<EventId>, at: Timestamp) {
        self.end = newest;
        if newest.is_none() {
            self.state = State::Done { at };
        }
    }

    /// Advances, and ends where there is no more.
    pub fn advance(&mut self, progress: JobProgress, at: Timestamp) {
        self.looked_at += progress.looked_at;
        self.changed += progress.changed;
        match progress.position {
            Some(position) => self.position = Some(position),
            None => self.state = State::Done { at },
        }
    }
}

impl Work {
    /// Returns its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Redeliver => Kind::Redeliver,
            Self::Discard { .. } => Kind::Discard,
        }
    }
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Redeliver, Self::Discard];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redeliver => "redeliver",
            Self::Discard => "discard",
        }
    }

    /// Returns the states of deliveries that a job of this kind may be about.
    pub fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Redeliver => &[Scope::Dead, Scope::Skipped, Scope::Denied],
            Self::Discard => &[Scope::Dead, Scope::Pending, Scope::Retrying, Scope::Held],
        }
    }
}

impl Scope {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Skipped => "skipped",
            Self::Denied => "denied",
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Held => "held",
        }
    }
}

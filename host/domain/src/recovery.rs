//! Recovery: matches the log again for one subscription. Its request, and its progress.
//!
//! A recovery walks the log in order, from `since` to what was its end when the walk began, and enqueues every matching
//! event of which its subscription had no delivery. A subscription has one recovery at a time.

use jiff::Timestamp;

use crate::{EventId, SubscriptionId};

/// A recovery of one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The subscription that gets the events.
    pub subscription: SubscriptionId,
    /// Only events received at this time or later; `None` from the earliest on.
    pub since: Option<Timestamp>,
    /// Only events received before this time.
    pub until: Option<Timestamp>,
    /// When it was requested; distinguishes the recoveries of one subscription.
    pub asked: Timestamp,
    /// Who requested it.
    pub by: String,
    /// The newest event when the walk began; `None` until then.
    pub end: Option<Mark>,
    /// The first event that was read: later than `since` if retention has removed older ones.
    pub oldest: Option<Mark>,
    /// The last event that the walk has passed.
    pub position: Option<Mark>,
    /// How many events were read.
    pub looked_at: u64,
    /// How many of them the filter matched.
    pub matched: u64,
    /// How many deliveries were missing, and were enqueued.
    pub created: u64,
    /// How many events the filter could not be evaluated on.
    pub failed: u64,
    /// Its state.
    pub state: State,
}

/// An event as a place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The event.
    pub event: EventId,
    /// When it was received.
    pub received: Timestamp,
}

/// The state of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not reached its end; it may wait for its subscription to be enabled, or for the target.
    Running,
    /// It has read everything.
    Done {
        /// When.
        at: Timestamp,
    },
    /// Its subscription's owner ended it, or deleted the subscription.
    Cancelled {
        /// When.
        at: Timestamp,
    },
    /// It cannot go on.
    Failed {
        /// When.
        at: Timestamp,
        /// Why not.
        reason: String,
    },
}

/// The result of scanning the next part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanProgress {
    /// The first event that it read, if any was in its period.
    pub first: Option<Mark>,
    /// The last event that it passed.
    pub last: Mark,
    /// How many it read.
    pub events: u64,
    /// How many the filter could not be evaluated on.
    pub failed: u64,
    /// Those that match, in the order of the log.
    pub matched: Vec<EventId>,
}

impl Recovery {
    /// Makes a recovery that has not begun.
    pub fn new(
        subscription: SubscriptionId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        by: String,
        asked: Timestamp,
    ) -> Self {
        Self {
            subscription,
            since,
            until,
            asked,
            by,
            end: None,
            oldest: None,
            position: None,
            looked_at: 0,
            matched: 0,
            created: 0,
            failed: 0,
            state: State::Running,
        }
    }

    /// Tells whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// Tells whether an event received at this time is in the requested period.
    pub fn asks_for(&self, received: Timestamp) -> bool {
        self.since.is_none_or(|since| received >= since) && self.until.is_none_or(|until| received < until)
    }

    /// Begins the walk, or continues it with another end: `newest`. With an empty log it ends at once.
    pub fn begin(&mut self, newest: Option<Mark>, at: Timestamp) {
        self.end = newest;
        if newest.is_none() {
            self.state = State::Done { at };
        }
    }

    /// Advances past a part of the log that caused `created` deliveries, and ends when it reaches the end.
    pub fn advance(&mut self, scan: &ScanProgress, created: u64, at: Timestamp) {
        self.oldest = self.oldest.or(scan.first);
        self.position = Some(scan.last);
        self.looked_at += scan.events;
        self.matched += scan.matched.len() as u64;
        self.created += created;
        self.failed += scan.failed;
        if self.end.is_some_and(|end| scan.last.event >= end.event) {
            self.state = State::Done { at };
        }
    }
}

impl State {
    /// Returns the state's name, as REST shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done { .. } => "done",
            Self::Cancelled { .. } => "cancelled",
            Self::Failed { .. } => "failed",
        }
    }

    /// Returns when it ended.
    pub fn ended(&self) -> Option<Timestamp> {
        match self {
            Self::Running => None,
            Self::Done { at } | Self::Cancelled { at } | Self::Failed { at, .. } => Some(*at),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn mark(number: u8) -> Mark {
        Mark { event: EventId::from_uuid(Uuid::from_u128(number.into())), received: at(number.into()) }
    }

    fn recovery(since: Option<i64>, until: Option<i64>) -> Recovery {
        Recovery::new(SubscriptionId::MAX, since.map(at), until.map(at), "ann".to_owned(), at(100))
    }

    #[test]
    fn it_asks_for_events_from_since_to_before_until() {
        let asked = |since, until| [1, 2, 3, 4].map(|second| recovery(since, until).asks_for(at(second)));
        assert_eq!(asked(None, None), [true; 4]);
        assert_eq!(asked(Some(2), None), [false, true, true, true]);
        assert_eq!(asked(Some(2), Some(4)), [false, true, true, false]);
        assert_eq!(asked(None, Some(2)), [true, false, false, false]);
    }

    #[test]
    fn it_ends_at_the_event_that_was_the_newest_when_it_began() {
        let mut recovery = recovery(None, None);
        recovery.begin(Some(mark(5)), at(101));
        assert!(recovery.is_running());
        let part = |last, matched: &[u8]| ScanProgress {
            first: Some(mark(last)),
            last: mark(last),
            events: 2,
            failed: 1,
            matched: matched.iter().map(|number| mark(*number).event).collect(),
        };
        recovery.advance(&part(2, &[1, 2]), 1, at(102));
        assert!(recovery.is_running());
        recovery.advance(&part(5, &[5]), 1, at(103));
        assert_eq!(recovery.state, State::Done { at: at(103) });
        let counts = (recovery.looked_at, recovery.matched, recovery.created, recovery.failed);
        assert_eq!(counts, (4, 3, 2, 2));
        assert_eq!((recovery.oldest, recovery.position), (Some(mark(2)), Some(mark(5))));
    }

    #[test]
    fn an_empty_log_is_done_at_once() {
        let mut recovery = recovery(None, None);
        recovery.begin(None, at(101));
        assert_eq!(recovery.state.ended(), Some(at(101)));
    }
}

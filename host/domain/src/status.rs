//! The Dispatcher's view of an event: one task with one status.

use std::fmt;

use crate::delivery::State;

/// A task's status, in the words that Pacifica's Dispatcher answers on `/status/{id}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// `202 Accepted`: a delivery waits for its first or its next attempt.
    Accepted,
    /// `102 Processing`: an attempt of at least one delivery is in flight.
    Processing,
    /// `200 OK`: every delivery was delivered, skipped or denied.
    Done,
    /// `422 Unprocessable Entity`: no subscription matched.
    Unmatched,
    /// `500 Internal Server Error`: at least one delivery is a dead letter, and none is open.
    Dead,
}

impl TaskStatus {
    /// Sums up the states of all deliveries of one event.
    pub fn of<'a>(states: impl IntoIterator<Item = &'a State>) -> Self {
        let (mut any, mut pending, mut under_way, mut dead) = (false, false, false, false);
        for state in states {
            any = true;
            match state {
                State::Pending | State::Retrying { .. } | State::Held { .. } => pending = true,
                State::Delivering => under_way = true,
                State::Dead { .. } => dead = true,
                State::Delivered { .. } | State::Denied { .. } | State::Skipped { .. } => {}
            }
        }
        if !any {
            Self::Unmatched
        } else if under_way {
            Self::Processing
        } else if pending {
            Self::Accepted
        } else if dead {
            Self::Dead
        } else {
            Self::Done
        }
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "202 Accepted",
            Self::Processing => "102 Processing",
            Self::Done => "200 OK",
            Self::Unmatched => "422 Unprocessable Entity",
            Self::Dead => "500 Internal Server Error",
        })
    }
}

//! The delivery of one event to one recipient, and its history.
//!
//! The store keeps its [`State`] and beside it its history, a list of [`Entry`]s that explains the state and decides
//! nothing.

use std::time::Duration;

use jiff::Timestamp;

use crate::handler::HandlerRun;
use crate::plugin::PluginRun;
use crate::retry::RetrySchedule;

/// The most bytes that are kept of a target's or policy server's answer: 16 KiB.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The most bytes that are kept of the answer to a delivery that succeeded: 1 KiB.
pub const ANSWER_BYTES_LITTLE: usize = 1024;

/// The answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The beginning of the body, at most [`ANSWER_BYTES_MAX`] bytes, as text.
    pub body: String,
}

impl Answer {
    /// Tells whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Shortens the body to its first [`ANSWER_BYTES_LITTLE`] bytes.
    pub fn keep_little(&mut self) {
        if self.body.len() > ANSWER_BYTES_LITTLE {
            self.body.truncate(self.body.floor_char_boundary(ANSWER_BYTES_LITTLE));
            self.body.shrink_to_fit();
        }
    }
}

/// One try of a delivery, from asking policy to the target's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first since the event was accepted or redelivered.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What the policy server answered, if this attempt asked it.
    pub policy: Option<Answer>,
    /// What the target answered, if the event was sent and there was an answer.
    pub target: Option<Answer>,
    /// What follows from it.
    pub outcome: Outcome,
}

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered 2xx.
    Delivered,
    /// Policy does not let this user see this event.
    Denied,
    /// There was nothing to send, and why.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It failed and will be tried again.
    Retry {
        /// What failed.
        reason: String,
        /// When the next attempt is due.
        due: Timestamp,
    },
    /// It failed and is given up: a dead letter.
    Dead {
        /// What failed, and why there is no further attempt.
        reason: String,
    },
}

impl Outcome {
    /// Returns what follows from the `failed`-th failure (1 or more) in a row: another attempt as the schedule says, but
    /// not before `wait_min` has passed, or the end. `random` is in `0.0..1.0`.
    pub fn after_failure(
        reason: String,
        schedule: &RetrySchedule,
        failed: u32,
        wait_min: Duration,
        now: Timestamp,
        random: f64,
    ) -> Self {
        match schedule.wait_after(failed, random) {
            Some(wait) => {
                let due = now.checked_add(wait.max(wait_min)).unwrap_or(Timestamp::MAX);
                // The precision of the store's keys.
                let due = Timestamp::from_microsecond(due.as_microsecond()).unwrap_or(due);
                Self::Retry { reason, due }
            }
            None => Self::Dead {
                reason: format!("{reason}; that was the last of {} attempts", schedule.attempts()),
            },
        }
    }
}

/// What holds a delivery that is neither its target's nor its plugin's: something of the operator's or of this machine.
/// Being held uses up no attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The policy server or plugin has no answer.
    Policy,
    /// The plugin cannot be loaded or run here now.
    Plugins,
    /// The store cannot be read or written.
    Store,
    /// This machine lacks something for the attempt: descriptors, memory, ports, or slots.
    Host,
    /// Its user's quota is used up.
    Quota,
}

impl Holder {
    /// Returns its name, as REST shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Plugins => "plugins",
            Self::Store => "store",
            Self::Host => "host",
            Self::Quota => "quota",
        }
    }
}

/// One line in a delivery's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An attempt ended.
    Attempt(Attempt),
    /// A redelivery was requested: the schedule starts over.
    Redelivery {
        /// When.
        at: Timestamp,
        /// Who requested it.
        by: String,
    },
    /// The pending delivery was cancelled without another attempt.
    Dropped {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// The subscription's filter gave no answer when the event was received, so that it has no delivery.
    FilterFailed {
        /// When.
        at: Timestamp,
        /// Why not.
        reason: String,
    },
    /// A [recovery](crate::recovery) found that the delivery was missing: it begins.
    Recovered {
        /// When.
        at: Timestamp,
        /// Who requested the recovery.
        by: String,
    },
    /// The subscription's plugin ran: the next attempt tells the result.
    Plugin(Box<PluginRun>),
    /// A handler's program ran, or was about to: the next attempt tells the result.
    Run(Box<HandlerRun>),
    /// The delivery is held for something that is not the target's or the plugin's. One entry covers all holds in a
    /// row for the same: [`State::Held`] has the last one.
    Held {
        /// Since when.
        since: Timestamp,
        /// For what.
        by: Holder,
        /// What was missing.
        reason: String,
        /// When it was to be tried again first.
        due: Timestamp,
    },
}

impl Entry {
    /// Tells whether it describes a plugin's or handler's part in the attempt that follows: it does not change the
    /// state.
    pub fn is_run(&self) -> bool {
        match self {
            Self::Plugin(_) | Self::Run(_) => true,
            Self::Attempt(_)
            | Self::Redelivery { .. }
            | Self::Dropped { .. }
            | Self::FilterFailed { .. }
            | Self::Recovered { .. }
            | Self::Held { .. } => false,
        }
    }
}

/// The state of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not tried yet.
    Pending,
    /// An attempt is in flight.
    Delivering,
    /// Pending again after an attempt that failed.
    Retrying {
        /// When the next attempt is due.
        due: Timestamp,
        /// What failed last.
        reason: String,
    },
    /// Pending again, without an attempt that counts.
    Held {
        /// For what.
        by: Holder,
        /// Since when.
        since: Timestamp,
        /// When it is tried again.
        due: Timestamp,
        /// What is missing.
        reason: String,
    },
    /// It was delivered.
    Delivered {
        /// When the attempt that succeeded began.
        at: Timestamp,
    },
    /// Policy said no.
    Denied {
        /// When the attempt that asked began.
        at: Timestamp,
    },
    /// There was nothing to send.
    Skipped {
        /// Why.
        reason: String,
    },
    /// Given up: a dead letter.
    Dead {
        /// What failed last.
        reason: String,
    },
}

impl State {
    /// Tells whether the delivery is over: nothing more happens to it unless it is redelivered.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Pending | Self::Delivering | Self::Retrying { .. } | Self::Held { .. } => false,
            Self::Delivered { .. } | Self::Denied { .. } | Self::Skipped { .. } | Self::Dead { .. } => true,
        }
    }

    /// Returns the state's name, as REST shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivering => "delivering",
            Self::Retrying { .. } | Self::Held { .. } => "retrying",
            Self::Delivered { .. } => "delivered",
            Self::Denied { .. } => "denied",
            Self::Skipped { .. } => "skipped",
            Self::Dead { .. } => "dead",
        }
    }
}

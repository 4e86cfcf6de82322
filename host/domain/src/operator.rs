//! What Waypost itself tells its operators, as events that no producer can send.
//!
//! An [`Announcement`] is durable: the store keeps it from the commit of its cause until its event is in the log. A
//! [`Notice`] is about something that is not kept itself, and may be lost in a crash.

use jiff::Timestamp;

use crate::job::Kind;
use crate::recovery::State;
use crate::{Activity, Answer, EventId, Job, RecipientId, Recovery, Subscription, SubscriptionId};

/// The sender of operator events. No header, certificate, token or configuration can name it: users' names have no control
/// characters.
pub const OPERATOR: &str = "\u{1f}waypost";

/// What the types of operator events begin with. Producers cannot send such types.
pub const TYPES: &str = "io.waypost.";

/// The most bytes that an announcement keeps of a reason.
pub const REASON_BYTES_MAX: usize = 1024;

/// Tells whether events of a type are Waypost's own.
pub fn is_reserved(ty: &str) -> bool {
    ty.get(..TYPES.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(TYPES))
}

/// Returns the name of a sender as people read it.
pub fn shown(sender: &str) -> &str {
    if sender == OPERATOR { "waypost" } else { sender }
}

/// Something that operators are to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// When it happened.
    pub at: Timestamp,
    /// The subscription or handler that it is about.
    pub about: RecipientId,
    /// What happened.
    pub cause: Cause,
}

/// What happened to a subscription or a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A subscription became disabled, because of this, unless its owner paused it.
    Disabled {
        /// What went wrong.
        reason: Option<String>,
    },
    /// A subscription became enabled.
    Enabled,
    /// A delivery to a subscription was given up.
    Dead(DeadLetter),
    /// A run of a handler failed and is not tried again.
    RunFailed {
        /// The handler's name, if it has begun to run.
        handler: Option<String>,
        /// The delivery to it.
        letter: DeadLetter,
    },
    /// The backlog of a disabled or deleted subscription was given up.
    Expired {
        /// How many deliveries.
        count: u64,
        /// Why.
        reason: String,
    },
    /// A replay of the log or a job on deliveries is over.
    Replayed(Replayed),
}

/// A delivery that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub event: EventId,
    /// How many attempts there were.
    pub attempts: u32,
    /// Why it was given up.
    pub reason: String,
    /// What the target answered last, if it answered that attempt.
    pub answer: Option<Answer>,
    /// Whether policy had let the subscription's user see the event.
    pub was_allowed: bool,
}

/// A replay of the log or a job on deliveries that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The job; `None` for a replay of the log.
    pub job: Option<Kind>,
    /// How it ended: `done`, `cancelled` or `failed`.
    pub state: String,
    /// Why, if it failed.
    pub reason: Option<String>,
    /// How many events or deliveries it has looked at.
    pub looked_at: u64,
    /// How many deliveries it has added, or changed.
    pub changed: u64,
    /// Who asked for it.
    pub by: String,
}

/// Something that operators are to know, and that is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A subscription's deliveries wait, because its target is down or its plugin fails.
    BreakerOpened {
        /// The subscription.
        subscription: SubscriptionId,
        /// Which of them.
        of: Guarded,
        /// How many failures there were in a row.
        failures: u32,
        /// What failed last.
        reason: String,
        /// When the next delivery tries.
        until: Timestamp,
    },
    /// Its target answers again, or its plugin works again.
    BreakerClosed {
        /// The subscription.
        subscription: SubscriptionId,
        /// Which of them.
        of: Guarded,
    },
    /// The data folder is nearly full.
    DiskLow {
        /// Its bytes.
        used: u64,
        /// The most that it may have.
        max: u64,
    },
}

/// What a breaker is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guarded {
    /// The target of a subscription.
    Target,
    /// The plugin of one.
    Plugin,
}

impl Guarded {
    /// Returns its name in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Plugin => "plugin",
        }
    }
}

impl Announcement {
    /// Returns the event that it is about, if it is about one.
    pub fn event(&self) -> Option<EventId> {
        match &self.cause {
            Cause::Dead(letter) | Cause::RunFailed { letter, .. } => Some(letter.event),
            Cause::Disabled { .. } | Cause::Enabled | Cause::Expired { .. } | Cause::Replayed(_) => None,
        }
    }

    /// Announces what a change made of a subscription, if it has become disabled or enabled.
    pub fn of_change(before: &Subscription, after: &Subscription, at: Timestamp) -> Option<Self> {
        if before.deleted.is_some() || after.deleted.is_some() {
            return None;
        }
        let cause = match (&before.activity, &after.activity) {
            (Activity::Enabled, Activity::Disabled { error, .. }) => {
                Cause::Disabled { reason: error.as_deref().map(shortened) }
            }
            (Activity::Disabled { .. }, Activity::Enabled) => Cause::Enabled,
            (Activity::Enabled, Activity::Enabled)
            | (Activity::Disabled { .. }, Activity::Disabled { .. }) => return None,
        };
        Some(Self { at, about: after.id.into(), cause })
    }

    /// Announces the end of a replay of the log, if it has ended.
    pub fn of_recovery(recovery: &Recovery) -> Option<Self> {
        let Recovery { subscription, by, looked_at, created, state, .. } = recovery;
        Self::of_end(*subscription, None, state, (*looked_at, *created), by)
    }

    /// Announces the end of a job, if it has ended.
    pub fn of_job(job: &Job) -> Option<Self> {
        let Job { subscription, work, by, looked_at, changed, state, .. } = job;
        Self::of_end(*subscription, Some(work.kind()), state, (*looked_at, *changed), by)
    }

    fn of_end(
        subscription: SubscriptionId,
        job: Option<Kind>,
        state: &State,
        (looked_at, changed): (u64, u64),
        by: &str,
    ) -> Option<Self> {
        let (at, reason) = match state {
            State::Running => return None,
            State::Done { at } | State::Cancelled { at } => (*at, None),
            State::Failed { at, reason } => (*at, Some(shortened(reason))),
        };
        let (state, by) = (state.name().to_owned(), by.to_owned());
        let cause = Cause::Replayed(Replayed { job, state, reason, looked_at, changed, by });
        Some(Self { at, about: subscription.into(), cause })
    }
}

/// Returns what is kept of a reason.
pub fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(REASON_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_types_are_reserved_in_capital_letters_too() {
        for own in ["io.waypost.delivery.dead", "IO.Waypost.x", "io.waypost."] {
            assert!(is_reserved(own), "{own}");
        }
        for other in ["io.waypost", "io.waypostal.x", "org.io.waypost.x", "", "io.wayposü.x"] {
            assert!(!is_reserved(other), "{other}");
        }
    }
}

//! The worker engine: pending deliveries are attempted until each is settled. It knows neither targets nor handlers:
//! each has a [`Deliverer`] ([`crate::delivery`], `waypost_handlers`), which makes the attempts.
//!
//! ```text
//!  store ── wake ──▶ supervisor ── mailbox ──▶ worker of a recipient ── delivery ──▶ deliverer
//!                        ▲                       │              ▲                       │
//!                        └─ WorkerEnd: why, and  │              └─────────── Next ──────┘
//!                           when more is due     └──▶ store.settle, store.release
//! ```
//!
//! - `supervisor` alone starts workers, knows which run and when idle recipients have work again, and
//!   reads why each has ended. It wakes workers when the store has work for them, when retries are due, and every half
//!   minute in any case. A worker that panics is started again with backoff.
//! - `worker` reads the deliveries of one recipient (`backlog`), makes attempts side by side, records how
//!   they ended, and ends itself when nothing is pending. While its deliverer holds back all deliveries of its recipient
//!   for long, it rests without any of them in memory. Workers share nothing but slots, which are handed out fairly
//!   (`slots`): hanging attempts barely delay others.
//! - Where deliveries have an order, the worker reads them in it (`ordered`), and `lanes` say whose turn it is.
//! - `attempt` turns the result of a deliverer into a record for the store. A panic of the deliverer is an
//!   outcome of that attempt alone.
//!
//! Others only read: which attempts are in flight (`in_flight`), what holds a recipient's deliveries, and how far its
//! worker is behind (`backpressure`).

mod attempt;
mod backlog;
mod backpressure;
mod in_flight;
mod lanes;
mod mailbox;
mod ordered;
mod pace;
mod reading;
mod slots;
mod supervisor;
mod timetable;
#[expect(clippy::module_inception, reason = "the module has the name of its central noun")]
mod worker;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;

use waypost_domain::plugin::PluginRun;
use waypost_domain::{Answer, HandlerRun, Holder, OnDead, Outcome, RecipientId};
use waypost_store::{Error, LoggedEvent, PendingDelivery, Progress, Store, WakeSet};

pub use in_flight::InFlight;
pub use mailbox::Mailboxes;
pub use slots::{Occupied, SLICE, Slots};
pub use supervisor::Workers;

/// Makes the attempts for recipients of one kind. It knows no worker, and uses the store only for what an attempt
/// needs.
pub trait Deliverer: Send + Sync + Sized + 'static {
    /// The rules of its workers.
    const RULES: Rules;
    /// What deliveries are for: a subscription, or a handler.
    type Subject: Send + Sync + 'static;
    /// What the attempts of one worker share.
    type Cache: Default + Send + Sync + 'static;
    /// What the choice of a delivery passes to its attempt.
    type Permit: Send + 'static;
    /// What others see of an attempt in flight.
    type Mark: Clone + Send + Sync + 'static;

    /// Returns the wakes of its recipients.
    fn wakes(&self, store: &Store) -> Arc<WakeSet>;
    /// Returns where a recipient stands now.
    fn standing(&self, recipient: RecipientId) -> Standing<Self::Subject>;
    /// Returns how many attempts there may be at once for a subject.
    fn window(&self, subject: &Self::Subject) -> Window;
    /// Returns the slots that the attempts for a subject take.
    fn slots<'s>(&'s self, subject: &'s Self::Subject) -> &'s Arc<Slots>;
    /// Returns the user whose slots the attempts for a subject take: users share them.
    fn owner<'s>(&self, _subject: &'s Self::Subject) -> &'s str {
        ""
    }
    /// Returns in which order the deliveries for a subject are made, if in any: only for recipients that have theirs on one
    /// node.
    fn order(&self, _subject: &Self::Subject) -> Option<CompiledOrder> {
        None
    }
    /// Tells whether they have one.
    fn is_ordered(&self, _subject: &Self::Subject) -> bool {
        false
    }
    /// Returns how many deliveries are read beyond those that fill the window, to choose among them.
    fn ahead(&self) -> usize {
        0
    }
    /// Chooses the next delivery among those that wait.
    fn choose(
        &self,
        subject: &Self::Subject,
        waiting: &VecDeque<PendingDelivery>,
        cache: &Arc<Self::Cache>,
    ) -> Choice<Self::Permit>;
    /// Returns when deliveries of a subject may be attempted again, while none of them may be.
    fn held_until(&self, _subject: &Self::Subject) -> Option<Instant> {
        None
    }
    /// Makes the mark of an attempt that begins.
    fn mark(&self) -> Self::Mark;
    /// Makes one attempt. Dropping the future undoes it, except for what others may have received.
    fn deliver(
        self: &Arc<Self>,
        assignment: &Assignment<'_, Self>,
        permit: Self::Permit,
        record: &mut AttemptRecord,
    ) -> impl Future<Output = Next> + Send;
    /// Returns what follows from a panic in an attempt.
    fn panicked(
        self: &Arc<Self>,
        assignment: &Assignment<'_, Self>,
        record: &mut AttemptRecord,
    ) -> impl Future<Output = Next> + Send;
    /// Forgets what it keeps about a recipient that is gone.
    fn forget(&self, _recipient: RecipientId) {}
    /// Catches up with other nodes, before the deliveries that this node has gained are searched for.
    fn gained(&self) -> impl Future<Output = Result<(), Error>> + Send {
        std::future::ready(Ok(()))
    }
}

/// The rules by which the workers of one deliverer work.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Which deliveries are this node's.
    pub division: Division,
    /// How long a worker without work waits for more before it ends.
    pub linger: Duration,
    /// How long a delivery is put off at first, when it is put off without being counted.
    pub hold_min: Duration,
    /// Whether an attempt must not be repeated only because its end could not be recorded: the worker then tries to
    /// record it until the service stops, and the attempt fills its part of the window meanwhile.
    pub insists: bool,
    /// How long a worker that panicked rests at first.
    pub panic_pause: Duration,
}

/// How nodes divide deliveries ([`waypost_store::Share`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Division {
    /// A recipient has all of its deliveries on one node.
    ByRecipient,
    /// The deliveries of each recipient are spread over all nodes.
    ByEvent,
}

/// Where a recipient stands.
pub enum Standing<S> {
    /// Its deliveries are attempted.
    Active(Arc<S>),
    /// Its deliveries wait until it is active again, or are another deliverer's.
    Inactive,
    /// It is deleted: its deliveries are dropped.
    Gone,
}

/// How many attempts there may be at once for one subject. A worker begins with the minimum; a success adds one, and a
/// failure halves the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// With how many a worker begins.
    pub min: usize,
    /// The most.
    pub max: usize,
}

/// In which order the deliveries for a subject are made: a [`waypost_domain::Order`], ready to be used.
#[derive(Clone)]
pub struct CompiledOrder {
    /// Finds the lane of an event: deliveries of one lane wait for each other. `None` where there is one lane.
    pub lane: Option<LaneOf>,
    /// What becomes of those behind a dead letter.
    pub on_dead: OnDead,
}

/// Finds the lane of an event.
pub type LaneOf = Arc<dyn Fn(&LoggedEvent) -> u64 + Send + Sync>;

impl CompiledOrder {
    /// Returns the lane of an event.
    pub(crate) fn lane(&self, event: &LoggedEvent) -> u64 {
        self.lane.as_ref().map_or(0, |lane| lane(event))
    }

    fn has_one_lane(&self) -> bool {
        self.lane.is_none()
    }

    fn stops(&self) -> bool {
        self.on_dead == OnDead::Stop
    }
}

/// Which delivery is attempted next.
pub struct Choice<P> {
    /// Its place among those that wait, unless none may be attempted now.
    pub next: Option<(usize, P)>,
    /// When others that wait may be attempted.
    pub held_until: Option<Instant>,
}

/// One delivery to be attempted.
pub struct Assignment<'a, D: Deliverer> {
    /// Whom it is for.
    pub subject: &'a Arc<D::Subject>,
    /// The subject's id.
    pub recipient: RecipientId,
    /// What the store has about it.
    pub pending: &'a PendingDelivery,
    /// When the attempt began.
    pub at: Timestamp,
    /// The slot that the attempt has taken.
    pub slot: Occupied<'a>,
    /// What others see of it.
    pub mark: &'a D::Mark,
}

/// What an attempt has found out so far, for the history and for the next attempt.
pub struct AttemptRecord {
    /// What the next attempt has to know.
    pub progress: Progress,
    /// What policy answered.
    pub policy: Option<Answer>,
    /// What the target answered.
    pub target: Option<Answer>,
    /// What the plugin did, unless the store has it already.
    pub plugin: Option<Box<PluginRun>>,
    /// What the handler did.
    pub run: Option<Box<HandlerRun>>,
    /// Whether the store has the rendered payload.
    pub rendered: bool,
    /// How long the recipient took to answer, if it was asked.
    pub answered_in: Option<Duration>,
    /// How many attempts count as failed besides this one, if it failed: they were due, and not made.
    pub missed: u32,
}

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<E = Effect> {
    /// It counts.
    Over(Outcome, E),
    /// It does not count: the delivery is held for this reason, which is not the recipient's.
    Held(Holder, String),
    /// It does not count: another worker needed its slot.
    GaveWay(String),
}

/// What an attempt leads to besides its record.
pub enum Effect {
    /// Nothing.
    Nothing,
    /// This is done before the attempt is recorded. Until then its worker begins no other.
    First(BoxFuture<'static, ()>),
    /// This is done after the attempt is recorded.
    Then(BoxFuture<'static, ()>),
}

impl AttemptRecord {
    fn of(pending: &PendingDelivery) -> Self {
        Self {
            progress: pending.progress,
            policy: None,
            target: None,
            plugin: None,
            run: None,
            rendered: pending.rendered,
            answered_in: None,
            missed: 0,
        }
    }
}

impl<E> Next<E> {
    /// Replaces the effect.
    pub fn map_effect<F>(self, map: impl FnOnce(E) -> F) -> Next<F> {
        match self {
            Self::Over(outcome, effect) => Next::Over(outcome, map(effect)),
            Self::Held(by, reason) => Next::Held(by, reason),
            Self::GaveWay(reason) => Next::GaveWay(reason),
        }
    }
}

//! The worker of one subscription.
//!
//! A worker keeps a few attempts in flight, each with a slot ([`super::slots`]), and records how they ended; what waits is
//! in its [`Backlog`]. Its width, the number of attempts at once, starts at one, grows with every success and halves with
//! every failure: a target that hangs holds one attempt, not the whole allowance.
//!
//! An attempt that could not be made for a reason that is neither the target's nor the plugin's is put off without
//! being counted. After several of them in a row the worker rests, each time longer, and then tries the next delivery:
//! one event for which policy never answers does not block the others.
//!
//! A worker is good for one term of its hash slot ([`crate::store::Share`]): when the slot is lost it ends, after its
//! attempts in flight. While the fence is closed it begins none. The dispatcher notifies it of such changes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::time::Instant;

use super::attempt::{AttemptEnd, AttemptResult};
use super::backlog::Backlog;
use super::breaker::Permit;
use super::context::DeliveryContext;
use super::in_flight::lock;
use super::mailbox::Mailbox;
use super::outcome::SubscriptionEffect;
use super::pipeline::PluginContext;
use super::slots::Slot;
use super::state_cache::StateCache;
use crate::clock;
use crate::domain::{EventId, Outcome, RecipientId, Subscription};
use crate::store::{Error, HashSlot, PendingDelivery, Term, Wake};

/// How long a worker without work waits for more before it ends.
const LINGER: Duration = Duration::from_secs(1);
/// How many attempts in a row may be put off before the worker rests, and how long: at first, and at most.
const SHORTAGES_MAX: u32 = 3;
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);
/// How many ended attempts may wait to be settled, for each that may be in flight.
const UNRECORDED_FACTOR: usize = 4;
/// The most patience that a worker gets for its target.
const PATIENCE_MAX: Duration = Duration::from_secs(10 * 60);

/// The worker of one subscription, while it has pending deliveries.
pub(super) struct Worker {
    context: Arc<DeliveryContext>,
    id: RecipientId,
    /// The term of its slot in which it began.
    term: Option<Term>,
    mailbox: Arc<Mailbox>,
    width: usize,
    backlog: Backlog,
    /// When the breaker of the subscription's plugin lets a probe through, while deliveries wait for that.
    held: Option<Timestamp>,
    /// The state of the subscription's plugin.
    state_cache: Arc<StateCache>,
    attempts: FuturesUnordered<BoxFuture<'static, (AttemptResult, Slot)>>,
    endings: FuturesUnordered<BoxFuture<'static, SettleResult>>,
    /// The slot for the next attempt: requested, and received.
    asked: Option<BoxFuture<'static, Slot>>,
    slot: Option<Slot>,
    /// How long an attempt may last while another worker waits for its slot.
    patience: Duration,
    /// How many attempts in a row were put off, and until when the worker rests because of that.
    shortages: u32,
    rest: Option<Instant>,
    /// How many ends that disable the subscription are not recorded yet: until they are, nothing more is sent.
    disabling: usize,
}

/// The end of an attempt, with whether the store has recorded it.
struct SettleResult {
    event: EventId,
    /// Whether its row was that of a retry.
    was_retry: bool,
    /// When the next attempt is due, if there is one.
    due: Option<Timestamp>,
    /// Whether it was to disable the subscription.
    was_disabling: bool,
    result: Result<(), Error>,
}

impl Worker {
    pub(super) fn new(context: Arc<DeliveryContext>, id: RecipientId, mailbox: Arc<Mailbox>) -> Self {
        Self {
            backlog: Backlog::new(Arc::clone(&context.store), id),
            patience: context.slots.slice(),
            term: context.store.share().term(HashSlot::of_subscription(id)),
            context,
            id,
            mailbox,
            width: 1,
            held: None,
            state_cache: Arc::default(),
            attempts: FuturesUnordered::new(),
            endings: FuturesUnordered::new(),
            asked: None,
            slot: None,
            shortages: 0,
            rest: None,
            disabling: 0,
        }
    }

    /// Runs until nothing is pending, the subscription is inactive or another node's, or the service stops.
    pub(super) async fn run(mut self) {
        // Registered once: all workers share these tokens, and would otherwise queue for them in every round.
        let context = Arc::clone(&self.context);
        let (abort, stop) = (context.abort.cancelled(), context.stop.cancelled());
        let (linger, mut active) = (tokio::time::sleep(LINGER), Instant::now());
        tokio::pin!(abort, stop, linger);
        loop {
            let subscription =
                self.active().filter(|_| !self.context.stop.is_cancelled() && self.is_in_term());
            let going = subscription.is_some();
            match &subscription {
                Some(subscription) => self.go_on(subscription),
                None => {
                    self.backlog.stop();
                    self.asked = None;
                }
            }
            // A slot that no attempt has taken is released for other workers.
            self.slot = None;
            let busy = !self.attempts.is_empty() || !self.endings.is_empty();
            if !going && !busy {
                break;
            }
            let busy = busy || self.backlog.is_reading() || self.asked.is_some();
            // A timer that fires too early costs one round; setting it again costs more in every round.
            let wanted = Instant::now() + self.wait(going, busy);
            if linger.is_elapsed() || wanted < linger.deadline() {
                linger.as_mut().reset(wanted);
            }
            tokio::select! {
                biased;
                () = &mut abort => break,
                Some((ended, slot)) = self.attempts.next() => self.all_ended(ended, slot),
                Some(recorded) = self.endings.next() => self.all_recorded(recorded),
                slot = got(&mut self.asked), if going => self.slot = Some(slot),
                () = self.backlog.page() => {}
                () = self.mailbox.notify.notified() => {
                    if let Some(wake) = self.mailbox.take_wake() {
                        self.backlog.receive(wake);
                    }
                }
                () = &mut stop, if going => {}
                () = &mut linger => {
                    let is_due = self.backlog.look_at_what_is_due();
                    if !is_due && !busy && active.elapsed() >= LINGER && self.leave() {
                        return;
                    }
                    continue;
                }
            }
            active = Instant::now();
        }
        lock(&self.context.workers).remove(&self.id);
        self.context.holds.clear(self.id);
        // A change of the subscription since then found this worker still registered, and started no other.
        if !self.context.stop.is_cancelled() && self.active().is_some() {
            self.context.wake(self.id, Wake::read());
        }
    }

    /// Returns the subscription as it is now, unless it is disabled or deleted.
    fn active(&self) -> Option<Arc<Subscription>> {
        self.context.directory.get(self.id.subscription_id()).filter(|found| found.is_active())
    }

    /// Tells whether the subscription has been this node's since the worker began.
    fn is_in_term(&self) -> bool {
        self.term.is_some()
            && self.term == self.context.store.share().term(HashSlot::of_subscription(self.id))
    }

    fn may_begin(&self) -> bool {
        self.context.store.share().may_begin()
    }

    /// Returns how long to wait for the next event.
    fn wait(&self, going: bool, busy: bool) -> Duration {
        let far = if busy || !self.may_begin() { Duration::from_secs(30) } else { LINGER };
        if !going {
            return far;
        }
        let now = clock::now();
        // Deliveries that are due but do not fit now are read when there is room; a timer does not help.
        let due = self.backlog.next_due.filter(|_| !self.backlog.is_due_unread());
        // A half-open breaker wakes the worker when its probe ends.
        let held = self.held.filter(|until| *until > now);
        let first = due.into_iter().chain(held).min();
        let first = first.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let pauses = self.backlog.pause().into_iter().chain(self.rest);
        let pauses = pauses.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = first.into_iter().chain(pauses).min();
        wait.map_or(far, |wait| wait.max(Duration::from_millis(1)).min(far))
    }

    fn width_max(&self, subscription: &Subscription) -> usize {
        let own = subscription.max_in_flight.and_then(|own| usize::try_from(own).ok()).unwrap_or(usize::MAX);
        self.context.limits.subscription_in_flight_max.min(own).max(1)
    }

    /// Reads more if needed, and starts attempts.
    fn go_on(&mut self, subscription: &Arc<Subscription>) {
        let width = self.width.min(self.width_max(subscription));
        if self.backlog.waiting.len() < self.width
            && self.endings.len() < UNRECORDED_FACTOR * self.width_max(subscription)
        {
            // At most two windows: each pending event keeps its whole batch in memory.
            self.backlog.begin(2 * width);
        }
        self.held = None;
        self.rest = self.rest.filter(|until| Instant::now() < *until);
        if self.disabling > 0 || self.rest.is_some() || !self.may_begin() {
            return;
        }
        while self.attempts.len() < width {
            let Some((place, plugin_context)) = self.next(subscription) else { break };
            let Some(slot) = self.take_slot() else { break };
            let Some(pending) = self.backlog.waiting.remove(place) else { break };
            let (context, subscription) = (Arc::clone(&self.context), Arc::clone(subscription));
            self.attempts.push(Box::pin(context.attempt(subscription, pending, plugin_context, slot)));
        }
    }

    /// Takes a slot for one more attempt. Only a worker without any attempt waits for one.
    fn take_slot(&mut self) -> Option<Slot> {
        let slots = &self.context.slots;
        if let Some(slot) = self.slot.take() {
            return Some(slot);
        }
        if self.asked.is_some() {
            return None;
        }
        let slot = slots.try_take(self.patience, self.attempts.is_empty());
        if slot.is_none() && self.attempts.is_empty() {
            self.asked = Some(Box::pin(Arc::clone(slots).wait(self.patience)));
        }
        slot
    }

    /// Finds the next delivery that may be attempted now: while the plugin's breaker is open, only one that needs no
    /// plugin.
    fn next(&mut self, subscription: &Subscription) -> Option<(usize, Option<PluginContext>)> {
        let waiting = &self.backlog.waiting;
        let first = waiting.front()?;
        if subscription.plugin.is_none() {
            return Some((0, None));
        }
        let is_decided = |pending: &PendingDelivery| pending.rendered || pending.progress.passed;
        let permit = match is_decided(first) {
            true => Permit::Call,
            false => self.context.breakers.ask(subscription, clock::now()),
        };
        let place = match permit {
            Permit::Not { until, holds: true } => {
                self.held = Some(until);
                waiting.iter().position(is_decided)?
            }
            Permit::Call | Permit::Try(_) | Permit::Not { .. } => 0,
        };
        Some((place, Some(PluginContext { permit, state_cache: Arc::clone(&self.state_cache) })))
    }

    /// Handles this result and all others that are ready, in one round.
    fn all_ended(&mut self, ended: AttemptResult, slot: Slot) {
        let mut next = Some((ended, slot));
        while let Some((ended, slot)) = next {
            self.ended(ended);
            // A worker keeps its last slot for its next attempt, unless another worker needs it.
            if self.attempts.is_empty() && slot.patience() == self.patience && slot.may_be_kept() {
                self.slot = Some(slot);
            }
            next = self.attempts.next().now_or_never().flatten();
        }
    }

    /// Does the same for recorded ends: a commit records many at once.
    fn all_recorded(&mut self, first: SettleResult) {
        let mut next = Some(first);
        while let Some(recorded) = next {
            self.recorded(recorded);
            next = self.endings.next().now_or_never().flatten();
        }
    }

    fn ended(&mut self, ended: AttemptResult) {
        let (is_good, due) = match &ended.end {
            AttemptEnd::Settled(settlement) => match settlement.attempt.outcome {
                Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } => (true, None),
                Outcome::Retry { due, .. } => (false, Some(due)),
                Outcome::Dead { .. } => (false, None),
            },
            AttemptEnd::Released(release) => (false, Some(release.due)),
        };
        self.mailbox.backpressure.note(ended.took, is_good);
        self.width = if is_good { self.width + 1 } else { (self.width / 2).max(1) };
        self.width = self.width.min(self.context.limits.subscription_in_flight_max.max(1));
        self.note_shortage(&ended);
        let (event, position) = match &ended.end {
            AttemptEnd::Settled(settlement) => (settlement.event, settlement.position),
            AttemptEnd::Released(release) => (release.event, release.position),
        };
        let was_retry = position.due.is_some();
        let was_disabling = match ended.effect {
            SubscriptionEffect::Nothing | SubscriptionEffect::Reached => false,
            SubscriptionEffect::DisableUnlessReached(_) | SubscriptionEffect::Disable(_) => true,
        };
        self.disabling += usize::from(was_disabling);
        if !was_disabling {
            self.context.note_success(&ended);
        }
        let context = Arc::clone(&self.context);
        self.endings.push(Box::pin(async move {
            if was_disabling {
                Box::pin(context.apply_effect(&ended)).await;
            }
            let result = match ended.end {
                AttemptEnd::Settled(settlement) => context.store.settle(settlement).await,
                AttemptEnd::Released(release) => context.store.release(*release).await,
            };
            SettleResult { event, was_retry, due, was_disabling, result }
        }));
    }

    /// Rests after several shortages in a row, and gets more patience for a target whose attempt had to give way.
    fn note_shortage(&mut self, ended: &AttemptResult) {
        let slice = self.context.slots.slice();
        match &ended.end {
            AttemptEnd::Settled(_) => {
                if self.shortages > 0 {
                    self.shortages = 0;
                    self.rest = None;
                    self.context.holds.clear(self.id);
                }
                if ended.took <= slice {
                    self.patience = slice;
                }
            }
            AttemptEnd::Released(release) => {
                if ended.gave_way {
                    self.patience = (2 * self.patience).min(PATIENCE_MAX);
                }
                self.shortages = self.shortages.saturating_add(1);
                self.context.holds.note(self.id, release.by, clock::now());
                if let Some(beyond) = self.shortages.checked_sub(SHORTAGES_MAX) {
                    let rest = (REST * 2u32.saturating_pow(beyond.min(16))).min(REST_MAX);
                    self.rest = Some(Instant::now() + rest);
                }
            }
        }
    }

    fn recorded(&mut self, recorded: SettleResult) {
        let SettleResult { event, was_retry, due, was_disabling, result } = recorded;
        self.disabling -= usize::from(was_disabling);
        match result {
            Ok(()) => self.backlog.record(event, was_retry, due),
            // The row is still there. It stays taken, so that this worker does not repeat the attempt in a tight loop.
            Err(error) => {
                tracing::error!(subscription = %self.id, %event, %error, "the end of an attempt is not recorded: it will be repeated");
            }
        }
    }

    /// Ends the worker if there is no new work; returns whether it has ended.
    fn leave(&mut self) -> bool {
        let mut workers = lock(&self.context.workers);
        // Wakes are pushed under the same lock: a later one starts a new worker.
        if !self.backlog.is_over() || self.mailbox.has_wake() {
            return false;
        }
        workers.remove(&self.id);
        if self.shortages > 0 {
            self.context.holds.clear(self.id);
        }
        if let Some(due) = self.backlog.next_due {
            lock(&self.context.timetable).insert(self.id, due);
            self.context.timetable_changed.notify_one();
        }
        true
    }
}

/// Waits for the slot that was requested. Cancel safe.
async fn got(asked: &mut Option<BoxFuture<'static, Slot>>) -> Slot {
    let Some(waiting) = asked else { return std::future::pending().await };
    let slot = waiting.await;
    *asked = None;
    slot
}

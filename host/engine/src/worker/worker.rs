//! The worker of one recipient.
//!
//! A worker keeps a few attempts in flight, each with a slot ([`super::slots`]), and records how they ended; what waits
//! is in its [`Reading`]. Its width, the number of attempts at once, starts small ([`super::Window`]) and follows how they
//! end ([`Pace`]): a target that hangs holds one attempt, not the whole allowance.
//!
//! An attempt that could not be made for a reason that is not the recipient's is put off without being counted. After
//! several of them in a row the worker rests, each time longer, and then tries the next delivery: one event for which
//! policy never answers, or whose files do not fit on the disk, does not block the others.
//!
//! A worker whose recipient has its deliveries on one node works for one term of its hash slot
//! ([`waypost_store::Share`]): when the slot is lost, it ends after its attempts in flight. Where nodes share a
//! recipient, its workers skip the deliveries of other nodes. While the fence is closed, no attempt begins. The
//! supervisor notifies workers of such changes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::attempt::{AttemptResult, Haste, Record, attempt};
use super::lanes::HeadEnd;
use super::mailbox::Mailbox;
use super::pace::Pace;
use super::reading::Reading;
use super::slots::{Owner, Slot, Slots};
use super::supervisor::Shared;
use super::{Choice, Deliverer, Division, Effect, Standing};
use waypost_domain::{EventId, RecipientId};
use waypost_runtime::clock;
use waypost_store::{Error, Gains, HashSlot, Term};

/// How many attempts in a row may be put off before the worker rests, and how long: at first, and at most.
const SHORTAGES_MAX: u32 = 3;
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);
/// How many ended attempts may wait to be settled, for each that may be in flight.
const UNRECORDED_FACTOR: usize = 4;
/// The most patience that a worker gets for its recipient.
const PATIENCE_MAX: Duration = Duration::from_secs(10 * 60);
/// The longest that a worker with something to do waits before it checks again.
const LOOK: Duration = Duration::from_secs(30);

/// Why a worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerEnd {
    /// Nothing is pending, except what is due then.
    Idle { next_due: Option<Timestamp> },
    /// Its deliverer holds back all that is pending until then.
    Held { until: Instant },
    /// Its recipient is disabled or deleted.
    Inactive,
    /// Its recipient's hash slot is another node's, or was in between.
    LostSlot,
    /// The service stops.
    Stopped,
}

/// The worker of one recipient, while it has pending deliveries.
pub(super) struct Worker<D: Deliverer> {
    shared: Arc<Shared<D>>,
    id: RecipientId,
    /// The term of its recipient's hash slot in which it began.
    term: Option<Term>,
    /// How often this node has gained slots, and how often it had when the backlog was read from the beginning.
    share: watch::Receiver<Gains>,
    gains: Gains,
    mailbox: Arc<Mailbox>,
    pace: Pace,
    backlog: Reading,
    /// What its recipient was when it began, if its deliveries have an order: another needs another worker.
    begun_for: Option<Arc<D::Subject>>,
    /// When the deliverer may choose again, while deliveries wait for that.
    held: Option<Instant>,
    cache: Arc<D::Cache>,
    attempts: FuturesUnordered<BoxFuture<'static, (AttemptResult, Slot)>>,
    endings: FuturesUnordered<BoxFuture<'static, SettleResult>>,
    slots: Arc<Slots>,
    owner: Owner,
    /// The slot for the next attempt: requested, and received.
    asked: Option<BoxFuture<'static, Slot>>,
    slot: Option<Slot>,
    /// How long an attempt may last while another worker waits for its slot.
    patience: Duration,
    /// How many attempts in a row were put off, and until when the worker rests because of that.
    shortages: u32,
    rest: Option<Instant>,
    /// How many ends with an effect that comes first are not recorded yet: until they are, nothing more begins.
    blocking: usize,
}

/// The end of an attempt, with whether the store has recorded it.
struct SettleResult {
    event: EventId,
    was_retry: bool,
    end: HeadEnd,
    was_blocking: bool,
    result: Result<(), Error>,
}

impl<D: Deliverer> Worker<D> {
    /// Works until nothing is pending, the recipient is inactive or another node's, or the service stops.
    pub(super) async fn work(shared: Arc<Shared<D>>, id: RecipientId, mailbox: Arc<Mailbox>) -> WorkerEnd {
        match shared.deliverer.standing(id) {
            Standing::Active(subject) => Self::new(shared, id, mailbox, &subject).run().await,
            Standing::Inactive | Standing::Gone => WorkerEnd::Inactive,
        }
    }

    fn new(
        shared: Arc<Shared<D>>,
        id: RecipientId,
        mailbox: Arc<Mailbox>,
        subject: &Arc<D::Subject>,
    ) -> Self {
        let (slots, window) = (Arc::clone(shared.deliverer.slots(subject)), shared.deliverer.window(subject));
        let share = shared.store.share().changed();
        let gains = *share.borrow();
        let order = shared.deliverer.order(subject);
        Self {
            begun_for: order.is_some().then(|| Arc::clone(subject)),
            backlog: Reading::new(Arc::clone(&shared.store), id, D::RULES.division, order),
            patience: slots.slice(),
            owner: slots.owner(shared.deliverer.owner(subject)),
            term: shared.store.share().term(HashSlot::of_subscription(id)),
            shared,
            id,
            share,
            gains,
            mailbox,
            pace: Pace::new(window),
            held: None,
            cache: Arc::default(),
            attempts: FuturesUnordered::new(),
            endings: FuturesUnordered::new(),
            slots,
            asked: None,
            slot: None,
            shortages: 0,
            rest: None,
            blocking: 0,
        }
    }

    async fn run(mut self) -> WorkerEnd {
        // Registered once: all workers share these tokens, and would otherwise queue for them in every round.
        let shared = Arc::clone(&self.shared);
        let (abort, stop) = (shared.abort.cancelled(), shared.stop.cancelled());
        let (linger, mut active) = (tokio::time::sleep(LOOK.min(D::RULES.linger)), Instant::now());
        tokio::pin!(abort, stop, linger);
        loop {
            let subject = self.subject();
            let going = subject.is_ok();
            match &subject {
                Ok(subject) => self.go_on(subject),
                Err(_) => {
                    self.backlog.stop();
                    self.asked = None;
                }
            }
            // A slot that no attempt has taken is released for other workers.
            self.slot = None;
            let busy = !self.attempts.is_empty() || !self.endings.is_empty();
            match subject {
                Err(end) if !busy => return end,
                Ok(subject) if !busy && let Some(until) = self.held_long(&subject) => {
                    return WorkerEnd::Held { until };
                }
                Ok(_) | Err(_) => {}
            }
            let busy = busy || self.backlog.is_reading() || self.asked.is_some();
            // A timer that fires too early costs one round; setting it again costs more in every round.
            let wanted = Instant::now() + self.wait(going, busy);
            if linger.is_elapsed() || wanted < linger.deadline() {
                linger.as_mut().reset(wanted);
            }
            tokio::select! {
                biased;
                () = &mut abort => return WorkerEnd::Stopped,
                Some((ended, slot)) = self.attempts.next() => self.all_ended(ended, slot),
                Some(recorded) = self.endings.next() => self.all_recorded(recorded),
                slot = got(&mut self.asked), if going => self.slot = Some(slot),
                () = self.backlog.page(2 * self.pace.width()) => {}
                () = self.mailbox.notify.notified() => {
                    if let Some(wake) = self.mailbox.take_wake() {
                        self.backlog.receive(wake);
                    }
                }
                () = &mut stop, if going => {}
                () = &mut linger => {
                    let is_due = self.backlog.look_at_what_is_due();
                    let is_idle = !is_due && !busy && active.elapsed() >= D::RULES.linger;
                    if is_idle && self.backlog.is_over() && !self.mailbox.has_wake() {
                        return WorkerEnd::Idle { next_due: self.backlog.needed_at() };
                    }
                    continue;
                }
            }
            active = Instant::now();
        }
    }

    /// Returns the current subject, or why no more attempts may begin here.
    fn subject(&mut self) -> Result<Arc<D::Subject>, WorkerEnd> {
        if self.shared.stop.is_cancelled() {
            return Err(WorkerEnd::Stopped);
        }
        match D::RULES.division {
            Division::ByRecipient => {
                let term = self.shared.store.share().term(HashSlot::of_subscription(self.id));
                if self.term.is_none() || self.term != term {
                    return Err(WorkerEnd::LostSlot);
                }
            }
            Division::ByEvent => {
                let gains = *self.share.borrow();
                if gains != std::mem::replace(&mut self.gains, gains) {
                    // Other nodes may have changed what was gained in any way.
                    self.backlog.restart();
                }
            }
        }
        match self.shared.deliverer.standing(self.id) {
            Standing::Active(subject) if self.is_begun_for(&subject) => Ok(subject),
            Standing::Active(_) | Standing::Inactive | Standing::Gone => Err(WorkerEnd::Inactive),
        }
    }

    /// Tells whether its backlog is in the subject's order.
    fn is_begun_for(&self, subject: &Arc<D::Subject>) -> bool {
        match &self.begun_for {
            Some(begun_for) => Arc::ptr_eq(begun_for, subject),
            None => !self.shared.deliverer.is_ordered(subject),
        }
    }

    /// Returns until when its deliverer holds back all deliveries, if that is long.
    fn held_long(&self, subject: &D::Subject) -> Option<Instant> {
        self.held?;
        let until = self.shared.deliverer.held_until(subject)?;
        (until > Instant::now() + D::RULES.linger).then_some(until)
    }

    fn may_begin(&self) -> bool {
        self.shared.store.share().may_begin()
    }

    /// Returns how long to wait for the next event.
    fn wait(&self, going: bool, busy: bool) -> Duration {
        let far = if busy || !self.may_begin() { LOOK } else { LOOK.min(D::RULES.linger) };
        if !going {
            return far;
        }
        let now = clock::now();
        // Deliveries that are due but do not fit now are read when there is room; a timer does not help.
        let due = self.backlog.next_due().filter(|_| !self.backlog.is_due_unread());
        // Where a probe is in flight, its end wakes the worker.
        let held = self.held.filter(|until| *until > Instant::now());
        let due = due.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let pauses = self.backlog.pause().into_iter().chain(self.rest).chain(held);
        let pauses = pauses.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = due.into_iter().chain(pauses).min();
        wait.map_or(far, |wait| wait.max(Duration::from_millis(1)).min(far))
    }

    /// Reads more if needed, and starts attempts.
    fn go_on(&mut self, subject: &Arc<D::Subject>) {
        self.pace.within(self.shared.deliverer.window(subject));
        let width = self.pace.width();
        self.backlog.drop_foreign();
        let (waiting, ahead) = (self.backlog.waiting().len(), self.shared.deliverer.ahead());
        if waiting < width + ahead && self.endings.len() < UNRECORDED_FACTOR * self.pace.window().max {
            // At most two windows and what is read ahead: each pending event keeps its whole batch in memory.
            self.backlog.begin(2 * width + ahead.saturating_sub(waiting));
        }
        self.held = None;
        self.rest = self.rest.filter(|until| Instant::now() < *until);
        if self.backlog.is_ordered() {
            // What waits for its turn is not this machine's doing.
            self.mailbox.backpressure.hold_back();
        }
        if self.blocking > 0 || self.rest.is_some() || !self.may_begin() {
            return;
        }
        while self.at_work() < width && !self.backlog.waiting().is_empty() {
            let Choice { next, held_until } =
                self.shared.deliverer.choose(subject, self.backlog.waiting(), &self.cache);
            self.held = held_until;
            if self.held.is_some() {
                self.mailbox.backpressure.hold_back();
            }
            let Some((place, permit)) = next else { break };
            let Some(slot) = self.take_slot() else { break };
            let Some(pending) = self.backlog.take(place) else { break };
            let (shared, subject) = (Arc::clone(&self.shared), Arc::clone(subject));
            self.attempts.push(Box::pin(attempt(shared, self.id, subject, pending, permit, slot)));
        }
    }

    /// Returns how many attempts fill the window.
    fn at_work(&self) -> usize {
        self.attempts.len() + if D::RULES.insists { self.endings.len() } else { 0 }
    }

    /// Takes a slot for one more attempt. Only a worker without any attempt waits for one.
    fn take_slot(&mut self) -> Option<Slot> {
        let slots = &self.slots;
        if let Some(slot) = self.slot.take() {
            return Some(slot);
        }
        if self.asked.is_some() {
            return None;
        }
        let slot = slots.try_take(&self.owner, self.patience, self.attempts.is_empty());
        if slot.is_none() && self.attempts.is_empty() {
            self.asked = Some(Box::pin(slots.wait(&self.owner, self.patience)));
        }
        slot
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
        let AttemptResult { event, was_retry, is_good, due, .. } = ended;
        let end = match due {
            Some(due) => HeadEnd::Again(due),
            None if is_good => HeadEnd::Over,
            None => HeadEnd::Dead,
        };
        let haste = if self.backlog.is_awaited(event) { Haste::AtOnce } else { Haste::Grouped };
        self.mailbox.backpressure.note(ended.took, is_good);
        self.pace.note(is_good, ended.answered_in);
        self.note_shortage(&ended);
        let AttemptResult { record, effect, .. } = ended;
        let was_blocking = matches!(effect, Effect::First(_));
        self.blocking += usize::from(was_blocking);
        let shared = Arc::clone(&self.shared);
        self.endings.push(Box::pin(async move {
            let then = match effect {
                Effect::Nothing => None,
                Effect::First(work) => {
                    work.await;
                    None
                }
                Effect::Then(work) => Some(work),
            };
            let result = record.write(&shared, haste).await;
            if let (Ok(()), Some(work)) = (&result, then) {
                work.await;
            }
            SettleResult { event, was_retry, end, was_blocking, result }
        }));
    }

    /// Rests after several shortages in a row, and gets more patience for a recipient whose attempt had to give way.
    fn note_shortage(&mut self, ended: &AttemptResult) {
        let slice = self.slots.slice();
        match &ended.record {
            Record::Settled(_) => {
                if self.shortages > 0 {
                    self.shortages = 0;
                    self.rest = None;
                    self.mailbox.clear_hold();
                }
                if ended.took <= slice {
                    self.patience = slice;
                }
            }
            Record::Released(release) => {
                if ended.gave_way {
                    self.patience = (2 * self.patience).min(PATIENCE_MAX);
                }
                self.shortages = self.shortages.saturating_add(1);
                self.mailbox.note_hold(release.by, clock::now());
                if let Some(beyond) = self.shortages.checked_sub(SHORTAGES_MAX) {
                    let rest = (REST * 2u32.saturating_pow(beyond.min(16))).min(REST_MAX);
                    self.rest = Some(Instant::now() + rest);
                }
            }
        }
    }

    fn recorded(&mut self, recorded: SettleResult) {
        let SettleResult { event, was_retry, end, was_blocking, result } = recorded;
        self.blocking -= usize::from(was_blocking);
        match result {
            Ok(()) => self.backlog.record(event, was_retry, end),
            // The row is still there.
            Err(error) => {
                self.backlog.fail_to_record(event);
                tracing::error!(recipient = %self.id, %event, %error, "the end of an attempt is not recorded: it will be repeated");
            }
        }
    }
}

/// Waits for the slot that was requested. Cancel safe.
async fn got(asked: &mut Option<BoxFuture<'static, Slot>>) -> Slot {
    let Some(waiting) = asked else { return std::future::pending().await };
    let slot = waiting.await;
    *asked = None;
    slot
}

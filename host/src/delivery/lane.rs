//! One subscription's deliveries.
//!
//! A lane reads what is owed in pages until it has read everything; from then on the store's news are enough, and
//! the store is read again only when the lane could not keep up. It keeps a few attempts under way and records how
//! each ended. Its width, the number of attempts at once, starts at one, grows with every success and halves with
//! every failure: a target that hangs holds one attempt, not the whole allowance.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::attempt::Ended;
use super::breaker::Permit;
use super::engine::Engine;
use super::kept::Kept;
use super::pipeline::Visit;
use super::traffic::{Gauge, lock};
use crate::clock;
use crate::domain::{EventId, Outcome, Subscription, SubscriptionId};
use crate::store::{Ask, Error, News, Owed, Waiting};

/// How long a lane without work waits for more before it ends.
const LINGER: Duration = Duration::from_secs(1);
/// How long a lane waits after the store could not be read.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How many ended attempts may wait for being recorded, for each that may be under way.
const UNRECORDED_FACTOR: usize = 4;

/// A subscription's deliveries while there are any.
pub(super) struct Lane {
    engine: Arc<Engine>,
    id: SubscriptionId,
    gauge: Arc<Gauge>,
    width: usize,
    /// Read, and not tried yet.
    waiting: VecDeque<Owed>,
    /// The newest batch that has been read.
    read_to: EventId,
    /// The store may hold what has not been read.
    unread: bool,
    next_due: Option<Timestamp>,
    /// When the breaker of the subscription's plugin lets a delivery try it, while deliveries wait for that.
    held: Option<Timestamp>,
    /// The state of the subscription's plugin.
    kept: Arc<Kept>,
    /// Retries that have been read and whose end is not recorded: their rows are still in the store.
    taken: HashSet<EventId>,
    attempts: FuturesUnordered<BoxFuture<'static, Ended>>,
    endings: FuturesUnordered<BoxFuture<'static, Recorded>>,
}

/// An ended attempt that the store has recorded, or not.
struct Recorded {
    event: EventId,
    /// When the next attempt is due, if there is one.
    due: Option<Timestamp>,
    result: Result<(), Error>,
}

impl Lane {
    pub(super) fn new(engine: Arc<Engine>, id: SubscriptionId, gauge: Arc<Gauge>) -> Self {
        Self {
            engine,
            id,
            gauge,
            width: 1,
            waiting: VecDeque::new(),
            read_to: EventId::NIL,
            unread: true,
            next_due: None,
            held: None,
            kept: Arc::default(),
            taken: HashSet::new(),
            attempts: FuturesUnordered::new(),
            endings: FuturesUnordered::new(),
        }
    }

    /// Runs until nothing waits, the subscription is inactive, or the service stops.
    pub(super) async fn run(mut self) {
        // Registered once: all lanes share these tokens, and would otherwise queue for them at every turn.
        let engine = Arc::clone(&self.engine);
        let (abort, stop) = (engine.abort.cancelled(), engine.stop.cancelled());
        let (linger, mut active) = (tokio::time::sleep(LINGER), Instant::now());
        tokio::pin!(abort, stop, linger);
        loop {
            let mut subscription = self.active();
            let going = subscription.is_some() && !self.engine.stop.is_cancelled();
            if let (true, Some(known)) = (going, &subscription)
                && self.wants_more(known)
            {
                if !self.read(known).await {
                    continue;
                }
                // Reading takes its time: what was accepted after a change goes out as changed.
                subscription = self.active();
            }
            if let (true, Some(subscription)) = (going, &subscription) {
                self.start_attempts(subscription);
            }
            let busy = !self.attempts.is_empty() || !self.endings.is_empty();
            if !going && !busy {
                break;
            }
            // A timer that fires too early costs one turn; setting it anew costs more at every turn.
            let wanted = Instant::now() + self.rest(going, busy);
            if linger.is_elapsed() || wanted < linger.deadline() {
                linger.as_mut().reset(wanted);
            }
            tokio::select! {
                biased;
                () = &mut abort => break,
                Some(ended) = self.attempts.next() => self.all_ended(ended).await,
                Some(recorded) = self.endings.next() => self.all_recorded(recorded),
                () = self.gauge.wake.notified() => self.hear(),
                () = &mut stop, if going => {}
                () = &mut linger => {
                    if self.is_due() {
                        self.unread = true;
                    } else if !busy && active.elapsed() >= LINGER && self.leave() {
                        return;
                    }
                    continue;
                }
            }
            active = Instant::now();
        }
        lock(&self.engine.lanes).remove(&self.id);
        // Whoever changed the subscription meanwhile found the lane still there.
        if !self.engine.stop.is_cancelled() && self.active().is_some() {
            self.engine.wake(self.id, News::read());
        }
    }

    /// Returns the subscription as it is now, unless it is disabled or deleted.
    fn active(&self) -> Option<Arc<Subscription>> {
        self.engine.directory.get(self.id).filter(|found| found.is_active())
    }

    /// How long to wait for something to happen.
    fn rest(&self, going: bool, busy: bool) -> Duration {
        let far = Duration::from_secs(30);
        // What is due while there is no room for it is read when there is: no clock tells that.
        let due = self.next_due.filter(|_| going && !self.unread);
        // One whose trial is under way wakes by its end.
        let held = self.held.filter(|until| going && *until > clock::now());
        let wait = due.into_iter().chain(held).min().map(|at| {
            Duration::try_from(at.duration_since(clock::now()))
                .unwrap_or_default()
                .max(Duration::from_millis(1))
        });
        let idle = if busy { far } else { LINGER };
        wait.unwrap_or(far).min(idle)
    }

    fn is_due(&self) -> bool {
        self.next_due.is_some_and(|due| due <= clock::now())
    }

    fn width_max(&self, subscription: &Subscription) -> usize {
        let own = subscription.max_in_flight.and_then(|own| usize::try_from(own).ok()).unwrap_or(usize::MAX);
        self.engine.limits.subscription_in_flight_max.min(own).max(1)
    }

    fn wants_more(&self, subscription: &Subscription) -> bool {
        self.unread
            && self.waiting.len() < self.width
            && self.endings.len() < UNRECORDED_FACTOR * self.width_max(subscription)
    }

    /// Reads a page; returns `false` when the store could not be read now.
    async fn read(&mut self, subscription: &Subscription) -> bool {
        self.unread = false;
        // No more than is soon tried: a waiting event keeps its whole batch in memory.
        let page = 2 * self.width.min(self.width_max(subscription));
        let ask = Ask {
            subscription: self.id,
            after: self.read_to,
            fresh: page,
            now: clock::now(),
            due: page + self.taken.len(),
        };
        match self.engine.store.owed(ask).await {
            Ok(Waiting { fresh, due, next_due }) => {
                self.unread = fresh.len() >= page || due.len() >= ask.due;
                self.read_to = fresh.last().map_or(self.read_to, |owed| owed.place.batch);
                let taken = &mut self.taken;
                self.waiting.extend(due.into_iter().filter(|owed| taken.insert(owed.event.id)));
                self.waiting.extend(fresh);
                self.next_due = next_due;
                true
            }
            Err(error) => {
                tracing::warn!(subscription = %self.id, %error, "what is owed cannot be read now");
                self.unread = true;
                tokio::select! {
                    () = tokio::time::sleep(STORE_PAUSE) => {}
                    () = self.engine.stop.cancelled() => {}
                }
                false
            }
        }
    }

    fn start_attempts(&mut self, subscription: &Arc<Subscription>) {
        let width = self.width.min(self.width_max(subscription));
        self.held = None;
        while self.attempts.len() < width && !self.waiting.is_empty() {
            // The first attempt of each lane needs no permit, so that nobody waits for others' targets.
            let permit = match self.attempts.is_empty() {
                true => None,
                false => match Arc::clone(&self.engine.extra).try_acquire_owned() {
                    Ok(permit) => Some(permit),
                    Err(_) => break,
                },
            };
            let Some((owed, visit)) = self.next(subscription) else { break };
            let engine = Arc::clone(&self.engine);
            self.attempts.push(attempt(engine, Arc::clone(subscription), owed, visit, permit));
        }
    }

    /// Takes the next delivery that may be tried now: while the plugin's breaker is open, only one that needs no plugin.
    fn next(&mut self, subscription: &Subscription) -> Option<(Owed, Option<Visit>)> {
        if subscription.plugin.is_none() {
            return Some((self.waiting.pop_front()?, None));
        }
        let is_decided = |owed: &Owed| owed.prepared || owed.progress.passed;
        let permit = match self.waiting.front() {
            Some(first) if !is_decided(first) => self.engine.breakers.ask(subscription, clock::now()),
            Some(_) | None => Permit::Call,
        };
        let place = match permit {
            Permit::Not { until, holds: true } => {
                self.held = Some(until);
                self.waiting.iter().position(is_decided)?
            }
            Permit::Call | Permit::Try(_) | Permit::Not { .. } => 0,
        };
        let visit = Visit { permit, kept: Arc::clone(&self.kept) };
        Some((self.waiting.remove(place)?, Some(visit)))
    }

    /// Takes what is new. Whoever has not read everything before, or has enough to do, reads it later.
    fn hear(&mut self) {
        let news = self.gauge.take_news();
        if news.read || self.unread || self.waiting.len() > 2 * self.width {
            self.unread = true;
            return;
        }
        // What has been read since the news were made is in them once more.
        for owed in news.fresh.into_iter().filter(|owed| owed.place.batch > self.read_to) {
            self.waiting.push_back(owed);
        }
        self.read_to = self.waiting.back().map_or(self.read_to, |owed| self.read_to.max(owed.place.batch));
    }

    /// Takes this end and all others that are there: one turn for many.
    async fn all_ended(&mut self, first: Ended) {
        let mut next = Some(first);
        while let Some(ended) = next {
            self.ended(ended).await;
            next = self.attempts.next().now_or_never().flatten();
        }
    }

    /// The same for what the store has recorded: a commit records many at once.
    fn all_recorded(&mut self, first: Recorded) {
        let mut next = Some(first);
        while let Some(recorded) = next {
            self.recorded(recorded);
            next = self.endings.next().now_or_never().flatten();
        }
    }

    async fn ended(&mut self, ended: Ended) {
        let attempt = &ended.finished.attempt;
        let good = match attempt.outcome {
            Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } => true,
            Outcome::Retry { .. } | Outcome::Dead { .. } => false,
        };
        self.gauge.note(attempt.took, good);
        self.width = if good { self.width + 1 } else { (self.width / 2).max(1) };
        self.width = self.width.min(self.engine.limits.subscription_in_flight_max.max(1));
        let due = match attempt.outcome {
            Outcome::Retry { due, .. } => Some(due),
            Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } | Outcome::Dead { .. } => None,
        };
        self.engine.follow(&ended).await;
        let (store, event) = (Arc::clone(&self.engine.store), ended.finished.event);
        self.endings.push(Box::pin(async move {
            let result = store.finish(ended.finished).await;
            Recorded { event, due, result }
        }));
    }

    fn recorded(&mut self, Recorded { event, due, result }: Recorded) {
        if let Err(error) = result {
            // The row is still there, and stays taken: this lane does not repeat the attempt at once, and for ever.
            tracing::error!(subscription = %self.id, %event, %error, "the end of an attempt is not recorded: it will be repeated");
            return;
        }
        // A retry of the same event may have been read meanwhile, and been taken for this one.
        self.unread |= self.taken.remove(&event);
        // Only now is the row of the next attempt where a reading would find it.
        self.next_due = due.into_iter().chain(self.next_due).min();
    }

    /// Leaves if no work has come; returns whether the lane is gone.
    fn leave(&mut self) -> bool {
        let mut lanes = lock(&self.engine.lanes);
        // Wakes come under the same lock: what is not here yet starts a new lane.
        if self.unread || !self.waiting.is_empty() || self.gauge.has_news() {
            return false;
        }
        lanes.remove(&self.id);
        if let Some(due) = self.next_due {
            lock(&self.engine.timetable).insert(self.id, due);
            self.engine.timetable_changed.notify_one();
        }
        true
    }
}

fn attempt(
    engine: Arc<Engine>,
    subscription: Arc<Subscription>,
    owed: Owed,
    visit: Option<Visit>,
    permit: Option<OwnedSemaphorePermit>,
) -> BoxFuture<'static, Ended> {
    Box::pin(async move {
        let ended = engine.attempt(subscription, owed, visit).await;
        drop(permit);
        ended
    })
}

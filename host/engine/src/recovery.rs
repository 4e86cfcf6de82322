//! Replays the log into subscriptions: one task advances all running recoveries, one page at a time.
//!
//! A step reads a page of the log, tries the subscription's present filter, and hands the matches to the store. The
//! store adds the missing deliveries and the progress in one transaction, so a restart continues where it stopped and
//! no delivery is added twice. Workers then deliver them as usual, policy included.
//!
//! No event is missed between live matching and the scan. The end of the scan is set once the subscription is in the
//! store: each event behind it in the log was matched with it ([`Store::accept`](waypost_store::Store::accept)). It is set
//! again whenever the subscription changes, because the subscription may have been disabled. Events before the end that
//! were matched live already have their delivery, which the store sees.
//!
//! All recoveries together read a limited number of events a second, taking pages in rotation. A recovery waits while
//! its subscription is disabled, and while its deliveries wait for the target. `http` starts and cancels recoveries. A
//! recovery runs where its subscription's hash slot is ([`waypost_store::Share`]), and goes on elsewhere when that is lost.

mod page;
pub(crate) mod schedule;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::directory::{self, CompiledSubscription, Directory};
use schedule::Schedule;
use waypost_domain::recovery::State;
use waypost_domain::{
    Action, Actor, AuditEntry, EventId, OnDead, Order, Recovery, Subscription, SubscriptionId,
};
use waypost_runtime::clock;
use waypost_store::{self as store, Backlog, Forward, Gains, HashSlot, Step, Store};

/// The least and the most events of a page, which otherwise has the events of a second, and the most bytes.
const PAGE_EVENTS_MIN: usize = 16;
const PAGE_EVENTS_MAX: usize = 256;
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// How many deliveries may be due before more are added, so that deliveries of new events do not queue behind many
/// others.
pub(crate) const DUE_MAX: usize = 256;
/// How many deliveries may wait for a retry or be due: a target that refuses everything gets no more.
pub(crate) const WAITING_MAX: usize = 10_000;
/// How soon a recovery that waits for its target is tried again. The pause grows with the number of pending deliveries,
/// because counting them takes longer.
pub(crate) const TARGET_PAUSE: Duration = Duration::from_millis(20);
pub(crate) const TARGET_PAUSE_EACH: Duration = Duration::from_micros(100);
/// How soon a recovery that waits for anything else is tried again.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Why a running recovery does not advance now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its subscription is disabled.
    Disabled,
    /// The deliveries that it has created wait for the target.
    Target,
    /// The store cannot be used.
    Store,
}

/// The recoveries: a handle on their task.
pub struct Recoveries {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Shared {
    store: Arc<Store>,
    directory: Arc<Directory>,
    /// How many events are read in a second.
    rate: u32,
    /// New recoveries, and those that were cancelled.
    changed: Mutex<Vec<Recovery>>,
    told: Notify,
    waits: Mutex<HashMap<SubscriptionId, Wait>>,
    /// The time of each subscription's last change when the end of its scan was set.
    fixed_for: Mutex<HashMap<SubscriptionId, Timestamp>>,
}

/// How a step ended.
enum StepResult {
    /// There is more; this many events were read.
    More(Recovery, u64),
    /// Nothing can be done before this time has passed.
    Wait(Recovery, Wait, Duration),
    /// It has ended, or is another node's: when it becomes this node's, it is read again.
    Over,
}

impl Recoveries {
    /// Continues the recoveries that were running, reading `rate` events a second.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        store: Arc<Store>,
        directory: Arc<Directory>,
        rate: u32,
    ) -> Result<Self, store::Error> {
        let share = store.share().changed();
        let gains = *share.borrow();
        let changed = Mutex::new(store.running_recoveries().await?);
        let shared = Arc::new(Shared {
            store,
            directory,
            rate: rate.max(1),
            changed,
            told: Notify::new(),
            waits: Mutex::default(),
            fixed_for: Mutex::default(),
        });
        let alarm = shared.store.alarm();
        let (tasks, stop) = (TaskTracker::new(), alarm.stop_token());
        let (running, stopped) = (Arc::clone(&shared), stop.clone());
        // A write that a dropped step has asked of the store is committed or not; the next start reads which.
        let walking = async move {
            stopped.run_until_cancelled(running.run(share, gains)).await;
        };
        tasks.spawn(alarm.watch("the replaying of the log", stop.clone(), walking));
        Ok(Self { shared, tasks, stop })
    }

    /// Creates a subscription with a recovery from the start; both are kept, or neither. Dropping the future is as for
    /// [`Directory::create`].
    ///
    /// # Errors
    /// When the filter does not parse or the store cannot write.
    pub async fn create(
        &self,
        subscription: Subscription,
        recovery: Recovery,
        by: &Actor,
    ) -> Result<CompiledSubscription, directory::Error> {
        let (shared, by) = (Arc::clone(&self.shared), by.clone());
        self.whole(async move {
            let created = shared.directory.by(&by).create(subscription, Some(recovery.clone())).await?;
            shared.tell(recovery);
            Ok(created)
        })
        .await
        .unwrap_or(Err(directory::Error::Store(store::Error::Closed)))
    }

    /// Begins a recovery; returns `false` when another one of the subscription runs. Dropping the future does not undo
    /// it.
    ///
    /// # Errors
    /// When the store cannot write.
    pub async fn begin(&self, recovery: Recovery, by: &Actor) -> Result<bool, store::Error> {
        let shared = Arc::clone(&self.shared);
        let note = AuditEntry::new(Action::RecoveryBegin, recovery.subscription, by, recovery.asked);
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let note = note.with("since", time(recovery.since)).with("until", time(recovery.until));
        self.whole(async move {
            let begun = shared.store.begin_recovery(recovery.clone(), Some(note)).await?;
            if begun {
                shared.tell(recovery);
            }
            Ok(begun)
        })
        .await
        .unwrap_or(Err(store::Error::Closed))
    }

    /// Returns a subscription's running or last recovery, and why it does not advance, if so.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(&self, id: SubscriptionId) -> Result<Option<(Recovery, Option<Wait>)>, store::Error> {
        let found = self.shared.store.recovery(id).await?;
        Ok(found.map(|recovery| {
            let wait = lock(&self.shared.waits).get(&id).copied().filter(|_| recovery.is_running());
            (recovery, wait)
        }))
    }

    /// Ends a subscription's recovery if it runs, and returns the last one in its new state. The deliveries that it has
    /// created stay.
    ///
    /// # Errors
    /// When the store cannot be read or write.
    pub async fn cancel(
        &self,
        id: SubscriptionId,
        at: Timestamp,
        by: &Actor,
    ) -> Result<Option<Recovery>, store::Error> {
        let Some(recovery) = self.shared.store.recovery(id).await? else { return Ok(None) };
        if recovery.is_running() {
            let end = Step::End(State::Cancelled { at });
            let note = Some(AuditEntry::new(Action::RecoveryCancel, id, by, at));
            if let Some(ended) = self.shared.store.recover(id, recovery.asked, end, at, note).await? {
                self.shared.tell(ended.clone());
                return Ok(Some(ended));
            }
        }
        self.shared.store.recovery(id).await
    }

    /// Stops. The next start continues.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs in a task of its own, so that a caller that is cancelled leaves nothing half done. `None` when the runtime
    /// is shutting down.
    async fn whole<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        match self.tasks.spawn(work).await {
            Ok(done) => Some(done),
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

/// Dropping without a stop aborts the step in progress; the next start repeats it.
impl Drop for Recoveries {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn tell(&self, recovery: Recovery) {
        lock(&self.changed).push(recovery);
        self.told.notify_one();
    }

    async fn run(self: Arc<Self>, mut share: watch::Receiver<Gains>, mut gains: Gains) {
        let mut schedule = Schedule::default();
        // When the rate allows the next page.
        let mut free = Instant::now();
        loop {
            for recovery in std::mem::take(&mut *lock(&self.changed)) {
                schedule.put(Instant::now(), recovery);
            }
            self.take_gained(&mut share, &mut gains, &mut schedule).await;
            let at = schedule.next_at().map(|at| at.max(free));
            if at.is_none_or(|at| at > Instant::now()) {
                tokio::select! {
                    () = tokio::time::sleep_until(at.unwrap_or(free)), if at.is_some() => {}
                    () = self.told.notified() => {}
                    Ok(()) = share.changed() => {}
                }
                continue;
            }
            let Some(recovery) = schedule.next() else { continue };
            let id = recovery.subscription;
            let turn = match self.turn(&recovery).await {
                Ok(turn) => turn,
                Err(error) => self.fail(recovery, error).await,
            };
            let now = Instant::now();
            match turn {
                StepResult::More(recovery, events) => {
                    lock(&self.waits).remove(&id);
                    free = free.max(now) + self.time_for(events);
                    schedule.put(now, recovery);
                }
                StepResult::Wait(recovery, wait, pause) => {
                    lock(&self.waits).insert(id, wait);
                    schedule.put(now + pause, recovery);
                }
                StepResult::Over => {
                    lock(&self.waits).remove(&id);
                    lock(&self.fixed_for).remove(&id);
                }
            }
        }
    }

    /// Continues the recoveries of slots that were gained, from where other nodes have left them.
    async fn take_gained(
        &self,
        share: &mut watch::Receiver<Gains>,
        gains: &mut Gains,
        schedule: &mut Schedule<Recovery>,
    ) {
        loop {
            let now = *share.borrow_and_update();
            if now == *gains {
                return;
            }
            match self.store.running_recoveries().await {
                Ok(running) => {
                    *gains = now;
                    running.into_iter().for_each(|recovery| schedule.put(Instant::now(), recovery));
                }
                Err(error) => {
                    tracing::warn!(%error, "recoveries of other nodes cannot be taken over yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn time_for(&self, events: u64) -> Duration {
        Duration::from_secs(1) * u32::try_from(events).unwrap_or(u32::MAX) / self.rate
    }

    /// Counts what a recovery waits for. Where deliveries have an order, those behind its position wait for the recovery, and
    /// those behind a dead letter for somebody.
    async fn backlog(
        &self,
        recovery: &Recovery,
        subscription: &Subscription,
    ) -> Result<Backlog, store::Error> {
        let (recipient, now) = (recovery.subscription.into(), clock::now());
        match &subscription.order {
            None => self.store.backlog(recipient, now, WAITING_MAX).await,
            Some(Order { on_dead: OnDead::Stop, .. }) => Ok(Backlog::default()),
            Some(_) => {
                let until = recovery.position.map_or(EventId::NIL, |mark| mark.event);
                self.store.backlog_until(recipient, until, now, WAITING_MAX).await
            }
        }
    }

    /// Advances a recovery by one step.
    async fn turn(&self, recovery: &Recovery) -> Result<StepResult, store::Error> {
        if !self.store.share().has(HashSlot::of_subscription(recovery.subscription)) {
            return Ok(StepResult::Over);
        }
        let Some(subscription) = self.directory.get(recovery.subscription) else {
            return self.step(recovery, Step::End(State::Cancelled { at: clock::now() }), 0).await;
        };
        if !subscription.is_active() && subscription.deleted.is_none() {
            return Ok(StepResult::Wait(recovery.clone(), Wait::Disabled, PAUSE));
        }
        // The subscription was changed since. It may have been disabled for a while, and events of that time were not
        // matched live.
        let fixed_for = lock(&self.fixed_for).get(&recovery.subscription).copied();
        let Some(end) = recovery.end.filter(|_| fixed_for == Some(subscription.updated)) else {
            let begun = self.step(recovery, Step::Begin, 0).await?;
            lock(&self.fixed_for).insert(recovery.subscription, subscription.updated);
            return Ok(begun);
        };
        let Backlog { all, due } = self.backlog(recovery, &subscription).await?;
        if due >= DUE_MAX || all >= WAITING_MAX {
            let pause = TARGET_PAUSE + TARGET_PAUSE_EACH * u32::try_from(all).unwrap_or(u32::MAX);
            return Ok(StepResult::Wait(recovery.clone(), Wait::Target, pause));
        }
        let page = self.store.forward(self.page(recovery, end.event)).await?;
        match page::look(recovery, &subscription, page).await {
            // The scan passes events around its time range that it was not asked for; they need no write.
            Ok(Some(scan)) if scan.events == 0 && scan.last.event < end.event => {
                Ok(StepResult::More(Recovery { position: Some(scan.last), ..recovery.clone() }, 0))
            }
            Ok(Some(scan)) => {
                let events = scan.events;
                self.step(recovery, Step::Advance(scan), events).await
            }
            Ok(None) => self.step(recovery, Step::End(State::Done { at: clock::now() }), 0).await,
            Err(error) => {
                let reason = error.to_string();
                self.step(recovery, Step::End(State::Failed { at: clock::now(), reason }), 0).await
            }
        }
    }

    fn page(&self, recovery: &Recovery, last: EventId) -> Forward {
        Forward {
            after: recovery.position.map(|mark| mark.event),
            last,
            since: recovery.since,
            until: recovery.until,
            events: usize::try_from(self.rate).unwrap_or(usize::MAX).clamp(PAGE_EVENTS_MIN, PAGE_EVENTS_MAX),
            bytes: PAGE_BYTES,
        }
    }

    async fn step(&self, recovery: &Recovery, step: Step, events: u64) -> Result<StepResult, store::Error> {
        let id = recovery.subscription;
        let Some(next) = self.store.recover(id, recovery.asked, step, clock::now(), None).await? else {
            return Ok(StepResult::Over);
        };
        if next.is_running() {
            return Ok(StepResult::More(next, events));
        }
        let (state, looked_at, created) = (next.state.name(), next.looked_at, next.created);
        tracing::info!(subscription = %id, state, looked_at, created, "a recovery has ended");
        Ok(StepResult::Over)
    }

    /// Waits for a store that cannot be used now. A damaged record ends the recovery instead.
    async fn fail(&self, recovery: Recovery, error: store::Error) -> StepResult {
        tracing::warn!(subscription = %recovery.subscription, %error, "a recovery does not move");
        if matches!(error, store::Error::Damaged { .. }) {
            let failed = State::Failed { at: clock::now(), reason: error.to_string() };
            if let Ok(turn) = self.step(&recovery, Step::End(failed), 0).await {
                return turn;
            }
        }
        StepResult::Wait(recovery, Wait::Store, PAUSE)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Sends all dead letters of a subscription again, or gives up its deliveries: one task advances all running jobs, some
//! deliveries at a time.
//!
//! The store walks the deliveries and changes them, with the progress, in one transaction, so a restart continues where it
//! stopped, and no delivery is handled twice. All jobs together handle a limited number of deliveries a second, in
//! rotation. What is sent again waits while its subscription is disabled, and while other deliveries wait for the target.
//! `http` starts and cancels jobs. A job runs where its subscription's hash slot is ([`waypost_store::Share`]), and goes on
//! elsewhere when that is lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::directory::Directory;
use crate::recovery::schedule::{Schedule, Scheduled};
use crate::recovery::{DUE_MAX, PAUSE, TARGET_PAUSE, TARGET_PAUSE_EACH, WAITING_MAX, Wait};
use waypost_domain::job::{Job, Kind, Work};
use waypost_domain::recovery::State;
use waypost_domain::{Action, Actor, AuditEntry, OnDead, SubscriptionId};
use waypost_runtime::clock;
use waypost_store::{self as store, Backlog, Gains, HashSlot, JobStep, Store};

/// The least and the most deliveries of a step, which otherwise has those of a second.
const ROWS_MIN: u32 = 16;
const ROWS_MAX: u32 = 256;

type Key = (SubscriptionId, Kind);

/// The jobs: a handle on their task.
pub struct Jobs {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Shared {
    store: Arc<Store>,
    directory: Arc<Directory>,
    /// How many deliveries are handled in a second.
    rate: u32,
    /// New jobs, and those that were cancelled.
    changed: Mutex<Vec<Job>>,
    told: Notify,
    waits: Mutex<HashMap<Key, Wait>>,
}

/// How a step ended.
enum StepResult {
    /// There is more; this many deliveries were looked at.
    More(Job, u64),
    /// Nothing can be done before this time has passed.
    Wait(Job, Wait, Duration),
    /// It has ended, or is another node's.
    Over,
}

impl Scheduled for Job {
    type Key = Key;

    fn key(&self) -> Key {
        (self.subscription, self.work.kind())
    }

    fn is_running(&self) -> bool {
        self.is_running()
    }
}

impl Jobs {
    /// Continues the jobs that were running, handling `rate` deliveries a second.
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
        let changed = Mutex::new(store.running_jobs().await?);
        let (told, waits) = (Notify::new(), Mutex::default());
        let shared = Arc::new(Shared { store, directory, rate: rate.max(1), changed, told, waits });
        let alarm = shared.store.alarm();
        let (tasks, stop) = (TaskTracker::new(), alarm.stop_token());
        let (running, stopped) = (Arc::clone(&shared), stop.clone());
        // A write that a dropped step has asked of the store is committed or not; the next start reads which.
        let walking = async move {
            stopped.run_until_cancelled(running.run(share, gains)).await;
        };
        tasks.spawn(alarm.watch("the jobs on deliveries", stop.clone(), walking));
        Ok(Self { shared, tasks, stop })
    }

    /// Begins a job; returns `false` when another one of the kind runs for the subscription. Dropping the future does not
    /// undo it.
    ///
    /// # Errors
    /// When the store cannot write.
    pub async fn begin(&self, job: Job, by: &Actor) -> Result<bool, store::Error> {
        let shared = Arc::clone(&self.shared);
        let action = match job.work {
            Work::Redeliver => Action::RedeliverBegin,
            Work::Discard { .. } => Action::DiscardBegin,
        };
        let reason = match &job.work {
            Work::Redeliver => None,
            Work::Discard { reason } => Some(reason.clone()),
        };
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let note = AuditEntry::new(action, job.subscription, by, job.asked)
            .with("state", Some(job.of.name().to_owned()))
            .with("since", time(job.since))
            .with("until", time(job.until))
            .with("reason", reason);
        let begun = self.tasks.spawn(async move {
            let begun = shared.store.begin_job(job.clone(), Some(note)).await?;
            if begun {
                shared.tell(job);
            }
            Ok(begun)
        });
        match begun.await {
            Ok(begun) => begun,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(store::Error::Closed),
            },
        }
    }

    /// Returns a subscription's running or last job of a kind, and why it does not advance, if so.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(
        &self,
        id: SubscriptionId,
        kind: Kind,
    ) -> Result<Option<(Job, Option<Wait>)>, store::Error> {
        let found = self.shared.store.job(id, kind).await?;
        Ok(found.map(|job| {
            let wait = lock(&self.shared.waits).get(&(id, kind)).copied().filter(|_| job.is_running());
            (job, wait)
        }))
    }

    /// Ends a subscription's job of a kind if it runs, and returns the last one in its new state. What it has done stays.
    ///
    /// # Errors
    /// When the store cannot be read or write.
    pub async fn cancel(
        &self,
        id: SubscriptionId,
        kind: Kind,
        at: Timestamp,
        by: &Actor,
    ) -> Result<Option<Job>, store::Error> {
        let store = &self.shared.store;
        let Some(job) = store.job(id, kind).await? else { return Ok(None) };
        if job.is_running() {
            let end = JobStep::End(State::Cancelled { at });
            let action = match kind {
                Kind::Redeliver => Action::RedeliverCancel,
                Kind::Discard => Action::DiscardCancel,
            };
            let note = Some(AuditEntry::new(action, id, by, at));
            if let Some(ended) = store.advance_job((id, kind), job.asked, end, at, note).await? {
                self.shared.tell(ended.clone());
                return Ok(Some(ended));
            }
        }
        store.job(id, kind).await
    }

    /// Stops. The next start continues.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Dropping without a stop aborts the step in progress; the next start repeats it.
impl Drop for Jobs {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn tell(&self, job: Job) {
        lock(&self.changed).push(job);
        self.told.notify_one();
    }

    async fn run(self: Arc<Self>, mut share: watch::Receiver<Gains>, mut gains: Gains) {
        let mut schedule = Schedule::default();
        // When the rate allows the next step.
        let mut free = Instant::now();
        loop {
            for job in std::mem::take(&mut *lock(&self.changed)) {
                schedule.put(Instant::now(), job);
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
            let Some(job) = schedule.next() else { continue };
            let key = job.key();
            let turn = match self.turn(&job).await {
                Ok(turn) => turn,
                Err(error) => self.fail(job, error).await,
            };
            let now = Instant::now();
            match turn {
                StepResult::More(job, deliveries) => {
                    lock(&self.waits).remove(&key);
                    let deliveries = u32::try_from(deliveries).unwrap_or(u32::MAX);
                    free = free.max(now) + Duration::from_secs(1) * deliveries / self.rate;
                    schedule.put(now, job);
                }
                StepResult::Wait(job, wait, pause) => {
                    lock(&self.waits).insert(key, wait);
                    schedule.put(now + pause, job);
                }
                StepResult::Over => drop(lock(&self.waits).remove(&key)),
            }
        }
    }

    /// Continues the jobs of slots that were gained, from where other nodes have left them.
    async fn take_gained(
        &self,
        share: &mut watch::Receiver<Gains>,
        gains: &mut Gains,
        schedule: &mut Schedule<Job>,
    ) {
        loop {
            let now = *share.borrow_and_update();
            if now == *gains {
                return;
            }
            match self.store.running_jobs().await {
                Ok(running) => {
                    *gains = now;
                    running.into_iter().for_each(|job| schedule.put(Instant::now(), job));
                }
                Err(error) => {
                    tracing::warn!(%error, "jobs of other nodes cannot be taken over yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Advances a job by one step.
    async fn turn(&self, job: &Job) -> Result<StepResult, store::Error> {
        if !self.store.share().has(HashSlot::of_subscription(job.subscription)) {
            return Ok(StepResult::Over);
        }
        let Some(subscription) = self.directory.get(job.subscription) else {
            return self.step(job, JobStep::End(State::Cancelled { at: clock::now() })).await;
        };
        if job.work == Work::Redeliver {
            if !subscription.is_active() && subscription.deleted.is_none() {
                return Ok(StepResult::Wait(job.clone(), Wait::Disabled, PAUSE));
            }
            // Those behind a dead letter wait for this job.
            let stops = subscription.order.as_ref().is_some_and(|order| order.on_dead == OnDead::Stop);
            let backlog = match stops {
                true => Backlog::default(),
                false => self.store.backlog(job.subscription.into(), clock::now(), WAITING_MAX).await?,
            };
            if backlog.due >= DUE_MAX || backlog.all >= WAITING_MAX {
                let pause = TARGET_PAUSE + TARGET_PAUSE_EACH * u32::try_from(backlog.all).unwrap_or(u32::MAX);
                return Ok(StepResult::Wait(job.clone(), Wait::Target, pause));
            }
        }
        self.step(job, JobStep::Advance { rows: self.rate.clamp(ROWS_MIN, ROWS_MAX) }).await
    }

    async fn step(&self, job: &Job, step: JobStep) -> Result<StepResult, store::Error> {
        let Some(next) = self.store.advance_job(job.key(), job.asked, step, clock::now(), None).await? else {
            return Ok(StepResult::Over);
        };
        if next.is_running() {
            let looked_at = next.looked_at - job.looked_at.min(next.looked_at);
            return Ok(StepResult::More(next, looked_at));
        }
        let (kind, state, changed) = (next.work.kind().name(), next.state.name(), next.changed);
        tracing::info!(subscription = %next.subscription, kind, state, changed, "a job has ended");
        Ok(StepResult::Over)
    }

    /// Waits for a store that cannot be used now. A damaged record ends the job instead.
    async fn fail(&self, job: Job, error: store::Error) -> StepResult {
        tracing::warn!(subscription = %job.subscription, %error, "a job does not move");
        if matches!(error, store::Error::Damaged { .. }) {
            let failed = State::Failed { at: clock::now(), reason: error.to_string() };
            if let Ok(turn) = self.step(&job, JobStep::End(failed)).await {
                return turn;
            }
        }
        StepResult::Wait(job, Wait::Store, PAUSE)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

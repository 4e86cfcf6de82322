//! Durable jobs that walk through something step by step: recoveries through the log, redeliveries and discards through the
//! deliveries of a subscription. One task of each kind advances them, in rotation and at a limited rate.
//!
//! The store writes what a step changes together with the progress, so a restart continues where it stopped. A walk runs
//! where its subscription's hash slot is ([`waypost_store::Share`]), and goes on elsewhere when that is lost.

mod schedule;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::schedule::Schedule;
use waypost_domain::SubscriptionId;
use waypost_domain::recovery::State;
use waypost_runtime::clock;
use waypost_store::{self as store, Backlog, Gains, HashSlot, Store};

pub(crate) use schedule::Scheduled;

/// How many deliveries may be due before more are added, so that deliveries of new events do not queue behind many
/// others.
const DUE_MAX: usize = 256;
/// How many deliveries may wait for a retry or be due: a target that refuses everything gets no more.
pub(crate) const WAITING_MAX: usize = 10_000;
/// How soon a walk that waits for its target is tried again. The pause grows with the number of pending deliveries,
/// because counting them takes longer.
const TARGET_PAUSE: Duration = Duration::from_millis(20);
const TARGET_PAUSE_EACH: Duration = Duration::from_micros(100);
/// How soon a walk that waits for anything else is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a running recovery or job does not advance now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its subscription is disabled.
    Disabled,
    /// The deliveries that it has created wait for the target.
    Target,
    /// The store cannot be used.
    Store,
}

/// How a step ended.
pub(crate) enum Turn<W> {
    /// There is more; this many events or deliveries were looked at.
    More(W, u64),
    /// Nothing can be done before this time has passed.
    Wait(W, Wait, Duration),
    /// It has ended, or is another node's: when it becomes this node's, it is read again.
    Over,
}

/// What the walks of one kind do.
pub(crate) trait Walker: Send + Sync + Sized + 'static {
    /// One of them.
    type Walk: Scheduled + Clone + Send + Sync;
    /// What dies if their task does.
    const STAGE: &str;
    /// What one of them is called.
    const NAME: &str;

    /// Returns the store that they are in.
    fn store(&self) -> &Arc<Store>;
    /// Returns whose one is.
    fn subscription(walk: &Self::Walk) -> SubscriptionId;
    /// Reads those that run.
    fn running(&self) -> impl Future<Output = Result<Vec<Self::Walk>, store::Error>> + Send;
    /// Advances one by a step.
    fn turn(&self, walk: &Self::Walk) -> impl Future<Output = Result<Turn<Self::Walk>, store::Error>> + Send;
    /// Ends one.
    fn end(
        &self,
        walk: &Self::Walk,
        state: State,
    ) -> impl Future<Output = Result<Turn<Self::Walk>, store::Error>> + Send;
    /// Forgets what it keeps about one that is over.
    fn forget(&self, _walk: <Self::Walk as Scheduled>::Key) {}
}

/// The walks of one kind: a handle on their task.
pub(crate) struct Walks<W: Walker> {
    shared: Arc<Shared<W>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Shared<W: Walker> {
    walker: W,
    /// How many events or deliveries are looked at in a second.
    rate: u32,
    /// New ones, and those that were cancelled.
    changed: Mutex<Vec<W::Walk>>,
    told: Notify,
    /// Whether the store may have taken one although it answered with an error.
    in_doubt: AtomicBool,
    waits: Mutex<HashMap<<W::Walk as Scheduled>::Key, Wait>>,
}

impl<W: Walker> Walks<W> {
    /// Continues those that were running.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn start(walker: W, rate: u32) -> Result<Self, store::Error> {
        let share = walker.store().share().changed();
        let gains = *share.borrow();
        let changed = Mutex::new(walker.running().await?);
        let (told, in_doubt, waits) = (Notify::new(), AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { walker, rate: rate.max(1), changed, told, in_doubt, waits });
        let alarm = shared.walker.store().alarm();
        let (tasks, stop) = (TaskTracker::new(), alarm.stop_token());
        let (running, stopped) = (Arc::clone(&shared), stop.clone());
        // A write that a dropped step has asked of the store is committed or not; the next start reads which.
        let walking = async move {
            stopped.run_until_cancelled(running.run(share, gains)).await;
        };
        tasks.spawn(alarm.watch(W::STAGE, stop.clone(), walking));
        Ok(Self { shared, tasks, stop })
    }

    pub(crate) fn walker(&self) -> &W {
        &self.shared.walker
    }

    /// Lets one go on that the store has just taken. `begun` tells whether there is any, and runs in a task of its own: a
    /// caller that is cancelled leaves nothing half done. After an error, the store may have taken one all the same, and it
    /// is looked for. `None` when the runtime is shutting down.
    pub(crate) async fn begin<T: Send + 'static, E: Send + 'static>(
        &self,
        begun: impl Future<Output = Result<(T, Option<W::Walk>), E>> + Send + 'static,
    ) -> Option<Result<T, E>> {
        let shared = Arc::clone(&self.shared);
        let whole = async move {
            match begun.await {
                Ok((answer, walk)) => {
                    walk.into_iter().for_each(|walk| shared.tell(walk));
                    Ok(answer)
                }
                Err(error) => {
                    shared.doubt();
                    Err(error)
                }
            }
        };
        match self.tasks.spawn(whole).await {
            Ok(done) => Some(done),
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        }
    }

    /// Tells the task that one has changed.
    pub(crate) fn tell(&self, walk: W::Walk) {
        self.shared.tell(walk);
    }

    /// Returns why one does not advance, if so.
    pub(crate) fn wait(&self, walk: &W::Walk) -> Option<Wait> {
        lock(&self.shared.waits).get(&walk.key()).copied().filter(|_| walk.is_running())
    }

    /// Stops. The next start continues.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Dropping without a stop aborts the step in progress; the next start repeats it.
impl<W: Walker> Drop for Walks<W> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl<W: Walker> Shared<W> {
    fn tell(&self, walk: W::Walk) {
        lock(&self.changed).push(walk);
        self.told.notify_one();
    }

    /// Lets the task look for what runs.
    fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }

    async fn run(self: Arc<Self>, mut share: watch::Receiver<Gains>, mut gains: Gains) {
        let mut schedule = Schedule::default();
        // When the rate allows the next step.
        let mut free = Instant::now();
        loop {
            for walk in std::mem::take(&mut *lock(&self.changed)) {
                schedule.put(Instant::now(), walk);
            }
            self.take_unknown(&mut share, &mut gains, &mut schedule).await;
            let at = schedule.next_at().map(|at| at.max(free));
            if at.is_none_or(|at| at > Instant::now()) {
                tokio::select! {
                    () = tokio::time::sleep_until(at.unwrap_or(free)), if at.is_some() => {}
                    () = self.told.notified() => {}
                    Ok(()) = share.changed() => {}
                }
                continue;
            }
            let Some(walk) = schedule.next() else { continue };
            let key = walk.key();
            let turn = match self.turn(&walk).await {
                Ok(turn) => turn,
                Err(error) => self.fail(walk, error).await,
            };
            let now = Instant::now();
            match turn {
                Turn::More(walk, looked_at) => {
                    lock(&self.waits).remove(&key);
                    let looked_at = u32::try_from(looked_at).unwrap_or(u32::MAX);
                    free = free.max(now) + Duration::from_secs(1) * looked_at / self.rate;
                    schedule.put(now, walk);
                }
                Turn::Wait(walk, wait, pause) => {
                    lock(&self.waits).insert(key, wait);
                    schedule.put(now + pause, walk);
                }
                Turn::Over => {
                    lock(&self.waits).remove(&key);
                    self.walker.forget(key);
                }
            }
        }
    }

    async fn turn(&self, walk: &W::Walk) -> Result<Turn<W::Walk>, store::Error> {
        let slot = HashSlot::of_subscription(W::subscription(walk));
        if self.walker.store().share().has(slot) { self.walker.turn(walk).await } else { Ok(Turn::Over) }
    }

    /// Continues those of slots that were gained, from where other nodes have left them, and those whose begin was in doubt.
    async fn take_unknown(
        &self,
        share: &mut watch::Receiver<Gains>,
        gains: &mut Gains,
        schedule: &mut Schedule<W::Walk>,
    ) {
        loop {
            let now = *share.borrow_and_update();
            let in_doubt = self.in_doubt.swap(false, Ordering::Relaxed);
            if now == *gains && !in_doubt {
                return;
            }
            match self.walker.running().await {
                Ok(running) => {
                    *gains = now;
                    running.into_iter().for_each(|walk| schedule.put(Instant::now(), walk));
                }
                Err(error) => {
                    tracing::warn!(%error, kind = W::NAME, "what runs cannot be read yet");
                    self.in_doubt.store(in_doubt, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Waits for a store that cannot be used now. A damaged record ends the walk instead.
    async fn fail(&self, walk: W::Walk, error: store::Error) -> Turn<W::Walk> {
        tracing::warn!(subscription = %W::subscription(&walk), %error, "a {} does not move", W::NAME);
        if matches!(error, store::Error::Damaged { .. }) {
            let failed = State::Failed { at: clock::now(), reason: error.to_string() };
            if let Ok(turn) = self.walker.end(&walk, failed).await {
                return turn;
            }
        }
        Turn::Wait(walk, Wait::Store, PAUSE)
    }
}

impl<W: Clone> Turn<W> {
    /// Lets a walk wait whose subscription is disabled.
    pub(crate) fn disabled(walk: &W) -> Self {
        Self::Wait(walk.clone(), Wait::Disabled, PAUSE)
    }

    /// Lets a walk wait that adds deliveries, while many of its subscription wait.
    pub(crate) fn behind(walk: &W, Backlog { all, due }: Backlog) -> Option<Self> {
        let pause = TARGET_PAUSE + TARGET_PAUSE_EACH * u32::try_from(all).unwrap_or(u32::MAX);
        (due >= DUE_MAX || all >= WAITING_MAX).then(|| Self::Wait(walk.clone(), Wait::Target, pause))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

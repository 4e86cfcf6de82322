//! What is going on now, in memory only: attempts under way, when targets were last reached, and how far the
//! lanes are behind.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::domain::{EventId, SubscriptionId};
use crate::store::News;

/// Locks; a panic elsewhere leaves these sets usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Deliveries with an attempt under way.
#[derive(Default)]
pub(super) struct UnderWay(Mutex<HashSet<(EventId, SubscriptionId)>>);

/// Takes a delivery off the list when its attempt ends or is dropped.
pub(super) struct UnderWayGuard<'a>(&'a UnderWay, (EventId, SubscriptionId));

impl UnderWay {
    pub(super) fn enter(&self, event: EventId, subscription: SubscriptionId) -> UnderWayGuard<'_> {
        lock(&self.0).insert((event, subscription));
        UnderWayGuard(self, (event, subscription))
    }

    pub(super) fn contains(&self, event: EventId, subscription: SubscriptionId) -> bool {
        lock(&self.0).contains(&(event, subscription))
    }
}

impl Drop for UnderWayGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).remove(&self.1);
    }
}

/// When each target was last reached.
pub(super) struct Reached(Mutex<HashMap<SubscriptionId, Timestamp>>);

impl Reached {
    pub(super) fn new(known: impl IntoIterator<Item = (SubscriptionId, Timestamp)>) -> Self {
        Self(Mutex::new(known.into_iter().collect()))
    }

    pub(super) fn note(&self, subscription: SubscriptionId, at: Timestamp) {
        lock(&self.0).insert(subscription, at);
    }

    pub(super) fn since(&self, subscription: SubscriptionId, time: Timestamp) -> bool {
        lock(&self.0).get(&subscription).is_some_and(|reached| *reached >= time)
    }
}

/// How a lane is doing, seen from outside.
pub(super) struct Gauge {
    born: Instant,
    /// Told when there are news.
    pub(super) wake: Notify,
    news: Mutex<News>,
    /// New deliveries that this lane was told of and has not tried yet.
    behind: AtomicI64,
    /// The mean time of an attempt, in microseconds, over the last dozen or so.
    mean_micros: AtomicU64,
    /// When an attempt last succeeded, in microseconds after `born`; 0 when the last one failed.
    succeeded_micros: AtomicU64,
    /// Told when the lane has caught up.
    caught_up: Notify,
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            wake: Notify::new(),
            news: Mutex::default(),
            behind: AtomicI64::new(0),
            mean_micros: AtomicU64::new(0),
            succeeded_micros: AtomicU64::new(0),
            caught_up: Notify::new(),
        }
    }
}

/// How far a lane may be behind before those who feed it are slowed down, and where they may go on.
const BEHIND_MAX: i64 = 768;
const BEHIND_LOW: i64 = 512;
/// A target that takes longer is slow by itself: slowing producers would not help.
const BRISK: Duration = Duration::from_millis(40);
/// The longest that an acknowledgement is held back.
const PACE_MAX: Duration = Duration::from_millis(100);

impl Gauge {
    /// Tells the lane what is new.
    pub(super) fn tell(&self, news: News) {
        self.behind.fetch_add(i64::try_from(news.count).unwrap_or(i64::MAX), Ordering::Relaxed);
        lock(&self.news).add(news);
        self.wake.notify_one();
    }

    /// Takes what is new.
    pub(super) fn take_news(&self) -> News {
        std::mem::take(&mut lock(&self.news))
    }

    /// Tells whether something is new.
    pub(super) fn has_news(&self) -> bool {
        let news = lock(&self.news);
        news.read || !news.fresh.is_empty()
    }

    /// Notes the end of an attempt.
    pub(super) fn note(&self, took: Duration, success: bool) {
        let behind = self.behind.fetch_sub(1, Ordering::Relaxed) - 1;
        if behind < 0 {
            // Deliveries from before a restart were never told of.
            self.behind.store(0, Ordering::Relaxed);
        }
        let mean = self.mean_micros.load(Ordering::Relaxed);
        self.mean_micros.store(mean - mean / 12 + micros(took) / 12, Ordering::Relaxed);
        let succeeded = if success { micros(self.born.elapsed()) } else { 0 };
        self.succeeded_micros.store(succeeded, Ordering::Relaxed);
        if behind <= BEHIND_LOW {
            self.caught_up.notify_waiters();
        }
    }

    /// Waits a little while a healthy lane is behind: the target is quick, so it is this machine that is busy.
    ///
    /// Cancel safe.
    pub(super) async fn pace(&self) {
        if !self.is_behind() {
            return;
        }
        let caught_up = self.caught_up.notified();
        tokio::pin!(caught_up);
        // Registers before the second look, so that no signal falls in between.
        caught_up.as_mut().enable();
        if self.is_behind() {
            let _caught_up_or_not = tokio::time::timeout(PACE_MAX, caught_up).await;
        }
    }

    fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed) > BEHIND_MAX
            && self.mean_micros.load(Ordering::Relaxed) < micros(BRISK)
            // A target that has just begun to hang is not quick any more, whatever the mean says.
            && micros(self.born.elapsed()) - self.succeeded_micros.load(Ordering::Relaxed) < micros(BRISK)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 16)
}

//! What is going on now, in memory only: attempts under way, when targets were last reached, and how far the
//! lanes are behind.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::domain::{EventId, Holder, RecipientId, SubscriptionId};
use crate::store::News;

/// Locks; a panic elsewhere leaves these sets usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Deliveries with an attempt under way.
#[derive(Default)]
pub(super) struct UnderWay(Mutex<HashSet<(EventId, RecipientId)>>);

/// Takes a delivery off the list when its attempt ends or is dropped.
pub(super) struct UnderWayGuard<'a>(&'a UnderWay, (EventId, RecipientId));

impl UnderWay {
    pub(super) fn enter(&self, event: EventId, recipient: RecipientId) -> UnderWayGuard<'_> {
        lock(&self.0).insert((event, recipient));
        UnderWayGuard(self, (event, recipient))
    }

    pub(super) fn contains(&self, event: EventId, recipient: RecipientId) -> bool {
        lock(&self.0).contains(&(event, recipient))
    }
}

impl Drop for UnderWayGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).remove(&self.1);
    }
}

/// What subscriptions' deliveries wait for that is neither their targets' nor their plugins', and since when.
#[derive(Default)]
pub(super) struct Holds(Mutex<HashMap<RecipientId, (Holder, Timestamp)>>);

impl Holds {
    /// Notes that a delivery was put off.
    pub(super) fn note(&self, recipient: RecipientId, by: Holder, at: Timestamp) {
        let mut holds = lock(&self.0);
        let hold = holds.entry(recipient).or_insert((by, at));
        if hold.0 != by {
            *hold = (by, at);
        }
    }

    /// Notes that deliveries go on.
    pub(super) fn clear(&self, recipient: RecipientId) {
        lock(&self.0).remove(&recipient);
    }

    pub(super) fn of(&self, recipient: RecipientId) -> Option<(Holder, Timestamp)> {
        lock(&self.0).get(&recipient).copied()
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

    pub(super) fn forget(&self, subscription: SubscriptionId) {
        lock(&self.0).remove(&subscription);
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

    /// Waits until `end` while a healthy lane is behind: the target is quick, so it is this machine that is busy.
    ///
    /// Cancel safe.
    pub(super) async fn pace(&self, end: Instant) {
        if !self.is_behind() {
            return;
        }
        let caught_up = self.caught_up.notified();
        tokio::pin!(caught_up);
        // Registers before the second look, so that no signal falls in between.
        caught_up.as_mut().enable();
        if self.is_behind() {
            let _caught_up_or_not = tokio::time::timeout_at(end.into(), caught_up).await;
        }
    }

    fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed) > BEHIND_MAX
            && self.mean_micros.load(Ordering::Relaxed) < micros(BRISK)
            // A target that has just begun to hang is not quick any more, whatever the mean says.
            // It may have succeeded since `elapsed` was read.
            && micros(self.born.elapsed()).saturating_sub(self.succeeded_micros.load(Ordering::Relaxed))
                < micros(BRISK)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);

    /// A lane that is this far behind and has just got one through, in `took`.
    fn behind(count: u64, took: Duration) -> Gauge {
        let gauge = Gauge::default();
        gauge.tell(News { count: count + 1, ..News::default() });
        gauge.note(took, true);
        gauge
    }

    #[test]
    fn only_a_quick_target_that_is_far_behind_slows_its_producers() {
        assert!(behind(769, QUICK).is_behind());
        assert!(!behind(768, QUICK).is_behind(), "not far");
        assert!(!behind(769, 12 * 2 * BRISK).is_behind(), "slow by itself");
    }

    #[test]
    fn a_target_that_fails_or_hangs_slows_nobody() {
        let failing = behind(1_000, QUICK);
        let long_ago = Instant::now().checked_sub(2 * BRISK).unwrap();
        let failing = Gauge { born: long_ago, ..failing };
        failing.note(QUICK, false);
        assert!(!failing.is_behind());
        let hanging = Gauge { born: long_ago, ..behind(1_000, QUICK) };
        assert!(!hanging.is_behind(), "its last success was at its birth");
    }

    /// The time now was read before the time of the last success, which may then be later: the difference
    /// overflowed.
    #[test]
    fn a_success_during_the_look_is_no_overflow() {
        let gauge = behind(1_000, QUICK);
        gauge.succeeded_micros.store(u64::MAX / 32, Ordering::Relaxed);
        assert!(gauge.is_behind());
    }

    #[test]
    fn what_was_never_told_of_does_not_count_as_ahead() {
        let gauge = Gauge::default();
        (0..10).for_each(|_| gauge.note(QUICK, true));
        gauge.tell(News { count: 770, ..News::default() });
        gauge.note(QUICK, true);
        assert!(gauge.is_behind());
    }

    #[tokio::test]
    async fn a_producer_goes_on_when_the_lane_has_caught_up_or_the_time_is_over() {
        let gauge = behind(769, QUICK);
        let begun = Instant::now();
        gauge.pace(begun).await;
        gauge.pace(begun + QUICK).await;
        let far = begun + Duration::from_secs(60);
        let catching_up = async { (0..257).for_each(|_| gauge.note(QUICK, true)) };
        tokio::join!(gauge.pace(far), catching_up);
        assert!(begun.elapsed() < Duration::from_secs(30));
        gauge.pace(far).await;
    }

    #[test]
    fn news_are_taken_once() {
        let gauge = Gauge::default();
        assert!(!gauge.has_news());
        gauge.tell(News::read());
        assert!(gauge.has_news());
        assert!(gauge.take_news().read);
        assert!(!gauge.has_news());
    }

    #[test]
    fn a_delivery_is_under_way_until_its_guard_goes() {
        let (event, recipient) = (EventId::MAX, RecipientId::MAX);
        let under_way = UnderWay::default();
        let guard = under_way.enter(event, recipient);
        assert!(under_way.contains(event, recipient));
        drop(guard);
        assert!(!under_way.contains(event, recipient));
    }
}

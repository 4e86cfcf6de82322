//! What is going on now, in memory only: attempts under way, when targets were last reached, and how far the
//! lanes are behind.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::domain::{EventId, Holder, RecipientId, SubscriptionId};
use crate::store::Wake;

/// Locks; a panic elsewhere leaves these sets usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Deliveries with an attempt under way.
#[derive(Default)]
pub(super) struct InFlight(Mutex<HashSet<(EventId, RecipientId)>>);

/// Takes a delivery off the list when its attempt ends or is dropped.
pub(super) struct InFlightGuard<'a>(&'a InFlight, (EventId, RecipientId));

impl InFlight {
    pub(super) fn enter(&self, event: EventId, recipient: RecipientId) -> InFlightGuard<'_> {
        lock(&self.0).insert((event, recipient));
        InFlightGuard(self, (event, recipient))
    }

    pub(super) fn contains(&self, event: EventId, recipient: RecipientId) -> bool {
        lock(&self.0).contains(&(event, recipient))
    }
}

impl Drop for InFlightGuard<'_> {
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
pub(super) struct LastSuccess(Mutex<HashMap<SubscriptionId, Timestamp>>);

impl LastSuccess {
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
pub(super) struct Mailbox {
    born: Instant,
    /// Told when there are news.
    pub(super) notify: Notify,
    wake: Mutex<Wake>,
    /// New deliveries that this lane was told of and has not tried yet.
    lag: AtomicI64,
    /// The mean time of an attempt, in microseconds, over the last dozen or so.
    mean_micros: AtomicU64,
    /// When an attempt last succeeded, in microseconds after `born`; 0 when the last one failed.
    succeeded_micros: AtomicU64,
    /// Told when the lane has caught up.
    caught_up: Notify,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            notify: Notify::new(),
            wake: Mutex::default(),
            lag: AtomicI64::new(0),
            mean_micros: AtomicU64::new(0),
            succeeded_micros: AtomicU64::new(0),
            caught_up: Notify::new(),
        }
    }
}

/// How far a lane may be behind before those who feed it are slowed down, and where they may go on.
const LAG_MAX: i64 = 768;
const LAG_LOW: i64 = 512;
/// A target that takes longer is slow by itself: slowing producers would not help.
const FAST_TARGET: Duration = Duration::from_millis(40);

impl Mailbox {
    /// Tells the lane what is new.
    pub(super) fn push(&self, wake: Wake) {
        self.lag.fetch_add(i64::try_from(wake.count).unwrap_or(i64::MAX), Ordering::Relaxed);
        lock(&self.wake).merge(wake);
        self.notify.notify_one();
    }

    /// Takes what is new.
    pub(super) fn take_wake(&self) -> Wake {
        std::mem::take(&mut lock(&self.wake))
    }

    /// Tells whether something is new.
    pub(super) fn has_wake(&self) -> bool {
        let wake = lock(&self.wake);
        wake.read || !wake.first_attempts.is_empty()
    }

    /// Notes the end of an attempt.
    pub(super) fn note(&self, took: Duration, success: bool) {
        let lag = self.lag.fetch_sub(1, Ordering::Relaxed) - 1;
        if lag < 0 {
            // Deliveries from before a restart were never told of.
            self.lag.store(0, Ordering::Relaxed);
        }
        let mean = self.mean_micros.load(Ordering::Relaxed);
        self.mean_micros.store(mean - mean / 12 + micros(took) / 12, Ordering::Relaxed);
        let succeeded = if success { micros(self.born.elapsed()) } else { 0 };
        self.succeeded_micros.store(succeeded, Ordering::Relaxed);
        if lag <= LAG_LOW {
            self.caught_up.notify_waiters();
        }
    }

    /// Waits until `end` while a healthy lane is behind: the target is quick, so it is this machine that is busy.
    ///
    /// Cancel safe.
    pub(super) async fn throttle(&self, end: Instant) {
        if !self.is_lagging() {
            return;
        }
        let caught_up = self.caught_up.notified();
        tokio::pin!(caught_up);
        // Registers before the second look, so that no signal falls in between.
        caught_up.as_mut().enable();
        if self.is_lagging() {
            let _caught_up_or_not = tokio::time::timeout_at(end.into(), caught_up).await;
        }
    }

    fn is_lagging(&self) -> bool {
        self.lag.load(Ordering::Relaxed) > LAG_MAX
            && self.mean_micros.load(Ordering::Relaxed) < micros(FAST_TARGET)
            // A target that has just begun to hang is not quick any more, whatever the mean says.
            // It may have succeeded since `elapsed` was read.
            && micros(self.born.elapsed()).saturating_sub(self.succeeded_micros.load(Ordering::Relaxed))
                < micros(FAST_TARGET)
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
    fn lagging(count: u64, took: Duration) -> Mailbox {
        let mailbox = Mailbox::default();
        mailbox.push(Wake { count: count + 1, ..Wake::default() });
        mailbox.note(took, true);
        mailbox
    }

    #[test]
    fn only_a_quick_target_that_is_far_behind_slows_its_producers() {
        assert!(lagging(769, QUICK).is_lagging());
        assert!(!lagging(768, QUICK).is_lagging(), "not far");
        assert!(!lagging(769, 12 * 2 * FAST_TARGET).is_lagging(), "slow by itself");
    }

    #[test]
    fn a_target_that_fails_or_hangs_slows_nobody() {
        let failing = lagging(1_000, QUICK);
        let long_ago = Instant::now().checked_sub(2 * FAST_TARGET).unwrap();
        let failing = Mailbox { born: long_ago, ..failing };
        failing.note(QUICK, false);
        assert!(!failing.is_lagging());
        let hanging = Mailbox { born: long_ago, ..lagging(1_000, QUICK) };
        assert!(!hanging.is_lagging(), "its last success was at its birth");
    }

    /// The time now was read before the time of the last success, which may then be later: the difference
    /// overflowed.
    #[test]
    fn a_success_during_the_look_is_no_overflow() {
        let mailbox = lagging(1_000, QUICK);
        mailbox.succeeded_micros.store(u64::MAX / 32, Ordering::Relaxed);
        assert!(mailbox.is_lagging());
    }

    #[test]
    fn what_was_never_told_of_does_not_count_as_ahead() {
        let mailbox = Mailbox::default();
        (0..10).for_each(|_| mailbox.note(QUICK, true));
        mailbox.push(Wake { count: 770, ..Wake::default() });
        mailbox.note(QUICK, true);
        assert!(mailbox.is_lagging());
    }

    #[tokio::test]
    async fn a_producer_goes_on_when_the_lane_has_caught_up_or_the_time_is_over() {
        let mailbox = lagging(769, QUICK);
        let begun = Instant::now();
        mailbox.throttle(begun).await;
        mailbox.throttle(begun + QUICK).await;
        let far = begun + Duration::from_secs(60);
        let catching_up = async { (0..257).for_each(|_| mailbox.note(QUICK, true)) };
        tokio::join!(mailbox.throttle(far), catching_up);
        assert!(begun.elapsed() < Duration::from_secs(30));
        mailbox.throttle(far).await;
    }

    #[test]
    fn news_are_taken_once() {
        let mailbox = Mailbox::default();
        assert!(!mailbox.has_wake());
        mailbox.push(Wake::read());
        assert!(mailbox.has_wake());
        assert!(mailbox.take_wake().read);
        assert!(!mailbox.has_wake());
    }

    #[test]
    fn a_delivery_is_under_way_until_its_guard_goes() {
        let (event, recipient) = (EventId::MAX, RecipientId::MAX);
        let in_flight = InFlight::default();
        let guard = in_flight.enter(event, recipient);
        assert!(in_flight.contains(event, recipient));
        drop(guard);
        assert!(!in_flight.contains(event, recipient));
    }
}

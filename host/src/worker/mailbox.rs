//! The input of a worker, and what others see of it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::Holder;
use crate::store::Wake;

/// How many deliveries a worker may lag behind before its producers are throttled, and at which lag they go on.
const LAG_MAX: i64 = 768;
const LAG_LOW: i64 = 512;
/// The mean time of an attempt from which on a target counts as slow: throttling producers would not help then.
const FAST_TARGET: Duration = Duration::from_millis(40);

/// The mailbox of one worker: the wakes that it has not received yet, merged into one; and what holds its deliveries.
#[derive(Default)]
pub(super) struct Mailbox {
    /// Notified when there is a wake.
    pub(super) notify: Notify,
    wake: Mutex<Option<Wake>>,
    /// What holds its recipient's deliveries, other than the recipient itself, and since when.
    hold: Mutex<Option<(Holder, Timestamp)>>,
    pub(super) backpressure: Backpressure,
}

impl Mailbox {
    /// Adds a wake.
    pub(super) fn push(&self, wake: Wake) {
        self.backpressure.add(wake.count);
        self.wake.lock().get_or_insert_default().merge(wake);
        self.notify.notify_one();
    }

    /// Takes the merged wake, if there is one.
    pub(super) fn take_wake(&self) -> Option<Wake> {
        self.wake.lock().take()
    }

    /// Tells whether there is a wake.
    pub(super) fn has_wake(&self) -> bool {
        self.wake.lock().is_some()
    }

    /// Notes that a delivery was put off.
    pub(super) fn note_hold(&self, by: Holder, at: Timestamp) {
        let mut hold = self.hold.lock();
        *hold = hold.filter(|(known, _)| *known == by).or(Some((by, at)));
    }

    /// Notes that deliveries are attempted again.
    pub(super) fn clear_hold(&self) {
        *self.hold.lock() = None;
    }

    pub(super) fn hold(&self) -> Option<(Holder, Timestamp)> {
        *self.hold.lock()
    }
}

/// How far a worker lags behind, and whether that is its target's fault.
pub(super) struct Backpressure {
    born: Instant,
    /// Deliveries that the worker was woken for and has not attempted yet.
    lag: AtomicI64,
    /// The mean time of an attempt, in microseconds, over the last dozen or so.
    mean_micros: AtomicU64,
    /// When an attempt last succeeded, in microseconds after `born`; 0 when the last one failed.
    succeeded_micros: AtomicU64,
    /// Notified when the worker has caught up.
    caught_up: Notify,
}

impl Default for Backpressure {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            lag: AtomicI64::new(0),
            mean_micros: AtomicU64::new(0),
            succeeded_micros: AtomicU64::new(0),
            caught_up: Notify::new(),
        }
    }
}

impl Backpressure {
    /// Notes that there are `count` more deliveries to attempt.
    fn add(&self, count: u64) {
        self.lag.fetch_add(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Notes the end of an attempt.
    pub(super) fn note(&self, took: Duration, success: bool) {
        let lag = self.lag.fetch_sub(1, Ordering::Relaxed) - 1;
        if lag < 0 {
            // Deliveries from before a restart were never counted.
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

    /// Waits until `end` while the worker of a fast target lags, which means that this machine is busy. Cancel safe.
    pub(super) async fn throttle(&self, end: Instant) {
        if !self.is_lagging() {
            return;
        }
        let caught_up = self.caught_up.notified();
        tokio::pin!(caught_up);
        // Registers before checking again, so that no signal is lost in between.
        caught_up.as_mut().enable();
        if self.is_lagging() {
            let _caught_up_or_not = tokio::time::timeout_at(end, caught_up).await;
        }
    }

    fn is_lagging(&self) -> bool {
        self.lag.load(Ordering::Relaxed) > LAG_MAX
            && self.mean_micros.load(Ordering::Relaxed) < micros(FAST_TARGET)
            // A target that has just begun to hang is not fast any more, whatever the mean says. The last success may
            // be later than `elapsed`, which was read before.
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

    /// A worker that lags this far behind and has just delivered one, in `took`.
    fn lagging(count: u64, took: Duration) -> Backpressure {
        let backpressure = Backpressure::default();
        backpressure.add(count + 1);
        backpressure.note(took, true);
        backpressure
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
        let failing = Backpressure { born: long_ago, ..failing };
        failing.note(QUICK, false);
        assert!(!failing.is_lagging());
        let hanging = Backpressure { born: long_ago, ..lagging(1_000, QUICK) };
        assert!(!hanging.is_lagging(), "its last success was at its birth");
    }

    /// The current time was read before the time of the last success, which could then be later: the difference
    /// overflowed.
    #[test]
    fn a_success_during_the_look_is_no_overflow() {
        let backpressure = lagging(1_000, QUICK);
        backpressure.succeeded_micros.store(u64::MAX / 32, Ordering::Relaxed);
        assert!(backpressure.is_lagging());
    }

    #[test]
    fn what_was_never_counted_does_not_count_as_ahead() {
        let backpressure = Backpressure::default();
        (0..10).for_each(|_| backpressure.note(QUICK, true));
        backpressure.add(770);
        backpressure.note(QUICK, true);
        assert!(backpressure.is_lagging());
    }

    #[tokio::test]
    async fn a_producer_goes_on_when_the_worker_has_caught_up_or_the_time_is_over() {
        let backpressure = lagging(769, QUICK);
        let begun = Instant::now();
        backpressure.throttle(begun).await;
        backpressure.throttle(begun + QUICK).await;
        let far = begun + Duration::from_secs(60);
        let catching_up = async { (0..257).for_each(|_| backpressure.note(QUICK, true)) };
        tokio::join!(backpressure.throttle(far), catching_up);
        assert!(begun.elapsed() < Duration::from_secs(30));
        backpressure.throttle(far).await;
    }

    #[test]
    fn a_wake_is_taken_once() {
        let mailbox = Mailbox::default();
        assert!(!mailbox.has_wake());
        mailbox.push(Wake::accepted(2));
        mailbox.push(Wake { count: 1, ..Wake::read() });
        mailbox.push(Wake::accepted(3));
        assert!(mailbox.has_wake());
        let wake = mailbox.take_wake().unwrap();
        assert_eq!((wake.due, wake.count), (true, 6));
        assert!(!mailbox.has_wake() && mailbox.take_wake().is_none());
    }
}

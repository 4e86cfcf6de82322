//! Backpressure: keeps producers from getting far ahead of deliveries while this machine is busy.
//!
//! Accepting and delivering share the processors, and nothing else divides them: without a brake, producers with many
//! connections take more than half, and the backlog grows for as long as they send. So an event waits a moment before
//! it is accepted while one of its recipients lags, and [`crate::intake`] refuses events while too many deliveries
//! wait.
//!
//! Both apply only to recipients that lag because of this machine, so that a bad target harms only its own
//! subscription: the threads of the runtime are busy ([`Load`]), and the recipient's last attempt has just succeeded
//! promptly. Targets that are slow, fail or hang, and deliveries that are held, slow no producer.
//!
//! The effect of the wait: with 256 connections and ten subscriptions that all match, 3,300 of 115,000 deliveries were
//! outstanding after three seconds instead of 35,000; the 99th percentile was 0.4 s instead of 1.1 s, at the same
//! throughput. `cargo run --release -p waypost-bench -- fanout10 --connections 256 --seconds 3`, with and without
//! `Mailboxes::throttle`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many deliveries a worker may lag behind before its producers wait, and at which lag they continue.
const LAG_MAX: i64 = 768;
const LAG_LOW: i64 = 512;
/// The longest that a prompt attempt takes. The next attempt has to end as soon after it for the recipient to stay
/// prompt: a target that begins to hang is not.
const PROMPT: Duration = Duration::from_millis(40);
/// The part of their time that busy threads work, and how often it is measured.
const BUSY: f64 = 0.5;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How far a worker lags behind, and whether its recipient is prompt.
pub(super) struct Backpressure {
    born: Instant,
    /// Deliveries that the worker was woken for and has not attempted yet.
    lag: AtomicI64,
    /// When the last attempt ended, in microseconds after `born`; 0 if it failed or was not prompt.
    prompt_micros: AtomicU64,
    /// Notified when the worker has caught up.
    caught_up: Notify,
}

impl Default for Backpressure {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            lag: AtomicI64::new(0),
            prompt_micros: AtomicU64::new(0),
            caught_up: Notify::new(),
        }
    }
}

impl Backpressure {
    /// Notes that there are `count` more deliveries to attempt.
    pub(super) fn add(&self, count: u64) {
        self.lag.fetch_add(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Notes the end of an attempt.
    pub(super) fn note(&self, took: Duration, is_good: bool) {
        let is_prompt = is_good && took < PROMPT;
        let prompt = if is_prompt { micros(self.born.elapsed()).max(1) } else { 0 };
        self.prompt_micros.store(prompt, Ordering::Relaxed);
        let lag = self.lag.fetch_sub(1, Ordering::Relaxed) - 1;
        if lag < 0 {
            // Deliveries from before a restart were never counted.
            self.lag.store(0, Ordering::Relaxed);
        }
        if lag <= LAG_LOW {
            self.caught_up.notify_waiters();
        }
    }

    /// Notes that deliveries are held back, which is not this machine's doing.
    pub(super) fn hold_back(&self) {
        self.prompt_micros.store(0, Ordering::Relaxed);
        self.caught_up.notify_waiters();
    }

    /// Returns how many deliveries wait for their first attempt, for a recipient that is prompt; none for any other.
    pub(super) fn lag(&self) -> i64 {
        let prompt = self.prompt_micros.load(Ordering::Relaxed);
        // The last attempt may have ended after the time was read.
        let is_prompt = prompt > 0 && micros(self.born.elapsed()).saturating_sub(prompt) < micros(PROMPT);
        if is_prompt { self.lag.load(Ordering::Relaxed) } else { 0 }
    }

    pub(super) fn is_lagging(&self) -> bool {
        self.lag() > LAG_MAX
    }

    /// Waits until the worker has caught up, until `end` at most. Cancel safe.
    pub(super) async fn caught_up(&self, end: Instant) {
        let caught_up = self.caught_up.notified();
        tokio::pin!(caught_up);
        // Registers before checking again, so that no signal is lost in between.
        caught_up.as_mut().enable();
        if self.is_lagging() {
            let _caught_up_or_not = tokio::time::timeout_at(end, caught_up).await;
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 16)
}

/// How busy the threads of the runtime are.
pub(super) struct Load(Mutex<Look>);

struct Look {
    at: std::time::Instant,
    /// How long all threads together had worked then.
    busy: Duration,
    is_busy: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self(Mutex::new(Look { at: std::time::Instant::now(), busy: busy().0, is_busy: false }))
    }
}

impl Load {
    /// Tells whether the threads were busy recently.
    pub(super) fn is_busy(&self) -> bool {
        let mut look = self.0.lock();
        let passed = look.at.elapsed();
        if passed >= LOOK_EVERY {
            let (busy, threads) = busy();
            look.renew(passed, busy, threads);
        }
        look.is_busy
    }

    /// Makes one whose answer is fixed.
    #[cfg(test)]
    pub(super) fn fixed(is_busy: bool) -> Self {
        let far = std::time::Instant::now() + Duration::from_secs(1 << 30);
        Self(Mutex::new(Look { at: far, busy: Duration::ZERO, is_busy }))
    }
}

impl Look {
    fn renew(&mut self, passed: Duration, busy: Duration, threads: u32) {
        self.is_busy = busy.saturating_sub(self.busy) >= passed.mul_f64(BUSY) * threads;
        (self.at, self.busy) = (self.at + passed, busy);
    }
}

/// Returns how long the threads of the runtime have worked, all together, and how many there are.
fn busy() -> (Duration, u32) {
    let Ok(runtime) = Handle::try_current() else { return (Duration::ZERO, 1) };
    let metrics = runtime.metrics();
    let threads = metrics.num_workers();
    let busy = (0..threads).map(|thread| metrics.worker_total_busy_duration(thread)).sum();
    (busy, u32::try_from(threads).unwrap_or(u32::MAX))
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

    #[tokio::test(start_paused = true)]
    async fn only_a_prompt_recipient_that_is_far_behind_lags() {
        assert!(lagging(769, QUICK).is_lagging());
        assert!(!lagging(768, QUICK).is_lagging(), "not far");
        assert!(!lagging(769, PROMPT).is_lagging(), "slow by itself");
        let failing = lagging(1_000, QUICK);
        failing.note(QUICK, false);
        assert_eq!(failing.lag(), 0);
        let limited = lagging(1_000, QUICK);
        limited.hold_back();
        assert_eq!(limited.lag(), 0, "its rate is limited");
        let hanging = lagging(1_000, QUICK);
        tokio::time::advance(2 * PROMPT).await;
        assert_eq!(hanging.lag(), 0);
    }

    /// The current time was read before the time of the last success, which could then be later: the difference
    /// overflowed.
    #[test]
    fn a_success_during_the_look_is_no_overflow() {
        let backpressure = lagging(1_000, QUICK);
        backpressure.prompt_micros.store(u64::MAX / 32, Ordering::Relaxed);
        assert!(backpressure.is_lagging());
    }

    #[test]
    fn what_was_never_counted_does_not_count_as_ahead() {
        let backpressure = Backpressure::default();
        (0..10).for_each(|_| backpressure.note(QUICK, true));
        backpressure.add(770);
        backpressure.note(QUICK, true);
        assert_eq!(backpressure.lag(), 769);
    }

    #[tokio::test]
    async fn a_producer_goes_on_when_the_worker_has_caught_up_or_the_time_is_over() {
        let backpressure = lagging(769, QUICK);
        let begun = Instant::now();
        backpressure.caught_up(begun).await;
        backpressure.caught_up(begun + QUICK).await;
        let backpressure = lagging(769, QUICK);
        let far = begun + Duration::from_secs(60);
        let catching_up = async { (0..257).for_each(|_| backpressure.note(QUICK, true)) };
        tokio::join!(backpressure.caught_up(far), catching_up);
        assert!(begun.elapsed() < Duration::from_secs(30));
        backpressure.caught_up(far).await;
    }

    #[test]
    fn threads_are_busy_that_work_half_of_the_time() {
        let ms = Duration::from_millis;
        let mut look = Look { at: std::time::Instant::now(), busy: ms(500), is_busy: false };
        look.renew(ms(100), ms(600), 2);
        assert!(look.is_busy);
        look.renew(ms(100), ms(699), 2);
        assert!(!look.is_busy, "99 of 200 ms");
    }

    /// The threads of the runtime that measures are its own.
    #[tokio::test]
    async fn a_thread_that_spins_is_busy_and_one_that_waits_is_not() {
        let load = Load::default();
        tokio::time::sleep(LOOK_EVERY).await;
        assert!(!load.is_busy());
        let is_busy = || {
            let end = std::time::Instant::now() + LOOK_EVERY;
            while std::time::Instant::now() < end {
                std::hint::spin_loop();
            }
            load.is_busy()
        };
        let spinning = async {
            while !is_busy() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), spinning).await.expect("it is busy");
    }
}

//! Measures how long a call takes: the processor time in which its guest ran, and the wall-clock time in which it
//! waited for something that it asked for.
//!
//! Time in which the guest was ready while others had the threads or the processor does not count, so a busy host does
//! not make plugins fail. [`super::schedule`] decides when a guest runs.
//!
//! This needs the thread's own clock. In a bench, 40 calls had a limit of three times their processor time, beside
//! eight threads that spin on two cores. By the thread's clock all ended in time; by the wall clock, 30 took too long
//! (`cargo bench -p waypost --bench plugins`, the last line). Most calls end before the first tick and never read that
//! clock.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Sleep;

use super::engine::TICK;
use super::schedule::Seat;

/// The time of one call. Clones share it.
///
/// The guest and the code that polls it never run on two threads at once: a task's polls follow one another.
#[derive(Clone, Debug)]
pub(super) struct Timer(Arc<State>);

#[derive(Debug)]
struct State {
    begun: Instant,
    limit: Duration,
    /// What counted before this poll, in nanoseconds.
    counted: AtomicU64,
    /// When this poll began, in nanoseconds after `begun`.
    polled_at: AtomicU64,
    /// The thread's processor time when this poll began, in nanoseconds; 0 until it is needed: reading it takes a
    /// system call, and most calls end before the first tick.
    ran_at: AtomicU64,
    /// Set when the guest has yielded to others.
    gave_way: AtomicBool,
}

impl Timer {
    /// Starts to count with the first poll of [`Timer::limit`].
    pub(super) fn start(limit: Duration) -> Self {
        Self(Arc::new(State {
            begun: Instant::now(),
            limit,
            counted: AtomicU64::new(0),
            polled_at: AtomicU64::new(0),
            ran_at: AtomicU64::new(0),
            gave_way: AtomicBool::new(false),
        }))
    }

    /// Returns the time that has passed by the clock.
    pub(super) fn passed(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Returns the time that is left; zero when it is over. Must be called on the thread that runs the guest.
    pub(super) fn left(&self) -> Duration {
        self.0.limit.saturating_sub(self.counted() + self.ran())
    }

    /// Returns the time that is left, at a tick; from then on the thread's processor time is read.
    pub(super) fn left_at_tick(&self) -> Duration {
        self.read_thread_time();
        self.left()
    }

    /// Counts the thread's own time from here on, in this poll: what follows may take longer than a tick.
    pub(super) fn read_thread_time(&self) {
        if self.0.ran_at.load(Ordering::Relaxed) == 0 {
            let before = nanos(self.ran());
            self.0.ran_at.store(thread_time().saturating_sub(before).max(1), Ordering::Relaxed);
        }
    }

    /// Returns for how long the guest has run in this poll. Before the first tick this is the wall-clock time, capped
    /// at two ticks: in any time beyond that, other threads had the processor.
    fn ran(&self) -> Duration {
        match self.0.ran_at.load(Ordering::Relaxed) {
            0 => {
                let polled_at = Duration::from_nanos(self.0.polled_at.load(Ordering::Relaxed));
                self.passed().saturating_sub(polled_at).min(2 * TICK)
            }
            ran_at => Duration::from_nanos(thread_time().saturating_sub(ran_at)),
        }
    }

    /// Notes that the guest yields: time does not count until it is polled again.
    pub(super) fn give_way(&self) {
        self.0.gave_way.store(true, Ordering::Relaxed);
    }

    /// Waits for a future within the time limit. It runs in the turns of `seat`, if there is one. Returns `None` when
    /// the time is over.
    pub(super) async fn limit<F: Future>(&self, seat: Option<&mut Seat>, future: F) -> Option<F::Output> {
        WithinLimit { timer: self, seat, future: std::pin::pin!(future), waiting: None, sleep: None }.await
    }

    fn counted(&self) -> Duration {
        Duration::from_nanos(self.0.counted.load(Ordering::Relaxed))
    }

    fn count(&self, time: Duration) {
        self.0.counted.fetch_add(nanos(time), Ordering::Relaxed);
    }

    /// Begins a poll.
    fn resume(&self) {
        self.0.gave_way.store(false, Ordering::Relaxed);
        self.0.polled_at.store(nanos(self.passed()), Ordering::Relaxed);
        self.0.ran_at.store(0, Ordering::Relaxed);
    }

    /// Ends a poll, and returns how long the guest ran in it.
    fn pause(&self) -> Duration {
        let ran = self.ran();
        self.count(ran);
        ran
    }

    /// Tells whether the guest yielded in its last poll; otherwise it waits for something.
    fn gave_way(&self) -> bool {
        self.0.gave_way.load(Ordering::Relaxed)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Does the work that is left after a guest's end, in a turn of its seat.
pub(super) async fn in_turn<T>(seat: Option<&mut Seat>, work: impl FnOnce() -> T) -> T {
    let Some(seat) = seat else { return work() };
    poll_fn(|cx| seat.poll_turn(cx)).await;
    let begun = thread_time();
    let done = work();
    seat.end_turn(Duration::from_nanos(thread_time().saturating_sub(begun)));
    done
}

/// Returns the time for which this thread has had a processor, in nanoseconds.
fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) =
        (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds * 1_000_000_000 + nanos
}

/// A future that ends when its time is over.
struct WithinLimit<'a, F> {
    timer: &'a Timer,
    seat: Option<&'a mut Seat>,
    future: Pin<&'a mut F>,
    /// Set while the guest waits for something that it asked for.
    waiting: Option<Instant>,
    /// Made when the guest first waits: most guests never do.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for WithinLimit<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(since) = this.waiting.take() {
            this.timer.count(since.elapsed());
        }
        // The time until its next turn does not count.
        if this.seat.as_mut().is_some_and(|seat| seat.poll_turn(cx).is_pending()) {
            return Poll::Pending;
        }
        this.timer.resume();
        let polled = this.future.as_mut().poll(cx);
        let ran = this.timer.pause();
        if let Some(seat) = &mut this.seat {
            seat.end_turn(ran);
        }
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Some(output));
        }
        if this.timer.gave_way() {
            return Poll::Pending;
        }
        let left = this.timer.0.limit.saturating_sub(this.timer.counted());
        if left.is_zero() {
            return Poll::Ready(None);
        }
        this.waiting = Some(Instant::now());
        let end = tokio::time::Instant::now() + left;
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        sleep.as_mut().reset(end);
        sleep.as_mut().poll(cx).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::wasm::schedule::Schedule;

    /// The memory of a guest that had run out of time was freed outside the schedule, and the time for it was not
    /// charged.
    #[test]
    fn what_follows_a_guests_end_waits_for_its_turn() {
        let schedule = Schedule::new(1, || ());
        let (mut running, mut ended) = (schedule.seat("ann"), schedule.seat("bob"));
        assert_eq!(poll_fn(|cx| running.poll_turn(cx)).now_or_never(), Some(()));
        let mut following = Box::pin(in_turn(Some(&mut ended), || 7));
        assert_eq!((&mut following).now_or_never(), None);
        running.end_turn(Duration::ZERO);
        assert_eq!((&mut following).now_or_never(), Some(7));
        drop(following);
        // The turn has ended.
        assert_eq!(poll_fn(|cx| running.poll_turn(cx)).now_or_never(), Some(()));
        assert_eq!(in_turn(None, || 7).now_or_never(), Some(7));
    }

    #[tokio::test]
    async fn a_wait_that_outlasts_the_limit_ends() {
        let timer = Timer::start(Duration::from_millis(5));
        assert_eq!(timer.limit(None, std::future::pending::<()>()).await, None);
        assert!(timer.passed() >= Duration::from_millis(5));
        assert_eq!(Timer::start(Duration::from_secs(3600)).limit(None, async { 7 }).await, Some(7));
    }

    fn spin_for(time: Duration) {
        let begun = thread_time();
        while Duration::from_nanos(thread_time() - begun) < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn running_counts_and_giving_way_does_not() {
        const MILLISECOND: Duration = Duration::from_millis(1);
        let timer = Timer::start(Duration::from_secs(3600));
        timer.resume();
        spin_for(MILLISECOND);
        assert!(timer.left() <= Duration::from_secs(3600) - MILLISECOND);
        assert!(timer.left_at_tick() <= Duration::from_secs(3600) - MILLISECOND);
        spin_for(MILLISECOND);
        assert!(timer.left() <= Duration::from_secs(3600) - 2 * MILLISECOND);
        timer.give_way();
        timer.pause();
        assert!(timer.gave_way());
        let counted = timer.counted();
        assert!(counted >= 2 * MILLISECOND);
        // A poll that the machine interrupts counts two ticks at most.
        spin_for(10 * TICK);
        timer.resume();
        timer.pause();
        assert!(!timer.gave_way());
        assert!(timer.counted() < counted + 10 * TICK);
    }
}

//! How long a call has taken: the time in which its guest ran, or waited for something that it asked for.
//!
//! The time in which it was ready and others had the threads does not count, so that a busy host fails nobody's plugin.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// The time of one call. Its clones are the same.
///
/// The guest and whoever polls it are never on two threads at once: a task's polls follow one another.
#[derive(Clone, Debug)]
pub(super) struct Timer(Arc<State>);

#[derive(Debug)]
struct State {
    begun: Instant,
    limit: Duration,
    /// What counted before `since`, in nanoseconds.
    counted: AtomicU64,
    /// When the stretch that counts now began, in nanoseconds since `begun`.
    since: AtomicU64,
    /// Set while the guest has given way to others.
    gave_way: AtomicBool,
}

impl Timer {
    /// Starts to count.
    pub(super) fn start(limit: Duration) -> Self {
        Self(Arc::new(State {
            begun: Instant::now(),
            limit,
            counted: AtomicU64::new(0),
            since: AtomicU64::new(0),
            gave_way: AtomicBool::new(false),
        }))
    }

    /// Returns the time that has passed by the clock.
    pub(super) fn passed(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Returns the time that is left; zero when it is over.
    pub(super) fn left(&self) -> Duration {
        let stretch = self.now().saturating_sub(self.0.since.load(Ordering::Relaxed));
        let counted = self.0.counted.load(Ordering::Relaxed) + stretch;
        self.0.limit.saturating_sub(Duration::from_nanos(counted))
    }

    /// Says that the guest gives way: what follows does not count until it is polled again.
    pub(super) fn give_way(&self) {
        self.0.gave_way.store(true, Ordering::Relaxed);
    }

    /// Waits for a future as long as there is time. Returns nothing when there is none left.
    pub(super) fn limit<F: Future>(&self, future: F) -> Limited<F> {
        Limited { timer: self.clone(), future: Box::pin(future), sleep: None }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Begins a stretch after the guest gave way; a wait goes on counting.
    fn resume(&self) {
        if self.0.gave_way.swap(false, Ordering::Relaxed) {
            self.0.since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Ends a stretch, when the guest gave way, and returns whether it did.
    fn pause(&self) -> bool {
        let gave_way = self.0.gave_way.load(Ordering::Relaxed);
        if gave_way {
            let now = self.now();
            let since = self.0.since.swap(now, Ordering::Relaxed);
            self.0.counted.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
        }
        gave_way
    }
}

/// A future that ends with its timer.
pub(super) struct Limited<F> {
    timer: Timer,
    future: Pin<Box<F>>,
    /// Made only when the guest waits: most never do.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Limited<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.timer.resume();
        if let Poll::Ready(output) = this.future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if this.timer.pause() {
            return Poll::Pending;
        }
        let end = tokio::time::Instant::now() + this.timer.left();
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if sleep.deadline() != end {
            sleep.as_mut().reset(end);
        }
        sleep.as_mut().poll(cx).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_outlasts_the_limit_ends() {
        let timer = Timer::start(Duration::from_millis(1));
        assert_eq!(timer.limit(std::future::pending::<()>()).await, None);
        assert_eq!(Timer::start(Duration::from_secs(3600)).limit(async { 7 }).await, Some(7));
    }

    #[test]
    fn giving_way_stops_the_count_and_waiting_does_not() {
        let timer = Timer::start(Duration::from_secs(3600));
        let spend = || {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(2) {
                std::hint::spin_loop();
            }
        };
        timer.give_way();
        assert!(timer.pause());
        let counted = timer.0.counted.load(Ordering::Relaxed);
        spend();
        timer.resume();
        let left = timer.left();
        assert!(left > Duration::from_secs(3600) - Duration::from_nanos(counted) - Duration::from_millis(1));
        assert!(!timer.pause());
        spend();
        timer.resume();
        assert!(timer.left() <= left - Duration::from_millis(2));
    }
}

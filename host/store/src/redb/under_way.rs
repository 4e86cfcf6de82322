//! Which transactions are under way, so that one that never ends is noticed: a disk hangs, or a damaged page leads in circles.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The transactions of one file, each from when it has got the file. Numbers go up with time.
#[derive(Default)]
pub(super) struct UnderWay {
    next: AtomicU64,
    begun: Mutex<BTreeMap<u64, Instant>>,
}

/// One of them. It is over when it is dropped.
pub(super) struct Transaction<'a> {
    all: &'a UnderWay,
    number: u64,
}

impl UnderWay {
    pub(super) fn begin(&self) -> Transaction<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.begun().insert(number, Instant::now());
        Transaction { all: self, number }
    }

    /// Returns for how long the oldest has been under way.
    pub(super) fn longest(&self) -> Duration {
        self.begun().first_key_value().map_or(Duration::ZERO, |(_, begun)| begun.elapsed())
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.all.begun().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts_until_it_is_over() {
        let all = UnderWay::default();
        assert_eq!(all.longest(), Duration::ZERO);
        let (first, second) = (all.begin(), all.begin());
        all.begun().insert(first.number, Instant::now() - Duration::from_secs(60));
        assert!(all.longest() >= Duration::from_secs(60));
        drop(first);
        assert!(all.longest() < Duration::from_secs(60));
        drop(second);
        assert_eq!(all.longest(), Duration::ZERO);
    }
}

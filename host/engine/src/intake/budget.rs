//! The bytes on their way into the log, of all requests together: events, and the deliveries that they cause.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Error;

/// The budget of all requests.
pub(super) struct Budget {
    taken: AtomicUsize,
    max: usize,
}

/// The share of one request; returned when it is dropped.
pub(super) struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), max }
    }

    /// Makes an empty share.
    pub(super) fn share(&self) -> Share<'_> {
        Share { budget: self, bytes: 0 }
    }
}

impl Share<'_> {
    /// Takes more, or fails if that is too much for one request or for all of them.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Error> {
        let Budget { taken, max } = self.budget;
        if self.bytes.saturating_add(bytes) > *max {
            return Err(Error::TooMuch { max: *max });
        }
        let fits = |known: usize| known.checked_add(bytes).filter(|taken| taken <= max);
        match taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(_) => Err(Error::Busy { max: *max }),
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_given_back_can_be_taken() {
        let budget = Budget::new(100);
        let (mut first, mut second) = (budget.share(), budget.share());
        first.take(40).unwrap();
        first.take(20).unwrap();
        assert!(matches!(first.take(41), Err(Error::TooMuch { max: 100 })), "never, whatever others do");
        assert!(matches!(second.take(41), Err(Error::Busy { max: 100 })));
        second.take(40).unwrap();
        drop(first);
        second.take(60).unwrap();
        drop(second);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}

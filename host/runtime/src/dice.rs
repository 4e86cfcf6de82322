//! The one place that rolls dice for waiting times, so that a simulation can roll them again.

/// Returns a number from 0 up to 1.
pub fn fraction() -> f64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(fraction) = simulated::fraction() {
        return fraction;
    }
    rand::random()
}

/// Dice of a test's thread.
#[cfg(any(test, feature = "testing"))]
pub mod simulated {
    use std::cell::RefCell;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    thread_local! {
        static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// Lets this thread's dice follow from a seed; `None` ends that.
    pub fn seed(seed: Option<u64>) {
        DICE.set(seed.map(StdRng::seed_from_u64));
    }

    pub(super) fn fraction() -> Option<f64> {
        DICE.with_borrow_mut(|dice| dice.as_mut().map(|dice| dice.random()))
    }
}

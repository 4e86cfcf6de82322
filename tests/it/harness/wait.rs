//! Waiting with a bound: the only sleeps of the suite.

use std::time::{Duration, Instant};

/// The longest that any test waits for one thing. It is shorter than the timers that would hide a lost wake: the sweeps and
/// the body timeout take 30 s. The attempt timeout, also 30 s by default, is longer in tests ([`super::Server`]).
pub(super) const BOUND: Duration = Duration::from_secs(25);
/// The pause between two probes.
const STEP: Duration = Duration::from_millis(10);

/// Calls `probe` until it returns a value, and returns that.
///
/// # Panics
/// After 25 s, naming `what` was waited for.
pub(crate) async fn wait_until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {BOUND:?} in vain until {what}");
        tokio::time::sleep(STEP).await;
    }
}

//! The one place that reads the wall clock.

use jiff::Timestamp;

/// Returns the time now, in whole microseconds: the precision that the store keeps.
pub fn now() -> Timestamp {
    #[cfg(any(test, feature = "testing"))]
    if let Some(now) = simulated::now() {
        return now;
    }
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).expect("a truncated timestamp is in range")
}

/// Formats a time as Waypost's answers and events have it: UTC, always with six fractional digits. Readers with one
/// fixed format, such as Python's `strptime` with `%f`, expect them even if they are zeros.
pub fn text(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// A wall clock of a test's thread, which goes with the time of its runtime.
#[cfg(any(test, feature = "testing"))]
pub mod simulated {
    use std::cell::Cell;

    use jiff::{SignedDuration, Timestamp};
    use tokio::time::Instant;

    thread_local! {
        static BASE: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
    }

    /// Sets the time of this thread, inside a runtime; `None` lets it have the machine's again.
    pub fn set(now: Option<Timestamp>) {
        BASE.set(now.map(|now| (now, Instant::now())));
    }

    /// Tells whether this thread has a time of its own: then everything is to happen in it.
    pub fn is_set() -> bool {
        BASE.get().is_some()
    }

    pub(super) fn now() -> Option<Timestamp> {
        let (base, since) = BASE.get()?;
        let now = base + SignedDuration::try_from(since.elapsed()).ok()?;
        Timestamp::from_microsecond(now.as_microsecond()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_six_digits_whatever_they_are() {
        for (microsecond, expected) in [
            (0, "2027-01-15T08:00:00.000000Z"),
            (430_000, "2027-01-15T08:00:00.430000Z"),
            (435_181, "2027-01-15T08:00:00.435181Z"),
        ] {
            let at = Timestamp::from_microsecond(1_800_000_000_000_000 + microsecond).unwrap();
            assert_eq!(text(at), expected);
        }
    }
}

//! The one place that reads the wall clock.

use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

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

/// Says what the wall clock shows at a moment of the monotonic one: for people, not for waiting. The answer about one moment
/// stays the same until the wall clock jumps.
#[derive(Debug)]
pub struct Wall(Mutex<(Instant, Timestamp)>);

/// How far the wall clock may be from where it should be until that counts as a jump.
const DRIFT_MAX: SignedDuration = SignedDuration::from_millis(500);

impl Default for Wall {
    fn default() -> Self {
        Self(Mutex::new((Instant::now(), now())))
    }
}

impl Wall {
    /// Returns what the wall clock shows then, if it does not jump until then.
    pub fn at(&self, moment: Instant) -> Timestamp {
        let mut anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (here, now) = (Instant::now(), now());
        if now.duration_since(shown(*anchor, here)).abs() > DRIFT_MAX {
            *anchor = (here, now);
        }
        shown(*anchor, moment)
    }
}

fn shown((anchor, time): (Instant, Timestamp), moment: Instant) -> Timestamp {
    let shown = match moment.checked_duration_since(anchor) {
        Some(ahead) => time.checked_add(ahead).unwrap_or(Timestamp::MAX),
        None => time.checked_sub(anchor - moment).unwrap_or(Timestamp::MIN),
    };
    Timestamp::from_microsecond(shown.as_microsecond()).unwrap_or(shown)
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
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_has_one_time_until_the_wall_clock_jumps() {
        let begun = Timestamp::from_second(1_800_000_000).unwrap();
        simulated::set(Some(begun));
        let (wall, moment) = (Wall::default(), Instant::now() + Duration::from_secs(5));
        assert_eq!(wall.at(moment).duration_since(begun).as_secs(), 5);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(wall.at(moment).duration_since(begun).as_secs(), 5);
        let slewed = begun + SignedDuration::from_millis(60_400);
        simulated::set(Some(slewed));
        assert_eq!(wall.at(moment).duration_since(begun).as_secs(), 5);
        let tomorrow = slewed + SignedDuration::from_hours(24);
        simulated::set(Some(tomorrow));
        assert_eq!(wall.at(moment).duration_since(tomorrow).as_secs(), -55);
        simulated::set(None);
    }

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

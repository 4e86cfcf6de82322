//! The one place that reads the wall clock.

use jiff::Timestamp;

/// Returns the time now, in whole microseconds: the precision that the store keeps.
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).expect("a truncated timestamp is in range")
}

//! When a failed delivery is tried again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The waits between the attempts of one delivery. An empty schedule means one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule(Vec<Duration>);

/// The most waits that a schedule may have.
pub const WAITS_MAX: usize = 32;
/// The longest single wait: 30 days.
pub const WAIT_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How far a wait may be lengthened or shortened, as a part of it: 0.1 is ±10 %.
const JITTER: f64 = 0.1;

/// Why a text is not a retry schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// One of the waits is no duration.
    #[error(
        "`{0}` is not a wait: write a number and a unit (`500ms`, `5s`, `30m`, `2h`, `1d`), or `none` for the whole"
    )]
    Wait(String),
    /// One of the waits is too long.
    #[error("the wait `{0}` is longer than 30 days")]
    TooLong(String),
    /// There are too many waits.
    #[error("a schedule has at most {WAITS_MAX} waits, this one has {0}")]
    TooMany(usize),
}

impl RetrySchedule {
    /// The schedule without any retry, written `none`: that of Pacifica's original Notifications service.
    pub const NONE: Self = Self(Vec::new());

    /// Returns the wait before the attempt that follows `failed` failed ones (1 or more), or `None` when the
    /// schedule is used up.
    ///
    /// `random` in `0.0..1.0` spreads the wait by ±10 %, so that deliveries that failed together are not retried
    /// together.
    pub fn wait_after(&self, failed: u32, random: f64) -> Option<Duration> {
        let place = usize::try_from(failed.checked_sub(1)?).ok()?;
        let wait = self.0.get(place)?;
        Some(wait.mul_f64(1.0 + JITTER * (2.0 * random - 1.0)))
    }

    /// Returns how many attempts were missed by a delivery that has had `failed` failed ones and was due `late` ago: as many
    /// of its waits as fit into that time. The attempt that is made now is not one of them.
    pub fn missed(&self, failed: u32, late: Duration) -> u32 {
        let waits = self.0.iter().skip(usize::try_from(failed).unwrap_or(usize::MAX));
        let ends = waits.scan(Duration::ZERO, |end, wait| {
            *end = end.saturating_add(*wait);
            Some(*end)
        });
        u32::try_from(ends.take_while(|end| *end <= late).count()).unwrap_or(u32::MAX)
    }

    /// Returns how many attempts a delivery gets at most.
    pub fn attempts(&self) -> usize {
        self.0.len() + 1
    }
}

impl Default for RetrySchedule {
    /// `5s,5m,30m,2h,5h,10h,14h,20h,24h`: about three days, as Standard Webhooks recommends.
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let seconds =
            [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];
        Self(seconds.into_iter().map(Duration::from_secs).collect())
    }
}

impl FromStr for RetrySchedule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.trim() == "none" {
            return Ok(Self::NONE);
        }
        let waits = text.split(',').map(|wait| parse_wait(wait.trim())).collect::<Result<Vec<_>, _>>()?;
        if waits.len() > WAITS_MAX {
            return Err(ParseError::TooMany(waits.len()));
        }
        Ok(Self(waits))
    }
}

fn parse_wait(text: &str) -> Result<Duration, ParseError> {
    let wait = parse_duration(text).ok_or_else(|| ParseError::Wait(text.to_owned()))?;
    if wait > WAIT_MAX {
        return Err(ParseError::TooLong(text.to_owned()));
    }
    Ok(wait)
}

/// Units that durations are written in, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a whole number and a unit (`ms`, `s`, `m`, `h`, `d`), as in `30m`; `0` needs no unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*unit)?))
}

/// Writes a duration in the largest unit that keeps it whole: the form that [`parse_duration`] reads.
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0".to_owned();
    }
    let (name, unit) = UNITS
        .iter()
        .find(|(_, unit)| millis.is_multiple_of(*unit))
        .expect("every number is a multiple of one");
    format!("{}{name}", millis / unit)
}

impl fmt::Display for RetrySchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let waits: Vec<_> = self.0.iter().map(|wait| format_duration(*wait)).collect();
        f.write_str(&waits.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_is_the_documented_one() {
        assert_eq!(RetrySchedule::default().to_string(), "5s,5m,30m,2h,5h,10h,14h,20h,1d");
        assert_eq!("5s,5m,30m,2h,5h,10h,14h,20h,24h".parse(), Ok(RetrySchedule::default()));
    }

    #[test]
    fn none_allows_no_retry() {
        let none: RetrySchedule = "none".parse().unwrap();
        assert_eq!(none.wait_after(1, 0.5), None);
        assert_eq!(none.attempts(), 1);
        assert_eq!(none.to_string(), "none");
    }

    #[test]
    fn waits_follow_the_schedule_and_end() {
        let schedule: RetrySchedule = "100ms, 2s".parse().unwrap();
        assert_eq!(schedule.wait_after(1, 0.5), Some(Duration::from_millis(100)));
        assert_eq!(schedule.wait_after(2, 0.5), Some(Duration::from_secs(2)));
        assert_eq!(schedule.wait_after(3, 0.5), None);
        assert_eq!(schedule.wait_after(0, 0.5), None);
    }

    #[test]
    fn what_was_missed_is_what_would_have_been_tried() {
        let schedule: RetrySchedule = "1s,2s,4s".parse().unwrap();
        let missed = |failed, seconds| schedule.missed(failed, Duration::from_secs(seconds));
        assert_eq!([0, 1, 2, 3, 6, 7, 1_000].map(|late| missed(0, late)), [0, 1, 1, 2, 2, 3, 3]);
        assert_eq!([0, 3, 4, 5, 1_000].map(|late| missed(2, late)), [0, 0, 1, 1, 1]);
        assert_eq!((missed(3, 1_000), missed(u32::MAX, 1_000)), (0, 0));
        assert_eq!(RetrySchedule::NONE.missed(0, Duration::MAX), 0);
    }

    #[test]
    fn refuses_what_is_no_schedule() {
        for bad in ["", "5", "5x", "s", "-5s", "5s,,5s", "1.5s"] {
            assert!(matches!(bad.parse::<RetrySchedule>(), Err(ParseError::Wait(_))), "{bad}");
        }
        assert!(matches!("31d".parse::<RetrySchedule>(), Err(ParseError::TooLong(_))));
        let long = vec!["1s"; WAITS_MAX + 1].join(",");
        assert!(matches!(long.parse::<RetrySchedule>(), Err(ParseError::TooMany(33))));
    }

    proptest! {
        #[test]
        fn text_round_trips(millis in proptest::collection::vec(1..=2_592_000_000u64, 0..WAITS_MAX)) {
            let schedule = RetrySchedule(millis.into_iter().map(Duration::from_millis).collect());
            prop_assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }

        #[test]
        fn jitter_stays_within_a_tenth(millis in 1..1_000_000u64, random in 0.0..1.0f64) {
            let wait = RetrySchedule(vec![Duration::from_millis(millis)]).wait_after(1, random).unwrap();
            let ratio = wait.as_secs_f64() * 1000.0 / f64::from(u32::try_from(millis).unwrap());
            prop_assert!((0.89..=1.11).contains(&ratio));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            drop(text.parse::<RetrySchedule>());
        }
    }
}

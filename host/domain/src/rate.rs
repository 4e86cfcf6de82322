//! How many requests a target may get in a time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A rate limit: so many in each time, and some more after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    count: u32,
    unit: Unit,
    /// Where it is not the default.
    burst: Option<u32>,
}

/// The time that a rate limit counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

/// The most that a rate limit counts, and the most of a burst.
pub const COUNT_MAX: u32 = 1_000_000;

/// Why a text is not a rate limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It has not the form.
    #[error(
        "`{0}` is not a rate limit: write a number and one of `/s`, `/m`, `/h`, `/d`, and what may go at once after \
         it if you like (`50/s`, `1000/h burst 20`)"
    )]
    Form(String),
    /// A number is too small or too large.
    #[error("`{0}` is not within 1 to {COUNT_MAX}")]
    Count(String),
}

impl Unit {
    const ALL: [(&str, Self); 4] =
        [("s", Self::Second), ("m", Self::Minute), ("h", Self::Hour), ("d", Self::Day)];

    fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
        }
    }
}

impl RateLimit {
    /// Returns the time between two requests at a steady rate.
    pub fn interval(self) -> Duration {
        Duration::from_secs(self.unit.seconds()) / self.count
    }

    /// Returns how many may go at once after a pause: as many as in one second, at least one, unless it says another
    /// number.
    pub fn burst(self) -> u32 {
        self.burst.unwrap_or_else(|| match self.unit {
            Unit::Second => self.count,
            Unit::Minute => (self.count / 60).max(1),
            Unit::Hour | Unit::Day => 1,
        })
    }
}

impl FromStr for RateLimit {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let form = || ParseError::Form(text.to_owned());
        let (rate, burst) = match text.split_once("burst") {
            Some((rate, burst)) => (rate, Some(number(burst.trim(), form)?)),
            None => (text, None),
        };
        let (count, unit) = rate.split_once('/').ok_or_else(form)?;
        let (_, unit) = Unit::ALL.into_iter().find(|(name, _)| *name == unit.trim()).ok_or_else(form)?;
        Ok(Self { count: number(count.trim(), form)?, unit, burst })
    }
}

fn number(text: &str, form: impl FnOnce() -> ParseError) -> Result<u32, ParseError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(form());
    }
    let number = text.parse().ok().filter(|number| (1..=COUNT_MAX).contains(number));
    number.ok_or_else(|| ParseError::Count(text.to_owned()))
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = Unit::ALL.into_iter().find(|(_, unit)| *unit == self.unit).map_or("", |(name, _)| name);
        write!(f, "{}/{unit}", self.count)?;
        self.burst.map_or(Ok(()), |burst| write!(f, " burst {burst}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(text: &str) -> RateLimit {
        text.parse().unwrap()
    }

    #[test]
    fn a_rate_has_an_interval_and_a_burst() {
        for (text, millis, burst) in [
            ("50/s", 20, 50),
            ("1/s", 1_000, 1),
            ("600/m", 100, 10),
            ("30/m", 2_000, 1),
            ("1000/h", 3_600, 1),
            (" 1000 / h burst 20 ", 3_600, 20),
            ("24/d", 3_600_000, 1),
        ] {
            assert_eq!(rate(text).interval(), Duration::from_millis(millis), "{text}");
            assert_eq!(rate(text).burst(), burst, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_rate() {
        for bad in
            ["", "50", "50/", "/s", "50/w", "-1/s", "1.5/s", "5/s burst", "5/s 3", "burst 3", "5/s burst x"]
        {
            assert!(matches!(bad.parse::<RateLimit>(), Err(ParseError::Form(_))), "{bad}");
        }
        for bad in ["0/s", "1000001/s", "99999999999/s", "1/s burst 0"] {
            assert!(matches!(bad.parse::<RateLimit>(), Err(ParseError::Count(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(count in 1..=COUNT_MAX, unit in 0..4usize, burst in proptest::option::of(1..=COUNT_MAX)) {
            let rate = RateLimit { count, unit: Unit::ALL[unit].1, burst };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            prop_assert!(rate.burst() >= 1 && !rate.interval().is_zero());
        }

        #[test]
        fn no_text_panics(text in ".*") {
            drop(text.parse::<RateLimit>());
        }
    }
}

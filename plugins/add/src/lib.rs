//! Exact sums of decimal numbers: `0.1` and `0.2` are `0.3`. The program around it is `main.rs`.

use std::fmt;

/// The most decimal places: 10³⁸ is the largest power of ten in an `i128`.
const PLACES_MAX: u32 = 38;

/// Why a sum cannot be calculated.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// There is nothing to add.
    Nothing,
    /// An argument is not a number; the argument.
    NoNumber(String),
    /// A number, or the sum with it, is too large; the argument.
    TooLarge(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing to add: give numbers as arguments"),
            Self::NoNumber(text) => write!(f, "{text:?} is no number: write it as 2, -2 or 2.5"),
            Self::TooLarge(text) => write!(f, "the sum overflows at {text}: it may have 38 digits in all"),
        }
    }
}

impl std::error::Error for Error {}

/// A number of `digits` × 10⁻`places`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decimal {
    digits: i128,
    places: u32,
}

/// Returns the sum, with as many decimal places as the most precise number has.
///
/// # Errors
/// When there are no numbers, an argument is not a number, or the sum does not fit.
pub fn sum<I: IntoIterator<Item = String>>(numbers: I) -> Result<String, Error> {
    let mut total = None;
    for text in numbers {
        let number = Decimal::parse(&text)?;
        let sum = total.map_or(Some(number), |total: Decimal| total.plus(number));
        total = Some(sum.ok_or(Error::TooLarge(text))?);
    }
    total.map(|total| total.to_string()).ok_or(Error::Nothing)
}

impl Decimal {
    fn parse(text: &str) -> Result<Self, Error> {
        let no_number = || Error::NoNumber(text.to_owned());
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return Err(no_number()),
            None => (unsigned, ""),
        };
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return Err(no_number());
        }
        let sign = if text.starts_with('-') { "-" } else { "" };
        let too_large = || Error::TooLarge(text.to_owned());
        // Now parsing can only fail because of the length.
        let digits = format!("{sign}{whole}{fraction}").parse().map_err(|_| too_large())?;
        let places = u32::try_from(fraction.len()).ok().filter(|places| *places <= PLACES_MAX);
        Ok(Self { digits, places: places.ok_or_else(too_large)? })
    }

    fn plus(self, other: Self) -> Option<Self> {
        let places = self.places.max(other.places);
        let digits = self.digits_at(places)?.checked_add(other.digits_at(places)?)?;
        Some(Self { digits, places })
    }

    fn digits_at(self, places: u32) -> Option<i128> {
        self.digits.checked_mul(10_i128.checked_pow(places - self.places)?)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.places as usize;
        let sign = if self.digits < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", self.digits.unsigned_abs(), width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let point = if fraction.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(numbers: &[&str]) -> Result<String, Error> {
        sum(numbers.iter().map(|number| (*number).to_owned()))
    }

    #[test]
    fn sums_are_exact() {
        for (numbers, expected) in [
            (&["2", "2"][..], "4"),
            (&["7"], "7"),
            (&["0.1", "0.2"], "0.3"),
            (&["1.50", "1.5"], "3.00"),
            (&["-0.05", "+0.01"], "-0.04"),
            (&["-2", "2"], "0"),
            (&["1", "-1.000"], "0.000"),
            (&["9007199254740993", "1"], "9007199254740994"),
            (&["-170141183460469231731687303715884105728"], "-170141183460469231731687303715884105728"),
        ] {
            assert_eq!(sum_of(numbers).as_deref(), Ok(expected), "{numbers:?}");
        }
    }

    #[test]
    fn an_argument_that_is_not_a_number_is_named() {
        for text in
            ["two", "", "-", ".", "1.", ".5", "1e5", "0x10", "inf", "NaN", "1_000", "--1", "1.-2", "١"]
        {
            assert_eq!(sum_of(&["2", text]), Err(Error::NoNumber(text.to_owned())));
        }
        assert_eq!(
            sum_of(&["2", "two"]).unwrap_err().to_string(),
            "\"two\" is no number: write it as 2, -2 or 2.5"
        );
    }

    #[test]
    fn a_sum_that_does_not_fit_is_an_error_and_does_not_wrap() {
        let most = i128::MAX.to_string();
        for numbers in [
            &[&most, "1"][..],
            &["1", &"9".repeat(40)],
            &[&most, "0.1"],
            &["1", &format!("0.{}", "0".repeat(50))],
        ] {
            assert_eq!(sum_of(numbers), Err(Error::TooLarge(numbers[1].to_owned())), "{numbers:?}");
        }
        assert_eq!(sum_of(&[]), Err(Error::Nothing));
    }
}

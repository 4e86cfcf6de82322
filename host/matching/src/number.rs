//! JSON numbers, compared exactly: `1 == 1.0`, and 2⁵³ is not 2⁵³ + 1.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// 2⁶³, the first number above [`i64`] that is an `f64` too.
const I64_END: f64 = 9_223_372_036_854_775_808.0;

/// A number as JSON writes it: an integer of any size, or what has a fraction or an exponent as an `f64`.
///
/// Numbers are equal when their values are, however they are written.
#[derive(Clone, Debug)]
pub(super) enum Number {
    Int(i64),
    /// Finite.
    Float(f64),
    /// An integer beyond [`i64`].
    Huge(Box<Huge>),
}

/// An integer beyond [`i64`]: its sign and its digits, the first of which is no zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Huge {
    negative: bool,
    digits: Box<str>,
}

impl Number {
    /// Reads a JSON number's text; `None` for what is none, or is beyond `f64` while it is no integer.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_integer = !text.contains(['.', 'e', 'E']);
        if !is_integer {
            return text.parse().ok().filter(|number: &f64| number.is_finite()).map(Self::Float);
        }
        if let Ok(number) = text.parse() {
            return Some(Self::Int(number));
        }
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| Self::Huge(Box::new(Huge { negative, digits: digits.into() })))
    }

    /// Returns the number as an integer, if it is written as one and small enough to be an index.
    pub(super) fn as_index(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Float(_) | Self::Huge(_) => None,
        }
    }

    /// Returns an integer as an index: one beyond [`i64`] as the furthest.
    pub(super) fn as_clamped_index(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Float(_) => None,
            Self::Huge(huge) => Some(if huge.negative { i64::MIN } else { i64::MAX }),
        }
    }

    /// Returns a form in which equal numbers are equal bit by bit.
    fn canonical(&self) -> Canonical<'_> {
        match self {
            Self::Int(number) => Canonical::Int(*number),
            Self::Huge(huge) => Canonical::Huge(huge.negative, std::borrow::Cow::Borrowed(&huge.digits)),
            Self::Float(number) if number.fract() != 0.0 => Canonical::Fraction(number.to_bits()),
            Self::Float(number) => match whole(*number) {
                Some(number) => Canonical::Int(number),
                // Rust writes all digits of a whole `f64`.
                None => Canonical::Huge(*number < 0.0, format!("{:.0}", number.abs()).into()),
            },
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Canonical<'n> {
    Int(i64),
    Fraction(u64),
    Huge(bool, std::borrow::Cow<'n, str>),
}

/// Returns a whole `f64` as an `i64`, where it is one.
#[expect(clippy::cast_possible_truncation, reason = "the range has just been checked")]
fn whole(number: f64) -> Option<i64> {
    (-I64_END..I64_END).contains(&number).then_some(number as i64)
}

impl Huge {
    fn cmp_digits(&self, digits: &str) -> Ordering {
        self.digits.len().cmp(&digits.len()).then_with(|| (*self.digits).cmp(digits))
    }

    fn cmp_float(&self, number: f64) -> Ordering {
        let sign = if self.negative { Ordering::Less } else { Ordering::Greater };
        let same_side = self.negative == (number < 0.0);
        if !same_side || number.abs() < I64_END {
            return sign;
        }
        let by_size = self.cmp_digits(&format!("{:.0}", number.abs()));
        if self.negative { by_size.reverse() } else { by_size }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => one.cmp(other),
            // Not `total_cmp`: -0 and 0 are equal.
            (Self::Float(one), Self::Float(other)) => one.partial_cmp(other).unwrap_or(Ordering::Equal),
            (Self::Int(one), Self::Float(other)) => cmp_int_float(*one, *other),
            (Self::Float(one), Self::Int(other)) => cmp_int_float(*other, *one).reverse(),
            (Self::Huge(one), Self::Float(other)) => one.cmp_float(*other),
            (Self::Float(one), Self::Huge(other)) => other.cmp_float(*one).reverse(),
            (Self::Huge(huge), Self::Int(_)) if huge.negative => Ordering::Less,
            (Self::Huge(_), Self::Int(_)) => Ordering::Greater,
            (Self::Int(_), Self::Huge(_)) => other.cmp(self).reverse(),
            (Self::Huge(one), Self::Huge(other)) => match (one.negative, other.negative) {
                (false, false) => one.cmp_digits(&other.digits),
                (true, true) => other.cmp_digits(&one.digits),
                (false, true) => Ordering::Greater,
                (true, false) => Ordering::Less,
            },
        }
    }
}

fn cmp_int_float(int: i64, float: f64) -> Ordering {
    if float >= I64_END {
        return Ordering::Less;
    }
    if float < -I64_END {
        return Ordering::Greater;
    }
    let floor = whole(float.floor()).expect("it lies within the range of i64");
    // With equal whole parts, the fraction decides.
    int.cmp(&floor).then_with(|| if float.fract() == 0.0 { Ordering::Equal } else { Ordering::Less })
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

/// Writes JSON.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            // As serde_json writes it: with a point or an exponent, and no more digits than needed.
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Huge(huge) if huge.negative => write!(f, "-{}", huge.digits),
            Self::Huge(huge) => f.write_str(&huge.digits),
        }
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        match i64::try_from(number) {
            Ok(number) => Self::Int(number),
            Err(_) => {
                Self::Huge(Box::new(Huge { negative: false, digits: number.to_string().into_boxed_str() }))
            }
        }
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::from(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn numbers_have_one_order_however_they_are_written() {
        let ascending: [&[&str]; 17] = [
            &["-123456789012345678901234567891"],
            &["-123456789012345678901234567890"],
            &["-9223372036854775809"],
            &["-9223372036854775808", "-9223372036854775808.0"],
            &["-1.5"],
            &["-1", "-1.0", "-10e-1"],
            &["0", "-0", "0.0", "-0.0", "0e5"],
            &["1e-17"],
            &["1", "1.0"],
            &["9007199254740992", "9007199254740993.0"],
            &["9007199254740993"],
            &["9223372036854775807"],
            &["9223372036854775808", "9223372036854775808.0"],
            &["18446744073709551615"],
            &["18446744073709551616", "18446744073709551616.0"],
            &["99999999999999999999999"],
            &["1e23", "99999999999999991611392"],
        ];
        let hasher = RandomState::new();
        // 1e23 is the f64 99999999999999991611392, which is below 10²³ − 1.
        let ascending = [&ascending[..15], &[ascending[16], ascending[15]]].concat();
        for (place, group) in ascending.iter().enumerate() {
            for (other_place, other_group) in ascending.iter().enumerate() {
                for (one, other) in
                    group.iter().flat_map(|one| other_group.iter().map(move |other| (one, other)))
                {
                    let (one, other) = (number(one), number(other));
                    assert_eq!(one.cmp(&other), place.cmp(&other_place), "{one} {other}");
                    if place == other_place {
                        assert_eq!(hasher.hash_one(&one), hasher.hash_one(&other), "{one} {other}");
                    }
                }
            }
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["0", "-7", "1.5", "1e300", "123456789012345678901234567890", "-9223372036854775809"] {
            assert_eq!(number(text).to_string(), text);
        }
        for text in ["", "-", "1e400", "1.5.", "1a"] {
            assert!(Number::parse(text).is_none(), "{text}");
        }
    }
}

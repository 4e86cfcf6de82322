//! Rejects what `serde_json` accepts as raw text but cannot read into a `Value`. This happens before an event is
//! accepted, so that every later stage can read it.
//!
//! Reading everything would cost two thirds of the whole decoding again, so a quick scan for suspicious bytes comes first:
//! 3.1 µs instead of 5.0 for the 2 KB event (`cargo bench -p waypost-matching --bench matching`, the line "Decoding the event"), of
//! about 40 µs that accepting one takes.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::{DEPTH_MAX, TooDeep, openers};

/// Checks what reading an object's members leaves unchecked, so that every accepted event can be read into a `Value`:
/// no deeper than [`DEPTH_MAX`] with `depth` levels around it, no unpaired surrogate, no number beyond `f64`.
pub(super) fn check(json: &str, depth: usize) -> serde_json::Result<()> {
    if is_plain(json.as_bytes(), depth) {
        return Ok(());
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Check { depth }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Reads a text as one JSON value of an event, without the white space around it. A byte order mark before it is
/// skipped.
pub(super) fn value(text: &str) -> serde_json::Result<&str> {
    let json = serde_json::from_str::<&RawValue>(text.strip_prefix('\u{feff}').unwrap_or(text))?.get();
    check(json, 1)?;
    Ok(json)
}

/// Returns why bytes are no such value, if they are none.
pub(super) fn fault(bytes: &[u8]) -> Option<String> {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Some(format!("not UTF-8 at byte {}", error.valid_up_to())),
    };
    let error = value(text).err()?;
    Some(match no_number(text, &error) {
        Some(word) => format!("`{word}` at line {} column {} is no JSON", error.line(), error.column()),
        None => error.to_string(),
    })
}

/// Returns the non-JSON number, as JavaScript and Python write them, at the position of an error.
fn no_number(text: &str, error: &serde_json::Error) -> Option<&'static str> {
    let line = text.split('\n').nth(error.line().checked_sub(1)?)?.as_bytes();
    // The column is that of the first letter, or one beside it.
    let places = error.column().saturating_sub(3)..=error.column();
    let mut words = ["NaN", "Infinity"].into_iter();
    words.find(|word| {
        places.clone().any(|at| line.get(at..).is_some_and(|rest| rest.starts_with(word.as_bytes())))
    })
}

/// Tells quickly that [`Check`] would accept valid JSON, as for nearly every event.
fn is_plain(json: &[u8], depth: usize) -> bool {
    // An exponent of two digits reaches f64's limit only with more than 200 digits before it.
    let mut run = 0;
    let is_long = json.iter().step_by(50).any(|byte| {
        run = if byte.is_ascii_digit() { run + 1 } else { 0 };
        run >= 4
    });
    let openers: usize = json.chunks(128).map(|chunk| usize::from(openers(chunk))).sum();
    let is_nested = matches!(json.trim_ascii_start().first(), Some(b'{' | b'['));
    is_nested && openers + depth < DEPTH_MAX && !is_long && !has_surrogate(json) && !has_large_exponent(json)
}

/// Scans blocks of a fixed size, which compiles to vector code; only a block with a hit is scanned byte by byte.
fn has_large_exponent(json: &[u8]) -> bool {
    let mut start = 0;
    while let Some(block) = json[start..].first_chunk::<BLOCK>() {
        if has_exponent(block) && is_exponent_of_number(json, start) {
            return true;
        }
        start += BLOCK - 5;
    }
    has_exponent(&json[start..]) && is_exponent_of_number(json, start)
}

/// 512 places for the first of six bytes.
const BLOCK: usize = 512 + 5;

// These two have no branches, so that the compiler vectorises them.

fn has_surrogate(chunk: &[u8]) -> bool {
    chunk
        .array_windows()
        .fold(false, |found, &[a, b, c]| found | ((a == b'\\') & (b == b'u') & (c | 0x20 == b'd')))
}

#[inline]
fn has_exponent(chunk: &[u8]) -> bool {
    chunk.array_windows().fold(false, |found, window| found | is_exponent(window))
}

/// Tells whether this could be the `e` of a number with three digits or more in its exponent.
fn is_exponent(&[a, e, b, c, d, f]: &[u8; 6]) -> bool {
    let digits = a.is_ascii_digit() & c.is_ascii_digit() & d.is_ascii_digit();
    digits & (e | 0x20 == b'e') & (b.is_ascii_digit() | (b == b'+')) & !f.is_ascii_alphabetic()
}

/// Tells numbers from hashes, whose hex digits often look like exponents: a number has JSON's punctuation on both
/// sides.
fn is_exponent_of_number(json: &[u8], start: usize) -> bool {
    let places = json[start..].array_windows().take(BLOCK).enumerate();
    let mut places = places.filter(|(_, window)| is_exponent(window)).map(|(i, _)| start + i);
    places.any(|at| {
        let (before, after) = json.split_at(at);
        ends_number(before.iter().rev()) && ends_number(after.iter())
    })
}

/// Tells whether the byte after the characters of a number may follow a number; true for a very long one, because
/// scanning further would take quadratic time.
fn ends_number<'a>(bytes: impl Iterator<Item = &'a u8>) -> bool {
    let mut bytes = bytes.take(NUMBER_MAX);
    let end = bytes.find(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E'));
    end.is_none_or(|byte| b",:[]} \n\r\t".contains(byte))
}

/// The longest number that is scanned byte by byte.
const NUMBER_MAX: usize = 64;

/// Deserializes a value in full and keeps nothing.
struct Check {
    depth: usize,
}

impl Check {
    fn inner<E: de::Error>(&self) -> Result<usize, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(TooDeep));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.inner()?;
        while seq.next_element_seed(Check { depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.inner()?;
        while map.next_key_seed(Check { depth })?.is_some() {
            map.next_value_seed(Check { depth })?;
        }
        Ok(())
    }
}

//! JSON as text: an object's members read and replaced without building a tree, so that numbers, white space and
//! order stay as they were written.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The deepest nesting of an event. `serde_json` reads 128 levels into a `Value`; the rest is room for the objects
/// that an event is put into.
pub(super) const DEPTH_MAX: usize = 120;

/// An object's members in their order: the name, and the value's text without white space around it.
#[derive(Default)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Members<'a> {
    /// Reads an object whose values are read no further than to see where they end.
    pub(super) fn parse(object: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(object)
    }

    /// Returns a member's text.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, raw)| raw)
    }

    /// Returns names and texts, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, raw)| (name.as_ref(), *raw))
    }

    /// Returns names and texts as they were read, in order.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (Cow<'a, str>, &'a str)> {
        self.0.into_iter()
    }

    /// Returns a name that stands there twice.
    pub(super) fn duplicate(&self) -> Option<&str> {
        let names = || self.iter().map(|(name, _)| name);
        // Comparing each with each is the quickest for the usual dozen, and would be an attack with thousands.
        if self.0.len() <= 24 {
            return names()
                .enumerate()
                .find(|(i, name)| names().take(*i).any(|other| other == *name))
                .map(|(_, name)| name);
        }
        let mut seen = HashSet::with_capacity(self.0.len());
        names().find(|name| !seen.insert(*name))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((Name(name), raw)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, raw.get()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Returns the content of a JSON string; nothing for any other value.
pub(super) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// Returns a text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string can always be written")
}

/// Returns `object`, whose members are given, with the values of `overlay` (name, JSON text): a name that is there keeps its place, a new one is
/// appended, all other bytes stay. Returns nothing when that changes nothing.
pub(super) fn overlay(
    object: &str,
    members: &Members<'_>,
    overlay: &BTreeMap<Cow<'_, str>, String>,
) -> Option<String> {
    let mut left: BTreeMap<&str, &str> =
        overlay.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect();
    let (mut out, mut copied, mut end) = (String::new(), 0, None);
    for (name, raw) in members.iter() {
        let start = raw.as_ptr().addr() - object.as_ptr().addr();
        end = Some(start + raw.len());
        if let Some(value) = left.remove(name)
            && !is_same(raw, value)
        {
            out.push_str(&object[copied..start]);
            out.push_str(value);
            copied = start + raw.len();
        }
    }
    if copied == 0 && left.is_empty() {
        return None;
    }
    let is_empty = end.is_none();
    let end = end.or_else(|| object.find('{').map(|brace| brace + 1))?;
    out.push_str(&object[copied..end]);
    for (i, (name, value)) in left.into_iter().enumerate() {
        if i > 0 || !is_empty {
            out.push(',');
        }
        out.push_str(&quoted(name));
        out.push(':');
        out.push_str(value);
    }
    out.push_str(&object[end..]);
    Some(out)
}

fn is_same(one: &str, other: &str) -> bool {
    let value = |raw| serde_json::from_str::<Value>(raw).ok();
    one == other || value(one).is_some_and(|one| Some(one) == value(other))
}

/// Checks what reading an object's members leaves open, so that whatever is accepted can be read into a `Value`: no
/// deeper than [`DEPTH_MAX`] with `depth` levels around it, no half of a surrogate pair, no number beyond `f64`.
pub(super) fn check(json: &str, depth: usize) -> serde_json::Result<()> {
    if is_plain(json.as_bytes(), depth) {
        return Ok(());
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Check { depth }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Tells quickly that [`Check`] has nothing to find in valid JSON, as is so for nearly all events.
fn is_plain(json: &[u8], depth: usize) -> bool {
    // An exponent of two digits reaches f64's limit only with more than 200 digits before it.
    let mut run = 0;
    let is_long = json.iter().step_by(50).any(|byte| {
        run = if byte.is_ascii_digit() { run + 1 } else { 0 };
        run >= 4
    });
    let openers: usize = json.chunks(128).map(|chunk| usize::from(openers(chunk))).sum();
    let is_nested = matches!(json.first(), Some(b'{' | b'['));
    is_nested && openers + depth < DEPTH_MAX && !is_long && !has_surrogate(json) && !has_large_exponent(json)
}

/// Looks at blocks of a fixed size, which are vector code, and by hand only where one has something.
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

// These three have no branches, so that the compiler makes vector code of them.

fn openers(chunk: &[u8]) -> u8 {
    chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum()
}

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

/// Tells the numbers from the hashes, whose hex digits look like exponents more often than one would think.
fn is_exponent_of_number(json: &[u8], start: usize) -> bool {
    let mut candidates =
        json[start..].array_windows().take(BLOCK).enumerate().filter(|(_, window)| is_exponent(window));
    candidates.any(|(i, _)| {
        let (before, after) = json.split_at(start + i);
        let is_outside = |byte: &&u8| !matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E');
        let ends = |byte: Option<&u8>| byte.is_none_or(|byte| b",:[]} \n\r\t".contains(byte));
        ends(before.iter().rev().find(is_outside)) && ends(after.iter().find(is_outside))
    })
}

/// Reads a value in full and keeps nothing.
struct Check {
    depth: usize,
}

impl Check {
    fn inner<E: de::Error>(&self) -> Result<usize, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {DEPTH_MAX} levels")));
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

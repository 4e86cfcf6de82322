//! JSON as text: reads and replaces an object's members without building a tree, so that numbers, white space and order
//! are preserved.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// An object's members in their order: the name, and the value's text without white space around it.
#[derive(Default)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Members<'a> {
    /// Reads an object; its values are only scanned for their ends.
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

    /// Returns a name that occurs twice.
    pub(super) fn duplicate(&self) -> Option<&str> {
        let names = || self.iter().map(|(name, _)| name);
        // Comparing all pairs is quickest for the usual dozen members, but quadratic: thousands would be an attack.
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

/// Returns the content of a JSON string; `None` for any other value.
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

/// Returns `object`, whose members are given, with the values of `overlay` (name, JSON text): an existing name keeps
/// its place, a new one is appended, and all other bytes stay. Returns `None` when that changes nothing.
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

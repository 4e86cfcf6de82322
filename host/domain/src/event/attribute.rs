//! One attribute: its value, and the names and types that a version allows.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::names::Role;
use super::{SpecVersion, raw};

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attribute<'a> {
    /// Text, as in a header.
    Text(Cow<'a, str>),
    /// JSON text: a string in quotes, or anything else.
    Json(Cow<'a, str>),
}

impl<'a> Attribute<'a> {
    /// Returns a string's content, and `None` for any other JSON value.
    pub(super) fn string(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Json(raw) => raw::text(raw),
        }
    }

    /// Returns a string's content, and any other JSON value as it is written.
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Json(raw) => raw::text(raw).unwrap_or(Cow::Borrowed(raw)),
        }
    }

    /// Tells whether it is JSON's null, which in an event means that the attribute is absent.
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Json(raw) if raw == "null")
    }

    /// Returns the value as JSON text.
    pub(super) fn json(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Owned(raw::quoted(text)),
            Self::Json(raw) => Cow::Borrowed(raw),
        }
    }

    /// Returns the value in 1.0's type system: a string, a boolean or a 32-bit integer; other JSON as its text, and
    /// `None` for null.
    pub(super) fn into_v1(self) -> Option<Self> {
        match self {
            Self::Json(raw) if raw == "null" => None,
            Self::Json(raw) if is_v1_type(&raw) => Some(Self::Json(raw)),
            Self::Json(raw) => Some(Self::Text(raw)),
            Self::Text(text) => Some(Self::Text(text)),
        }
    }
}

fn is_v1_type(raw: &str) -> bool {
    raw.starts_with('"') || matches!(raw, "true" | "false") || raw.parse::<i32>().is_ok()
}

/// Returns a subscription's extensions in the form of an event of this version: names and JSON texts.
pub(super) fn overlay(
    version: SpecVersion,
    extensions: &Map<String, Value>,
) -> BTreeMap<Cow<'_, str>, String> {
    let entries = extensions.iter();
    match version {
        SpecVersion::V0_1 | SpecVersion::V0_2 | SpecVersion::V0_3 => {
            entries.map(|(name, value)| (Cow::Borrowed(name.as_str()), value.to_string())).collect()
        }
        SpecVersion::V1_0 => entries
            .filter_map(|(name, value)| {
                let value = Attribute::Json(Cow::Owned(value.to_string())).into_v1();
                let json = value.map_or_else(|| "null".to_owned(), |value| value.json().into_owned());
                Some((Cow::Owned(v1_name(name)?), json))
            })
            .collect(),
    }
}

/// Returns a name in the form that 1.0 allows; `None` if nothing is left of it, or it is one of 1.0's own.
pub(super) fn v1_name(name: &str) -> Option<String> {
    let name: String =
        name.chars().map(|char| char.to_ascii_lowercase()).filter(|char| is_v1_name_char(*char)).collect();
    (!name.is_empty() && SpecVersion::V1_0.role(&name) == Role::Extension).then_some(name)
}

/// Tells whether a 1.0 attribute name may have the character.
pub(super) fn is_v1_name_char(char: char) -> bool {
    matches!(char, 'a'..='z' | '0'..='9')
}

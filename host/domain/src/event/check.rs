//! The rules for an event's attributes, whichever mode they were received in (CloudEvents 1.0.2, 3 "Context
//! attributes").

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::attribute::{self, Attribute};
use super::error::DecodeError;
use super::names::Role;
use super::raw::{self, Members};
use super::{SpecVersion, time, view};

/// What is wrong with a content type.
pub(super) const NO_MEDIA_TYPE: &str = "is no media type (RFC 2046); write it like \"application/json\"";

/// Where attributes stand, for the text of an error.
#[derive(Clone, Copy)]
pub(super) enum AttributePosition {
    /// Members of a JSON object.
    Json,
    /// `ce-` headers.
    Header,
}

impl AttributePosition {
    /// Makes the error about one attribute.
    pub(super) fn error(self, name: &str, message: &str) -> DecodeError {
        match self {
            Self::Json => {
                let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
                DecodeError::invalid(Some(pointer), format!("`{name}` {message}"))
            }
            Self::Header => {
                DecodeError::invalid(None, format!("header `ce-{}` {message}", name.to_ascii_lowercase()))
            }
        }
    }
}

/// The attributes that every version requires.
#[derive(Default)]
pub(super) struct RequiredAttributes {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) ty: String,
}

impl RequiredAttributes {
    /// Checks attributes, given by name and in any order; null counts as absent.
    pub(super) fn check<'a>(
        version: SpecVersion,
        place: AttributePosition,
        attributes: impl Iterator<Item = (&'a str, Attribute<'a>)>,
    ) -> Result<Self, DecodeError> {
        let mut required = Self::default();
        for (name, value) in attributes {
            let role = match place {
                AttributePosition::Json => version.role(name),
                AttributePosition::Header => version.header_role(name),
            };
            if role == Role::Extension {
                check_name(version, place, name)?;
            }
            if value.is_null() {
                continue;
            }
            match role {
                Role::Id => required.id = string(place, name, &value)?.into_owned(),
                Role::Source => required.source = string(place, name, &value)?.into_owned(),
                Role::Type => required.ty = string(place, name, &value)?.into_owned(),
                Role::Subject | Role::Schema if version == SpecVersion::V1_0 => {
                    string(place, name, &value)?;
                }
                // All versions require a media type (RFC 2046); before 1.0 an empty text counts as absent.
                Role::ContentType => {
                    let is_empty = version < SpecVersion::V1_0 && value.text().is_empty();
                    if !is_empty && !view::is_media_type(&string(place, name, &value)?) {
                        return Err(place.error(name, NO_MEDIA_TYPE));
                    }
                }
                Role::Time if version == SpecVersion::V1_0 => {
                    if !time::is_rfc3339(&string(place, name, &value)?) {
                        let message = "is no RFC 3339 time; write it like \"2026-11-22T04:00:00Z\"";
                        return Err(place.error(name, message));
                    }
                }
                // Before 1.0 these are free text (Pacifica's `eventTime` is), and extensions are free in all versions.
                Role::Subject | Role::Schema | Role::Time => {}
                Role::SpecVersion | Role::TypeVersion | Role::ContentEncoding | Role::Extensions => {}
                Role::Data | Role::DataBase64 | Role::Extension => {}
            }
        }
        for (role, value) in
            [(Role::Id, &required.id), (Role::Source, &required.source), (Role::Type, &required.ty)]
        {
            if value.is_empty() {
                let name = version.name(role).unwrap_or_default();
                return Err(place.error(name, &format!("is missing: CloudEvents {version} requires it")));
            }
        }
        Ok(required)
    }
}

fn check_name(version: SpecVersion, place: AttributePosition, name: &str) -> Result<(), DecodeError> {
    if name.is_empty() && (version == SpecVersion::V1_0 || matches!(place, AttributePosition::Header)) {
        return Err(place.error(name, "has no name"));
    }
    if version == SpecVersion::V1_0 && !name.chars().all(attribute::is_v1_name_char) {
        return Err(place.error(name, "is no attribute name: CloudEvents 1.0 allows a-z and 0-9 alone"));
    }
    Ok(())
}

fn string<'a>(
    place: AttributePosition,
    name: &str,
    value: &'a Attribute<'_>,
) -> Result<Cow<'a, str>, DecodeError> {
    match value.string() {
        None => Err(place.error(name, "must be a string")),
        Some(text) if text.is_empty() => Err(place.error(name, "must not be empty")),
        Some(text) => Ok(text),
    }
}

/// Checks the data members of a JSON object.
pub(super) fn data(version: SpecVersion, members: &Members<'_>) -> Result<(), DecodeError> {
    let get = |name| members.get(name).filter(|raw| *raw != "null");
    let is_base64 = |raw| raw::text(raw).is_some_and(|text| STANDARD.decode(text.as_bytes()).is_ok());
    match version {
        SpecVersion::V0_1 | SpecVersion::V0_2 => Ok(()),
        SpecVersion::V0_3 => {
            let encoding = get("datacontentencoding").and_then(raw::text);
            if encoding.is_some_and(|text| view::is_base64_name(&text)) && !get("data").is_none_or(is_base64)
            {
                return Err(AttributePosition::Json
                    .error("data", "must be a base64 string, as `datacontentencoding` says"));
            }
            Ok(())
        }
        SpecVersion::V1_0 => {
            match get("data_base64") {
                Some(raw) if !is_base64(raw) => Err(AttributePosition::Json
                    .error("data_base64", "must be a string in base64 (RFC 4648 §4, with padding)")),
                Some(_) if get("data").is_some() => Err(AttributePosition::Json
                    .error("data_base64", "cannot stand beside `data`: send one of them")),
                Some(_) | None => Ok(()),
            }
        }
    }
}

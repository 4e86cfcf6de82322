//! A uniform view of an event, whatever its version and mode: conversion and encoding use it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::attribute::{self, Attribute};
use super::names::Role;
use super::raw::{self, Members};
use super::{Event, SpecVersion, Wire, time};

/// The data in their wire form.
#[derive(Default)]
pub(super) enum Data<'a> {
    /// There are none.
    #[default]
    None,
    /// JSON text: a member's value.
    Json(&'a str),
    /// Bytes in base64.
    Base64(Cow<'a, str>),
    /// A binary event's body.
    Body(&'a Bytes),
}

/// The attributes by their meaning; text attributes keep their JSON form.
#[derive(Default)]
pub(super) struct View<'a> {
    pub(super) id: Option<Attribute<'a>>,
    pub(super) source: Option<Attribute<'a>>,
    pub(super) ty: Option<Attribute<'a>>,
    pub(super) type_version: Option<Attribute<'a>>,
    pub(super) subject: Option<Attribute<'a>>,
    pub(super) time: Option<Attribute<'a>>,
    pub(super) schema: Option<Attribute<'a>>,
    pub(super) content_type: Option<Attribute<'a>>,
    pub(super) extensions: BTreeMap<Cow<'a, str>, Attribute<'a>>,
    pub(super) data: Data<'a>,
}

impl<'a> View<'a> {
    /// Views an event.
    pub(super) fn of(event: &'a Event) -> Self {
        match &event.wire {
            Wire::Structured { body, .. } => {
                let members = str::from_utf8(body).ok().and_then(|text| Members::parse(text).ok());
                Self::structured(event.spec_version, members.unwrap_or_default())
            }
            Wire::Binary { attributes, content_type, data } => {
                Self::binary(event.spec_version, attributes, content_type.as_deref(), data)
            }
        }
    }

    fn structured(version: SpecVersion, members: Members<'a>) -> Self {
        let (mut view, mut is_base64) = (Self::default(), false);
        for (name, raw) in members.into_iter() {
            match version.role(&name) {
                Role::Data if raw == "null" && matches!(view.data, Data::Base64(_)) => {}
                Role::Data => view.data = Data::Json(raw),
                Role::DataBase64 => {
                    view.data = raw::text(raw).map_or_else(|| std::mem::take(&mut view.data), Data::Base64);
                }
                Role::ContentEncoding => is_base64 = raw::text(raw).is_some_and(|text| is_base64_name(&text)),
                Role::Extensions => match Members::parse(raw) {
                    Ok(members) => {
                        for (name, raw) in members.into_iter() {
                            view.set(Role::Extension, name, Attribute::Json(Cow::Borrowed(raw)));
                        }
                    }
                    Err(_) => view.set(Role::Extension, name, Attribute::Json(Cow::Borrowed(raw))),
                },
                role => view.set(role, name, Attribute::Json(Cow::Borrowed(raw))),
            }
        }
        if let (true, Data::Json(raw)) = (is_base64, &view.data) {
            view.data = raw::text(raw).map_or(Data::None, Data::Base64);
        }
        view
    }

    fn binary(
        version: SpecVersion,
        attributes: &'a [(String, String)],
        content_type: Option<&'a str>,
        data: &'a Bytes,
    ) -> Self {
        let (mut view, mut is_base64) = (Self::default(), false);
        for (name, text) in attributes {
            match version.header_role(name) {
                Role::ContentEncoding => is_base64 = is_base64_name(text),
                Role::Extension if version == SpecVersion::V0_1 => {
                    let name = name.strip_prefix("x-").unwrap_or(name);
                    view.set(Role::Extension, Cow::Borrowed(name), Attribute::Text(Cow::Borrowed(text)));
                }
                // `ce-extensions` is text, so it cannot be the object that this role stands for.
                Role::Extensions => {
                    view.set(Role::Extension, Cow::Borrowed(name), Attribute::Text(Cow::Borrowed(text)));
                }
                role => view.set(role, Cow::Borrowed(name), Attribute::Text(Cow::Borrowed(text))),
            }
        }
        view.content_type = content_type.map(|text| Attribute::Text(Cow::Borrowed(text)));
        view.data = match str::from_utf8(data) {
            _ if data.is_empty() => Data::None,
            Ok(text) if is_base64 && STANDARD.decode(text).is_ok() => Data::Base64(Cow::Borrowed(text)),
            Ok(_) | Err(_) => Data::Body(data),
        };
        view
    }

    fn set(&mut self, role: Role, name: Cow<'a, str>, value: Attribute<'a>) {
        if value.is_null() {
            return;
        }
        let place = match role {
            Role::Id => &mut self.id,
            Role::Source => &mut self.source,
            Role::Type => &mut self.ty,
            Role::TypeVersion => &mut self.type_version,
            Role::Subject => &mut self.subject,
            Role::Time => &mut self.time,
            Role::Schema => &mut self.schema,
            Role::ContentType => &mut self.content_type,
            Role::Extension => {
                self.extensions.insert(name, value);
                return;
            }
            Role::SpecVersion | Role::ContentEncoding | Role::Extensions | Role::Data | Role::DataBase64 => {
                return;
            }
        };
        *place = Some(value);
    }

    /// Converts it into a view of a 1.0 event. Attributes that 1.0 does not define or allow become extension
    /// attributes; an extension with the name of one of 1.0's own attributes is left out.
    pub(super) fn into_v1(mut self) -> Self {
        let extensions = std::mem::take(&mut self.extensions);
        if let Some(version) = self.type_version.take() {
            let version = Attribute::Text(version.text().into_owned().into());
            self.extensions.insert("eventtypeversion".into(), version);
        }
        if let Some(time) = self.time.take_if(|time| !time::is_rfc3339(&time.text())) {
            let time = Attribute::Text(time.text().into_owned().into());
            self.extensions.insert("eventtime".into(), time);
        }
        for place in [&mut self.subject, &mut self.time, &mut self.schema, &mut self.content_type] {
            *place = place.take().filter(|value| !value.text().is_empty()).map(|value| match value {
                Attribute::Json(raw) if !raw.starts_with('"') => Attribute::Text(raw),
                value => value,
            });
        }
        let renamed = extensions
            .into_iter()
            .filter_map(|(name, value)| Some((Cow::Owned(attribute::v1_name(&name)?), value.into_v1()?)));
        self.extensions.extend(renamed);
        self
    }

    /// Overlays a subscription's extensions, made by [`attribute::overlay`], on those of the event.
    pub(super) fn lay(&mut self, overlay: BTreeMap<Cow<'a, str>, String>) {
        for (name, json) in overlay {
            if json == "null" {
                self.extensions.remove(&name);
            } else {
                self.extensions.insert(name, Attribute::Json(Cow::Owned(json)));
            }
        }
    }

    /// Tells whether the content type is JSON, which is the default.
    pub(super) fn is_json(&self) -> bool {
        self.content_type.as_ref().is_none_or(|value| is_json_type(&value.text()))
    }
}

/// Tells whether a `datacontentencoding` says base64.
pub(super) fn is_base64_name(text: &str) -> bool {
    text.eq_ignore_ascii_case("base64")
}

/// Tells whether a text is a media type (RFC 2046, in the syntax of RFC 9110 §8.3.1): two names with a `/` between
/// them, and parameters, which are only checked to be printable.
pub(super) fn is_media_type(text: &str) -> bool {
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let is_name = |name: &str| {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !name.is_empty() && name.bytes().all(is_token)
    };
    let names = essence.trim_matches([' ', '\t']).split_once('/');
    let is_printable = parameters.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
    names.is_some_and(|(top, sub)| is_name(top) && is_name(sub)) && is_printable
}

/// Tells whether a media type is JSON: `*/json` or `*+json`, whatever its parameters.
pub(super) fn is_json_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

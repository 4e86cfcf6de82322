//! Converts an event into one JSON object, and its data into JSON or bytes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::attribute::Attribute;
use super::names::Role;
use super::raw;
use super::view::{Data, View};
use super::{Event, SpecVersion, Wire, strict};

/// An event's attributes and data under the names that the Dispatcher's clients use (`GET /get/<id>`).
#[derive(Clone, Debug)]
pub struct Attributes {
    /// `eventType`.
    pub event_type: String,
    /// `eventTypeVersion`, which 0.1 alone has.
    pub event_type_version: Option<String>,
    /// `source`.
    pub source: String,
    /// `eventID`.
    pub event_id: String,
    /// `eventTime`, as the producer wrote it.
    pub event_time: Option<String>,
    /// `schemaURL`, in 1.0 `dataschema`.
    pub schema_url: Option<String>,
    /// `contentType`, in 1.0 `datacontenttype`.
    pub content_type: Option<String>,
    /// `subject`, since 0.3.
    pub subject: Option<String>,
    /// The data as JSON: bytes that are neither JSON nor text are a base64 string.
    pub data: Option<Box<RawValue>>,
}

impl Event {
    /// Returns the event as one JSON object in its own version: the received bytes, or for a binary event an equivalent
    /// object.
    ///
    /// It can always be read into a [`serde_json::Value`].
    pub fn json(&self) -> Bytes {
        match &self.wire {
            Wire::Structured { body, .. } => body.clone(),
            Wire::Binary { .. } => View::of(self).to_json(self.spec_version).into(),
        }
    }

    /// Returns why data that are declared as JSON are invalid: `application/json, but …`. Filters see no content in
    /// such data.
    pub fn unreadable_data(&self) -> Option<String> {
        let view = View::of(self);
        if !view.is_json() {
            return None;
        }
        let called = view.content_type.as_ref().map(Attribute::text);
        let fault = match &view.data {
            Data::Body(body) => strict::fault(body)?,
            // Without a content type, the body of a binary event is bytes.
            Data::Base64(base64) if called.is_some() => {
                strict::fault(&STANDARD.decode(base64.as_bytes()).ok()?)?
            }
            Data::Base64(_) | Data::Json(_) | Data::None => return None,
        };
        let called = called.unwrap_or(Cow::Borrowed("JSON, since there is no content type"));
        Some(format!("{called}, but {fault}"))
    }

    /// Returns the subject, which is read from the wire form.
    pub fn subject(&self) -> Option<String> {
        View::of(self).subject.map(|subject| subject.text().into_owned())
    }

    /// Returns the attributes and the data, whatever the version and mode.
    pub fn attributes(&self) -> Attributes {
        let view = View::of(self);
        let text = |value: &Option<Attribute<'_>>| value.as_ref().map(|value| value.text().into_owned());
        let data = view.data_member(self.spec_version).map(|member| match member {
            Member::Json(json) => json.into_owned(),
            Member::Base64(base64) => raw::quoted(&base64),
        });
        Attributes {
            event_type: self.ty.clone(),
            event_type_version: text(&view.type_version),
            source: self.source.clone(),
            event_id: self.id.clone(),
            event_time: text(&view.time),
            schema_url: text(&view.schema),
            content_type: text(&view.content_type),
            subject: text(&view.subject),
            data: data.and_then(|json| RawValue::from_string(json).ok()),
        }
    }
}

/// The data as a member of a JSON object.
enum Member<'a> {
    Json(Cow<'a, str>),
    Base64(Cow<'a, str>),
}

impl View<'_> {
    /// Writes the object of an event in `version`, which the view must be of.
    pub(super) fn to_json(&self, version: SpecVersion) -> String {
        let mut object = Object::default();
        let member = self.data_member(version);
        let attributes = [
            (Role::Id, &self.id),
            (Role::Source, &self.source),
            (Role::Type, &self.ty),
            (Role::TypeVersion, &self.type_version),
            (Role::Subject, &self.subject),
            (Role::Time, &self.time),
            (Role::Schema, &self.schema),
            (Role::ContentType, &self.content_type),
        ];
        object.put(version.name(Role::SpecVersion), &raw::quoted(version.as_str()));
        for (role, value) in attributes {
            if let Some(value) = value {
                object.put(version.name(role), &value.json());
            }
        }
        match version {
            SpecVersion::V0_1 if self.extensions.is_empty() => {}
            SpecVersion::V0_1 => {
                let mut extensions = Object::default();
                self.extensions.iter().for_each(|(name, value)| extensions.put(Some(name), &value.json()));
                object.put(version.name(Role::Extensions), &extensions.finish());
            }
            SpecVersion::V0_2 | SpecVersion::V0_3 | SpecVersion::V1_0 => {
                self.extensions.iter().for_each(|(name, value)| object.put(Some(name), &value.json()));
            }
        }
        match member {
            None => {}
            Some(Member::Json(json)) => object.put(version.name(Role::Data), &json),
            Some(Member::Base64(base64)) => {
                // Only 0.3 has an attribute for the encoding, and only 1.0 has a member for base64 data.
                object.put(version.name(Role::ContentEncoding), "\"base64\"");
                let name = version.name(Role::DataBase64).or(version.name(Role::Data));
                object.put(name, &raw::quoted(&base64));
            }
        }
        object.finish()
    }

    /// Returns the data as a member. A body that is declared as JSON but is not is encoded as bytes where the version
    /// allows: a string would be decoded as another body.
    fn data_member(&self, version: SpecVersion) -> Option<Member<'_>> {
        let body = match &self.data {
            Data::None => return None,
            Data::Json(json) => return Some(Member::Json(Cow::Borrowed(json))),
            Data::Base64(base64) => return Some(Member::Base64(Cow::Borrowed(base64))),
            Data::Body(body) => *body,
        };
        let text = str::from_utf8(body).ok();
        if let Some(json) = text.filter(|_| self.is_json()).and_then(|text| strict::value(text).ok()) {
            return Some(Member::Json(Cow::Borrowed(json)));
        }
        Some(match text {
            Some(text) if version <= SpecVersion::V0_2 || !self.is_json() => {
                Member::Json(raw::quoted(text).into())
            }
            Some(_) | None => Member::Base64(STANDARD.encode(body).into()),
        })
    }

    /// Returns the data as a binary event's body.
    pub(super) fn body(&self) -> Bytes {
        match &self.data {
            Data::None => Bytes::new(),
            Data::Body(body) => Bytes::clone(body),
            Data::Base64(base64) => match STANDARD.decode(base64.as_bytes()) {
                Ok(bytes) => bytes.into(),
                Err(_) => Bytes::copy_from_slice(base64.as_bytes()),
            },
            Data::Json(json) if self.is_json() => Bytes::copy_from_slice(json.as_bytes()),
            Data::Json("null") => Bytes::new(),
            Data::Json(json) => match raw::text(json) {
                Some(text) => Bytes::copy_from_slice(text.as_bytes()),
                None => Bytes::copy_from_slice(json.as_bytes()),
            },
        }
    }
}

/// A JSON object that is written member by member.
#[derive(Default)]
struct Object(String);

impl Object {
    /// Appends a member whose value is JSON text, unless it has no name.
    fn put(&mut self, name: Option<&str>, json: &str) {
        let Some(name) = name else { return };
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&raw::quoted(name));
        self.0.push(':');
        self.0.push_str(json);
    }

    fn finish(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        self.0
    }
}

//! Encodes an event for a target: content type, headers and body (CloudEvents 1.0.2, HTTP protocol binding).

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::names::Role;
use super::view::{self, Data, View};
use super::{Event, SpecVersion, attribute, percent, raw};

/// The most attributes that are sent as headers: many servers refuse requests with more than 100 headers.
const HEADERS_MAX: usize = 64;
/// The most bytes of attributes that are sent as headers: many servers refuse requests with more.
const HEADER_BYTES_MAX: usize = 6 * 1024;

const CLOUDEVENTS_JSON: HeaderValue = HeaderValue::from_static("application/cloudevents+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The CloudEvents version that a subscription wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventFormat {
    /// The version that the event was received in.
    #[default]
    #[serde(rename = "original")]
    Original,
    /// 1.0, converted where the event is older.
    #[serde(rename = "1.0")]
    V1_0,
}

/// The CloudEvents mode that a subscription wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentMode {
    /// Attributes and data in one JSON object.
    #[default]
    Structured,
    /// Attributes as headers, the data as the body.
    Binary,
}

/// The content type of a structured 1.0 event. Older events are always sent as `application/json`, since Pacifica's
/// services, which send and receive them, know nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StructuredType {
    /// That of CloudEvents.
    #[default]
    #[serde(rename = "application/cloudevents+json")]
    CloudEvents,
    /// That of any JSON.
    #[serde(rename = "application/json")]
    Json,
}

/// The form in which a subscription wants its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// The version.
    pub format: EventFormat,
    /// The mode.
    pub mode: ContentMode,
    /// The content type of structured 1.0 events.
    pub content_type: StructuredType,
}

/// An event ready to be POSTed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// `content-type`, and in binary mode the `ce-` headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Encodes an event for a target, with a subscription's extensions overlaid on the event's.
///
/// In a 0.x event, the `extensions` member is overlaid and everything else of a structured one stays byte for byte; in
/// 1.0 the extensions become extension attributes. An event that does not fit into headers (too many or too large
/// attributes, invalid header names, an invalid content type) is sent structured even where [`ContentMode::Binary`] is
/// wanted; it then has no `ce-` headers.
pub fn encode(event: &Event, form: Form, extensions: &Map<String, Value>) -> Outgoing {
    let version = match form.format {
        EventFormat::Original => event.spec_version,
        EventFormat::V1_0 => SpecVersion::V1_0,
    };
    let binary = match form.mode {
        ContentMode::Structured => None,
        ContentMode::Binary => binary(event, version, extensions),
    };
    binary.unwrap_or_else(|| structured(event, version, form.content_type, extensions))
}

fn structured(
    event: &Event,
    version: SpecVersion,
    content_type: StructuredType,
    extensions: &Map<String, Value>,
) -> Outgoing {
    let json = if version == event.spec_version {
        event.json()
    } else {
        View::of(event).into_v1().to_json(version).into()
    };
    let content_type = match (version, content_type) {
        (SpecVersion::V1_0, StructuredType::CloudEvents) => CLOUDEVENTS_JSON,
        (SpecVersion::V1_0, StructuredType::Json) => JSON,
        (SpecVersion::V0_1 | SpecVersion::V0_2 | SpecVersion::V0_3, _) => JSON,
    };
    let body = overlay(&json, version, extensions).map_or(json, Bytes::from);
    Outgoing { headers: HeaderMap::from_iter([(CONTENT_TYPE, content_type)]), body }
}

/// Returns the object with its extensions overlaid, or `None` when that changes nothing.
fn overlay(json: &[u8], version: SpecVersion, extensions: &Map<String, Value>) -> Option<String> {
    if version == SpecVersion::V1_0 && extensions.is_empty() {
        return None;
    }
    let json = str::from_utf8(json).ok()?;
    let members = raw::Members::parse(json).ok()?;
    let mut overlay = attribute::overlay(version, extensions);
    if version == SpecVersion::V1_0 {
        overlay.retain(|name, value| value != "null" || members.get(name).is_some());
        return raw::overlay(json, &members, &overlay);
    }
    let known = members.get("extensions").filter(|raw| raw.starts_with('{'));
    let inner = known.and_then(|raw| raw::Members::parse(raw).ok()).unwrap_or_default();
    let object = known.unwrap_or("{}");
    let changed = raw::overlay(object, &inner, &overlay);
    let extensions = changed.unwrap_or_else(|| object.to_owned());
    raw::overlay(json, &members, &[("extensions".into(), extensions)].into())
}

/// Returns `None` if the event does not fit into headers.
fn binary(event: &Event, version: SpecVersion, extensions: &Map<String, Value>) -> Option<Outgoing> {
    let mut view = View::of(event);
    if version != event.spec_version {
        view = view.into_v1();
    }
    view.lay(attribute::overlay(version, extensions));
    let content_type = match &view.content_type {
        Some(value) => HeaderValue::from_str(&value.text()).ok().filter(is_sendable)?,
        // A webhook request always has a content type.
        None => match view.data {
            Data::None | Data::Json(_) => JSON,
            Data::Base64(_) | Data::Body(_) => OCTET_STREAM,
        },
    };
    if content_type.to_str().is_ok_and(is_cloudevents) {
        // An event whose data is an event: the target would take the body for the event itself.
        return None;
    }
    let mut headers = Headers { version, map: HeaderMap::new(), bytes: 0 };
    headers.core(Role::SpecVersion, version.as_str())?;
    let attributes = [
        (Role::Id, &view.id),
        (Role::Source, &view.source),
        (Role::Type, &view.ty),
        (Role::TypeVersion, &view.type_version),
        (Role::Subject, &view.subject),
        (Role::Time, &view.time),
        (Role::Schema, &view.schema),
    ];
    for (role, value) in attributes {
        if let Some(value) = value {
            headers.core(role, &value.text())?;
        }
    }
    for (name, value) in &view.extensions {
        headers.extension(name, &value.text())?;
    }
    let mut headers = headers.map;
    headers.insert(CONTENT_TYPE, content_type);
    Some(Outgoing { headers, body: view.body() })
}

/// An event that was accepted before content types were checked may have an invalid one.
fn is_sendable(content_type: &HeaderValue) -> bool {
    content_type.to_str().is_ok_and(view::is_media_type)
}

/// Tells whether a content type means a structured event or a batch.
pub(super) fn is_cloudevents(content_type: &str) -> bool {
    const PREFIX: &str = "application/cloudevents";
    content_type.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

struct Headers {
    version: SpecVersion,
    map: HeaderMap,
    bytes: usize,
}

impl Headers {
    fn core(&mut self, role: Role, value: &str) -> Option<()> {
        match self.version.name(role) {
            Some(name) => self.put(&format!("ce-{name}"), value),
            None => Some(()),
        }
    }

    fn extension(&mut self, name: &str, value: &str) -> Option<()> {
        match self.version {
            _ if name.is_empty() => None,
            SpecVersion::V0_1 => self.put(&format!("ce-x-{name}"), value),
            // `ID` in 0.2 is an extension; as a header it would be the id.
            version if version.header_role(name) != Role::Extension => None,
            SpecVersion::V0_2 | SpecVersion::V0_3 | SpecVersion::V1_0 => {
                self.put(&format!("ce-{name}"), value)
            }
        }
    }

    fn put(&mut self, name: &str, value: &str) -> Option<()> {
        let value = percent::encode(value, self.version);
        self.bytes += name.len() + value.len();
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let is_new = self.map.insert(name, HeaderValue::from_str(&value).ok()?).is_none();
        (is_new && self.map.len() <= HEADERS_MAX && self.bytes <= HEADER_BYTES_MAX).then_some(())
    }
}

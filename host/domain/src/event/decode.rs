//! Decodes an HTTP request as CloudEvents (HTTP protocol binding 1.0.2, and what Pacifica's producers send).

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::value::RawValue;

use super::attribute::Attribute;
use super::check::{self, AttributePosition, RequiredAttributes};
use super::encode::is_cloudevents;
use super::error::DecodeError;
use super::names::Role;
use super::raw::{self, Members};
use super::{Event, SpecVersion, Wire, percent, strict, view};
use crate::json;

/// The content of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventBody {
    /// One event.
    One(Event),
    /// A batch, which may be empty.
    Batch(Vec<Event>),
}

/// The headers that a binary event must have, by version.
const REQUIRED: [[&str; 4]; 2] = [
    ["ce-specversion", "ce-id", "ce-source", "ce-type"],
    ["ce-cloudeventsversion", "ce-eventid", "ce-source", "ce-eventtype"],
];

/// Decodes a request as one event or a batch, by its content type.
///
/// The events share the body's memory.
///
/// # Errors
/// When the request is no event or batch; the error tells the producer what is wrong. A batch is accepted as a whole or
/// not at all.
pub fn decode(headers: &HeaderMap, body: Bytes) -> Result<EventBody, DecodeError> {
    let content_type = match headers.get(CONTENT_TYPE).map(|value| value.to_str()) {
        None => None,
        Some(Ok(text)) => Some(text.trim_ascii()).filter(|text| !text.is_empty()),
        Some(Err(_)) => return Err(DecodeError::malformed("header `content-type` is not printable ASCII")),
    };
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    match essence.as_str() {
        "application/cloudevents-batch+json" | "application/cloudevents-batch" => {
            batch(body).map(EventBody::Batch)
        }
        "application/cloudevents+json" | "application/cloudevents" => {
            one(content_type, body).map(EventBody::One)
        }
        other if is_cloudevents(other) => Err(DecodeError::unsupported(format!(
            "CloudEvents in the format of `{other}` are not read here: send `application/cloudevents+json`"
        ))),
        other => plain(headers, content_type, other, body).map(EventBody::One),
    }
}

/// Decodes a request whose content type is not one of CloudEvents' own.
fn plain(
    headers: &HeaderMap,
    content_type: Option<&str>,
    essence: &str,
    body: Bytes,
) -> Result<Event, DecodeError> {
    if REQUIRED.iter().any(|names| names.iter().all(|name| headers.contains_key(*name))) {
        return binary(headers, content_type, body);
    }
    let is_binary = REQUIRED.iter().flatten().any(|name| headers.contains_key(*name));
    if essence.is_empty() || essence == "text/plain" || view::is_json_type(essence) {
        return match one(content_type, body) {
            // A request with `ce-` headers is meant as a binary event: the error names the header that is missing.
            Err(_) if is_binary => Err(incomplete(headers)),
            result => result,
        };
    }
    if is_binary {
        return Err(incomplete(headers));
    }
    let hint = match essence {
        "application/x-www-form-urlencoded" => {
            "`application/x-www-form-urlencoded` is what curl -d sends by itself: add -H 'Content-Type: application/cloudevents+json'"
                .to_owned()
        }
        other => format!(
            "`{other}` is no CloudEvent without `ce-` headers: send `Content-Type: application/cloudevents+json`, or the attributes as headers"
        ),
    };
    Err(DecodeError::unsupported(hint))
}

fn incomplete(headers: &HeaderMap) -> DecodeError {
    let is_first = headers.contains_key("ce-cloudeventsversion") && !headers.contains_key("ce-specversion");
    let required = REQUIRED[usize::from(is_first)];
    let missing = required.iter().find(|name| !headers.contains_key(**name)).unwrap_or(&required[0]);
    DecodeError::invalid(
        None,
        format!("header `{missing}` is missing: a binary CloudEvent needs {}", required.join(", ")),
    )
}

fn binary(headers: &HeaderMap, content_type: Option<&str>, data: Bytes) -> Result<Event, DecodeError> {
    let is_first = !headers.contains_key("ce-specversion");
    let version_name = if is_first { "cloudEventsVersion" } else { "specversion" };
    let version = headers.get(format!("ce-{version_name}").to_ascii_lowercase());
    let version =
        version.map_or(Ok(String::new()), |value| percent::decode(value.as_bytes(), SpecVersion::V1_0));
    let version = version.map_err(|problem| malformed_header(version_name, problem))?;
    let version = SpecVersion::parse(version_name, &version)
        .ok_or_else(|| AttributePosition::Header.error(version_name, &unknown_version(&version)))?;
    if content_type.is_some_and(|text| !view::is_media_type(text)) {
        return Err(DecodeError::invalid(None, format!("header `content-type` {}", check::NO_MEDIA_TYPE)));
    }
    let mut attributes: Vec<(String, String)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let value =
            percent::decode(value.as_bytes(), version).map_err(|problem| malformed_header(name, problem))?;
        let name = match version.header_role(name) {
            // Some producers send it twice, with the same meaning.
            Role::ContentType
                if content_type.is_some_and(|other| other.eq_ignore_ascii_case(value.trim())) =>
            {
                continue;
            }
            Role::ContentType => {
                return Err(AttributePosition::Header.error(name, "must be sent as `content-type`"));
            }
            Role::Data | Role::DataBase64 => {
                return Err(AttributePosition::Header.error(name, "must be sent as the body"));
            }
            // 0.1 marks extensions with `x-`; one without it is accepted too.
            Role::Extension if version == SpecVersion::V0_1 && !name.starts_with("x-") => {
                Cow::Owned(format!("x-{name}"))
            }
            _ => Cow::Borrowed(name),
        };
        if attributes.iter().any(|(known, _)| *known == name) {
            return Err(AttributePosition::Header.error(&name, "is there twice"));
        }
        attributes.push((name.into_owned(), value));
    }
    let pairs = attributes
        .iter()
        .map(|(name, value)| (name.as_str(), Attribute::Text(Cow::Borrowed(value.as_str()))));
    let required = RequiredAttributes::check(version, AttributePosition::Header, pairs)?;
    let wire = Wire::Binary { attributes, content_type: content_type.map(str::to_owned), data };
    Ok(Event::from_parts(version, required.id, required.source, required.ty, wire))
}

fn malformed_header(name: &str, problem: &str) -> DecodeError {
    DecodeError::malformed(format!("header `ce-{}` {problem}", name.to_ascii_lowercase()))
}

/// Reads a JSON object.
pub(super) fn one(content_type: Option<&str>, body: Bytes) -> Result<Event, DecodeError> {
    let (content_type, body) = (content_type.map(str::to_owned), without_mark(body));
    let found = structured(text(&body)?)?;
    Ok(found.into_event(content_type, body))
}

/// Reads a JSON array of objects.
fn batch(body: Bytes) -> Result<Vec<Event>, DecodeError> {
    let body = without_mark(body);
    let text = text(&body)?;
    if !text.trim_ascii_start().starts_with('[') {
        return Err(DecodeError::malformed("a batch must be a JSON array of events"));
    }
    let members: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| malformed_json(&error))?;
    let (mut events, mut errors) = (Vec::with_capacity(members.len()), Vec::new());
    for (i, member) in members.iter().enumerate() {
        match structured(member.get()) {
            Ok(found) => {
                let body = body.slice_ref(member.get().as_bytes());
                events.push(found.into_event(Some("application/cloudevents+json".to_owned()), body));
            }
            Err(error) => errors.push((i, error)),
        }
    }
    if errors.is_empty() { Ok(events) } else { Err(DecodeError::batch(members.len(), errors)) }
}

/// What a JSON object was found to be.
struct Found {
    version: SpecVersion,
    required: RequiredAttributes,
}

impl Found {
    fn into_event(self, content_type: Option<String>, body: Bytes) -> Event {
        let RequiredAttributes { id, source, ty } = self.required;
        Event::from_parts(self.version, id, source, ty, Wire::Structured { content_type, body })
    }
}

fn structured(json: &str) -> Result<Found, DecodeError> {
    let start = json.trim_ascii_start();
    if start.is_empty() {
        return Err(DecodeError::malformed("the body is empty: send a CloudEvent as a JSON object"));
    }
    let members = Members::parse(json).map_err(|error| match start.as_bytes().first() {
        Some(b'[') => DecodeError::malformed(
            "expected a JSON object, found an array: a batch needs `Content-Type: application/cloudevents-batch+json`",
        ),
        Some(b'{') | None => malformed_json(&error),
        Some(_) if error.is_data() => DecodeError::malformed("expected a CloudEvent, which is a JSON object"),
        Some(_) => malformed_json(&error),
    })?;
    strict::check(json, 0).map_err(|error| malformed_json(&error))?;
    let version = version(&members)?;
    if let Some(name) = members.duplicate() {
        return Err(AttributePosition::Json.error(name, "is there twice"));
    }
    let pairs = members.iter().map(|(name, raw)| (name, Attribute::Json(Cow::Borrowed(raw))));
    let required = RequiredAttributes::check(version, AttributePosition::Json, pairs)?;
    check::data(version, &members)?;
    Ok(Found { version, required })
}

fn version(members: &Members<'_>) -> Result<SpecVersion, DecodeError> {
    let get = |name| members.get(name).filter(|raw| *raw != "null").map(|raw| (name, raw));
    let Some((name, raw)) = get("specversion").or_else(|| get("cloudEventsVersion")) else {
        let message = "is missing (as is 0.1's `cloudEventsVersion`): a CloudEvent has one of them";
        return Err(AttributePosition::Json.error("specversion", message));
    };
    let version = raw::text(raw).and_then(|text| SpecVersion::parse(name, &text));
    version.ok_or_else(|| AttributePosition::Json.error(name, &unknown_version(raw)))
}

fn unknown_version(found: &str) -> String {
    let found: String = found.chars().take(40).collect();
    format!(
        "is {found}, which is not known: it must be \"1.0\", \"0.3\" or \"0.2\" (or `cloudEventsVersion` \"0.1\")"
    )
}

/// A byte order mark is removed here, for all later stages too.
fn without_mark(body: Bytes) -> Bytes {
    body.slice(body.len() - json::without_mark(&body).len()..)
}

fn text(body: &Bytes) -> Result<&str, DecodeError> {
    str::from_utf8(body).map_err(|error| {
        DecodeError::malformed(format!("the body is not UTF-8 at byte {}: JSON must be", error.valid_up_to()))
    })
}

fn malformed_json(error: &serde_json::Error) -> DecodeError {
    DecodeError::malformed(format!("the body is not valid JSON: {error}"))
}

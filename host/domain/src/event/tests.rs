//! Tests of the codec as a whole: rule by rule for decoding and encoding, then by properties.

mod canonical;
mod decoding;
mod encoding;
mod properties;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::*;

/// Pacifica's own event, from its test suite.
const PACIFICA: &str = include_str!("tests/pacifica_event.json");

const CLOUDEVENTS: &str = "application/cloudevents+json";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let mut map = HeaderMap::new();
    pairs.iter().map(pair).for_each(|(name, value)| {
        map.append(name, value);
    });
    map
}

fn one(received: EventBody) -> Event {
    match received {
        EventBody::One(event) => event,
        EventBody::Batch(events) => panic!("expected one event, got a batch of {}", events.len()),
    }
}

fn json(body: &str) -> Event {
    one(decode(&headers(&[("content-type", CLOUDEVENTS)]), Bytes::copy_from_slice(body.as_bytes())).unwrap())
}

fn json_error(body: &str) -> DecodeError {
    decode(&headers(&[("content-type", CLOUDEVENTS)]), Bytes::copy_from_slice(body.as_bytes())).unwrap_err()
}

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap()
}

/// The content of an event, so that two forms of it can be compared.
#[derive(Debug, PartialEq)]
struct Facts {
    version: SpecVersion,
    core: [Option<String>; 7],
    content_type: String,
    extensions: Vec<(String, String)>,
    body: Bytes,
}

impl Facts {
    fn of(event: &Event) -> Self {
        let view = view::View::of(event);
        let core =
            [&view.id, &view.source, &view.ty, &view.type_version, &view.subject, &view.time, &view.schema];
        let text = |value: &attribute::Attribute<'_>| value.text().into_owned();
        Self {
            version: event.spec_version(),
            core: core.map(|value| value.as_ref().map(text)),
            // No content type means JSON.
            content_type: view.content_type.as_ref().map_or_else(|| "application/json".to_owned(), text),
            extensions: view.extensions.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: view.body(),
        }
    }
}

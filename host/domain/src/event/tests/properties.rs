//! Properties that hold for every event and every input.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const VERSIONS: [SpecVersion; 4] =
    [SpecVersion::V0_1, SpecVersion::V0_2, SpecVersion::V0_3, SpecVersion::V1_0];
const FORMATS: [EventFormat; 2] = [EventFormat::Original, EventFormat::V1_0];
const MODES: [ContentMode; 2] = [ContentMode::Structured, ContentMode::Binary];

/// Text that is difficult for headers and JSON.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9/:.-]{1,12}",
        "[ -~]{1,12}",
        any::<String>().prop_filter("not empty", |text| !text.is_empty())
    ]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof!["-?[1-9][0-9]{0,40}", "-?[0-9]\\.[0-9]{1,20}", "[1-9]\\.[0-9]{0,3}0[eE][+-]?[0-9]{1,2}"]
}

/// JSON text, with white space and numbers that a `Value` does not preserve.
fn json_text() -> impl Strategy<Value = String> {
    let leaf =
        prop_oneof![number(), text().prop_map(|text| json!(text).to_string()), Just("null".to_owned())];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let member = (text(), inner.clone()).prop_map(|(name, value)| format!("{} : {value}", json!(name)));
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(" , "))),
            vec(member, 0..4).prop_map(|members| format!("{{ {} }}", members.join(","))),
        ]
    })
}

/// Data as the members `data`, its content type, and so on, say them: (version) → JSON members.
#[derive(Clone, Debug)]
enum Payload {
    None,
    Json(String),
    Text(String),
    Bytes(Vec<u8>),
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        Just(Payload::None),
        json_text().prop_map(Payload::Json),
        text().prop_map(Payload::Text),
        vec(any::<u8>(), 1..40).prop_map(Payload::Bytes),
    ]
}

prop_compose! {
    /// A structured event of any version, written by hand rather than by the code under test.
    fn event_text()(
        version in prop::sample::select(&VERSIONS[..]),
        [id, source, ty] in prop::array::uniform3(text()),
        subject in option::of(text()),
        time in option::of(Just("2026-11-22T04:00:00.5+01:00")),
        schema in option::of("https://[a-z]{1,9}/"),
        extensions in btree_map("x[a-z0-9]{1,9}", prop_oneof![
            text().prop_map(|text| json!(text).to_string()), any::<i32>().prop_map(|n| n.to_string()), Just("true".to_owned()),
        ], 0..4),
        payload in payload(),
    ) -> String {
        let name = |role| version.name(role);
        let mut members = vec![
            (name(names::Role::SpecVersion), json!(version.as_str()).to_string()),
            (name(names::Role::Id), json!(id).to_string()),
            (name(names::Role::Source), json!(source).to_string()),
            (name(names::Role::Type), json!(ty).to_string()),
        ];
        members.extend(subject.map(|text| (name(names::Role::Subject), json!(text).to_string())));
        members.extend(time.map(|text| (name(names::Role::Time), json!(text).to_string())));
        members.extend(schema.map(|text| (name(names::Role::Schema), json!(text).to_string())));
        let content_type = |text: &str| (name(names::Role::ContentType), json!(text).to_string());
        match payload {
            Payload::None => {}
            Payload::Json(text) => members.push((name(names::Role::Data), text)),
            Payload::Text(text) => {
                members.extend([content_type("text/plain"), (name(names::Role::Data), json!(text).to_string())]);
            }
            Payload::Bytes(bytes) => {
                let base64 = json!(STANDARD.encode(bytes)).to_string();
                members.push(content_type("image/png"));
                match version {
                    // These versions have no mark for base64: it is a text to them.
                    SpecVersion::V0_1 | SpecVersion::V0_2 => members.push((Some("data"), base64)),
                    SpecVersion::V0_3 => {
                        members.extend([(Some("datacontentencoding"), json!("base64").to_string()), (Some("data"), base64)]);
                    }
                    SpecVersion::V1_0 => members.push((Some("data_base64"), base64)),
                }
            }
        }
        let written = |pairs: Vec<(Option<&str>, String)>| -> String {
            let pairs = pairs.into_iter().filter_map(|(name, value)| Some(format!("{}:{value}", json!(name?))));
            pairs.collect::<Vec<_>>().join(", ")
        };
        let extensions = extensions.iter().map(|(name, value)| (Some(name.as_str()), value.clone())).collect();
        match version {
            SpecVersion::V0_1 => members.push((Some("extensions"), format!("{{{}}}", written(extensions)))),
            SpecVersion::V0_2 | SpecVersion::V0_3 | SpecVersion::V1_0 => members.extend(extensions),
        }
        format!("{{ {} }}", written(members))
    }
}

/// Encodes in every form, and decodes the result.
fn round_trips(event: &Event, extensions: &Map<String, Value>) -> Vec<(EventFormat, ContentMode, Event)> {
    let ways = FORMATS.into_iter().flat_map(|format| MODES.map(|mode| (format, mode)));
    let trip = |(format, mode)| {
        let out = encode(event, Form { format, mode, ..Form::default() }, extensions);
        let again = decode(&out.headers, out.body.clone());
        (format, mode, one(again.unwrap_or_else(|error| panic!("{error}: {out:?}"))))
    };
    ways.map(trip).collect()
}

/// Checks the invariants of accepted events.
fn holds(event: &Event) {
    let value: Value = serde_json::from_slice(&event.json()).expect("every event can be read into a Value");
    let again = json(str::from_utf8(&event.json()).unwrap());
    assert_eq!(
        (again.spec_version(), again.id(), again.source(), again.ty()),
        (event.spec_version(), event.id(), event.source(), event.ty())
    );
    assert_eq!(event.attributes().event_id, event.id());
    assert!(value.is_object());
    for (_, _, other) in round_trips(event, &object(r#"{"id":1,"Ext":{"a":1},"é":null,"":0,"data":3}"#)) {
        assert_eq!((other.id(), other.source(), other.ty()), (event.id(), event.source(), event.ty()));
    }
}

fn try_all(received: Result<EventBody, DecodeError>) {
    match received {
        Ok(EventBody::One(event)) => holds(&event),
        Ok(EventBody::Batch(events)) => events.iter().for_each(holds),
        Err(error) => assert!(!error.message.is_empty()),
    }
}

proptest! {
    #[test]
    fn encoding_and_decoding_is_identity(text in event_text()) {
        let event = json(&text);
        let facts = Facts::of(&event);
        for (format, mode, again) in round_trips(&event, &Map::new()) {
            let mut expected = Facts::of(&event);
            if format == EventFormat::V1_0 {
                expected.version = SpecVersion::V1_0;
            }
            prop_assert_eq!(&Facts::of(&again), &expected, "{:?} {:?}", format, mode);
            // A second round trip, from the other wire form, changes nothing either.
            for (_, mode, third) in round_trips(&again, &Map::new()) {
                prop_assert_eq!(&Facts::of(&third).body, &facts.body, "{:?}", mode);
                prop_assert_eq!(&Facts::of(&third).extensions, &facts.extensions, "{:?}", mode);
            }
        }
        holds(&event);
    }

    #[test]
    fn a_batch_is_its_members(texts in vec(event_text(), 0..5)) {
        let body = Bytes::from(format!("[{}\n]", texts.join(" ,")));
        let Ok(EventBody::Batch(events)) = decode(&headers(&[("content-type", "application/cloudevents-batch+json")]), body) else {
            panic!("a batch");
        };
        prop_assert_eq!(events, texts.iter().map(|text| json(text)).collect::<Vec<_>>());
    }

    #[test]
    fn number_texts_survive(numbers in vec(number(), 1..5)) {
        let data = format!("[{}]", numbers.join(", "));
        for text in [
            format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","data":{data}}}"#),
            format!(r#"{{"cloudEventsVersion":"0.1","eventID":"1","source":"s","eventType":"t","data":{data}}}"#),
        ] {
            for (format, mode, event) in round_trips(&json(&text), &object(r#"{"x":"y"}"#)) {
                let json = String::from_utf8(event.json().to_vec()).unwrap();
                prop_assert!(json.contains(&data), "{:?} {:?} {}", format, mode, json);
            }
        }
    }

    #[test]
    fn what_no_value_can_hold_is_refused(
        numbers in vec("-?[1-9][0-9]{0,3}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,6})?|[1-9][0-9]{250,400}([eE][0-9]{1,2})?", 1..4),
        texts in vec("[0-9ea,]{0,9}|\\\\u[dD][89a-fA-F0-9][0-9]{2}|\\\\\\\\ud800", 0..3),
        depth in prop_oneof![Just(0..3usize), Just(100..130)].prop_flat_map(|range| range),
        space in " {0,60}",
    ) {
        let texts: String = texts.iter().map(|text| format!(",\"{text}\"")).collect();
        let data = format!("{}{}{texts}{space}{}", "[".repeat(depth + 1), numbers.join(","), "]".repeat(depth + 1));
        let text = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","data":{data}}}"#);
        let received = decode(&HeaderMap::new(), text.clone().into());
        let is_readable = serde_json::from_str::<Value>(&text).is_ok() && depth + 2 <= crate::json::DEPTH_MAX;
        prop_assert_eq!(received.is_ok(), is_readable, "{}", text);
    }

    #[test]
    fn no_bytes_panic(body in vec(any::<u8>(), 0..200), content_type in prop::sample::select(&["application/json", "application/cloudevents-batch+json", CLOUDEVENTS][..])) {
        try_all(decode(&headers(&[("content-type", content_type)]), body.into()));
    }

    #[test]
    fn no_mutation_panics(text in event_text(), edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4), batch: bool) {
        let mut bytes = text.into_bytes();
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.drain(at..(at + usize::from(byte) % 8).min(bytes.len()))),
            }
            bytes.push(b' ');
        }
        if batch {
            bytes = [b"[", &bytes[..], b"]"].concat();
        }
        let content_type = if batch { "application/cloudevents-batch+json" } else { CLOUDEVENTS };
        try_all(decode(&headers(&[("content-type", content_type)]), bytes.into()));
    }

    #[test]
    fn no_headers_panic(
        version in prop::sample::select(&["1.0", "0.2", "0.3", "\"0.2\"", "9", ""][..]),
        old: bool,
        content_type in option::of("[ -~]{0,12}|application/json|text/plain"),
        extra in vec(("(ce-)?[a-z0-9_!x-]{0,9}|ce-(data|subject|time|extensions|datacontentencoding)", vec(any::<u8>(), 0..12)), 0..6),
        body in prop_oneof![json_text().prop_map(String::into_bytes), vec(any::<u8>(), 0..40)],
    ) {
        let mut map = if old {
            headers(&[("ce-cloudeventsversion", "0.1"), ("ce-eventid", "1"), ("ce-source", "s"), ("ce-eventtype", "t")])
        } else {
            headers(&[("ce-specversion", version), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t")])
        };
        map.extend(content_type.and_then(|text| Some((http::header::CONTENT_TYPE, HeaderValue::from_str(&text).ok()?))));
        for (name, value) in extra {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value)) {
                map.append(name, value);
            }
        }
        try_all(decode(&map, body.into()));
    }

    #[test]
    fn header_values_survive(text: String) {
        for version in VERSIONS {
            let encoded = percent::encode(&text, version);
            prop_assert!(encoded.bytes().all(|byte| matches!(byte, 0x21..=0x7e)));
            prop_assert_eq!(percent::decode(encoded.as_bytes(), version), Ok(text.clone()));
        }
    }
}

//! Tests of encoding.

use super::*;

fn send(event: &Event, format: EventFormat, mode: ContentMode, extensions: &str) -> Outgoing {
    encode(event, Form { format, mode, ..Form::default() }, &object(extensions))
}

fn original(body: &str, extensions: &str) -> String {
    let out = send(&json(body), EventFormat::Original, ContentMode::Structured, extensions);
    String::from_utf8(out.body.to_vec()).unwrap()
}

fn listed(headers: &HeaderMap) -> Vec<String> {
    let mut list: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    list.sort();
    list
}

const OLD: &str = r#"{"cloudEventsVersion":"0.1", "eventID":"1","source":"s","eventType":"t" }"#;
const NEW: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","n" : 1 }"#;

#[test]
fn an_old_event_changes_in_its_extensions_alone() {
    assert_eq!(original(OLD, "{}"), OLD.replace(" }", r#","extensions":{} }"#));
    assert_eq!(original(OLD, r#"{"b":1,"a":[2]}"#), OLD.replace(" }", r#","extensions":{"a":[2],"b":1} }"#));
    let old = OLD.replace("\"eventID\"", r#""extensions" : { "x": 1.10, "y": {"z": 1e5} }, "eventID""#);
    assert_eq!(original(&old, r#"{"y":2,"A b":"\n"}"#), old.replace(r#"{"z": 1e5} }"#, r#"2,"A b":"\n" }"#));
    assert_eq!(original(&old, r#"{"y":null}"#), old.replace(r#"{"z": 1e5}"#, "null"));
    let empty = OLD.replace(" }", r#","extensions": {  } }"#);
    assert_eq!(original(&empty, r#"{"y":null}"#), empty.replace("{  }", r#"{"y":null  }"#));
    let null = OLD.replace(" }", r#","extensions": null}"#);
    assert_eq!(original(&null, r#"{"a":1}"#), null.replace("null", r#"{"a":1}"#));
}

#[test]
fn what_needs_no_change_is_not_copied() {
    let event = json(PACIFICA);
    for extensions in ["{}", r#"{"comExampleExtension":"value"}"#, r#"{"comExampleExtension":"\u0076alue"}"#]
    {
        let out = send(&event, EventFormat::Original, ContentMode::Structured, extensions);
        assert_eq!(out.body.as_ptr(), event.json().as_ptr());
    }
    let event = json(NEW);
    for extensions in ["{}", r#"{"n":1,"x":null,"id":"2","Data":3,"-":4}"#] {
        let out = send(&event, EventFormat::V1_0, ContentMode::Structured, extensions);
        assert_eq!(out.body.as_ptr(), event.json().as_ptr());
    }
}

#[test]
fn a_new_event_gets_extension_attributes() {
    assert_eq!(
        original(
            NEW,
            r#"{"My-Ext":true,"n":2,"big":3000000000,"f":1.5,"o":{"a":null},"s":"\u00e9","Type":"no"}"#
        ),
        NEW.replace("1 }", r#"2,"big":"3000000000","f":"1.5","myext":true,"o":"{\"a\":null}","s":"é" }"#)
    );
}

/// A real Dispatcher answers 415 to anything but `application/json`, which makes a dead letter at once: old events that
/// were received with another type were sent on with it.
#[test]
fn old_events_are_always_plain_json_and_new_ones_where_that_is_wanted() {
    const JSON: &str = "application/json";
    let old = [OLD.to_owned(), NEW.replace("1.0", "0.2"), NEW.replace("1.0", "0.3")];
    for received in [None, Some("text/plain"), Some("application/json; charset=utf-8"), Some(CLOUDEVENTS)] {
        let pairs: Vec<_> = received.map(|text| ("content-type", text)).into_iter().collect();
        let cases = old.iter().map(|old| (old.as_str(), JSON)).chain([(NEW, CLOUDEVENTS)]);
        for (body, by_default) in cases {
            let event = one(decode(&headers(&pairs), Bytes::copy_from_slice(body.as_bytes())).unwrap());
            for (content_type, sent) in
                [(StructuredType::CloudEvents, by_default), (StructuredType::Json, JSON)]
            {
                let out = encode(&event, Form { content_type, ..Form::default() }, &Map::new());
                assert_eq!(listed(&out.headers), [format!("content-type: {sent}")], "{body}");
            }
        }
    }
    let binary = headers(&[
        ("ce-cloudeventsversion", "0.1"),
        ("ce-eventid", "1"),
        ("ce-source", "s"),
        ("ce-eventtype", "t"),
        ("content-type", "text/plain"),
    ]);
    let out = encode(&one(decode(&binary, "x".into()).unwrap()), Form::default(), &Map::new());
    assert_eq!(listed(&out.headers), ["content-type: application/json"], "it came as a binary event");
}

#[test]
fn an_old_event_becomes_new() {
    let old = r#"{"cloudEventsVersion":"0.1","eventID":"1","source":"s","eventType":"t","eventTypeVersion":"v2","schemaURL":"http://x/",
        "eventTime":"2018-04-05T17:31:00Z","contentType":"application/json","extensions":{"comExample":"a","ID":"b","n":1e2},"data": [ 1.10 ]}"#;
    let out = send(&json(old), EventFormat::V1_0, ContentMode::Structured, r#"{"x":1}"#);
    assert_eq!(
        out.body,
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","time":"2018-04-05T17:31:00Z","dataschema":"http://x/","datacontenttype":"application/json","comexample":"a","eventtypeversion":"v2","n":"1e2","data":[ 1.10 ],"x":1}"#
    );
    assert_eq!(listed(&out.headers), ["content-type: application/cloudevents+json"]);
    assert_eq!(json(str::from_utf8(&out.body).unwrap()).spec_version(), SpecVersion::V1_0);

    let old = r#"{"specversion":"0.3","id":"1","source":"s","type":"t","time":"now","schemaurl":"","datacontenttype":"image/png","datacontentencoding":"base64","data":"AP8="}"#;
    let out = send(&json(old), EventFormat::V1_0, ContentMode::Structured, "{}");
    assert_eq!(
        out.body,
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"image/png","eventtime":"now","data_base64":"AP8="}"#
    );
}

#[test]
fn binary_puts_attributes_into_headers() {
    let new = r#"{"specversion":"1.0","id":"a b\"%\n","source":"/é","type":"t","n":1,"gone":null,"datacontenttype":"text/plain","data":"x\ty"}"#;
    let out = send(&json(new), EventFormat::Original, ContentMode::Binary, r#"{"n":null,"My":"~\\"}"#);
    assert_eq!(
        listed(&out.headers),
        [
            "ce-id: a%20b%22%25%0A",
            "ce-my: ~\\",
            "ce-source: /%C3%A9",
            "ce-specversion: 1.0",
            "ce-type: t",
            "content-type: text/plain"
        ]
    );
    assert_eq!(out.body, "x\ty");

    let out = send(&json(PACIFICA), EventFormat::Original, ContentMode::Binary, r#"{"Y":"\\\""}"#);
    assert_eq!(
        listed(&out.headers),
        [
            "ce-cloudeventsversion: \"0.1\"",
            "ce-eventid: \"C234-1234-1234\"",
            "ce-eventtime: \"2018-04-05T17:31:00Z\"",
            "ce-eventtype: \"org.pacifica.metadata.ingest\"",
            "ce-source: \"/pacifica/metadata/ingest\"",
            "ce-x-comexampleextension: \"value\"",
            "ce-x-y: \"%5C%22\"",
            "content-type: application/json",
        ]
    );
    assert!(PACIFICA.contains(str::from_utf8(&out.body).unwrap()));
}

#[test]
fn binary_always_has_a_content_type() {
    for (data, content_type, body) in [
        ("", "application/json", ""),
        (r#","data":"x""#, "application/json", "\"x\""),
        (r#","data":null"#, "application/json", "null"),
        (r#","data_base64":"eA==""#, "application/octet-stream", "x"),
        (r#","datacontenttype":"text/xml","data":{"a":1}"#, "text/xml", r#"{"a":1}"#),
    ] {
        let event = json(&NEW.replace(",\"n\" : 1 ", data));
        let out = send(&event, EventFormat::Original, ContentMode::Binary, "{}");
        assert_eq!(
            (out.headers["content-type"].to_str().unwrap(), &out.body[..]),
            (content_type, body.as_bytes())
        );
    }
}

#[test]
fn what_headers_cannot_carry_goes_structured() {
    let many: String = (0..80).map(|i| format!(r#","a{i}":"x""#)).collect();
    for event in [
        NEW.replace(",\"n\" : 1", &many),
        NEW.replace("\"1\"", &format!("\"{}\"", "é".repeat(2000))),
        NEW.replace("\"n\" : 1", r#""datacontenttype":"application/cloudevents+json","data":{}"#),
        NEW.replace("1.0", "0.2").replace("\"n\"", "\"ID\""),
        NEW.replace("1.0", "0.2").replace("\"n\"", "\"é\""),
        NEW.replace("1.0", "0.2").replace("\"n\"", "\"\""),
        NEW.replace("1.0", "0.2").replace("\"n\"", "\"A\":1,\"a\""),
    ] {
        let event = json(&event);
        let out = send(&event, EventFormat::Original, ContentMode::Binary, "{}");
        let sent = if event.spec_version() == SpecVersion::V1_0 { CLOUDEVENTS } else { "application/json" };
        assert_eq!(listed(&out.headers), [format!("content-type: {sent}")]);
        assert_eq!(Facts::of(&event), Facts::of(&one(decode(&out.headers, out.body).unwrap())));
    }
}

/// An event in the log from before content types were checked: `content-type: xyz` was sent.
#[test]
fn a_content_type_that_is_none_goes_structured() {
    let body = NEW.replace("\"n\" : 1", r#""datacontenttype":"xyz","data":1"#);
    let wire = Wire::Structured { content_type: None, body: body.clone().into() };
    let event = Event::from_parts(SpecVersion::V1_0, "1".into(), "s".into(), "t".into(), wire);
    let out = send(&event, EventFormat::Original, ContentMode::Binary, "{}");
    assert_eq!(
        (listed(&out.headers), &out.body[..]),
        (vec![format!("content-type: {CLOUDEVENTS}")], body.as_bytes())
    );
}

#[test]
fn a_binary_body_finds_its_place_in_json() {
    let base = [("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t")];
    for (version, content_type, body, member) in [
        ("1.0", None, "{\"a\": 1}\n", r#""data":{"a": 1}"#),
        ("1.0", Some("application/a+json; x=y"), "1.10", r#""data":1.10"#),
        ("1.0", Some("text/plain"), "1.10", r#""data":"1.10""#),
        ("1.0", Some("application/json"), "{", r#""data_base64":"ew==""#),
        ("1.0", Some("application/json"), "\u{feff}{\"a\": 1}\r\n", r#""data":{"a": 1}"#),
        ("1.0", Some("application/json"), "1e999", r#""data_base64":"MWU5OTk=""#),
        ("0.3", Some("application/json"), "{", r#""datacontentencoding":"base64","data":"ew==""#),
        ("0.2", Some("application/json"), "{", r#""data":"{""#),
        ("1.0", Some("text/plain"), "", r#""datacontenttype":"text/plain""#),
    ] {
        let mut pairs = base.to_vec();
        pairs.push(("ce-specversion", version));
        pairs.extend(content_type.map(|text| ("content-type", text)));
        let event = one(decode(&headers(&pairs), Bytes::from_static(body.as_bytes())).unwrap());
        let json = String::from_utf8(event.json().to_vec()).unwrap();
        assert!(json.ends_with(&format!("{member}}}")), "{json}");
        serde_json::from_str::<Value>(&json).unwrap();
    }
}

#[test]
fn formats_have_their_texts() {
    let text = |value: Value| value.to_string();
    assert_eq!(
        text(serde_json::to_value([EventFormat::Original, EventFormat::V1_0]).unwrap()),
        r#"["original","1.0"]"#
    );
    let modes = [ContentMode::Structured, ContentMode::Binary];
    assert_eq!(text(serde_json::to_value(modes).unwrap()), r#"["structured","binary"]"#);
}

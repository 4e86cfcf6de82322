//! Tests of decoding.

use super::*;

const MINIMAL: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

fn with(members: &str) -> String {
    MINIMAL.replace('}', &format!(",{members}}}"))
}

fn error(pairs: &[(&str, &str)], body: &str) -> DecodeError {
    decode(&headers(pairs), Bytes::copy_from_slice(body.as_bytes())).unwrap_err()
}

#[test]
fn pacifica_event_is_0_1_and_keeps_its_bytes() {
    let event = json(PACIFICA);
    assert_eq!(event.spec_version(), SpecVersion::V0_1);
    assert_eq!((event.id(), event.source()), ("C234-1234-1234", "/pacifica/metadata/ingest"));
    assert_eq!(event.ty(), "org.pacifica.metadata.ingest");
    assert_eq!(event.json(), PACIFICA.as_bytes());
    let attributes = event.attributes();
    assert_eq!(attributes.event_time.as_deref(), Some("2018-04-05T17:31:00Z"));
    assert_eq!(attributes.content_type.as_deref(), Some("application/json"));
    assert_eq!(
        (attributes.event_type_version, attributes.schema_url, attributes.subject),
        (None, None, None)
    );
    assert!(attributes.data.unwrap().get().contains(r#""value": "1236\u00e9""#));
}

#[test]
fn json_comes_under_many_content_types() {
    for content_type in [
        "application/json",
        "text/plain",
        "application/cloudevents+json",
        "Application/CloudEvents+JSON; charset=utf-8",
        "application/cloudevents",
        "application/json; charset=utf-8",
    ] {
        let received = decode(&headers(&[("content-type", content_type)]), MINIMAL.into()).unwrap();
        let Wire::Structured { content_type: kept, .. } = one(received).wire else { panic!("structured") };
        assert_eq!(kept.as_deref(), Some(content_type));
    }
    let Wire::Structured { content_type, .. } = one(decode(&HeaderMap::new(), MINIMAL.into()).unwrap()).wire
    else {
        panic!("structured")
    };
    assert_eq!(content_type, None);
}

#[test]
fn other_content_types_say_what_to_send() {
    for (content_type, hint) in [
        ("application/x-www-form-urlencoded", "-H 'Content-Type: application/cloudevents+json'"),
        ("application/cloudevents+avro", "send `application/cloudevents+json`"),
        ("application/cloudevents-batch+proto", "send `application/cloudevents+json`"),
        ("image/png", "`image/png` is no CloudEvent without `ce-` headers"),
    ] {
        let error = error(&[("content-type", content_type)], MINIMAL);
        assert_eq!(error.kind, DecodeErrorKind::UnsupportedMediaType);
        assert!(error.message.contains(hint), "{error}");
    }
    assert_eq!(error(&[("content-type", "a\u{e9}")], MINIMAL).kind, DecodeErrorKind::Malformed);
}

#[test]
fn versions_are_told_by_their_member() {
    for (members, version) in [
        (r#""cloudEventsVersion":"0.1","eventType":"t","source":"s","eventID":"1""#, SpecVersion::V0_1),
        (r#""specversion":"0.2","type":"t","source":"s","id":"1""#, SpecVersion::V0_2),
        (r#""specversion":"0.3","type":"t","source":"s","id":"1""#, SpecVersion::V0_3),
        (r#""specversion":"1.0","type":"t","source":"s","id":"1""#, SpecVersion::V1_0),
        (
            r#""specversion":"1.0.2","type":"t","source":"s","id":"1","cloudeventsversion":null"#,
            SpecVersion::V1_0,
        ),
    ] {
        let event = json(&format!("{{{members}}}"));
        assert_eq!((event.spec_version(), event.id(), event.source(), event.ty()), (version, "1", "s", "t"));
    }
}

#[test]
fn what_cannot_be_read_is_malformed() {
    let deep = with(&format!(r#""data":{}1{}"#, "[".repeat(200), "]".repeat(200)));
    for (body, words) in [
        ("", "the body is empty"),
        ("   ", "the body is empty"),
        ("1", "a CloudEvent, which is a JSON object"),
        ("\"x\"", "a CloudEvent, which is a JSON object"),
        ("[]", "a batch needs `Content-Type: application/cloudevents-batch+json`"),
        ("garbage", "not valid JSON: expected value at line 1 column 1"),
        ("{\"id\":}", "not valid JSON: expected value at line 1 column 7"),
        (&format!("{MINIMAL} x"), "trailing characters"),
        (&with(r#""data":[1,]"#), "not valid JSON"),
        (&with(r#""data":1e999"#), "number out of range"),
        (&with(&format!(r#""data":{}"#, "9".repeat(400))), "number out of range"),
        (&with(r#""data":"\ud800""#), "unexpected end of hex escape"),
        (&deep, "nested deeper than 120 levels"),
    ] {
        let error = json_error(body);
        assert_eq!((error.kind, error.pointer), (DecodeErrorKind::Malformed, None), "{body}");
        assert!(error.message.contains(words), "{body}: {}", error.message);
    }
    let error = decode(&HeaderMap::new(), Bytes::from_static(b"{\"id\":\"\xff\"}")).unwrap_err();
    assert_eq!(error.message, "the body is not UTF-8 at byte 7: JSON must be");
}

#[test]
fn a_wrong_attribute_is_named() {
    for (body, pointer, words) in [
        ("{}".to_owned(), "/specversion", "`specversion` is missing (as is 0.1's `cloudEventsVersion`)"),
        (MINIMAL.replace("1.0", "2.0"), "/specversion", "is \"2.0\", which is not known"),
        (MINIMAL.replace("\"1.0\"", "1.0"), "/specversion", "is 1.0, which is not known"),
        (MINIMAL.replace("\"id\":\"1\",", ""), "/id", "`id` is missing: CloudEvents 1.0 requires it"),
        (MINIMAL.replace("\"1\"", "null"), "/id", "is missing"),
        (MINIMAL.replace("\"1\"", "\"\""), "/id", "must not be empty"),
        (MINIMAL.replace("\"1\"", "1"), "/id", "must be a string"),
        (MINIMAL.replace("\"source\":\"/s\",", ""), "/source", "is missing"),
        (MINIMAL.replace(",\"type\":\"t\"", ""), "/type", "is missing"),
        (with(r#""id":"2""#), "/id", "is there twice"),
        (with(r#""i\u0064":"2""#), "/id", "is there twice"),
        (with(r#""data":1,"data":1"#), "/data", "is there twice"),
        (with(r#""myExt":1"#), "/myExt", "a-z and 0-9 alone"),
        (with(r#""a/b~":1"#), "/a~1b~0", "a-z and 0-9 alone"),
        (with(r#""":1"#), "/", "has no name"),
        (with(r#""subject":"""#), "/subject", "must not be empty"),
        (with(r#""dataschema":7"#), "/dataschema", "must be a string"),
        (with(r#""time":"yesterday""#), "/time", "is no RFC 3339 time"),
        (with(r#""data":1,"data_base64":"AA==""#), "/data_base64", "cannot stand beside `data`"),
        (with(r#""data_base64":"A""#), "/data_base64", "must be a string in base64"),
        (with(r#""data_base64":{}"#), "/data_base64", "must be a string in base64"),
        (MINIMAL.replace("1.0", "0.3"), "/data", "must be a base64 string"),
        (
            r#"{"cloudEventsVersion":"0.1","eventID":"1","source":"s"}"#.into(),
            "/eventType",
            "`eventType` is missing",
        ),
        (r#"{"cloudEventsVersion":"1.0"}"#.into(), "/cloudEventsVersion", "is \"1.0\", which is not known"),
        (r#"{"specversion":"0.2","id":"1","source":"s"}"#.into(), "/type", "CloudEvents 0.2 requires it"),
    ] {
        let body = match pointer {
            "/data" if body.contains("0.3") => {
                body.replace('}', r#","datacontentencoding":"BASE64","data":"?"}"#)
            }
            _ => body,
        };
        let error = json_error(&body);
        assert_eq!(
            (error.kind, error.pointer.as_deref()),
            (DecodeErrorKind::Invalid, Some(pointer)),
            "{body}"
        );
        assert!(error.message.contains(words), "{body}: {}", error.message);
    }
}

#[test]
fn null_is_absent_and_0_x_is_free() {
    json(&with(r#""subject":null,"time":null,"data_base64":null,"data":1"#));
    json(&with(r#""data_base64":"AA==","data":null"#));
    let event = json(
        r#"{"cloudEventsVersion":"0.1","eventID":"1","source":"s","eventType":"t","eventTime":"now","X y":1}"#,
    );
    assert_eq!(event.attributes().event_time.as_deref(), Some("now"));
}

#[test]
fn times_are_rfc_3339() {
    for time in ["2026-11-22T04:00:00Z", "2026-11-22t04:00:00.123456789012z", "2024-02-29T23:59:60-23:59"] {
        json(&with(&format!(r#""time":"{time}""#)));
    }
    for time in [
        "2026-11-22",
        "2026-11-22 04:00:00Z",
        "2026-11-22T04:00:00",
        "2026-02-29T04:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T04:00Z",
        "2026-11-22T04:00:00.Z",
        "2026-11-22T04:00:00+24:00",
        "2026-11-22T04:00:00+0100",
        "é",
        "20261122T040000Z",
        "2026-11-22T04:00:00Z[UTC]",
    ] {
        assert_eq!(
            json_error(&with(&format!(r#""time":"{time}""#))).pointer.as_deref(),
            Some("/time"),
            "{time}"
        );
    }
}

#[test]
fn binary_takes_headers_and_leaves_the_body() {
    let headers = headers(&[
        ("content-type", "image/png"),
        ("CE-SpecVersion", "1.0"),
        ("ce-id", "\"a\\\"b\""),
        ("ce-source", "/caf%c3%A9%41"),
        ("ce-type", "t"),
        ("ce-subject", "ü%2520"),
        ("accept", "*/*"),
    ]);
    let event = one(decode(&headers, Bytes::from_static(b"\x00\xff")).unwrap());
    assert_eq!((event.id(), event.source()), ("a\"b", "/caféA"));
    assert_eq!(event.attributes().subject.as_deref(), Some("ü%20"));
    assert_eq!(
        event.json(),
        r#"{"specversion":"1.0","id":"a\"b","source":"/caféA","type":"t","subject":"ü%20","datacontenttype":"image/png","data_base64":"AP8="}"#
    );
    assert_eq!(event.size(), 2 + "specversion1.0ida\"bsource/caféAtypetsubjectü%20".len());
}

#[test]
fn binary_of_old_versions_has_json_strings() {
    let headers = headers(&[
        ("CE-CloudEventsVersion", "\"0.1\""),
        ("CE-EventID", "\"1\\u00e9\""),
        ("CE-Source", "\"/s\""),
        ("CE-EventType", "\"t\""),
        ("CE-EventTypeVersion", "\"2\""),
        ("CE-X-ComExample", "\"value\""),
        ("CE-Other", "plain"),
        ("content-type", "application/json"),
    ]);
    let event = one(decode(&headers, Bytes::from_static(b" {\"n\": 1.10} ")).unwrap());
    assert_eq!(event.spec_version(), SpecVersion::V0_1);
    assert_eq!(
        event.json(),
        r#"{"cloudEventsVersion":"0.1","eventID":"1é","source":"/s","eventType":"t","eventTypeVersion":"2","contentType":"application/json","extensions":{"comexample":"value","other":"plain"},"data":{"n": 1.10}}"#
    );
}

#[test]
fn a_wrong_header_is_named() {
    let base = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t")];
    for (header, kind, words) in [
        (("ce-x-y", "1"), DecodeErrorKind::Invalid, "header `ce-x-y` is no attribute name"),
        (("ce-id", "2"), DecodeErrorKind::Invalid, "header `ce-id` is there twice"),
        (("ce-", "2"), DecodeErrorKind::Invalid, "header `ce-` has no name"),
        (("ce-subject", ""), DecodeErrorKind::Invalid, "header `ce-subject` must not be empty"),
        (("ce-time", "now"), DecodeErrorKind::Invalid, "header `ce-time` is no RFC 3339 time"),
        (("ce-data", "1"), DecodeErrorKind::Invalid, "header `ce-data` must be sent as the body"),
        (("ce-datacontenttype", "a/b"), DecodeErrorKind::Invalid, "must be sent as `content-type`"),
        (
            ("content-type", "xyz"),
            DecodeErrorKind::Invalid,
            "header `content-type` is no media type (RFC 2046)",
        ),
        (
            ("ce-ext", "%C0%A0"),
            DecodeErrorKind::Malformed,
            "header `ce-ext` is not UTF-8 after percent-decoding",
        ),
        (("ce-ext", "a\"b"), DecodeErrorKind::Malformed, "has a double quote without its partner"),
    ] {
        let error = error(&[&base[..], &[header]].concat(), "");
        assert_eq!((error.kind, error.pointer), (kind, None));
        assert!(error.message.contains(words), "{}", error.message);
    }
    for (pairs, words) in [
        (&base[..3], "header `ce-type` is missing"),
        (&[("content-type", "image/png"), ("ce-eventid", "1")][..], "header `ce-specversion` is missing"),
        (&[("ce-cloudeventsversion", "0.1")][..], "header `ce-eventid` is missing"),
        (
            &[("ce-specversion", "0.1"), base[1], base[2], base[3]][..],
            "header `ce-specversion` is 0.1, which is not known",
        ),
    ] {
        assert!(error(pairs, "x").message.contains(words), "{}", error(pairs, "x"));
    }
    // A stray header beside a good object does not matter: the body wins.
    assert!(decode(&headers(&base[..2]), MINIMAL.into()).is_ok());
}

#[test]
fn a_batch_shares_the_buffer_and_lists_its_bad_members() {
    let batch = headers(&[("content-type", "application/cloudevents-batch+json; charset=utf-8")]);
    let body = Bytes::from(format!(" [ {MINIMAL} , {PACIFICA} ] "));
    let EventBody::Batch(events) = decode(&batch, body.clone()).unwrap() else { panic!("a batch") };
    assert_eq!((events[0].json(), events[1].json()), (MINIMAL.into(), PACIFICA.trim_end().into()));
    assert!(body.as_ptr_range().contains(&events[1].json().as_ptr()));
    assert_eq!(decode(&batch, "[]".into()), Ok(EventBody::Batch(vec![])));

    let error =
        decode(&batch, format!("[{},{MINIMAL},3]", MINIMAL.replace("\"id\"", "\"ID\"")).into()).unwrap_err();
    assert_eq!((error.kind, error.pointer.as_deref()), (DecodeErrorKind::Invalid, Some("/0/ID")));
    assert_eq!(
        error.members[1],
        ("/2".to_owned(), "expected a CloudEvent, which is a JSON object".to_owned())
    );
    assert!(
        error
            .message
            .starts_with("2 of 3 events in the batch are not valid, so none was taken; at /0/ID: `ID` is no")
    );
    assert_eq!(
        decode(&batch, format!("[{}1]", "1,".repeat(999)).into()).unwrap_err().members.len(),
        BATCH_ERRORS_MAX
    );
    assert_eq!(decode(&batch, MINIMAL.into()).unwrap_err().kind, DecodeErrorKind::Malformed);
    assert_eq!(decode(&batch, "[1".into()).unwrap_err().kind, DecodeErrorKind::Malformed);
}

/// `xyz` was accepted, and sent on as `content-type: xyz`.
#[test]
fn a_content_type_is_a_media_type_in_all_versions() {
    let old =
        r#"{"cloudEventsVersion":"0.1","eventID":"1","source":"s","eventType":"t","contentType":VALUE}"#;
    let middle = MINIMAL.replace("1.0", "0.3").replace('}', r#","datacontenttype":VALUE}"#);
    let new = with(r#""datacontenttype":VALUE"#);
    for (event, name) in [(old, "contentType"), (&middle, "datacontenttype"), (&new, "datacontenttype")] {
        for good in [
            "application/json",
            "text/plain; charset=\"utf-8\"",
            "a/b;",
            "Image/SVG+xml",
            "application/vnd.x",
        ] {
            json(&event.replace("VALUE", &Value::from(good).to_string()));
        }
        for bad in ["xyz", "a/b/c", "/b", "a/", " ", "a b/c", "a/b; x=\n", "größe/b", "text/plain\r\nx: y"]
        {
            let error = json_error(&event.replace("VALUE", &Value::from(bad).to_string()));
            assert_eq!(
                (error.kind, error.pointer),
                (DecodeErrorKind::Invalid, Some(format!("/{name}"))),
                "{bad}"
            );
            assert!(error.message.contains("is no media type (RFC 2046)"), "{}", error.message);
        }
        json(&event.replace("VALUE", "null"));
    }
    // As for other attributes: before 1.0 an empty one counts as absent.
    json(&old.replace("VALUE", "\"\""));
    json_error(&new.replace("VALUE", "\"\""));
}

/// Some clients send the content type twice, with the same meaning.
#[test]
fn a_content_type_may_stand_in_a_ce_header_too_where_it_is_the_same() {
    let base = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t")];
    let with = |pairs: &[(&str, &str)]| decode(&headers(&[&base[..], pairs].concat()), "1".into());
    let twice = [("content-type", "application/json"), ("ce-datacontenttype", "Application/json")];
    let event = one(with(&twice).unwrap());
    assert_eq!(event.json(), one(with(&twice[..1]).unwrap()).json());
    for other in [&[("content-type", "text/plain"), twice[1]][..], &twice[1..]] {
        assert!(with(other).unwrap_err().message.contains("must be sent as `content-type`"));
    }
}

/// A byte order mark was an error in structured events, and hid the data of binary ones from filters.
#[test]
fn a_byte_order_mark_is_skipped_wherever_json_is_read() {
    let marked = |text: &str| format!("\u{feff}{text}");
    let event = json(&marked(MINIMAL));
    assert_eq!(event.json(), MINIMAL, "it is gone for all later stages");
    let batch = headers(&[("content-type", "application/cloudevents-batch+json")]);
    let EventBody::Batch(events) = decode(&batch, marked(&format!("[{MINIMAL}]")).into()).unwrap() else {
        panic!("a batch")
    };
    assert_eq!(events[0].json(), MINIMAL);
    let binary = headers(&[
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "s"),
        ("ce-type", "t"),
        ("content-type", "application/json"),
    ]);
    let event = one(decode(&binary, marked(r#"{"a":1}"#).into()).unwrap());
    assert!(event.json().ends_with(br#""data":{"a":1}}"#), "{:?}", event.json());
    assert_eq!(Canonical::from(&event).data, Some(Payload::Json(r#"{"a":1}"#.into())));
    assert_eq!(event.unreadable_data(), None);
    let Wire::Binary { data, .. } = event.wire() else { panic!("binary") };
    assert_eq!(*data, marked(r#"{"a":1}"#), "a target gets the body as it came");
}

/// Filters silently did not match: the data were shown as base64, and nothing said why.
#[test]
fn data_that_only_claim_to_be_json_say_why_they_are_none() {
    let base = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t")];
    let doubt = |content_type: Option<&str>, body: &[u8]| {
        let pairs: Vec<_> = base.into_iter().chain(content_type.map(|text| ("content-type", text))).collect();
        one(decode(&headers(&pairs), Bytes::copy_from_slice(body)).unwrap()).unreadable_data()
    };
    let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    for (body, reason) in [
        (r#"{"a": NaN}"#, "`NaN` at line 1 column 7 is no JSON"),
        ("{\"a\":\n -Infinity}", "`Infinity` at line 2 column 3 is no JSON"),
        (deep.as_str(), "nested deeper than 120 levels at line 1 column 120"),
        (r#""\ud800""#, "unexpected end of hex escape at line 1 column 8"),
        ("{", "EOF while parsing an object at line 1 column 1"),
    ] {
        let told = doubt(Some("application/json"), body.as_bytes());
        assert_eq!(told, Some(format!("application/json, but {reason}")), "{body:.20}");
    }
    let told = doubt(Some("application/x+json; a=b"), b"\xff").unwrap();
    assert_eq!(told, "application/x+json; a=b, but not UTF-8 at byte 0");
    assert!(doubt(None, b"hello").unwrap().starts_with("JSON, since there is no content type, but "));
    for (content_type, body) in [(Some("text/plain"), "NaN"), (Some("application/json"), "1"), (None, "")] {
        assert_eq!(doubt(content_type, body.as_bytes()), None, "{body}");
    }
    let encoded = |members: &str| json(&with(members)).unreadable_data();
    assert!(
        encoded(r#""datacontenttype":"application/json","data_base64":"TmFO""#).unwrap().contains("`NaN`")
    );
    assert_eq!(encoded(r#""data_base64":"TmFO""#), None);
    assert_eq!(encoded(r#""data":"NaN""#), None);
}

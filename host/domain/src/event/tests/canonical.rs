//! Events in the form that plugins read and write.

use std::borrow::Cow;

use super::*;

/// Lets a plugin change an event, and returns the result.
fn changed(event: &Event, change: impl FnOnce(&mut Canonical<'_>)) -> Result<Event, String> {
    let mut canonical = Canonical::from(event);
    change(&mut canonical);
    canonical.to_event(event).map_err(|error| error.message)
}

fn text(event: &Event) -> String {
    String::from_utf8(event.json().to_vec()).unwrap()
}

fn rename(canonical: &mut Canonical<'_>) {
    canonical.ty = "new".to_owned();
}

#[test]
fn what_is_unchanged_is_the_event_itself() {
    let old = PACIFICA.replace("\"eventTime\"", "\"eventTypeVersion\" : \"2\" , \"eventTime\"");
    for body in [
        PACIFICA,
        &old,
        r#"{ "specversion" : "1.0", "id":"1","source":"s","type":"t","n":5,"b":true,"data": {"x": 1.10, "y" : 1e5} }"#,
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/plain","data":"a\u0062"}"#,
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"AP8="}"#,
        r#"{"specversion":"0.3","id":"1","source":"s","type":"t","datacontentencoding":"base64","data":"AP8="}"#,
        r#"{"specversion":"0.2","id":"1","source":"s","type":"t","extensions":{"a":1},"Odd Name":[2]}"#,
    ] {
        let event = json(body);
        assert_eq!(changed(&event, |_| {}), Ok(event));
    }
}

#[test]
fn a_changed_event_keeps_the_types_and_the_text_of_what_is_unchanged() {
    let event = json(
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"u","n":5,"b":true,"data": {"x": 1.10,  "y":1e5}}"#,
    );
    let made = changed(&event, |canonical| {
        rename(canonical);
        canonical.extensions.push(("m".to_owned(), "6".to_owned()));
    });
    assert_eq!(
        text(&made.unwrap()),
        r#"{"specversion":"1.0","id":"1","source":"s","type":"new","subject":"u","b":true,"m":"6","n":5,"data":{"x": 1.10,  "y":1e5}}"#
    );
    let made = changed(&event, |canonical| canonical.extensions[1].1 = "7".to_owned());
    assert!(text(&made.unwrap()).contains(r#""b":true,"n":"7""#));
}

#[test]
fn a_changed_old_event_goes_out_as_it_came() {
    let event = json(
        r#"{"cloudEventsVersion":"0.1","eventID":"1","source":"s","eventType":"t","eventTypeVersion":"2","eventTime":"noon","extensions":{"myKey":[1],"n":2},"data":[1]}"#,
    );
    assert_eq!(
        text(&changed(&event, rename).unwrap()),
        r#"{"cloudEventsVersion":"0.1","eventID":"1","source":"s","eventType":"new","eventTypeVersion":"2","eventTime":"noon","extensions":{"myKey":[1],"n":2},"data":[1]}"#
    );
    let event = json(r#"{"specversion":"0.3","id":"1","source":"s","type":"t","subject":"a","myKey":1}"#);
    let made = changed(&event, |canonical| {
        rename(canonical);
        canonical.data = Some(Payload::Binary(Cow::Borrowed(&[0, 255])));
    });
    assert_eq!(
        text(&made.unwrap()),
        r#"{"specversion":"0.3","id":"1","source":"s","type":"new","subject":"a","myKey":1,"datacontentencoding":"base64","data":"AP8="}"#
    );
}

#[test]
fn what_an_old_version_cannot_say_is_said_in_1_0() {
    let event = json(r#"{"specversion":"0.2","id":"1","source":"s","type":"t","myKey":1}"#);
    let made = changed(&event, |canonical| canonical.subject = Some("a".to_owned())).unwrap();
    assert_eq!(
        text(&made),
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"a","mykey":1}"#
    );
    let made = changed(&event, |canonical| canonical.data = Some(Payload::Binary(Cow::Borrowed(&[0, 255]))))
        .unwrap();
    assert_eq!(made.spec_version(), SpecVersion::V1_0);
}

#[test]
fn data_keep_their_kind() {
    let event = json(NEW);
    for (content_type, data) in [
        (None, Payload::Json(Cow::Borrowed(r#""text""#))),
        (None, Payload::Binary(Cow::Borrowed(b"bytes"))),
        (Some("text/plain"), Payload::Text(Cow::Borrowed("a \"text\""))),
        (Some("application/xml"), Payload::Text(Cow::Borrowed("<a/>"))),
        (Some("application/octet-stream"), Payload::Binary(Cow::Borrowed(&[0, 255]))),
        (Some("application/json"), Payload::Json(Cow::Borrowed("[1.10]"))),
    ] {
        let made = changed(&event, |canonical| {
            canonical.content_type = content_type.map(str::to_owned);
            canonical.data = Some(data.clone());
        });
        let made = made.unwrap();
        assert_eq!(Canonical::from(&made).data, Some(data));
        assert_eq!(Canonical::from(&made).content_type.as_deref(), content_type);
    }
    let plain = changed(&event, |canonical| canonical.data = Some(Payload::Text(Cow::Borrowed("hello"))));
    assert_eq!(Canonical::from(&plain.unwrap()).content_type.as_deref(), Some("text/plain"));
    // Text that is declared as JSON reaches a target unchanged.
    let made = changed(&event, |canonical| {
        canonical.content_type = Some("application/json".to_owned());
        canonical.data = Some(Payload::Text(Cow::Borrowed("{no json")));
    });
    let out = encode(&made.unwrap(), Form { mode: ContentMode::Binary, ..Form::default() }, &Map::new());
    assert_eq!(out.body, "{no json");
}

#[test]
fn a_body_that_is_no_json_is_shown_as_text() {
    let headers = headers(&[
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "s"),
        ("ce-type", "t"),
        ("content-type", "application/json"),
    ]);
    let event = one(decode(&headers, Bytes::from_static(b"{no json")).unwrap());
    assert_eq!(Canonical::from(&event).data, Some(Payload::Text(Cow::Borrowed("{no json"))));
    let made = changed(&event, rename).unwrap();
    let out = encode(&made, Form { mode: ContentMode::Binary, ..Form::default() }, &Map::new());
    assert_eq!(
        (out.body, &out.headers["ce-type"]),
        (Bytes::from_static(b"{no json"), &"new".parse().unwrap())
    );
}

#[test]
fn what_no_event_may_be_is_named_in_the_words_of_1_0() {
    let event = json(PACIFICA);
    let wrong = |change: fn(&mut Canonical<'_>)| changed(&event, change).unwrap_err();
    let extension = |name: &str| (name.to_owned(), "x".to_owned());
    assert_eq!(wrong(|canonical| canonical.id.clear()), "`id` must not be empty");
    assert_eq!(wrong(|canonical| canonical.subject = Some(String::new())), "`subject` must not be empty");
    assert!(
        wrong(|canonical| canonical.time = Some("noon".to_owned())).starts_with("`time` is no RFC 3339 time")
    );
    let data = wrong(|canonical| canonical.data = Some(Payload::Json(Cow::Borrowed("1 2"))));
    assert!(data.starts_with("`data` is said to be JSON and is none: trailing characters"), "{data}");
    let with = |names: &[&str]| {
        let change = |canonical: &mut Canonical<'_>| {
            canonical.extensions = names.iter().map(|name| extension(name)).collect();
        };
        changed(&event, change).unwrap_err()
    };
    assert_eq!(with(&["id"]), "`id` is no extension: it has a member of its own");
    assert_eq!(with(&["a", "a"]), "`a` is there twice");
    assert_eq!(with(&["A"]), "`A` is no attribute name: CloudEvents 1.0 allows a-z and 0-9 alone");
    assert_eq!(with(&[""]), "`` has no name");
}

const NEW: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;

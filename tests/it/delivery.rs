//! Deliveries to targets: how soon, and with which bytes and headers (FACTS 5.2 and 10.6).

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Request, Server, Target, event};

const STRUCTURED: &str = "application/cloudevents+json";

/// Sends raw text to a fresh subscription with these fields, and returns what its target got.
async fn sent(mut fields: Value, content_type: &str, body: &str) -> Request {
    let (server, target) = (Server::start().await, Target::start().await);
    fields["target_url"] = json!(target.url("/t"));
    server.subscribe(fields).await;
    server.receive_as(content_type, body.to_owned()).await.ok();
    let got = target.wait_for("/t", 1).await.remove(0);
    assert_eq!(got.method, Method::POST);
    got
}

/// The sweep every half minute would hide a lost wake.
#[tokio::test]
async fn an_accepted_event_is_sent_without_waiting_for_the_sweep() {
    let (server, target) = (Server::start().await, Target::start().await);
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    for n in 0..3 {
        let accepted = Instant::now();
        server.receive(&event(&n.to_string())).await;
        let waited = target.wait_for("/t", n + 1).await[n].at - accepted;
        assert!(waited < Duration::from_secs(10), "{waited:?}");
    }
}

// Bytes

#[tokio::test]
async fn an_event_of_the_original_arrives_byte_by_byte() {
    let body = concat!(
        r#"{"source":"/z","eventID":"1","cloudEventsVersion":"0.1","eventType":"t","data":{"price":1.10,"e":1e5,"#,
        r#""big":123456789012345678901234567890,"neg":-0.0,"s":"\u00e9/\/","z":1,"a":[1.0,2E-3]},"#,
        r#""extensions":{"z":1.50,"a":"x"},"contentType":"application/json"}"#
    );
    let got = sent(json!({}), "application/json", body).await;
    assert_eq!(got.text(), body);
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("authorization"), "");
    assert!(got.header("user-agent").starts_with("waypost/"));
    assert!(got.webhook_id().parse::<uuid::Uuid>().is_ok());
}

#[tokio::test]
async fn a_subscriptions_extensions_overlay_the_events_in_their_place() {
    let body = r#"{"cloudEventsVersion":"0.1","eventID":"1","extensions":{"b":{"x":1},"a":1.10},"source":"/s","eventType":"t","data":1e5}"#;
    let got = sent(json!({"extensions": {"b": 2, "c": "new"}}), "application/json", body).await;
    let expected = r#"{"cloudEventsVersion":"0.1","eventID":"1","extensions":{"b":2,"a":1.10,"c":"new"},"source":"/s","eventType":"t","data":1e5}"#;
    assert_eq!(got.text(), expected, "shallow, in place, numbers as they came");
}

#[tokio::test]
async fn extensions_are_appended_where_the_event_has_none() {
    let body = r#"{"cloudEventsVersion":"0.1","eventID":"1","source":"/s","eventType":"t"}"#;
    let bare = sent(json!({}), "application/json", body).await;
    assert_eq!(
        bare.text(),
        r#"{"cloudEventsVersion":"0.1","eventID":"1","source":"/s","eventType":"t","extensions":{}}"#
    );
    let laid = sent(json!({"extensions": {"k": "v"}}), "application/json", body).await;
    assert_eq!(
        laid.text(),
        r#"{"cloudEventsVersion":"0.1","eventID":"1","source":"/s","eventType":"t","extensions":{"k":"v"}}"#
    );
}

#[tokio::test]
async fn a_1_0_event_is_sent_as_cloudevents_json_with_extension_attributes() {
    let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":1.10,"big":12345678901234567890123}}"#;
    for content_type in ["application/json", STRUCTURED] {
        let got = sent(json!({"extensions": {"tenant": "blue"}}), content_type, body).await;
        assert!(got.header("content-type").starts_with(STRUCTURED), "{}", got.header("content-type"));
        assert_eq!(got.json()["tenant"], "blue");
        assert!(got.json().get("extensions").is_none());
        assert!(got.text().contains(r#"{"n":1.10,"big":12345678901234567890123}"#), "{}", got.text());
    }
}

/// A real Dispatcher accepts only `application/json`: an old event that arrived with another type became a dead letter.
#[tokio::test]
async fn old_events_are_sent_as_plain_json_and_new_ones_if_the_subscription_says_so() {
    for content_type in [STRUCTURED, "text/plain", "application/json; charset=utf-8"] {
        let got = sent(json!({}), content_type, &event("a").to_string()).await;
        assert_eq!(got.header("content-type"), "application/json");
    }
    let new = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}).to_string();
    let got = sent(json!({"content_type": "application/json"}), STRUCTURED, &new).await;
    assert_eq!((got.header("content-type"), got.text()), ("application/json", new.as_str()));
}

#[tokio::test]
async fn content_mode_and_event_format_shape_the_request() {
    let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data":{"n":1.10}}"#;
    let got = sent(json!({"content_mode": "binary", "extensions": {"tenant": "é"}}), STRUCTURED, body).await;
    assert_eq!(got.text(), r#"{"n":1.10}"#);
    assert_eq!(got.header("content-type"), "application/json");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-tenant", "%C3%A9"),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    let got = sent(json!({"event_format": "1.0"}), "application/json", &event("old").to_string()).await;
    assert!(got.header("content-type").starts_with(STRUCTURED));
    let new = got.json();
    assert_eq!((&new["specversion"], &new["id"]), (&json!("1.0"), &json!("old")));
    assert_eq!((&new["source"], &new["type"]), (&event("old")["source"], &event("old")["eventType"]));
    assert_eq!(new["data"], event("old")["data"]);
    assert!(new.get("eventID").is_none() && new.get("cloudEventsVersion").is_none(), "{new}");
}

#[tokio::test]
async fn a_binary_event_becomes_structured_json() {
    let (server, target) = (Server::start().await, Target::start().await);
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    let receive = async |content_type: &str, data: &[u8]| {
        let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
        let headers: Vec<_> = headers.into_iter().chain([("content-type", content_type)]).collect();
        server.send(Method::POST, "/receive", &headers, data.to_vec()).await.ok();
    };
    receive("application/json", br#"{"n":1.10}"#).await;
    let got = target.wait_for("/t", 1).await.remove(0);
    assert!(got.header("content-type").starts_with(STRUCTURED));
    assert!(got.text().contains(r#""data":{"n":1.10}"#), "{}", got.text());
    receive("application/octet-stream", b"\xff\x00").await;
    assert_eq!(target.wait_for("/t", 2).await[1].json()["data_base64"], "/wA=");
    receive("text/plain", b"words").await;
    assert_eq!(target.wait_for("/t", 3).await[2].json()["data"], "words");
}

#[tokio::test]
async fn auth_becomes_an_authorization_header() {
    let basic = json!({"auth": {"type": "basic", "basic": {"username": "ann", "password": "p:w"}}});
    let got = sent(basic, "application/json", &event("a").to_string()).await;
    assert_eq!(got.header("authorization"), "Basic YW5uOnA6dw==");
    let header = json!({"auth": {"type": "header", "header": {"type": "ApiKey", "credentials": "k=1"}}});
    let got = sent(header, "application/json", &event("a").to_string()).await;
    assert_eq!(got.header("authorization"), "ApiKey k=1");
}

#[tokio::test]
async fn only_matching_and_enabled_subscriptions_get_an_event() {
    let (server, target) = (Server::start().await, Target::start().await);
    for (name, jsonpath) in
        [("hit", "$.data[?@.key == 'Taggy']"), ("miss", "$.data[?@.key == 'Nope']"), ("absent", "$.nothing")]
    {
        server.subscribe(json!({"target_url": target.url(&format!("/{name}")), "jsonpath": jsonpath})).await;
    }
    let paused = json!({"target_url": target.url("/paused"), "disabled": "2026-01-01T00:00:00Z"});
    server.subscribe(paused).await;
    let id = server.receive(&event("a")).await;
    target.wait_for("/hit", 1).await;
    server.status_is(&id, "200 OK").await;
    assert_eq!(target.all().len(), 1);
    assert_eq!(server.story(&id).await["deliveries"].as_array().unwrap().len(), 1);
}

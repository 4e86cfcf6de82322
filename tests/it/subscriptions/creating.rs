//! Creating a subscription: the body, and its user.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::{basic, bearer, create, list, minimal, read, time};
use crate::harness::{RawConnection, Reply, Server, event, merged};

// POST

#[tokio::test]
async fn post_answers_200_and_the_whole_object() {
    let server = Server::start().await;
    let reply = server.post("/eventmatch", &minimal()).await.ok();
    assert_eq!(reply.header("content-type"), "application/json");
    let subscription = reply.json();
    let expected = [
        ("name", json!("mine")),
        ("jsonpath", json!("$.data[*]")),
        ("user", json!("anonymous")),
        ("disabled", Value::Null),
        ("error", Value::Null),
        ("target_url", json!("http://127.0.0.1:9/x")),
        ("version", json!("v0.1")),
        ("extensions", json!({})),
        ("auth", json!({})),
        ("deleted", Value::Null),
        ("retry", Value::Null),
        ("timeout_ms", Value::Null),
        ("max_in_flight", Value::Null),
        ("event_format", json!("original")),
        ("content_mode", json!("structured")),
        ("content_type", json!("application/cloudevents+json")),
    ];
    for (key, value) in expected {
        assert_eq!(subscription.get(key), Some(&value), "{key} in {subscription}");
    }
    assert_eq!(subscription["uuid"].as_str().unwrap().parse::<uuid::Uuid>().unwrap().get_version_num(), 4);
    assert_eq!(time(&subscription["created"]), time(&subscription["updated"]));
    assert_eq!(read(&server, &subscription).await, subscription);
}

#[tokio::test]
async fn post_keeps_every_field_given() {
    let server = Server::start().await;
    let fields = json!({
        "extensions": {"a": {"b": [1, "x"]}}, "version": "v7", "disabled": "2026-01-02T03:04:05.000000Z", "error": "by hand",
        "retry": "5s,5m", "timeout_ms": 1500, "max_in_flight": 3, "event_format": "1.0", "content_mode": "binary",
    });
    let subscription = create(&server, fields.clone()).await;
    for (key, value) in fields.as_object().unwrap() {
        assert_eq!(&subscription[key], value, "{key}");
    }
    assert_eq!(create(&server, json!({"retry": "none"})).await["retry"], "none");
}

#[tokio::test]
async fn the_user_comes_only_from_the_header() {
    let server = Server::start().await;
    assert_eq!(create(&server, json!({"user": "mallory"})).await["user"], "anonymous");
    assert_eq!(create(&server.user("alice"), json!({"user": "mallory"})).await["user"], "alice");
    let headers = [("content-type", "application/json"), ("x-remote-user", "mallory")];
    let reply = server.send(Method::POST, "/eventmatch", &headers, minimal().to_string()).await.ok();
    assert_eq!(reply.json()["user"], "anonymous");
    assert!(list(&server.user("mallory")).await.is_empty());
}

#[tokio::test]
async fn the_user_header_and_the_default_user_are_configurable() {
    let server = Server::with(&["--user-header", "X-Who", "--default-user", "nobody"]).await;
    assert_eq!(create(&server.user("alice"), json!({})).await["user"], "nobody");
    let headers = [("content-type", "application/json"), ("x-who", "bob")];
    let reply = server.send(Method::POST, "/eventmatch", &headers, minimal().to_string()).await.ok();
    assert_eq!(reply.json()["user"], "bob");
}

#[tokio::test]
async fn an_address_that_is_not_trusted_is_refused() {
    let server = Server::with(&["--trusted-proxies", "192.0.2.0/24"]).await;
    server.post("/eventmatch", &minimal()).await.refused(401);
    server.user("alice").get("/eventmatch").await.refused(401);
    server.receive_as("application/json", event("a").to_string()).await.refused(401);
    server.get("/events").await.refused(401);
    server.get("/healthz").await.ok();
    server.get("/readyz").await.ok();
}

#[tokio::test]
async fn a_user_header_that_is_not_text_is_a_client_error() {
    let server = Server::start().await;
    let mut connection = RawConnection::open(&server.url).await;
    connection
        .write(b"GET /eventmatch HTTP/1.1\r\nHost: localhost\r\nHttp-Remote-User: \xff\xfe\r\n\r\n")
        .await;
    let status = connection.reply().await.unwrap().status;
    assert!((400..500).contains(&status), "{status}");
}

#[tokio::test]
async fn a_missing_or_mistyped_field_is_named_and_nothing_is_stored() {
    let server = Server::start().await;
    let long = "é".repeat(256);
    let cases = [
        (json!({"name": null}), "/name"),
        (json!({"jsonpath": null}), "/jsonpath"),
        (json!({"target_url": null}), "/target_url"),
        (json!({"name": 5}), "/name"),
        (json!({"name": long}), "/name"),
        (json!({"jsonpath": ["$"]}), "/jsonpath"),
        (json!({"jsonpath": ""}), "/jsonpath"),
        (json!({"jsonpath": "$["}), "/jsonpath"),
        (json!({"jsonpath": "$.data[?(@.a =!= 1)]"}), "/jsonpath"),
        (json!({"target_url": 1}), "/target_url"),
        (json!({"target_url": ""}), "/target_url"),
        (json!({"target_url": "no url"}), "/target_url"),
        (json!({"target_url": "/relative"}), "/target_url"),
        (json!({"target_url": "ftp://127.0.0.1/x"}), "/target_url"),
        (json!({"target_url": "http://"}), "/target_url"),
        (json!({"target_url": "http://127.0.0.1:99999/x"}), "/target_url"),
        (json!({"target_url": "http://127.0.0.1:8O80/x"}), "/target_url"),
        (json!({"target_url": "http://127.0.0.1:0/x"}), "/target_url"),
        (json!({"target_url": "http://[zz]/x"}), "/target_url"),
        (json!({"target_url": "http://user:secret@127.0.0.1/x"}), "/target_url"),
        (json!({"target_url": "http://127.0.0.1/x#y"}), "/target_url"),
        (json!({"target_url": "http://127.0.0.1/x\\y"}), "/target_url"),
        (json!({"target_url": "http://127.0.0.1/x\n"}), "/target_url"),
        (json!({"extensions": []}), "/extensions"),
        (json!({"extensions": "x"}), "/extensions"),
        (json!({"version": 1}), "/version"),
        (json!({"disabled": "yesterday"}), "/disabled"),
        (json!({"disabled": 5}), "/disabled"),
        (json!({"error": 1}), "/error"),
        (json!({"retry": "5x"}), "/retry"),
        (json!({"retry": 5}), "/retry"),
        (json!({"timeout_ms": 0}), "/timeout_ms"),
        (json!({"timeout_ms": -1}), "/timeout_ms"),
        (json!({"timeout_ms": "5s"}), "/timeout_ms"),
        (json!({"max_in_flight": 0}), "/max_in_flight"),
        (json!({"max_in_flight": 1.5}), "/max_in_flight"),
        (json!({"event_format": "2.0"}), "/event_format"),
        (json!({"content_mode": "batch"}), "/content_mode"),
        (json!({"content_type": "xyz"}), "/content_type"),
    ];
    for (over, pointer) in cases {
        // `merged` removes null members: the field is missing.
        let reply = server.post("/eventmatch", &merged(minimal(), over.clone())).await;
        assert_eq!(reply.status, 422, "{over}: {}", reply.text());
        reply.refused(422).at(pointer);
    }
    assert!(list(&server).await.is_empty(), "nothing is stored");
    create(&server, json!({"name": "é".repeat(255)})).await;
}

#[tokio::test]
async fn incomplete_or_unsafe_auth_is_refused() {
    let server = Server::start().await;
    let cases = [
        json!("basic"),
        json!([]),
        json!({"type": "digest"}),
        json!({"basic": {"username": "u", "password": "p"}}),
        json!({"type": "basic"}),
        json!({"type": "basic", "basic": {}}),
        json!({"type": "basic", "basic": {"username": "u"}}),
        json!({"type": "basic", "basic": {"password": "p"}}),
        json!({"type": "basic", "basic": {"username": 1, "password": "p"}}),
        json!({"type": "basic", "basic": {"username": "a:b", "password": "p"}}),
        json!({"type": "header"}),
        json!({"type": "header", "header": {"type": "Bearer"}}),
        json!({"type": "header", "header": {"credentials": "x"}}),
        json!({"type": "header", "header": {"type": "Bearer", "credentials": "x\r\nX-Evil: 1"}}),
        json!({"type": "header", "header": {"type": "Bearer", "credentials": "x\n"}}),
        json!({"type": "header", "header": {"type": "Bea\nrer", "credentials": "x"}}),
    ];
    for auth in cases {
        let reply = server.post("/eventmatch", &merged(minimal(), json!({"auth": auth}))).await;
        assert_eq!(reply.status, 422, "{auth}: {}", reply.text());
        reply.refused(422).within("/auth");
    }
    assert!(list(&server).await.is_empty(), "nothing is stored");
    create(&server, json!({"auth": basic()})).await;
    create(&server, json!({"auth": bearer()})).await;
    create(&server, json!({"auth": {}})).await;
}

#[tokio::test]
async fn a_body_that_is_not_a_json_object_is_refused() {
    let server = Server::start().await;
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 8] =
        [b"", b"garbage", b"{", b"{\"name\": \"\xff\"}", b"{\"a\":1}{}", deep.as_bytes(), b"\0", b"nul"];
    for body in bodies {
        let json = [("content-type", "application/json")];
        server.send(Method::POST, "/eventmatch", &json, Bytes::copy_from_slice(body)).await.refused(400);
    }
    for body in ["[]", "1", "null", "\"x\""] {
        let json = [("content-type", "application/json")];
        server.send(Method::POST, "/eventmatch", &json, body).await.refused_as(400, 422);
    }
    server.post("/eventmatch", &json!({})).await.refused(422);
    assert!(list(&server).await.is_empty());
}

#[tokio::test]
async fn json_is_accepted_under_the_media_types_that_clients_send() {
    let server = Server::start().await;
    let post = async |headers: &[(&str, &str)]| -> Reply {
        server.send(Method::POST, "/eventmatch", headers, minimal().to_string()).await
    };
    post(&[]).await.ok();
    for accepted in
        ["application/json", "application/json; charset=utf-8", "text/plain", "application/cloudevents+json"]
    {
        post(&[("content-type", accepted)]).await.ok();
    }
    post(&[("content-type", "application/x-www-form-urlencoded")])
        .await
        .refused(415)
        .says("application/json");
    post(&[("content-type", "application/xml")]).await.refused(415);
    assert_eq!(list(&server).await.len(), 5);
}

#[tokio::test]
async fn unknown_fields_and_read_only_ones_are_ignored() {
    let server = Server::start().await;
    let victim = create(&server, json!({})).await;
    let read_only = json!({
        "unknown": {"x": 1}, "uuid": victim["uuid"], "user": "mallory", "created": "2001-01-01T00:00:00Z",
        "updated": "2001-01-01T00:00:00Z", "deleted": "2001-01-01T00:00:00Z", "name": "taken over",
    });
    let other = create(&server, read_only).await;
    assert_ne!(other["uuid"], victim["uuid"]);
    assert_eq!(other["user"], "anonymous");
    assert_eq!(other["deleted"], Value::Null);
    assert!(time(&other["created"]) > "2025-01-01T00:00:00Z".parse().unwrap());
    assert!(other.get("unknown").is_none());
    assert_eq!(read(&server, &victim).await, victim, "the victim is as it was");
}

//! `/eventmatch`: what clients of the original depend on, and what it got wrong (FACTS 1–3).

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Api, RawConnection, Reply, Server, Target, event, merged};

fn minimal() -> Value {
    json!({"name": "mine", "jsonpath": "$.data[*]", "target_url": "http://127.0.0.1:9/x"})
}

fn basic() -> Value {
    json!({"type": "basic", "basic": {"username": "u", "password": "s3cret-word"}})
}

fn bearer() -> Value {
    json!({"type": "header", "header": {"type": "Bearer", "credentials": "s3cret-token"}})
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    assert!(text.ends_with('Z'), "{text} is not UTC");
    text.parse().unwrap()
}

fn path(subscription: &Value) -> String {
    format!("/eventmatch/{}", subscription["uuid"].as_str().unwrap())
}

async fn list(api: &Api) -> Vec<Value> {
    api.get("/eventmatch").await.ok().json().as_array().unwrap().clone()
}

async fn create(api: &Api, fields: Value) -> Value {
    api.post("/eventmatch", &merged(minimal(), fields)).await.ok().json()
}

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
    ];
    for (key, value) in expected {
        assert_eq!(subscription.get(key), Some(&value), "{key} in {subscription}");
    }
    assert_eq!(subscription["uuid"].as_str().unwrap().parse::<uuid::Uuid>().unwrap().get_version_num(), 4);
    assert_eq!(time(&subscription["created"]), time(&subscription["updated"]));
    assert_eq!(server.get(&path(&subscription)).await.ok().json(), subscription);
}

#[tokio::test]
async fn post_keeps_every_field_given() {
    let server = Server::start().await;
    let fields = json!({
        "extensions": {"a": {"b": [1, "x"]}}, "version": "v7", "disabled": "2026-01-02T03:04:05Z", "error": "by hand",
        "retry": "5s,5m", "timeout_ms": 1500, "max_in_flight": 3, "event_format": "1.0", "content_mode": "binary",
    });
    let subscription = create(&server, fields.clone()).await;
    for (key, value) in fields.as_object().unwrap() {
        assert_eq!(&subscription[key], value, "{key}");
    }
    assert_eq!(create(&server, json!({"retry": "none"})).await["retry"], "none");
}

#[tokio::test]
async fn the_user_comes_from_the_header_alone() {
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
async fn a_user_header_that_is_no_text_is_a_client_error() {
    let server = Server::start().await;
    let mut connection = RawConnection::open(&server.url).await;
    connection.write(b"GET /eventmatch HTTP/1.1\r\nHost: x\r\nHttp-Remote-User: \xff\xfe\r\n\r\n").await;
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
    ];
    for (over, pointer) in cases {
        // `merged` takes members with null away: a missing field.
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
async fn a_body_that_is_no_json_object_is_refused() {
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
    assert_eq!(server.get(&path(&victim)).await.ok().json(), victim, "the victim is as it was");
}

// GET

#[tokio::test]
async fn what_is_not_ones_own_answers_403_alike() {
    let server = Server::start().await;
    let alice = server.user("alice");
    let hers = create(&alice, json!({})).await;
    let gone = create(&server, json!({})).await;
    server.delete(&path(&gone)).await.ok();
    let unknown = json!({"uuid": uuid::Uuid::new_v4().to_string()});
    let mut details = Vec::new();
    for other in [&hers, &gone, &unknown] {
        details.push(server.get(&path(other)).await.refused(403).detail);
        server.put(&path(other), &json!({"name": "x"})).await.refused(403);
        server.delete(&path(other)).await.refused(403);
    }
    assert!(
        details.iter().all(|detail| detail == &details[0]),
        "the answers tell nothing apart: {details:?}"
    );
    assert_eq!(alice.get(&path(&hers)).await.ok().json(), hers, "hers is untouched");
}

#[tokio::test]
async fn a_malformed_uuid_is_400() {
    let server = Server::start().await;
    for bad in ["x", "123", "zzzzzzzz-0000-4000-8000-000000000000", "%00", "%ff"] {
        let path = format!("/eventmatch/{bad}");
        server.get(&path).await.refused(400);
        server.put(&path, &json!({"name": "x"})).await.refused(400);
        server.delete(&path).await.refused(400);
    }
}

#[tokio::test]
async fn the_list_holds_the_callers_own_in_order_of_creation() {
    let server = Server::start().await;
    assert_eq!(server.get("/eventmatch").await.ok().json(), json!([]));
    let mut mine = Vec::new();
    for n in 0..5 {
        mine.push(create(&server, json!({"name": format!("s{n}")})).await);
        create(&server.user("alice"), json!({})).await;
    }
    server.delete(&path(&mine.remove(3))).await.ok();
    let paused = server.put(&path(&mine[1]), &json!({"disabled": "2026-01-01T00:00:00Z"})).await.ok().json();
    mine[1] = paused;
    assert_eq!(list(&server).await, mine, "disabled ones are there, deleted ones and others' are not");
}

#[tokio::test]
async fn the_list_pages_without_changing_the_bare_call() {
    let mut server = Server::start().await;
    let mut mine = Vec::new();
    for n in 0..7 {
        mine.push(create(&server, json!({"name": format!("s{n}")})).await);
    }
    server.restart().await;
    let (mut paged, mut after) = (Vec::new(), String::new());
    for length in [3, 3, 1, 0] {
        let page =
            server.get(&format!("/eventmatch?limit=3{after}")).await.ok().json().as_array().unwrap().clone();
        assert_eq!(page.len(), length);
        if let Some(last) = page.last() {
            after = format!("&after={}", last["uuid"].as_str().unwrap());
        }
        paged.extend(page);
    }
    assert_eq!(paged, mine);
    assert_eq!(list(&server).await, mine);
    for bad in ["limit=x", "limit=-1", "after=x"] {
        server.get(&format!("/eventmatch?{bad}")).await.refused_as(400, 422);
    }
}

// PUT

#[tokio::test]
async fn put_changes_the_fields_given_and_no_other() {
    let server = Server::start().await;
    let before = create(
        &server,
        json!({"extensions": {"a": 1}, "auth": basic(), "retry": "5s", "timeout_ms": 100, "content_mode": "binary"}),
    )
    .await;
    let after = server.put(&path(&before), &json!({"name": "renamed"})).await.ok().json();
    assert!(time(&after["updated"]) > time(&before["updated"]));
    let expected = merged(before.clone(), json!({"name": "renamed", "updated": after["updated"]}));
    assert_eq!(strip_nulls(&after), strip_nulls(&expected));
    assert_eq!(server.get(&path(&before)).await.ok().json(), after);
    let cleared = server.put(&path(&before), &json!({"retry": null, "timeout_ms": null})).await.ok().json();
    assert_eq!((&cleared["retry"], &cleared["timeout_ms"]), (&Value::Null, &Value::Null));
    assert_eq!(cleared["extensions"], json!({"a": 1}));
}

/// `merged` takes null members away, so that both sides of a comparison must.
fn strip_nulls(value: &Value) -> Value {
    value
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[tokio::test]
async fn put_of_what_get_answered_changes_nothing_but_updated() {
    let server = Server::start().await;
    let before = create(&server, json!({"auth": bearer(), "extensions": {"x": "y"}})).await;
    let after = server.put(&path(&before), &before).await.ok().json();
    assert_eq!(merged(after, json!({"updated": null})), merged(before, json!({"updated": null})));
}

#[tokio::test]
async fn put_cannot_hand_over_or_overwrite() {
    let server = Server::start().await;
    let victim = create(&server.user("alice"), json!({})).await;
    let mine = create(&server, json!({})).await;
    let theft = json!({
        "uuid": victim["uuid"], "user": "alice", "created": "2001-01-01T00:00:00Z", "deleted": "2001-01-01T00:00:00Z",
    });
    let after = server.put(&path(&mine), &theft).await.ok().json();
    for key in ["uuid", "user", "created", "deleted"] {
        assert_eq!(after[key], mine[key], "{key}");
    }
    assert_eq!(server.user("alice").get(&path(&victim)).await.ok().json(), victim);
    assert_eq!(list(&server.user("alice")).await, [victim]);
}

#[tokio::test]
async fn a_put_with_a_bad_field_changes_nothing() {
    let server = Server::start().await;
    let before = create(&server, json!({"auth": basic()})).await;
    let cases = [
        (json!({"name": "x", "jsonpath": "$["}), "/jsonpath"),
        (json!({"name": "x", "target_url": "gopher://x"}), "/target_url"),
        (json!({"name": null}), "/name"),
        (json!({"jsonpath": null}), "/jsonpath"),
        (json!({"name": "x", "retry": "soon"}), "/retry"),
    ];
    for (fields, pointer) in cases {
        server.put(&path(&before), &fields).await.refused(422).at(pointer);
    }
    let auth = json!({"auth": {"type": "header", "header": {"type": "Bearer", "credentials": "a\r\nb"}}});
    server.put(&path(&before), &auth).await.refused(422).within("/auth");
    let json_type = [("content-type", "application/json")];
    server.send(Method::PUT, &path(&before), &json_type, "{").await.refused(400);
    server.send(Method::PUT, &path(&before), &[("content-type", "text/csv")], "{}").await.refused(415);
    assert_eq!(server.get(&path(&before)).await.ok().json(), before);
}

#[tokio::test]
async fn put_pauses_and_re_enables() {
    let server = Server::start().await;
    let subscription = create(&server, json!({})).await;
    let put = async |fields: Value| server.put(&path(&subscription), &fields).await.ok().json();
    let paused = put(json!({"disabled": "2026-01-02T03:04:05Z", "error": "broken"})).await;
    assert_eq!(time(&paused["disabled"]), "2026-01-02T03:04:05Z".parse().unwrap());
    assert_eq!(paused["error"], "broken");
    let enabled = put(json!({"disabled": null})).await;
    assert_eq!((&enabled["disabled"], &enabled["error"]), (&Value::Null, &Value::Null), "clears `error` too");
    let paused = put(json!({"disabled": "2026-01-02T03:04:05.000000"})).await;
    assert_eq!(
        time(&paused["disabled"]),
        "2026-01-02T03:04:05Z".parse().unwrap(),
        "as the original writes it"
    );
    assert_eq!(paused["error"], Value::Null);
    let enabled = put(json!({"disabled": null, "error": null})).await;
    assert_eq!((&enabled["disabled"], &enabled["error"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn secrets_are_never_returned_and_a_put_that_leaves_them_out_keeps_them() {
    let (server, target) = (Server::start().await, Target::start().await);
    let shown = [
        (basic(), json!({"type": "basic", "basic": {"username": "u"}}), "Basic dTpzM2NyZXQtd29yZA=="),
        (bearer(), json!({"type": "header", "header": {"type": "Bearer"}}), "Bearer s3cret-token"),
    ];
    for (place, (auth, masked, header)) in shown.into_iter().enumerate() {
        let at = format!("/{place}");
        let fields = json!({"auth": auth, "target_url": target.url(&at), "jsonpath": "$"});
        let reply = server.post("/eventmatch", &merged(minimal(), fields)).await.ok();
        let subscription = reply.json();
        assert_eq!(subscription["auth"], masked);
        let replies = [
            reply,
            server.get(&path(&subscription)).await.ok(),
            server.get("/eventmatch").await.ok(),
            server.put(&path(&subscription), &subscription).await.ok(),
            server.put(&path(&subscription), &json!({"name": "renamed"})).await.ok(),
        ];
        assert!(replies.iter().all(|reply| !reply.text().contains("s3cret")));
        let id = server.receive(&event("a")).await;
        assert_eq!(target.wait_for(&at, 1).await[0].header("authorization"), header);
        assert!(!server.get(&format!("/events/{id}")).await.ok().text().contains("s3cret"));
        assert_eq!(
            server.put(&path(&subscription), &json!({"auth": {}})).await.ok().json()["auth"],
            json!({})
        );
        server.receive(&event("b")).await;
        assert_eq!(target.wait_for(&at, 2).await[1].header("authorization"), "", "`{{}}` takes it away");
    }
    assert!(!server.log().contains("s3cret"));
}

#[tokio::test]
async fn masked_auth_cannot_create_a_subscription_nor_change_its_kind() {
    let server = Server::start().await;
    let masked = json!({"auth": {"type": "header", "header": {"type": "Bearer"}}});
    server.post("/eventmatch", &merged(minimal(), masked.clone())).await.refused(422).within("/auth");
    let subscription = create(&server, json!({"auth": basic()})).await;
    server.put(&path(&subscription), &masked).await.refused(422).within("/auth");
}

// DELETE

#[tokio::test]
async fn delete_answers_200_with_an_empty_body_then_403() {
    let server = Server::start().await;
    let subscription = create(&server, json!({})).await;
    server.user("alice").delete(&path(&subscription)).await.refused(403);
    assert_eq!(server.delete(&path(&subscription)).await.ok().text(), "");
    server.delete(&path(&subscription)).await.refused(403);
    server.get(&path(&subscription)).await.refused(403);
    assert!(list(&server).await.is_empty());
}

#[tokio::test]
async fn a_deleted_subscription_gets_no_more_events() {
    let (server, target) = (Server::start().await, Target::start().await);
    let gone = server.subscribe(json!({"target_url": target.url("/gone")})).await;
    server.subscribe(json!({"target_url": target.url("/kept")})).await;
    server.receive(&event("a")).await;
    target.wait_for("/gone", 1).await;
    server.delete(&format!("/eventmatch/{gone}")).await.ok();
    let id = server.receive(&event("b")).await;
    target.wait_for("/kept", 2).await;
    assert_eq!(server.story(&id).await["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!(target.requests("/gone").len(), 1);
}

// All of it

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405_with_allow() {
    let server = Server::start().await;
    let uuid = path(&create(&server, json!({})).await);
    for unknown in ["/nope", "/eventmatch/a/b/c", "/events/a/b/c", "/receive/x", "/%ff", "//"] {
        server.get(unknown).await.refused(404);
    }
    let cases = [
        (Method::PUT, "/eventmatch", vec!["GET", "POST"]),
        (Method::DELETE, "/eventmatch", vec!["GET", "POST"]),
        (Method::POST, uuid.as_str(), vec!["GET", "PUT", "DELETE"]),
        (Method::PATCH, uuid.as_str(), vec!["GET", "PUT", "DELETE"]),
        (Method::GET, "/receive", vec!["POST", "OPTIONS"]),
        (Method::PUT, "/receive", vec!["POST", "OPTIONS"]),
        (Method::POST, "/events", vec!["GET"]),
        (Method::POST, "/healthz", vec!["GET"]),
        (Method::POST, "/", vec!["GET"]),
    ];
    for (method, path, allowed) in cases {
        let reply = server.send(method.clone(), path, &[], Bytes::new()).await;
        reply.refused(405);
        let allow = reply.header("allow").to_owned();
        for name in allowed {
            assert!(
                allow.split(',').any(|allowed| allowed.trim() == name),
                "{method} {path}: allow: {allow}"
            );
        }
    }
}

#[tokio::test]
async fn subscriptions_outlive_a_restart() {
    let mut server = Server::start().await;
    let kept = create(&server, json!({"auth": basic(), "retry": "5s", "extensions": {"a": [1]}})).await;
    let gone = create(&server, json!({})).await;
    server.delete(&path(&gone)).await.ok();
    server.kill9();
    server.restart().await;
    assert_eq!(list(&server).await, [kept]);
}

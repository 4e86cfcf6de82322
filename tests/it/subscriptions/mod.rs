//! `/eventmatch`: the behaviour that clients of the original depend on, and the original's mistakes (FACTS 1–3).

mod changing;
mod creating;
mod versions;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Api, Server, Target, event, merged};

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

/// Reads a subscription, without the numbers of its deliveries: no other answer has them.
async fn read(api: &Api, subscription: &Value) -> Value {
    let mut found = api.get(&path(subscription)).await.ok().json();
    assert!(found["counts"].take().is_object());
    found
}

async fn create(api: &Api, fields: Value) -> Value {
    api.post("/eventmatch", &merged(minimal(), fields)).await.ok().json()
}

// GET

#[tokio::test]
async fn unknown_deleted_and_foreign_subscriptions_answer_403_alike() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let hers = create(&alice, json!({})).await;
    let gone = create(&bob, json!({})).await;
    bob.delete(&path(&gone)).await.ok();
    let unknown = json!({"uuid": uuid::Uuid::new_v4().to_string()});
    let mut details = Vec::new();
    for other in [&hers, &gone, &unknown] {
        details.push(bob.get(&path(other)).await.refused(403).detail);
        bob.put(&path(other), &json!({"name": "x"})).await.refused(403);
        bob.delete(&path(other)).await.refused(403);
    }
    assert!(
        details.iter().all(|detail| detail == &details[0]),
        "the answers tell nothing apart: {details:?}"
    );
    assert_eq!(read(&alice, &hers).await, hers, "hers is untouched");
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
async fn the_list_has_the_callers_subscriptions_in_order_of_creation() {
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
async fn the_list_has_pages_and_the_plain_request_is_unchanged() {
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
async fn subscriptions_survive_a_restart() {
    let mut server = Server::start().await;
    let kept = create(&server, json!({"auth": basic(), "retry": "5s", "extensions": {"a": [1]}})).await;
    let gone = create(&server, json!({})).await;
    server.delete(&path(&gone)).await.ok();
    server.kill9();
    server.restart().await;
    assert_eq!(list(&server).await, [kept]);
}

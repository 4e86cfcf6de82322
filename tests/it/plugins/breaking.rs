//! The breaker: a plugin that fails repeatedly is not called for a while.

use http::Method;
use serde_json::{Value, json};

use super::using;
use crate::harness::{Server, Target, event_1_0, wait_until};

async fn wait_for_log(server: &Server, text: &str) {
    wait_until(text, async || server.log().contains(text).then_some(())).await;
}

async fn breaker(server: &Server, uuid: &str) -> Value {
    let (path, accept) = (format!("/eventmatch/{uuid}/plugin"), [("accept", "application/json")]);
    server.send(Method::GET, &path, &accept, "").await.ok().json()["breaker"].clone()
}

#[tokio::test]
async fn a_backlog_waits_while_the_breaker_is_open_and_is_delivered_when_the_plugin_is_fixed() {
    let server = Server::with(&["--retry-schedule", "10m"]).await;
    let target = Target::start().await;
    let plugin = json!({"config": {"filter": "internal: oops"}});
    let uuid = using(&server, waypost_guests::SIEVE, &target.url("/t"), plugin).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(server.receive(&event_1_0(&n.to_string())).await);
    }
    wait_for_log(&server, "the breaker is open").await;
    for n in 5..10 {
        ids.push(server.receive(&event_1_0(&n.to_string())).await);
    }
    for id in &ids[5..] {
        let delivery = server.delivery(id, &uuid).await;
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("pending"), &json!([])), "it waits");
        let reason = delivery["reason"].as_str().unwrap();
        assert!(reason.starts_with("waits: the plugin's breaker is open until 2"), "{reason}");
        assert!(reason.ends_with("(plugin: internal error: oops)"), "{reason}");
    }
    let shown = breaker(&server, &uuid).await;
    assert_eq!(shown["failures"], 5, "{shown}");
    assert!(
        shown["reason"].as_str().unwrap().ends_with("oops") && shown["open_until"].is_string(),
        "{shown}"
    );
    server.update(&uuid, &json!({"plugin": {"config": {"filter": "ok"}}})).await;
    assert_eq!(breaker(&server, &uuid).await, Value::Null);
    target.wait_for("/t", 5).await;
    for id in &ids[5..] {
        server.delivery_in(id, &uuid, "delivered").await;
    }
}

#[tokio::test]
async fn with_skip_or_deliver_nothing_waits_for_the_breaker() {
    let (server, target) = (Server::start().await, Target::start().await);
    let plugin = |on_error| json!({"config": {"filter": "internal: oops"}, "on_error": on_error});
    let skipping = using(&server, waypost_guests::SIEVE, &target.url("/skip"), plugin("skip")).await;
    let sending = using(&server, waypost_guests::SIEVE, &target.url("/send"), plugin("deliver")).await;
    for n in 0..8 {
        server.receive(&event_1_0(&n.to_string())).await;
    }
    target.wait_for("/send", 8).await;
    let id = server.receive(&event_1_0("last")).await;
    let skipped = server.delivery_in(&id, &skipping, "skipped").await;
    let reason = skipped["reason"].as_str().unwrap();
    assert!(reason.starts_with("plugin: the breaker is open until "), "{reason}");
    let sent = server.delivery_in(&id, &sending, "delivered").await;
    let run = &sent["attempts"][0]["plugin"];
    assert!(run["reason"].as_str().unwrap().starts_with("plugin: the breaker is open until "), "{run}");
    assert!(target.requests("/skip").is_empty());
    assert_eq!(server.subscription(&sending).await["disabled"], Value::Null);
}

#[tokio::test]
async fn a_failed_probe_keeps_the_breaker_open() {
    let (server, target) = (Server::start().await, Target::start().await);
    let plugin = json!({"config": {"filter": "internal: oops"}, "on_error": "dead_letter"});
    let uuid = using(&server, waypost_guests::SIEVE, &target.url("/t"), plugin).await;
    for n in 0..5 {
        let id = server.receive(&event_1_0(&n.to_string())).await;
        server.delivery_in(&id, &uuid, "dead").await;
    }
    wait_for_log(&server, "the breaker is open").await;
    let id = server.receive(&event_1_0("trial")).await;
    // The probe after ten seconds fails too: that is one more attempt, and the next comes only after twenty seconds.
    server.delivery_in(&id, &uuid, "dead").await;
    let waiting = server.receive(&event_1_0("waits")).await;
    assert_eq!(server.delivery(&waiting, &uuid).await["state"], "pending");
}

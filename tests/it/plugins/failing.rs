//! The effect of each failure of a plugin.

use serde_json::{Value, json};

use super::{probing, using};
use crate::harness::{Api, Server, Target, event_1_0, wait_until};

#[tokio::test]
async fn each_error_of_a_plugin_has_its_effect() {
    let server = Server::with(&["--retry-schedule", "10m"]).await;
    let target = Target::start().await;
    let wrong = probing(&server, &target.url("/t"), json!({"filter": "invalid-event: no rows"})).await;
    let away = probing(&server, &target.url("/t"), json!({"transform": "unavailable: the catalogue"})).await;
    let own = probing(&server, &target.url("/t"), json!({"filter": "internal: oops"})).await;
    let id = server.receive(&event_1_0("a")).await;
    let dead = server.delivery_in(&id, &wrong, "dead").await;
    assert_eq!(dead["reason"], "plugin: invalid event: no rows");
    assert_eq!(dead["attempts"].as_array().unwrap().len(), 1, "not tried again");
    assert_eq!(server.subscription(&wrong).await["disabled"], Value::Null);
    let waiting = server.delivery_in(&id, &away, "retrying").await;
    assert_eq!(waiting["reason"], "plugin: unavailable: the catalogue");
    let waiting = server.delivery_in(&id, &own, "retrying").await;
    assert_eq!(waiting["reason"], "plugin: internal error: oops");
    assert!(target.all().is_empty());
}

#[tokio::test]
async fn an_unavailable_plugin_is_not_called_before_its_retry_after() {
    let server = Server::with(&["--retry-schedule", "1ms"]).await;
    let uuid = probing(&server, "http://127.0.0.1:9/", json!({"filter": "unavailable: it"})).await;
    let id = server.receive(&event_1_0("a")).await;
    let dead = server.delivery_in(&id, &uuid, "dead").await;
    let at = |n: usize| dead["attempts"][n]["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(at(1).duration_since(at(0)).as_millis() >= 1000, "{dead}");
    assert_eq!(dead["reason"], "plugin: unavailable: it; that was the last of 2 attempts");
    assert_eq!(server.disabled(&uuid).await["error"], "plugin: unavailable: it");
}

#[tokio::test]
async fn a_plugin_that_finds_its_configuration_wrong_disables_its_subscription_and_the_delivery_waits() {
    let server = Server::with(&["--retry-schedule", "100ms"]).await;
    let target = Target::start().await;
    let uuid = probing(&server, &target.url("/t"), json!({"filter": "invalid-config: no such table"})).await;
    let id = server.receive(&event_1_0("a")).await;
    let disabled = server.disabled(&uuid).await;
    assert_eq!(disabled["error"], "plugin: invalid configuration: no such table");
    server.delivery_in(&id, &uuid, "retrying").await;
    let mended = json!({"plugin": {"config": {}}, "disabled": null});
    server.update(&uuid, &mended).await;
    server.delivery_in(&id, &uuid, "delivered").await;
}

/// Subscribes with a plugin that panics, and returns what became of one event.
async fn panicking(server: &Api, target: &str, step: &str, on_error: &str) -> (String, String) {
    let plugin = json!({"config": {step: "panic: oh no"}, "on_error": on_error});
    let uuid = using(server, waypost_guests::PROBE, target, plugin).await;
    let id = server.receive(&event_1_0(on_error)).await;
    (id, uuid)
}

#[tokio::test]
async fn on_error_decides_what_happens_to_a_delivery_whose_plugin_panics() {
    let server = Server::with(&["--retry-schedule", "10m"]).await;
    let target = Target::start().await;
    for (on_error, state) in [("retry", "retrying"), ("skip", "skipped"), ("dead_letter", "dead")] {
        let (id, uuid) = panicking(&server, &target.url("/none"), "filter", on_error).await;
        let delivery = server.delivery_in(&id, &uuid, state).await;
        let run = &delivery["attempts"][0]["plugin"];
        assert_eq!(run["verdict"], "failed");
        assert!(delivery["reason"].as_str().unwrap().starts_with("plugin: "), "{delivery}");
        assert!(run["stderr"].as_str().unwrap().contains("oh no"), "{run}");
        server.delete(&format!("/eventmatch/{uuid}")).await;
    }
    let (id, uuid) = panicking(&server, &target.url("/as-it-came"), "transform", "deliver").await;
    let delivery = server.delivery_in(&id, &uuid, "delivered").await;
    assert_eq!(delivery["attempts"][0]["plugin"]["verdict"], "failed");
    assert_eq!(target.requests("/as-it-came")[0].json(), event_1_0("deliver"));
    assert!(target.requests("/none").is_empty());
}

#[tokio::test]
async fn an_event_that_a_failing_policy_has_not_allowed_is_neither_sent_nor_skipped() {
    let server = Server::with(&["--retry-schedule", "10m"]).await;
    let target = Target::start().await;
    for (failure, on_error) in [("panic: x", "deliver"), ("internal: x", "deliver"), ("internal: x", "skip")]
    {
        let plugin = json!({"config": {"policy": failure}, "on_error": on_error});
        let uuid = using(&server, waypost_guests::PROBE, &target.url("/t"), plugin).await;
        let id = server.receive(&event_1_0("a")).await;
        server.delivery_in(&id, &uuid, "retrying").await;
        server.delete(&format!("/eventmatch/{uuid}")).await;
    }
    assert!(target.all().is_empty());
}

#[tokio::test]
async fn a_missing_module_holds_the_delivery_and_is_named() {
    let mut server = Server::with(&["--retry-schedule", "none"]).await;
    let target = Target::start().await;
    let plugin = json!({"on_error": "deliver"});
    let uuid = using(&server, waypost_guests::SIEVE, &target.url("/t"), plugin).await;
    let digest = server.subscription(&uuid).await["plugin"]["digest"].as_str().unwrap().to_owned();
    server.kill9();
    for folder in ["modules", "compiled"] {
        std::fs::remove_dir_all(server.data().join(folder)).unwrap();
    }
    server.restart().await;
    let id = server.receive(&event_1_0("a")).await;
    let delivery = wait_until("the plugin is found missing", async || {
        let delivery = server.delivery(&id, &uuid).await;
        // It is shown as held with its subscription before its own record is written.
        (delivery["held"]["by"] == "plugins" && delivery["reason"].is_string()).then_some(delivery)
    })
    .await;
    assert!(delivery["reason"].as_str().unwrap().contains(&digest), "{delivery}");
    assert_eq!(delivery["attempts"], json!([]), "it is not the plugin's fault");
    assert_eq!(server.subscription(&uuid).await["disabled"], Value::Null);
}

#[tokio::test]
async fn other_subscriptions_get_their_events_while_a_plugin_keeps_panicking() {
    let server = Server::with(&["--retry-schedule", "none"]).await;
    let target = Target::start().await;
    let plugin = json!({"config": {"filter": "panic: x"}, "on_error": "skip"});
    let bad = using(&server, waypost_guests::PROBE, &target.url("/bad"), plugin).await;
    let neighbour = server.subscribe(json!({"target_url": target.url("/good")})).await;
    let first = server.receive(&event_1_0("0")).await;
    for n in 1..50 {
        server.receive(&event_1_0(&n.to_string())).await;
    }
    target.wait_for("/good", 50).await;
    assert_eq!(server.subscription(&neighbour).await["disabled"], Value::Null);
    // The later ones wait for the breaker.
    server.delivery_in(&first, &bad, "skipped").await;
    assert!(target.requests("/bad").is_empty());
}

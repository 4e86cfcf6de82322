//! The first success of its plugin fixes the bytes of a delivery (promise 2).

use std::collections::HashSet;

use serde_json::{Value, json};

use super::probing;
use crate::harness::{Answer, Request, Server, Target, event_1_0};

/// Asserts that all requests are repeats of one, and returns its body.
fn same(got: &[Request]) -> String {
    let all: HashSet<_> = got.iter().map(|got| (got.webhook_id(), got.text())).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    got[0].text().to_owned()
}

fn unavailable() -> Answer {
    Answer::status(503)
}

#[tokio::test]
async fn a_repeat_has_the_same_bytes_after_failures_a_crash_and_another_plugin() {
    let mut server =
        Server::with(&["--retry-schedule", "100ms,100ms,100ms,100ms,100ms,100ms,100ms,100ms"]).await;
    let target = Target::start().await;
    target.always("/t", unavailable());
    let uuid = probing(&server, &target.url("/t"), json!({"transform": "stamp"})).await;
    let id = server.receive(&event_1_0("a")).await;
    target.wait_for("/t", 2).await;
    server.kill9();
    server.restart().await;
    let before = target.requests("/t").len();
    target.wait_for("/t", before + 1).await;
    server.update(&uuid, &json!({"plugin": {"config": {"transform": "upper"}}})).await;
    let before = target.requests("/t").len();
    target.wait_for("/t", before + 1).await;
    server.update(&uuid, &json!({"plugin": null})).await;
    target.always("/t", Answer::status(200));
    server.delivery_in(&id, &uuid, "delivered").await;
    assert!(same(&target.requests("/t")).starts_with("attempt 1 at "));
}

#[tokio::test]
async fn a_crash_during_a_request_repeats_the_same_bytes() {
    let mut server = Server::start().await;
    let target = Target::start().await;
    let gate = target.hang("/t");
    let uuid = probing(&server, &target.url("/t"), json!({"transform": "stamp", "count": "n"})).await;
    let id = server.receive(&event_1_0("a")).await;
    target.wait_for("/t", 1).await;
    server.kill9();
    gate.open();
    server.restart().await;
    let delivery = server.delivery_in(&id, &uuid, "delivered").await;
    same(&target.requests("/t"));
    assert_eq!(target.requests("/t").len(), 2);
    assert_eq!(
        delivery["attempts"][0]["plugin"]["verdict"], "transformed",
        "the run that fixed them is told"
    );
}

#[tokio::test]
async fn a_dead_letter_is_sent_again_with_the_same_bytes_unless_the_plugin_has_changed() {
    let server = Server::with(&["--retry-schedule", "none"]).await;
    let target = Target::start().await;
    target.answers("/t", [Answer::status(415), Answer::status(415)]);
    let uuid = probing(&server, &target.url("/t"), json!({"transform": "stamp"})).await;
    let id = server.receive(&event_1_0("a")).await;
    server.delivery_in(&id, &uuid, "dead").await;
    let retry = format!("/events/{id}/retry");
    server.post(&retry, &Value::Null).await.ok();
    target.wait_for("/t", 2).await;
    same(&target.requests("/t"));
    let again = server.delivery_in(&id, &uuid, "dead").await;
    assert_eq!(again["attempts"][1]["plugin"], Value::Null, "it did not run again");

    server.update(&uuid, &json!({"plugin": {"config": {"transform": "upper"}}})).await;
    server.post(&retry, &Value::Null).await.ok();
    let delivered = server.delivery_in(&id, &uuid, "delivered").await;
    let got = target.requests("/t");
    assert_eq!((got.len(), got[2].text()), (3, r#"{"N":1}"#));
    assert_eq!(got[2].webhook_id(), got[0].webhook_id());
    assert_eq!(delivered["attempts"][2]["plugin"]["verdict"], "transformed");
}

#[tokio::test]
async fn a_filter_that_let_an_event_pass_is_not_called_again() {
    let server = Server::with(&["--retry-schedule", "100ms,100ms"]).await;
    let target = Target::start().await;
    target.answers("/t", [unavailable()]);
    let uuid = super::using(&server, waypost_guests::SIEVE, &target.url("/t"), json!({})).await;
    let id = server.receive(&event_1_0("a")).await;
    target.wait_for("/t", 1).await;
    server.update(&uuid, &json!({"plugin": {"config": {"filter": "no: not any more"}}})).await;
    let delivery = server.delivery_in(&id, &uuid, "delivered").await;
    assert_eq!(delivery["attempts"][0]["plugin"]["verdict"], "deliver");
    assert_eq!(delivery["attempts"][1]["plugin"], Value::Null);
    same(&target.requests("/t"));
}

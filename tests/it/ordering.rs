//! Subscriptions whose deliveries have an order.

use serde_json::{Value, json};

use crate::harness::{Answer, Request, Server, Target, event, event_1_0, merged, wait_until};

/// Sends an event of a run, which is its key.
async fn send(server: &Server, id: &str, run: u32) -> String {
    server.receive(&merged(event_1_0(id), json!({"data": {"run": run}}))).await
}

fn met(target: &Target, path: &str) -> Vec<String> {
    target.requests(path).iter().map(Request::event_id).collect()
}

/// Fails the first `count` requests with this event, and takes all others.
fn fails(target: &Target, path: &str, id: &'static str, mut count: u32, status: u16) {
    target.script(path, move |request| {
        let fails = request.event_id() == id && count > 0;
        count -= u32::from(fails);
        Answer::status(if fails { status } else { 204 })
    });
}

async fn all_met(target: &Target, path: &str, wanted: &[&str]) {
    wait_until(&format!("{path} gets {wanted:?}"), async || (met(target, path) == wanted).then_some(()))
        .await;
}

#[tokio::test]
async fn first_in_first_out_waits_for_one_that_fails() {
    let (server, target) = (Server::with(&["--retry-schedule", "30ms,30ms"]).await, Target::start().await);
    fails(&target, "/t", "a", 2, 500);
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "ordering": "fifo"})).await;
    assert_eq!(server.subscription(&uuid).await["on_dead"], "continue");
    for (number, id) in ["a", "b", "c"].into_iter().enumerate() {
        send(&server, id, u32::try_from(number).unwrap()).await;
    }
    all_met(&target, "/t", &["a", "a", "a", "b", "c"]).await;
}

#[tokio::test]
async fn other_keys_go_on_beside_one_that_fails() {
    let (server, target) = (Server::with(&["--retry-schedule", "30d"]).await, Target::start().await);
    fails(&target, "/t", "1-a", 1, 500);
    let ordering = json!({"key": "$.data.run"});
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "ordering": ordering})).await;
    let first = send(&server, "1-a", 1).await;
    server.delivery_in(&first, &uuid, "retrying").await;
    let second = send(&server, "1-b", 1).await;
    for id in ["2-a", "2-b", "3-a"] {
        let id = send(&server, id, id.as_bytes()[0].into()).await;
        server.delivery_in(&id, &uuid, "delivered").await;
    }
    let waiting = server.delivery(&second, &uuid).await;
    assert_eq!(
        (&waiting["state"], &waiting["held"]["by"]),
        (&json!("pending"), &json!("order")),
        "{waiting}"
    );
    // What is sent again is the head of its key, and lets the next go.
    server.post(&format!("/events/{first}/retry?subscription={uuid}"), &Value::Null).await.ok();
    server.delivery_in(&second, &uuid, "delivered").await;
    let of_1: Vec<_> = met(&target, "/t").into_iter().filter(|id| id.starts_with("1-")).collect();
    assert_eq!(of_1, ["1-a", "1-a", "1-b"]);
}

#[tokio::test]
async fn a_dead_letter_lets_the_next_go_or_stops_it_until_it_is_sent_again() {
    for on_dead in ["continue", "stop"] {
        let (mut server, target) = (Server::with(&["--retry-schedule", "30d"]).await, Target::start().await);
        fails(&target, "/t", "a", 1, 415);
        let fields = json!({"target_url": target.url("/t"), "ordering": "fifo", "on_dead": on_dead});
        let uuid = server.subscribe(fields).await;
        let (first, second) = (send(&server, "a", 1).await, send(&server, "b", 1).await);
        server.delivery_in(&first, &uuid, "dead").await;
        if on_dead == "continue" {
            server.delivery_in(&second, &uuid, "delivered").await;
            continue;
        }
        let held = server.delivery(&second, &uuid).await;
        assert_eq!((&held["state"], &held["held"]["by"]), (&json!("pending"), &json!("order")), "{held}");
        let shown = server.subscription(&uuid).await;
        assert_eq!(shown["held"]["by"], "order", "{shown}");
        // It is a fact of the store: a restart changes nothing.
        server.kill9();
        server.restart().await;
        let third = send(&server, "c", 1).await;
        assert_eq!(server.delivery(&second, &uuid).await["state"], "pending");
        server.post(&format!("/events/{first}/retry?subscription={uuid}"), &Value::Null).await.ok();
        server.delivery_in(&third, &uuid, "delivered").await;
        assert_eq!(met(&target, "/t"), ["a", "a", "b", "c"]);
        assert_eq!(server.subscription(&uuid).await["held"], Value::Null);
    }
}

#[tokio::test]
async fn a_replay_comes_before_what_is_new() {
    let (server, target) =
        (Server::with(&["--recover-events-per-second", "50"]).await, Target::start().await);
    let mut wanted = Vec::new();
    for number in 0..60 {
        send(&server, &format!("old-{number}"), 1).await;
        wanted.push(format!("old-{number}"));
    }
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "ordering": "fifo"})).await;
    let since = json!({"since": "earliest"});
    assert_eq!(server.post(&format!("/eventmatch/{uuid}/recover"), &since).await.status, 202);
    for number in 0..5 {
        send(&server, &format!("new-{number}"), 1).await;
        wanted.push(format!("new-{number}"));
    }
    wait_until("all to come", async || (met(&target, "/t").len() >= wanted.len()).then_some(())).await;
    assert_eq!(met(&target, "/t"), wanted);
}

#[tokio::test]
async fn a_change_of_the_order_takes_effect_and_is_shown() {
    let (server, target) = (Server::with(&["--retry-schedule", "30d"]).await, Target::start().await);
    fails(&target, "/t", "a", 1, 500);
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "ordering": "fifo"})).await;
    let (first, second) = (send(&server, "a", 1).await, send(&server, "b", 2).await);
    server.delivery_in(&first, &uuid, "retrying").await;
    assert_eq!(server.delivery(&second, &uuid).await["state"], "pending");
    let shown = server.update(&uuid, &json!({"ordering": {"key": "$.data.run"}})).await;
    assert_eq!(shown["ordering"], json!({"key": "$.data.run"}));
    server.delivery_in(&second, &uuid, "delivered").await;
    let shown = server.update(&uuid, &json!({"ordering": null})).await;
    assert_eq!((&shown["ordering"], &shown["on_dead"]), (&Value::Null, &json!("continue")));
    // Events of another form have no such key, and are one lane.
    server.update(&uuid, &json!({"ordering": {"key": "$.data.run"}})).await;
    let ids = [server.receive(&event("x")).await, server.receive(&event("y")).await];
    for id in &ids {
        server.delivery_in(id, &uuid, "delivered").await;
    }
    assert_eq!(met(&target, "/t")[2..], ["x", "y"]);
}

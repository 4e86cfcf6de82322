//! A plugin's state: each delivery sees the changes of earlier ones, and is counted exactly once.

use futures_util::future::join_all;
use serde_json::json;

use super::probing;
use crate::harness::{Server, Target, event_1_0};

/// Returns the numbers that a path got, in order and each once.
fn numbers(target: &Target, path: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = target.requests(path).iter().map(|got| got.text().parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[tokio::test]
async fn a_hundred_events_at_once_are_counted_one_after_the_other() {
    let (server, target) = (Server::start().await, Target::start().await);
    probing(&server, &target.url("/t"), json!({"count": "n", "transform": "count"})).await;
    let ids: Vec<_> = (0..100).map(|n| event_1_0(&n.to_string())).collect();
    join_all(ids.iter().map(|event| server.receive(event))).await;
    target.wait_for("/t", 100).await;
    assert_eq!(numbers(&target, "/t"), (1..=100).collect::<Vec<_>>());
    assert_eq!(target.requests("/t").len(), 100);
}

#[tokio::test]
async fn each_event_is_counted_once_even_if_the_process_is_killed_repeatedly() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let uuid = probing(&server, &target.url("/t"), json!({"count": "n", "transform": "count"})).await;
    let mut all = Vec::new();
    for round in 0..4 {
        let events: Vec<_> = (0..25).map(|n| event_1_0(&format!("{round}-{n}"))).collect();
        all.extend(join_all(events.iter().map(|event| server.receive(event))).await);
        target.wait_for("/t", round * 25 + 5).await;
        server.kill9();
        server.restart().await;
    }
    for id in &all {
        server.delivery_in(id, &uuid, "delivered").await;
    }
    // A repeat after a crash has the same number, since it is the same event.
    assert_eq!(numbers(&target, "/t"), (1..=100).collect::<Vec<_>>());
    let ids: std::collections::HashSet<_> = target
        .requests("/t")
        .iter()
        .map(|got| (got.webhook_id().to_owned(), got.text().to_owned()))
        .collect();
    assert_eq!(ids.len(), 100);
}

#[tokio::test]
async fn a_skip_changes_the_state_and_a_failed_call_does_not() {
    let server = Server::with(&["--retry-schedule", "none"]).await;
    let target = Target::start().await;
    let uuid = probing(&server, &target.url("/t"), json!({"count": "n", "transform": "panic: x"})).await;
    let failed = server.receive(&event_1_0("fails")).await;
    server.delivery_in(&failed, &uuid, "dead").await;
    let config = json!({"count": "n", "filter": "no: not now", "transform": "count"});
    server.update(&uuid, &json!({"plugin": {"config": config}, "disabled": null})).await;
    let skipped = server.receive(&event_1_0("skipped")).await;
    server.delivery_in(&skipped, &uuid, "skipped").await;
    server.update(&uuid, &json!({"plugin": {"config": {"count": "n", "transform": "count"}}})).await;
    server.receive(&event_1_0("third")).await;
    assert_eq!(
        target.wait_for("/t", 1).await[0].text(),
        "2",
        "the skipped one counts, the failed one does not"
    );
}

#[tokio::test]
async fn state_is_removed_together_with_the_plugin() {
    let (server, target) = (Server::start().await, Target::start().await);
    let config = json!({"count": "n", "transform": "count"});
    let uuid = probing(&server, &target.url("/t"), config.clone()).await;
    let digest = server.subscription(&uuid).await["plugin"]["digest"].clone();
    server.receive(&event_1_0("a")).await;
    target.wait_for("/t", 1).await;
    server.update(&uuid, &json!({"plugin": null})).await;
    server.update(&uuid, &json!({"plugin": {"digest": digest, "config": config}})).await;
    server.receive(&event_1_0("b")).await;
    assert_eq!(target.wait_for("/t", 2).await[1].text(), "1");
}

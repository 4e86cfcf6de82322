//! One subscription's bad target or slow policy harms that subscription alone.

use serde_json::{Value, json};

use crate::harness::{Answer, Api, Gate, Server, Target, event};

const BATCH: &str = "application/cloudevents-batch+json";

/// Posts `count` events as one batch and returns their ids.
async fn burst(api: &Api, count: usize) -> Vec<String> {
    let events: Vec<Value> = (0..count).map(|n| event(&n.to_string())).collect();
    let ids = api.receive_as(BATCH, json!(events).to_string()).await.ok().text();
    ids.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_hanging_target_delays_no_other() {
    let flags = ["--in-flight-max", "8", "--subscription-in-flight-max", "4"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    let gate = target.hang_after("/hanging", 10);
    let hanging = server.subscribe(json!({"target_url": target.url("/hanging")})).await;
    let fast = server.subscribe(json!({"target_url": target.url("/fast")})).await;
    let ids = burst(&server, 400).await;
    target.wait_for("/fast", 400).await;
    assert!(target.requests("/hanging").len() <= 14, "it has as many under way as one subscription may");
    server.delivery_in(&ids[399], &fast, "delivered").await;
    assert_ne!(server.delivery(&ids[399], &hanging).await["state"], "delivered");
    gate.open();
    target.wait_for("/hanging", 400).await;
    assert!(target.peak("/hanging") <= 4 && target.peak("/fast") <= 4);
}

#[tokio::test]
async fn more_hanging_targets_than_attempts_allowed_in_all_delay_no_other() {
    let flags = ["--in-flight-max", "4", "--subscription-in-flight-max", "4"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    for n in 0..10 {
        let path = format!("/hanging-{n}");
        target.hang_after(&path, 5);
        server.user(&format!("u{n}")).subscribe(json!({"target_url": target.url(&path)})).await;
    }
    server.subscribe(json!({"target_url": target.url("/fast")})).await;
    burst(&server, 200).await;
    target.wait_for("/fast", 200).await;
    for n in 0..10 {
        assert!(target.peak(&format!("/hanging-{n}")) <= 4);
    }
}

#[tokio::test]
async fn a_failing_target_delays_no_other() {
    let flags = ["--in-flight-max", "8", "--subscription-in-flight-max", "4", "--retry-schedule", "1h"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    target.always("/failing", Answer::status(500));
    let failing = server.subscribe(json!({"target_url": target.url("/failing")})).await;
    server.subscribe(json!({"target_url": target.url("/fast")})).await;
    let ids = burst(&server, 200).await;
    target.wait_for("/fast", 200).await;
    target.wait_for("/failing", 200).await;
    server.delivery_in(&ids[199], &failing, "retrying").await;
    burst(&server, 50).await;
    target.wait_for("/fast", 250).await;
}

#[tokio::test]
async fn one_users_slow_policy_delays_no_other() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let gate = Gate::closed();
    policy.always("/events/slow", Answer::status(200).after(&gate));
    let url = policy.url("");
    let flags = ["--policy-url", &url, "--in-flight-max", "8", "--subscription-in-flight-max", "4"];
    let server = Server::with(&flags).await;
    server.user("slow").subscribe(json!({"target_url": target.url("/slow")})).await;
    server.user("quick").subscribe(json!({"target_url": target.url("/quick")})).await;
    burst(&server, 200).await;
    target.wait_for("/quick", 200).await;
    assert!(target.requests("/slow").is_empty());
    gate.open();
    target.wait_for("/slow", 200).await;
}

#[tokio::test]
async fn a_hanging_target_does_not_delay_accepting() {
    let flags = ["--in-flight-max", "2", "--subscription-in-flight-max", "2"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    target.always("/hanging", Answer::status(200).after(&Gate::closed()));
    server.subscribe(json!({"target_url": target.url("/hanging")})).await;
    for _ in 0..10 {
        burst(&server, 50).await;
        server.get("/readyz").await.ok();
    }
    assert!(target.requests("/hanging").len() <= 2);
}

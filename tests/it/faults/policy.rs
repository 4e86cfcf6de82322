//! A policy server that flaps, is slow, redirects, or breaks off.

use std::time::Duration;

use serde_json::json;

use super::Scene;
use crate::harness::{Act, Answer, RawTarget, Target};

async fn scene(policy: &str) -> Scene {
    Scene::with(&["--policy-url", policy, "--policy-timeout-ms", "1000", "--retry-schedule", "none"]).await
}

/// Sends events, and checks that those of the user whom policy answers well go on; returns the scene.
async fn beside(policy: &Target, name: &str) -> Scene {
    policy.always("/events/healthy", Answer::status(204));
    let mut scene = scene(&policy.url("")).await;
    scene.subscribe(name, json!({"target_url": scene.healthy.url("/other")})).await;
    for _ in 0..20 {
        scene.send().await;
    }
    scene
}

#[tokio::test]
async fn a_policy_server_that_flaps_holds_and_loses_nothing() {
    let policy = Target::start().await;
    let mut asked = 0;
    policy.script("/events/flapping", move |_| {
        asked += 1;
        match asked % 4 {
            0 => Answer::status(200),
            1 => Answer::status(500),
            2 => Answer::drop_connection(),
            _ => Answer::status(503).header("retry-after", "0"),
        }
    });
    let scene = beside(&policy, "flapping").await;
    assert_eq!(scene.counts("flapping").await["dead"], 0);
    policy.always("/events/flapping", Answer::status(204));
    assert_eq!(scene.ends("flapping").await, (20, 0));
    assert_eq!(scene.healthy.requests("/other").len(), 20, "and each once");
    scene.close().await;
}

#[tokio::test]
async fn a_policy_server_that_hangs_for_one_user_holds_only_that_users_deliveries() {
    let policy = Target::start().await;
    let gate = policy.hang("/events/slow");
    let scene = beside(&policy, "slow").await;
    assert_eq!(scene.healthy.requests("/other").len(), 0);
    gate.open();
    assert_eq!(scene.ends("slow").await, (20, 0));
    scene.close().await;
}

/// A redirect is no answer: following it would send events to where nobody configured it, and a 2xx there would allow them.
#[tokio::test]
async fn a_policy_server_that_redirects_has_not_answered() {
    let (policy, elsewhere) = (Target::start().await, Target::start().await);
    elsewhere.always("/allowed", Answer::status(204));
    let (mut number, to) = (0, elsewhere.url("/allowed"));
    policy.script("/events/redirected", move |_| {
        number += 1;
        Answer::status([300, 301, 302, 303, 304, 307, 308][number % 7]).header("location", to.clone())
    });
    let scene = beside(&policy, "redirected").await;
    let counts = scene.counts("redirected").await;
    assert_eq!((&counts["delivered"], &counts["dead"], &counts["denied"]), (&json!(0), &json!(0), &json!(0)));
    assert!(elsewhere.all().is_empty() && scene.healthy.requests("/other").is_empty());
    policy.always("/events/redirected", Answer::status(204));
    assert_eq!(scene.ends("redirected").await, (20, 0));
    scene.close().await;
}

/// Policy answers over raw connections: what is no whole head is no answer.
#[tokio::test]
async fn a_policy_server_that_answers_nonsense_holds_until_it_answers_well() {
    let mut asked = 0;
    let policy = RawTarget::start(move |request| {
        if request.line().contains("/events/healthy") {
            return Act::Answer("HTTP/1.1 204 No Content\r\n\r\n".into());
        }
        asked += 1;
        match asked {
            1 => Act::Last("HTTP/1.1 2".into()),
            2 => Act::Stall("HTTP/1.1 200 OK\r\nX: ".into()),
            3 => Act::Endless("HTTP/1.1 200 OK\r\n".into(), "X-A: b\r\n".repeat(1_000).into()),
            4 => Act::Endless(Vec::new(), "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100).into()),
            5 => Act::Last(vec![0xff; 4_096]),
            _ => Act::Answer("HTTP/1.1 204 No Content\r\n\r\n".into()),
        }
    })
    .await;
    let mut scene = scene(&policy.url("")).await;
    scene.subscribe("nonsense", json!({"target_url": scene.healthy.url("/other")})).await;
    for _ in 0..5 {
        scene.send().await;
    }
    assert_eq!(scene.ends("nonsense").await, (5, 0));
    assert_eq!(scene.healthy.requests("/other").len(), 5, "and each once");
    tokio::time::timeout(Duration::from_secs(10), scene.close()).await.unwrap();
}

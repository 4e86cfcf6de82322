//! The effects of a plugin's verdicts and outputs.

use serde_json::{Value, json};

use super::{probing, using};
use crate::harness::{Answer, Server, Target, event_1_0, run_in};

#[tokio::test]
async fn a_filter_delivers_or_skips_and_the_story_says_why() {
    let (server, target) = (Server::start().await, Target::start().await);
    let config = json!({"filter": "no: too small", "log": "looking"});
    let skipping = probing(&server, &target.url("/skipped"), config).await;
    let passing = using(&server, waypost_guests::SIEVE, &target.url("/passed"), json!({})).await;
    let id = server.receive(&event_1_0("a")).await;
    let skipped = server.delivery_in(&id, &skipping, "skipped").await;
    assert_eq!(skipped["reason"], "too small");
    let attempt = &skipped["attempts"][0];
    assert_eq!((&attempt["outcome"], &attempt["reason"]), (&json!("skipped"), &json!("too small")));
    let run = &attempt["plugin"];
    assert_eq!((&run["verdict"], &run["reason"]), (&json!("skipped"), &json!("too small")));
    assert_eq!(run["answered"], json!(["policy", "filter"]));
    let line = json!({"level": "info", "message": "looking", "fields": [["from", "filter"]]});
    assert_eq!(run["logs"], json!([line]));
    assert!(run["took_ms"].as_f64().unwrap() > 0.0 && run["memory_bytes"].as_u64().unwrap() > 0, "{run}");

    let passed = server.delivery_in(&id, &passing, "delivered").await;
    assert_eq!(passed["attempts"][0]["plugin"]["verdict"], "deliver");
    assert_eq!(target.wait_for("/passed", 1).await[0].json(), event_1_0("a"), "the event as it came");
    assert!(target.requests("/skipped").is_empty());

    let shown = run_in(&server.data(), &["event", "get", &id, "--server", &server.url], &[], "").await.stdout;
    assert!(shown.contains("PLUGIN skipped: too small\n            info: looking  from=filter"), "{shown}");
}

/// A log line or a reason with line breaks looked like lines of the story itself.
#[tokio::test]
async fn a_plugins_text_is_distinguished_from_the_storys_own_lines() {
    let server = Server::start().await;
    let forged = "x\n    ELM 00000000-0000-0000-0000-000000000000 (now) policy 200 target 200\u{202e}";
    let config = json!({"filter": format!("no: {forged}"), "log": forged});
    let uuid = probing(&server, "http://127.0.0.1:9/", config).await;
    let id = server.receive(&event_1_0("a\u{202e}\u{9b}2J")).await;
    let run = server.delivery_in(&id, &uuid, "skipped").await["attempts"][0]["plugin"].clone();
    assert_eq!(run["logs"][0]["message"], forged, "over REST it is what it was");
    let shown = run_in(&server.data(), &["event", "get", &id, "--server", &server.url], &[], "").await.stdout;
    assert_eq!(shown.lines().filter(|line| line.starts_with("    ELM ")).count(), 1, "{shown}");
    let marked = "| \u{20}   ELM 00000000-0000-0000-0000-000000000000 (now) policy 200 target 200\\u{202e}";
    assert!(
        shown.contains(&format!("\n            {marked}\n            info: x\n                {marked}")),
        "{shown}"
    );
    assert!(shown.contains(r#""id": "a\u202e\u009b2J""#), "{shown}");
}

#[tokio::test]
async fn a_plugins_policy_denies_and_a_transform_without_output_skips() {
    let (server, target) = (Server::start().await, Target::start().await);
    let denying = probing(&server, &target.url("/t"), json!({"policy": "no: not your project"})).await;
    let silent = probing(&server, &target.url("/t"), json!({"transform": "none"})).await;
    let id = server.receive(&event_1_0("a")).await;
    let denied = server.delivery_in(&id, &denying, "denied").await;
    assert_eq!(denied["reason"], "not your project");
    assert_eq!(denied["attempts"][0]["reason"], "not your project");
    assert_eq!(denied["attempts"][0]["plugin"]["answered"], json!(["policy"]));
    let skipped = server.delivery_in(&id, &silent, "skipped").await;
    assert_eq!(skipped["reason"], "the transform made no output");
    server.status_is(&id, "200 OK").await;
    assert!(target.all().is_empty());
}

#[tokio::test]
async fn a_raw_output_is_sent_with_its_own_headers_and_the_subscriptions_auth() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = probing(&server, &target.url("/t"), json!({"transform": "upper"})).await;
    let auth = json!({"auth": {"type": "basic", "basic": {"username": "u", "password": "p"}}});
    server.update(&uuid, &auth).await;
    let id = server.receive(&event_1_0("a")).await;
    let delivery = server.delivery_in(&id, &uuid, "delivered").await;
    let run = &delivery["attempts"][0]["plugin"];
    assert_eq!((&run["verdict"], &run["outputs"]), (&json!("transformed"), &json!(1)));
    let got = target.wait_for("/t", 1).await.remove(0);
    assert_eq!(got.text(), r#"{"N":1}"#);
    assert_eq!((got.header("content-type"), got.header("x-made-by")), ("text/plain", "probe"));
    assert_eq!(got.header("authorization"), "Basic dTpw");
    assert!(got.header("user-agent").starts_with("waypost/"));
    assert_eq!(got.webhook_id(), delivery["id"].as_str().unwrap());
}

#[tokio::test]
async fn an_event_output_is_sent_in_the_form_that_the_subscription_wants() {
    let (server, target) = (Server::start().await, Target::start().await);
    let structured = probing(&server, &target.url("/s"), json!({"transform": "same"})).await;
    let binary = probing(&server, &target.url("/b"), json!({"transform": "same"})).await;
    server.update(&structured, &json!({"extensions": {"team": "x"}})).await;
    server.update(&binary, &json!({"content_mode": "binary", "extensions": {"team": "x"}})).await;
    server.receive(&event_1_0("a")).await;
    let got = target.wait_for("/s", 1).await.remove(0);
    assert_eq!(got.header("content-type"), "application/cloudevents+json");
    let body = got.json();
    assert_eq!((&body["id"], &body["team"], &body["data"]), (&json!("a"), &json!("x"), &json!({"n": 1})));
    let got = target.wait_for("/b", 1).await.remove(0);
    assert_eq!((got.header("ce-id"), got.header("ce-team")), ("a", "x"));
    assert_eq!((got.header("content-type"), got.json()), ("application/json", json!({"n": 1})));
}

#[tokio::test]
async fn of_several_outputs_only_the_refused_ones_are_sent_again() {
    let server = Server::with(&["--retry-schedule", "50ms,50ms"]).await;
    let target = Target::start().await;
    let uuid = probing(&server, &target.url("/t"), json!({"transform": "twice"})).await;
    let refused = || Answer::status(503).body("not now");
    target.answers("/t", [Answer::status(200), refused(), refused()]);
    let id = server.receive(&event_1_0("a")).await;
    let delivery = server.delivery_in(&id, &uuid, "delivered").await;
    let ids: Vec<_> = target.requests("/t").iter().map(|got| got.webhook_id().to_owned()).collect();
    let [first, second, third, fourth] = &ids[..] else { panic!("{ids:?}") };
    assert_eq!(first, delivery["id"].as_str().unwrap());
    assert!(first != second && second == third && third == fourth, "{ids:?}");
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 3);
    let reason = "output 2 of 2: the target answered 503 Service Unavailable";
    assert_eq!((&attempts[0]["reason"], &attempts[0]["target"]["status"]), (&json!(reason), &json!(503)));
    assert_eq!(attempts[0]["plugin"]["outputs"], 2);
    assert_eq!(attempts[1]["plugin"], Value::Null, "it ran once");
}

#[tokio::test]
async fn a_refused_output_does_not_hold_back_the_ones_after_it() {
    let server = Server::with(&["--retry-schedule", "10m"]).await;
    let target = Target::start().await;
    let uuid = probing(&server, &target.url("/t"), json!({"transform": "twice"})).await;
    target.answers("/t", [Answer::status(500)]);
    let id = server.receive(&event_1_0("a")).await;
    let delivery = server.delivery_in(&id, &uuid, "retrying").await;
    assert_eq!(delivery["reason"], "output 1 of 2: the target answered 500 Internal Server Error");
    assert_eq!(target.requests("/t").len(), 2);
}

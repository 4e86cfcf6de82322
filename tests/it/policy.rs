//! The policy server: who may see what, and what happens while it gives no answer (FACTS 5.1).

use std::time::Duration;

use http::Method;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Reserved, Server, Target, event, event_1_0, wait_until};

/// Starts a server that asks `policy`, with these additional flags.
async fn asking(policy: &str, flags: &[&str]) -> Server {
    Server::with(&[&["--policy-url", policy], flags].concat()).await
}

#[tokio::test]
async fn a_2xx_lets_the_event_through_and_policy_sees_the_event() {
    let (policy, target) = (Target::start().await, Target::start().await);
    policy.always("/base/events/alice", Answer::status(204));
    let server = asking(&policy.url("/base"), &[]).await;
    let alice = server.user("alice");
    let subscription = alice.subscribe(json!({"target_url": target.url("/t"), "extensions": {"a": 1}})).await;
    let body = r#"{"cloudEventsVersion":"0.1","eventID":"1","source":"/s","eventType":"t","data":1.10}"#;
    let id = server.receive_as("application/json", body).await.ok().text();
    let asked = policy.wait_for("/base/events/alice", 1).await.remove(0);
    assert_eq!((&asked.method, asked.header("content-type")), (&Method::POST, "application/json"));
    assert_eq!(asked.text(), body, "the event as it is, before the subscription's extensions");
    let delivery = server.delivery_in(&id, &subscription, "delivered").await;
    assert_eq!(delivery["attempts"][0]["policy"]["status"], 204);
}

#[tokio::test]
async fn a_trailing_slash_in_policy_url_makes_no_difference() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let server = asking(&policy.url("/"), &[]).await;
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    server.receive(&event("a")).await;
    target.wait_for("/t", 1).await;
    assert_eq!(policy.all()[0].path, "/events/anonymous");
}

#[tokio::test]
async fn a_4xx_denies_and_the_story_shows_it() {
    let (policy, target) = (Target::start().await, Target::start().await);
    for (status, user) in [(400, "u400"), (401, "u401"), (403, "u403"), (404, "u404")] {
        policy.always(&format!("/events/{user}"), Answer::status(status).body("not for you"));
    }
    let server = asking(&policy.url(""), &[]).await;
    server.subscribe(json!({"target_url": target.url("/allowed")})).await;
    for status in [400, 401, 403, 404] {
        let user = server.user(&format!("u{status}"));
        let subscription = user.subscribe(json!({"target_url": target.url("/denied")})).await;
        let id = server.receive(&event("a")).await;
        let delivery = server.delivery_in(&id, &subscription, "denied").await;
        user.get(&format!("/events/{id}")).await.refused(404);
        let attempt = &delivery["attempts"][0];
        assert_eq!(attempt["policy"], json!({"status": status, "body": "not for you"}));
        assert_eq!((&attempt["target"], &attempt["outcome"]), (&Value::Null, &json!("denied")));
        assert_eq!(user.subscription(&subscription).await["disabled"], Value::Null, "it stays enabled");
        server.status_is(&id, "200 OK").await;
    }
    target.wait_for("/allowed", 4).await;
    assert!(target.requests("/denied").is_empty());
}

/// A user who subscribed to everything could read over REST what policy denied him; and a user who made a subscription for
/// each guess learned from `denied` which guess was right.
#[tokio::test]
async fn a_user_cannot_read_over_rest_what_policy_has_not_let_him_see() {
    let (policy, target) = (Target::start().await, Target::start().await);
    policy.always("/events/mallory", Answer::status(403));
    policy.always("/events/eve", Answer::status(500));
    let server = asking(&policy.url(""), &["--retry-schedule", "1h"]).await;
    for (name, state) in [("mallory", "denied"), ("eve", "retrying"), ("alice", "delivered")] {
        let user = server.user(name);
        let subscription = user.subscribe(json!({"target_url": target.url("/t")})).await;
        let id = server.receive(&event("secret")).await;
        server.delivery_in(&id, &subscription, state).await;
        let may = name == "alice";
        let story = user.get(&format!("/events/{id}")).await;
        assert_eq!(story.status, if may { 200 } else { 404 });
        assert_eq!(story.text().contains("secret"), may, "{}", story.text());
        let own = format!("/eventmatch/{subscription}/deliveries");
        let known = user.get(&own).await.ok().json();
        assert_eq!(known["deliveries"].as_array().unwrap().len(), usize::from(may), "{known}");
        assert_eq!((&known["next"], &known["counts"]["denied"]), (&Value::Null, &Value::Null), "{known}");
        assert_eq!(known["counts"]["delivered"], json!(u8::from(may)), "{known}");
        // Without an answer from policy, the delivery is held.
        let state = if name == "eve" { "held" } else { state };
        assert_eq!(server.get(&own).await.ok().json()["counts"][state], 1, "an admin knows");
        assert_eq!(user.get(&format!("/status/{id}")).await.status, if may { 200 } else { 404 });
        let list = user.get("/events").await.ok().json();
        assert_eq!(list["events"].as_array().unwrap().is_empty(), !may, "{list}");
        assert_eq!(user.get("/").await.ok().json() == json!([]), !may);
        assert_eq!(user.get(&format!("/get/{id}")).await.status, if may { 200 } else { 404 });
        assert_eq!(server.story(&id).await["event"], event("secret"), "its sender and the admin may");
    }
}

/// Answers were cached for five minutes: a redelivery was denied again although policy allowed it by then.
#[tokio::test]
async fn a_redelivery_asks_policy_again() {
    let (policy, target) = (Target::start().await, Target::start().await);
    policy.answers("/events/alice", [Answer::status(403)]);
    let server = asking(&policy.url(""), &[]).await;
    let subscription = server.user("alice").subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &subscription, "denied").await;
    server.post(&format!("/events/{id}/retry"), &json!({})).await.ok();
    server.delivery_in(&id, &subscription, "delivered").await;
    assert_eq!(policy.requests("/events/alice").len(), 2);
}

/// Waits until a delivery is held by `by`, and returns it.
async fn held(api: &Api, id: &str, subscription: &str, by: &str) -> Value {
    wait_until(&format!("the delivery of {id} is held by {by}"), async || {
        let delivery = api.delivery(id, subscription).await;
        (delivery["held"]["by"] == by).then_some(delivery)
    })
    .await
}

#[tokio::test]
async fn without_an_answer_the_event_is_held_until_policy_allows_it() {
    let (policy, target) = (Target::start().await, Target::start().await);
    // A request on a kept connection that is closed is repeated at once: only the second one counts as unanswered.
    let dropped = || Answer::drop_connection();
    policy.answers("/events/anonymous", [Answer::status(500).body("oops"), dropped(), dropped()]);
    let server = asking(&policy.url(""), &["--retry-schedule", "none"]).await;
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    let delivery = server.delivery_in(&id, &subscription, "delivered").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1, "only the target counts: {delivery}");
    assert_eq!(delivery["attempts"][0]["target"]["status"], 200);
    assert_eq!(delivery["held"], Value::Null);
    assert_eq!(policy.requests("/events/anonymous").len(), 4);
    assert_eq!(target.requests("/t").len(), 1);
}

/// When a policy server was down for as long as the schedule lasts, all deliveries became dead letters and all subscriptions
/// were disabled.
#[tokio::test]
async fn an_unavailable_policy_holds_deliveries_and_disables_no_subscription() {
    let (policy, target) = (Target::start().await, Target::start().await);
    policy.always("/events/anonymous", Answer::status(503).body("database away"));
    policy.always("/events/red", Answer::status(302).header("location", target.url("/t")));
    let server = asking(&policy.url(""), &["--retry-schedule", "none"]).await;
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let red = server.user("red");
    let redirected = red.subscribe(json!({"target_url": target.url("/t")})).await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(server.receive(&event(&n.to_string())).await);
    }
    for id in &ids {
        let delivery = held(&server, id, &subscription, "policy").await;
        assert!(
            ["pending", "retrying", "delivering"].iter().any(|state| delivery["state"] == *state),
            "{delivery}"
        );
        assert_eq!(delivery["attempts"], json!([]), "nothing is counted");
    }
    held(&server, &ids[0], &redirected, "policy").await;
    red.get(&format!("/events/{}", ids[0])).await.refused(404);
    let first = wait_until("its answer is told", async || {
        // It has no reason while policy is being asked again.
        let delivery = server.delivery(&ids[0], &subscription).await;
        delivery["reason"].is_string().then_some(delivery)
    })
    .await;
    assert!(first["reason"].as_str().unwrap().contains("database away"), "{first}");
    let list = server.get(&format!("/eventmatch/{subscription}/deliveries")).await.ok().json();
    assert_eq!(list["deliveries"][9]["held"], first["held"], "{list}");
    policy.wait_for("/events/anonymous", 6).await;
    assert_eq!(server.subscription(&subscription).await["disabled"], Value::Null);
    assert_eq!(red.subscription(&redirected).await["disabled"], Value::Null);
    assert!(target.all().is_empty(), "neither a 5xx nor a redirect lets an event through");
    policy.always("/events/anonymous", Answer::status(200));
    for id in &ids {
        let delivery = server.delivery_in(id, &subscription, "delivered").await;
        assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_event_without_an_answer_from_policy_delays_no_other() {
    let (policy, target) = (Target::start().await, Target::start().await);
    policy.script("/events/anonymous", |request| {
        Answer::status(if request.event_id().starts_with("poison") { 500 } else { 200 })
    });
    let server = asking(&policy.url(""), &["--retry-schedule", "none"]).await;
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let mut poisons = Vec::new();
    for n in 0..20 {
        poisons.push(server.receive(&event(&format!("poison-{n}"))).await);
        server.receive(&event(&format!("good-{n}"))).await;
    }
    target.wait_for("/t", 20).await;
    for id in &poisons {
        held(&server, id, &subscription, "policy").await;
    }
    assert_eq!(server.subscription(&subscription).await["disabled"], Value::Null);
    assert_eq!(target.requests("/t").len(), 20);
}

#[tokio::test]
async fn policy_down_and_back_loses_nothing() {
    let (down, target) = (Reserved::new(), Target::start().await);
    let server = asking(&down.url(""), &["--retry-schedule", "none"]).await;
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(server.receive(&event(&n.to_string())).await);
    }
    for id in &ids {
        held(&server, id, &subscription, "policy").await;
    }
    assert!(target.all().is_empty());
    let _back = down.open();
    for id in &ids {
        server.delivery_in(id, &subscription, "delivered").await;
    }
    assert_eq!(target.requests("/t").len(), ids.len());
    assert_eq!(server.subscription(&subscription).await["disabled"], Value::Null);
}

#[tokio::test]
async fn a_policy_request_that_hangs_ends_at_its_timeout() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let gate = policy.hang("/events/anonymous");
    let server = asking(&policy.url(""), &["--retry-schedule", "none", "--policy-timeout-ms", "150"]).await;
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    let reason = wait_until("it is told why it is held", async || {
        let delivery = server.delivery(&id, &subscription).await;
        let reason = delivery["reason"].as_str().filter(|_| delivery["held"]["by"] == "policy");
        reason.map(str::to_owned)
    })
    .await;
    assert!(reason.contains("did not answer in time"), "{reason}");
    let asked = policy.wait_for("/events/anonymous", 2).await;
    let apart = asked[1].at - asked[0].at;
    assert!(apart < Duration::from_secs(10), "{apart:?}: the default of the timeout is 10 s");
    assert!(target.all().is_empty());
    gate.open();
    server.delivery_in(&id, &subscription, "delivered").await;
}

#[tokio::test]
async fn one_query_serves_all_matching_subscriptions_of_a_user() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let server = asking(&policy.url(""), &[]).await;
    for (user, path) in [("alice", "/1"), ("alice", "/2"), ("alice", "/3"), ("bob", "/4")] {
        server.user(user).subscribe(json!({"target_url": target.url(path)})).await;
    }
    server.user("carol").subscribe(json!({"target_url": target.url("/5"), "jsonpath": "$.nothing"})).await;
    for round in 1..=5 {
        let id = server.receive(&event(&round.to_string())).await;
        for path in ["/1", "/2", "/3", "/4"] {
            target.wait_for(path, round).await;
        }
        server.status_is(&id, "200 OK").await;
        assert_eq!(policy.requests("/events/alice").len(), round, "one a user and event");
        assert_eq!(policy.requests("/events/bob").len(), round);
    }
    assert!(policy.requests("/events/carol").is_empty(), "nothing of hers matches");
}

#[tokio::test]
async fn the_user_is_percent_encoded_in_the_path() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let server = asking(&policy.url(""), &[]).await;
    for name in ["ann b", "a/../b", "a?b=c#d", "50%", "u@example.org", "a\\b;c", "..."] {
        server.user(name).subscribe(json!({"target_url": target.url("/t"), "name": name})).await;
        let before = policy.all().len();
        let fresh = server.receive(&event(name)).await;
        server.status_is(&fresh, "200 OK").await;
        let asked: Vec<_> = policy.all().split_off(before).into_iter().map(|request| request.path).collect();
        let users = asked.iter().map(|path| {
            let segment = path.strip_prefix("/events/").unwrap_or_else(|| panic!("{path}"));
            assert!(!segment.contains(['/', '?', '#']), "{path}");
            percent_decode_str(segment).decode_utf8().unwrap().into_owned()
        });
        assert!(users.collect::<Vec<_>>().contains(&name.to_owned()), "{name}: {asked:?}");
    }
}

#[tokio::test]
async fn a_user_named_like_a_folder_cannot_redirect_the_query() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let server = asking(&policy.url("/base"), &["--retry-schedule", "none"]).await;
    let body = json!({"name": "n", "jsonpath": "$", "target_url": target.url("/t")});
    // No URL can contain the first two; the others are escaped once more.
    for (name, status) in [(".", 400), ("..", 400), ("%2e%2e", 200), ("..%2f..", 200)] {
        let reply = server.user(name).post("/eventmatch", &body).await;
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
    }
    server.user("witness").subscribe(json!({"target_url": target.url("/witness")})).await;
    server.receive(&event("a")).await;
    target.wait_for("/witness", 1).await;
    wait_until("policy was asked, or cannot be, about everybody", async || {
        let id = server.get("/events").await.ok().json()["events"][0]["id"].as_str().unwrap().to_owned();
        let story = server.story(&id).await;
        let mut deliveries = story["deliveries"].as_array().unwrap().iter();
        deliveries.all(|one| one["state"] == "delivered" || one["held"]["by"] == "policy").then_some(())
    })
    .await;
    for asked in policy.all() {
        let user =
            asked.path.strip_prefix("/base/events/").unwrap_or_else(|| panic!("asked at {}", asked.path));
        assert!(!user.is_empty() && !user.contains('/'), "asked at {}", asked.path);
    }
}

#[tokio::test]
async fn a_1_0_or_binary_event_reaches_policy_as_json() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let server = asking(&policy.url(""), &[]).await;
    server.subscribe(json!({"target_url": target.url("/t"), "content_mode": "binary"})).await;
    server.receive(&event_1_0("a")).await;
    let asked = policy.wait_for("/events/anonymous", 1).await.remove(0);
    assert_eq!(asked.json(), event_1_0("a"));
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "b"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("content-type", "text/plain"),
    ];
    server.send(Method::POST, "/receive", &headers, "words").await.ok();
    let asked = policy.wait_for("/events/anonymous", 2).await.remove(1);
    assert_eq!(asked.header("content-type"), "application/json");
    assert_eq!((&asked.json()["id"], &asked.json()["type"]), (&json!("b"), &json!("t")));
}

#[tokio::test]
async fn without_a_policy_url_serve_says_that_everyone_sees_everything() {
    let server = Server::start().await;
    let says = |server: &Server| {
        let log = server.log();
        let warns = |line: &str| line.contains("WARN") && line.contains("every user may see every event");
        log.lines().any(warns)
    };
    assert!(says(&server), "{}", server.log());
    let policy = Target::start().await;
    let asking = asking(&policy.url(""), &[]).await;
    assert!(!says(&asking), "{}", asking.log());
}

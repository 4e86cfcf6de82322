//! When a target fails: retries, dead letters, and a backlog that waits.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Gate, Reserved, Server, Target, event, event_1_0};

const BATCH: &str = "application/cloudevents-batch+json";

// Retries

/// Dead letters in a long log could only be found by reading all of it.
#[tokio::test]
async fn deliveries_are_listed_and_counted_by_state() {
    let (server, target) = (Server::with(&["--retry-schedule", "30d"]).await, Target::start().await);
    target.script("/t", |request| match request.event_id().as_bytes()[0] {
        b'd' => Answer::status(410),
        b'r' => Answer::status(503),
        _ => Answer::status(200),
    });
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let mut ids = std::collections::HashMap::new();
    for (event_id, state) in [("a", "delivered"), ("r1", "retrying"), ("b", "delivered"), ("d1", "dead")] {
        let id = server.receive(&event(event_id)).await;
        server.delivery_in(&id, &uuid, state).await;
        ids.insert(event_id, id);
    }
    let path = format!("/eventmatch/{uuid}/deliveries");
    let list = async |query: &str| {
        let page = server.get(&format!("{path}?{query}")).await.ok().json();
        let deliveries = page["deliveries"].as_array().unwrap().clone();
        let events: Vec<_> = deliveries.iter().map(|it| it["event"].as_str().unwrap().to_owned()).collect();
        (events, page["next"].clone())
    };
    assert_eq!(list("state=dead").await, (vec![ids["d1"].clone()], Value::Null));
    assert_eq!(list("state=retrying").await.0, [ids["r1"].clone()]);
    assert!(list("state=held").await.0.is_empty());
    let (first, next) = list("state=delivered&limit=1").await;
    assert_eq!(first, [ids["b"].clone()]);
    let next = server.get(next.as_str().unwrap()).await.ok().json();
    assert_eq!(next["deliveries"][0]["event"], ids["a"]);
    assert_eq!(list("limit=9").await.0.len(), 4);
    server.get(&format!("{path}?state=lost")).await.refused(400).says("pending, retrying, held");
    let page = server.get(&path).await.ok().json();
    assert_eq!(
        page["counts"],
        json!({"pending": 0, "retrying": 1, "held": 0, "delivered": 2, "denied": 0, "skipped": 0, "dead": 1})
    );
    assert_eq!(server.subscription(&uuid).await["counts"], page["counts"]);
    let received = |place: usize| page["deliveries"][place]["received"].as_str().unwrap().to_owned();
    // The newest is the first.
    let (d1, b, r1) = (received(0), received(1), received(2));
    assert_eq!(list(&format!("since={b}")).await.0, [ids["d1"].clone(), ids["b"].clone()]);
    assert_eq!(list(&format!("since={b}&until={d1}")).await.0, [ids["b"].clone()]);
    assert_eq!(list(&format!("state=retrying&until={b}")).await.0, [ids["r1"].clone()]);
    assert!(list(&format!("state=retrying&until={r1}")).await.0.is_empty());
    assert!(list(&format!("state=dead&since={d1}&until={b}")).await.0.is_empty());
    server.get(&format!("{path}?since=yesterday")).await.refused(400);
}

#[tokio::test]
async fn a_failure_is_retried_with_the_same_id_and_bytes_until_it_succeeds() {
    let (server, target) =
        (Server::with(&["--retry-schedule", "50ms,50ms,50ms"]).await, Target::start().await);
    // A request on a kept connection that is closed is repeated at once: only the second one is the target's failure.
    let dropped = || Answer::drop_connection();
    target.answers("/t", [Answer::status(503).body("later"), dropped(), dropped(), Answer::status(404)]);
    let subscription =
        server.subscribe(json!({"target_url": target.url("/t"), "extensions": {"a": 1}})).await;
    let id = server.receive(&event("a")).await;
    let got = target.wait_for("/t", 5).await;
    assert!(got.iter().all(|request| request.webhook_id() == got[0].webhook_id()));
    assert!(got.iter().all(|request| request.body == got[0].body));
    let delivery = server.delivery_in(&id, &subscription, "delivered").await;
    assert_eq!(delivery["id"], got[0].webhook_id());
    let attempts = delivery["attempts"].as_array().unwrap();
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["retry", "retry", "retry", "delivered"]);
    assert_eq!(attempts[0]["target"], json!({"status": 503, "body": "later"}));
    assert_eq!(attempts[1]["target"], Value::Null, "no answer came");
    assert!(!attempts[1]["reason"].as_str().unwrap().is_empty());
    assert_eq!(attempts[2]["target"]["status"], 404);
    assert!(attempts.iter().enumerate().all(|(place, attempt)| attempt["number"] == place + 1));
    assert_eq!(server.subscription(&subscription).await["disabled"], Value::Null);
}

/// A delivery whose retry was due before its last attempt was recorded used to wait for the half-minute sweep.
#[tokio::test]
async fn retries_that_are_due_at_once_are_not_forgotten() {
    let (server, target) =
        (Server::with(&["--retry-schedule", "1ms,1ms,1ms,1ms"]).await, Target::start().await);
    let mut tries = std::collections::HashMap::<String, u32>::new();
    target.script("/t", move |request| {
        let tries = tries.entry(request.event_id()).or_default();
        *tries += 1;
        Answer::status(if *tries < 4 { 503 } else { 200 })
    });
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    for round in 0..20 {
        let id = server.receive(&event(&round.to_string())).await;
        server.delivery_in(&id, &subscription, "delivered").await;
    }
    let got = target.requests("/t");
    assert_eq!(got.len(), 80);
    for attempts in got.chunks(4) {
        let longest = attempts.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
        assert!(longest < Duration::from_secs(15), "it waited {longest:?}: for the sweep");
    }
}

#[tokio::test]
async fn a_used_up_schedule_makes_a_dead_letter_and_disables_with_the_error() {
    let (server, target) = (Server::with(&["--retry-schedule", "20ms,20ms"]).await, Target::start().await);
    target.always("/t", Answer::status(500).body("the disk is on fire"));
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let before = server.subscription(&subscription).await;
    let id = server.receive(&event("a")).await;
    let disabled = server.disabled(&subscription).await;
    assert!(disabled["error"].as_str().unwrap().contains("the disk is on fire"), "{disabled}");
    assert_eq!(disabled["updated"], before["updated"], "the owner has changed nothing");
    let delivery = server.delivery_in(&id, &subscription, "dead").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 3);
    assert!(!delivery["reason"].as_str().unwrap().is_empty());
    server.status_is(&id, "500 Internal Server Error").await;
    let next = server.receive(&event("b")).await;
    server.status_is(&next, "422 Unprocessable Entity").await;
    assert_eq!(target.requests("/t").len(), 3);
}

#[tokio::test]
async fn a_dead_letter_does_not_disable_if_another_delivery_succeeded_meanwhile() {
    // The other delivery has the seconds between the two attempts to arrive, however busy the machine is.
    let (server, target) = (Server::with(&["--retry-schedule", "10s"]).await, Target::start().await);
    target.script("/t", |request| Answer::status(if request.event_id() == "bad" { 500 } else { 200 }));
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let bad = server.receive(&event("bad")).await;
    server.delivery_in(&bad, &subscription, "retrying").await;
    let good = server.receive(&event("good")).await;
    server.delivery_in(&good, &subscription, "delivered").await;
    server.delivery_in(&bad, &subscription, "dead").await;
    let after = server.receive(&event("after")).await;
    server.delivery_in(&after, &subscription, "delivered").await;
    assert_eq!(server.subscription(&subscription).await["disabled"], Value::Null);
}

#[tokio::test]
async fn the_schedule_none_is_the_originals_behaviour() {
    let (server, target) = (Server::with(&["--retry-schedule", "none"]).await, Target::start().await);
    target.always("/t", Answer::status(500).body("no"));
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    assert!(server.disabled(&subscription).await["error"].as_str().unwrap().contains("no"));
    let delivery = server.delivery_in(&id, &subscription, "dead").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(target.requests("/t").len(), 1);
}

#[tokio::test]
async fn a_target_that_refuses_connections_disables_with_the_reason() {
    let (server, nobody) = (Server::start().await, Reserved::new());
    let subscription = server.subscribe(json!({"target_url": nobody.url("/t"), "retry": "20ms"})).await;
    let id = server.receive(&event("a")).await;
    let error = server.disabled(&subscription).await["error"].as_str().unwrap().to_lowercase();
    assert!(error.contains("connect") || error.contains("refused"), "{error}");
    let delivery = server.delivery_in(&id, &subscription, "dead").await;
    assert!(delivery["attempts"].as_array().unwrap().iter().all(|attempt| attempt["target"].is_null()));
}

#[tokio::test]
async fn a_subscriptions_own_schedule_and_timeout_take_precedence() {
    let (server, target) = (Server::with(&["--retry-schedule", "none"]).await, Target::start().await);
    let never = Gate::closed();
    target.answers("/slow", [Answer::status(200).after(&never), Answer::status(200)]);
    target.answers("/failing", [Answer::status(500), Answer::status(500)]);
    let slow = json!({"target_url": target.url("/slow"), "timeout_ms": 100, "retry": "20ms"});
    let slow = server.subscribe(slow).await;
    let failing = server.subscribe(json!({"target_url": target.url("/failing"), "retry": "20ms,20ms"})).await;
    let id = server.receive(&event("a")).await;
    let delivery = server.delivery_in(&id, &slow, "delivered").await;
    let first = &delivery["attempts"][0];
    assert_eq!((&first["outcome"], &first["target"]), (&json!("retry"), &Value::Null));
    assert!(first["reason"].as_str().unwrap().contains("100"), "the limit is in the reason: {first}");
    assert!(first["took_ms"].as_u64().unwrap() >= 100);
    let delivery = server.delivery_in(&id, &failing, "delivered").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_services_attempt_timeout_is_the_default() {
    let flags = ["--attempt-timeout-ms", "150", "--retry-schedule", "none"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    target.always("/t", Answer::status(200).after(&Gate::closed()));
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    server.receive(&event("a")).await;
    assert!(server.disabled(&subscription).await["error"].is_string());
}

#[tokio::test]
async fn max_in_flight_bounds_concurrent_requests_to_a_target() {
    let (server, target) = (Server::start().await, Target::start().await);
    // The window grows with successes, so the first ten pass.
    let gate = target.hang_after("/t", 10);
    let subscription = server.subscribe(json!({"target_url": target.url("/t"), "max_in_flight": 2})).await;
    let events: Vec<Value> = (0..30).map(|n| event(&n.to_string())).collect();
    let ids = server.receive_as(BATCH, json!(events).to_string()).await.ok().text();
    target.wait_for("/t", 12).await;
    gate.open();
    for id in ids.lines() {
        server.delivery_in(id, &subscription, "delivered").await;
    }
    assert_eq!(target.peak("/t"), 2);
    assert_eq!(target.requests("/t").len(), 30);
}

// Particular answers

#[tokio::test]
async fn answer_410_stops_and_disables_at_once() {
    let (server, target) = (Server::with(&["--retry-schedule", "20ms,20ms"]).await, Target::start().await);
    target.always("/t", Answer::status(410).body("moved out"));
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    let disabled = server.disabled(&subscription).await;
    assert!(disabled["error"].as_str().unwrap().contains("moved out"), "{disabled}");
    let delivery = server.delivery_in(&id, &subscription, "dead").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn answer_429_waits_as_long_as_retry_after_says() {
    let (server, target) = (Server::with(&["--retry-schedule", "10ms"]).await, Target::start().await);
    target.answers("/t", [Answer::status(429).header("retry-after", "1")]);
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    let got = target.wait_for("/t", 2).await;
    assert!(got[1].at - got[0].at >= Duration::from_millis(950), "{:?}", got[1].at - got[0].at);
    server.delivery_in(&id, &subscription, "delivered").await;
}

#[tokio::test]
async fn an_invalid_retry_after_does_not_delay_the_delivery() {
    let (server, target) = (Server::with(&["--retry-schedule", "10ms,10ms"]).await, Target::start().await);
    let nonsense = ["soon", "-5"];
    target.answers("/t", nonsense.map(|value| Answer::status(429).header("retry-after", value)));
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &subscription, "delivered").await;
}

#[tokio::test]
async fn answer_415_is_a_dead_letter_without_retry() {
    let (server, target) = (Server::with(&["--retry-schedule", "20ms,20ms"]).await, Target::start().await);
    target.always("/t", Answer::status(415).body("not JSON please"));
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    let delivery = server.delivery_in(&id, &subscription, "dead").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(delivery["attempts"][0]["target"]["status"], 415);
}

#[tokio::test]
async fn a_redirect_is_a_failure_that_names_its_location() {
    // The subscriptions of admins would get an event about each that is disabled.
    let flags = ["--retry-schedule", "none", "--admin-users", "nobody"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    for status in [301, 302, 303, 307, 308] {
        let path = format!("/{status}");
        let location = target.url("/elsewhere");
        target.always(&path, Answer::status(status).header("location", location.clone()));
        let subscription = server.subscribe(json!({"target_url": target.url(&path)})).await;
        let id = server.receive(&event("a")).await;
        let delivery = server.delivery_in(&id, &subscription, "dead").await;
        assert!(delivery["reason"].as_str().unwrap().contains(&location), "{delivery}");
        assert!(server.disabled(&subscription).await["error"].as_str().unwrap().contains(&location));
    }
    assert!(target.requests("/elsewhere").is_empty(), "no redirect is followed");
}

#[tokio::test]
async fn any_2xx_is_success() {
    let (server, target) = (Server::with(&["--retry-schedule", "none"]).await, Target::start().await);
    for status in [200, 201, 202, 204, 299] {
        let path = format!("/{status}");
        target.always(&path, Answer::status(status));
        let subscription = server.subscribe(json!({"target_url": target.url(&path)})).await;
        let id = server.receive(&event("a")).await;
        let delivery = server.delivery_in(&id, &subscription, "delivered").await;
        assert_eq!(delivery["attempts"][0]["target"]["status"], status);
    }
}

#[tokio::test]
async fn a_long_failure_answer_is_kept_up_to_16_kib() {
    let (server, target) = (Server::start().await, Target::start().await);
    // The limit is not a multiple of the character's three bytes: the cut must not split a character.
    target.always("/t", Answer::status(500).body("€".repeat(100_000)));
    target.always("/good", Answer::status(200).body("€".repeat(100_000)));
    target.always("/latin1", Answer::status(200).body(&b"\xff\xfe\x00ok"[..]));
    let subscription = server.subscribe(json!({"target_url": target.url("/t"), "retry": "none"})).await;
    let good = server.subscribe(json!({"target_url": target.url("/good")})).await;
    let latin1 = server.subscribe(json!({"target_url": target.url("/latin1")})).await;
    let id = server.receive(&event("a")).await;
    let delivery = server.delivery_in(&id, &good, "delivered").await;
    let body = delivery["attempts"][0]["target"]["body"].as_str().unwrap();
    assert!((1_000..=1_024).contains(&body.len()), "{} bytes", body.len());
    let delivery = server.delivery_in(&id, &subscription, "dead").await;
    let body = delivery["attempts"][0]["target"]["body"].as_str().unwrap();
    assert!((16_000..=16_384).contains(&body.trim_end_matches('\u{fffd}').len()), "{} bytes", body.len());
    assert!(body.starts_with("€€€"));
    let delivery = server.delivery_in(&id, &latin1, "delivered").await;
    assert!(delivery["attempts"][0]["target"]["body"].as_str().unwrap().ends_with("ok"));
}

// Pausing

#[tokio::test]
async fn a_disabled_subscription_keeps_its_backlog_and_delivers_when_re_enabled() {
    let (server, target) = (Server::start().await, Target::start().await);
    let gate = target.hang("/t");
    let fields = json!({"target_url": target.url("/t"), "max_in_flight": 1});
    let subscription = server.subscribe(fields).await;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(server.receive(&event(&format!("backlog-{n}"))).await);
    }
    target.wait_for("/t", 1).await;
    server.update(&subscription, &json!({"disabled": "2026-01-01T00:00:00Z"})).await;
    gate.open();
    server.delivery_in(&ids[0], &subscription, "delivered").await;
    // Another subscription's delivery shows that the workers have run.
    server.subscribe(json!({"target_url": target.url("/other")})).await;
    let unseen = server.receive(&event("while-disabled")).await;
    target.wait_for("/other", 1).await;
    assert_eq!(target.requests("/t").len(), 1);
    assert_eq!(server.delivery(&ids[3], &subscription).await["state"], "pending");
    server.update(&subscription, &json!({"disabled": null, "error": null})).await;
    for id in &ids {
        server.delivery_in(id, &subscription, "delivered").await;
    }
    let mut got: Vec<_> = target.requests("/t").iter().map(|request| request.event_id()).collect();
    got.sort();
    assert_eq!(got, ["backlog-0", "backlog-1", "backlog-2", "backlog-3"]);
    assert_eq!(
        server.story(&unseen).await["deliveries"].as_array().unwrap().len(),
        1,
        "not matched meanwhile"
    );
}

#[tokio::test]
async fn the_backlog_of_a_failed_subscription_waits_too() {
    let (server, target) = (Server::with(&["--retry-schedule", "none"]).await, Target::start().await);
    let gate = Gate::closed();
    target.answers("/t", [Answer::status(500).body("broken").after(&gate)]);
    let subscription = server.subscribe(json!({"target_url": target.url("/t"), "max_in_flight": 1})).await;
    let first = server.receive(&event("first")).await;
    let second = server.receive(&event("second")).await;
    target.wait_for("/t", 1).await;
    gate.open();
    server.disabled(&subscription).await;
    server.update(&subscription, &json!({"disabled": null})).await;
    server.delivery_in(&second, &subscription, "delivered").await;
    server.delivery_in(&first, &subscription, "dead").await;
    assert_eq!(target.requests("/t").len(), 2);
}

#[tokio::test]
async fn the_next_attempt_uses_a_changed_target_url() {
    let (server, target) = (Server::with(&["--retry-schedule", "none"]).await, Target::start().await);
    let gate = target.hang("/old");
    let subscription = server.subscribe(json!({"target_url": target.url("/old"), "max_in_flight": 1})).await;
    server.receive(&event("a")).await;
    let waiting = server.receive(&event_1_0("b")).await;
    target.wait_for("/old", 1).await;
    server.update(&subscription, &json!({"target_url": target.url("/new")})).await;
    gate.open();
    server.delivery_in(&waiting, &subscription, "delivered").await;
    assert_eq!(target.requests("/new").len(), 1);
}

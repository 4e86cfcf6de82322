//! What keeps deliveries from a target: its rate limit, a pause that it asks for, and the breaker of one that is down.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Reply, Server, Target, event, wait_until};

const BATCH: &str = "application/cloudevents-batch+json";
/// So long that no retry comes by itself.
const LATER: [&str; 2] = ["--retry-schedule", "30d"];

async fn send(server: &Server, count: usize) -> Vec<String> {
    let events: Vec<Value> = (0..count).map(|number| event(&number.to_string())).collect();
    let accepted = server.receive_as(BATCH, json!(events).to_string()).await.ok().text();
    accepted.lines().map(str::to_owned).collect()
}

async fn probe(server: &Server, uuid: &str) -> Reply {
    server.send(Method::POST, &format!("/eventmatch/{uuid}/probe"), &[], "").await
}

/// Waits until a subscription shows this: `/held/by` is `target`, say.
async fn shows(server: &Server, uuid: &str, pointer: &str, value: &str) -> Value {
    wait_until(&format!("{pointer} to be {value}"), async || {
        let shown = server.subscription(uuid).await;
        (shown.pointer(pointer).is_some_and(|found| found == value)).then_some(shown)
    })
    .await
}

// Rates

#[tokio::test]
async fn no_more_requests_come_than_the_limit_lets_through_and_none_is_lost() {
    let (server, target) = (Server::start().await, Target::start().await);
    let fields = json!({"target_url": target.url("/t"), "rate_limit": "20/s burst 2"});
    let uuid = server.subscribe(fields).await;
    let ids = send(&server, 30).await;
    let got = target.wait_for("/t", 30).await;
    for (first, from) in got.iter().enumerate() {
        for (last, to) in got.iter().enumerate().skip(first) {
            // Two on their way may come closer together than they were sent.
            let allowed = 4.0 + 20.0 * (to.at - from.at).as_secs_f64();
            let count = f64::from(u32::try_from(last - first + 1).unwrap());
            assert!(count <= allowed, "{count} in {:?}", to.at - from.at);
        }
    }
    for id in ids {
        server.delivery_in(&id, &uuid, "delivered").await;
    }
    assert_eq!(target.requests("/t").len(), 30);
}

#[tokio::test]
async fn what_a_limit_holds_back_says_so_and_goes_when_the_limit_is_lifted() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "rate_limit": "1/h"})).await;
    let path = format!("/eventmatch/{uuid}");
    let free = server.get(&path).await.ok();
    assert_eq!((&free.json()["rate_limit"], &free.json()["held"]), (&json!("1/h"), &Value::Null));
    let ids = send(&server, 3).await;
    let held = shows(&server, &uuid, "/held/by", "rate_limit").await;
    assert!(held["held"]["until"].as_str().unwrap() > held["held"]["since"].as_str().unwrap(), "{held}");
    target.wait_for("/t", 1).await;
    let delivered = wait_until("one to be delivered", async || {
        let mut states = Vec::new();
        for id in &ids {
            states.push(server.delivery(id, &uuid).await);
        }
        states.iter().any(|delivery| delivery["state"] == "delivered").then_some(states)
    })
    .await;
    let waiting = delivered.iter().filter(|delivery| delivery["state"] == "pending");
    assert!(waiting.clone().all(|delivery| delivery["held"]["by"] == "rate_limit"), "{delivered:?}");
    assert_eq!(waiting.count(), 2);
    assert_eq!(server.get("/eventmatch").await.ok().json()[0]["held"], Value::Null, "lists do not say");

    // A reader that has asked before sees the hold; one that changes the subscription need not know it.
    let known = [("if-none-match", free.header("etag"))];
    let now = server.send(Method::GET, &path, &known, "").await.ok();
    assert_eq!(now.json()["held"]["by"], "rate_limit");
    let known = [("if-none-match", now.header("etag"))];
    assert_eq!(server.send(Method::GET, &path, &known, "").await.status, 304);
    let known = [("if-match", now.header("etag"))];
    server.send(Method::PUT, &path, &known, json!({"rate_limit": null}).to_string()).await.ok();
    for id in ids {
        server.delivery_in(&id, &uuid, "delivered").await;
    }
    assert_eq!(server.subscription(&uuid).await["held"], Value::Null);
}

#[tokio::test]
async fn a_limit_holds_over_a_restart_and_is_checked() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let uuid =
        server.subscribe(json!({"target_url": target.url("/t"), "rate_limit": "1000/h burst 20"})).await;
    server.kill9();
    server.restart().await;
    assert_eq!(server.subscription(&uuid).await["rate_limit"], "1000/h burst 20");
    for wrong in [json!("50"), json!("0/s"), json!("50/week"), json!(50)] {
        let path = format!("/eventmatch/{uuid}");
        server.put(&path, &json!({"rate_limit": wrong})).await.refused(422).at("/rate_limit");
    }
}

// Pauses

#[tokio::test]
async fn a_429_holds_all_deliveries_of_its_subscription_and_no_others() {
    let (server, target) = (Server::with(&["--retry-schedule", "10ms"]).await, Target::start().await);
    target.answers("/t", [Answer::status(429).header("retry-after", "2")]);
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "max_in_flight": 1})).await;
    server.subscribe(json!({"target_url": target.url("/other")})).await;
    let ids = send(&server, 4).await;
    let held = shows(&server, &uuid, "/held/by", "target").await;
    assert_eq!(held["breaker"], Value::Null, "a target that gets too much is not down");
    target.wait_for("/other", 4).await;
    let got = target.wait_for("/t", 5).await;
    let pause = got[1].at - got[0].at;
    assert!(pause >= Duration::from_millis(1900), "{pause:?}");
    for id in ids {
        server.delivery_in(&id, &uuid, "delivered").await;
    }
}

// The breaker

#[tokio::test]
async fn a_target_that_is_down_gets_one_request_at_a_time_and_its_backlog_when_it_is_back() {
    let (server, target) = (Server::with(&LATER).await, Target::start().await);
    target.always("/t", Answer::status(500));
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    probe(&server, &uuid).await.refused(409).says("closed");
    let ids = send(&server, 40).await;
    let open = shows(&server, &uuid, "/breaker/state", "open").await;
    assert_eq!(open["held"]["by"], "breaker");
    let reason = open["breaker"]["reason"].as_str().unwrap();
    assert_eq!(reason, "the target answered 500 Internal Server Error");
    assert!(target.requests("/t").len() <= 11, "{}", target.requests("/t").len());
    let last = server.delivery(ids.last().unwrap(), &uuid).await;
    assert_eq!((&last["state"], &last["held"]["by"]), (&json!("pending"), &json!("breaker")));
    target.always("/t", Answer::status(204));
    server.user("mallory").post(&format!("/eventmatch/{uuid}/probe"), &json!({})).await.refused(403);
    assert_eq!(probe(&server, &uuid).await.status, 202);
    for id in &ids[12..] {
        server.delivery_in(id, &uuid, "delivered").await;
    }
    let closed = server.subscription(&uuid).await;
    assert_eq!((&closed["held"], &closed["breaker"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_probe_that_is_asked_for_comes_before_its_time() {
    // With an order, too: each of these events is its own lane.
    for ordering in [Value::Null, json!({"key": "$.eventID"})] {
        let (server, target) = (Server::with(&LATER).await, Target::start().await);
        target.always("/t", Answer::drop_connection());
        let uuid = server.subscribe(json!({"target_url": target.url("/t"), "ordering": ordering})).await;
        let ids = send(&server, 10).await;
        for id in &ids {
            server.delivery_in(id, &uuid, "retrying").await;
        }
        shows(&server, &uuid, "/breaker/state", "open").await;
        target.always("/t", Answer::status(204));
        probe(&server, &uuid).await;
        let delivered = wait_until("one to be delivered", async || {
            let mut count = 0;
            for id in &ids {
                count += usize::from(server.delivery(id, &uuid).await["state"] == "delivered");
            }
            (count > 0).then_some(count)
        })
        .await;
        assert_eq!(delivered, 1, "the others wait for their own time");
        assert_eq!(server.subscription(&uuid).await["breaker"]["state"], "opening");
    }
}

/// What waits for the breaker counts as tried when its time has come: after the schedule, it is a dead letter.
#[tokio::test]
async fn a_schedule_goes_on_while_the_breaker_is_open_and_disables_in_the_end() {
    let (server, target) = (Server::with(&["--retry-schedule", "300ms,1s,1s"]).await, Target::start().await);
    target.always("/t", Answer::status(502));
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let ids = send(&server, 20).await;
    let disabled = server.disabled(&uuid).await;
    assert!(disabled["error"].is_string());
    // The subscription is disabled before its dead letter is recorded.
    let dead = wait_until("a dead letter", async || {
        for id in &ids {
            let delivery = server.delivery(id, &uuid).await;
            if delivery["state"] == "dead" {
                return Some(delivery);
            }
        }
        None
    })
    .await;
    let attempts = dead["attempts"].as_array().unwrap();
    let last = attempts.last().unwrap();
    assert_eq!(last["number"], 4, "{last}");
    assert!(attempts.len() < 4, "some were not made");
    assert!(last["reason"].as_str().unwrap().contains("the target's breaker was open"), "{last}");
    let requests = target.requests("/t").len();
    assert!(requests <= 13, "{requests} instead of 80");
}

#[tokio::test]
async fn an_answer_that_is_no_fault_of_the_target_opens_no_breaker() {
    let (server, target) = (Server::with(&LATER).await, Target::start().await);
    target.always("/t", Answer::status(404));
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let ids = send(&server, 25).await;
    for id in ids {
        server.delivery_in(&id, &uuid, "retrying").await;
    }
    assert_eq!(server.subscription(&uuid).await["breaker"], Value::Null);
    assert_eq!(target.requests("/t").len(), 25);
}

//! All dead letters are sent again, or deliveries given up, by one request: each once, also over kill -9.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::{Answer, Api, Request, Server, Target, event, wait_until};

const BATCH: &str = "application/cloudevents-batch+json";

async fn begin(api: &Api, uuid: &str, kind: &str, body: Value) -> Value {
    let reply = api.post(&format!("/eventmatch/{uuid}/{kind}"), &body).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.json()
}

/// Waits until a subscription's job has ended in this state, and returns it.
async fn ended(api: &Api, uuid: &str, kind: &str, state: &str) -> Value {
    wait_until(&format!("the {kind} of {uuid} is {state}"), async || {
        let job = api.get(&format!("/eventmatch/{uuid}/{kind}")).await.ok().json();
        (job["state"] == state).then_some(job)
    })
    .await
}

async fn counts(api: &Api, uuid: &str) -> Value {
    api.get(&format!("/eventmatch/{uuid}/deliveries?limit=1")).await.ok().json()["counts"].clone()
}

/// Makes dead letters, and enables the subscription again.
async fn dead_letters(server: &Server, uuid: &str, count: usize) {
    let events: Vec<Value> = (0..count).map(|n| event(&format!("e{n}"))).collect();
    server.receive_as(BATCH, json!(events).to_string()).await.ok();
    wait_until("all are dead letters", async || (counts(server, uuid).await["dead"] == count).then_some(()))
        .await;
    server.update(uuid, &json!({"disabled": null})).await;
}

#[tokio::test]
async fn dead_letters_are_sent_again_and_progress_is_shown() {
    let (server, target) = (Server::start().await, Target::start().await);
    target.script("/t", |_| Answer::status(415));
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    server.get(&format!("/eventmatch/{uuid}/redeliver")).await.refused(404).says("POST");
    dead_letters(&server, &uuid, 20).await;
    target.script("/t", |_| Answer::status(200));
    let begun = begin(&server, &uuid, "redeliver", json!({})).await;
    assert_eq!(
        (&begun["kind"], &begun["of"]["state"], &begun["total"]),
        (&json!("redeliver"), &json!("dead"), &json!(20))
    );
    let done = ended(&server, &uuid, "redeliver", "done").await;
    assert_eq!((&done["looked_at"], &done["changed"]), (&json!(20), &json!(20)));
    wait_until("all are delivered", async || (counts(&server, &uuid).await["delivered"] == 20).then_some(()))
        .await;
    let again = target.requests("/t").split_off(20);
    let events: HashSet<_> = again.iter().map(Request::event_id).collect();
    assert_eq!((again.len(), events.len()), (20, 20), "each once");
}

#[tokio::test]
async fn kill_9_during_a_job_repeats_nothing() {
    let (mut server, target) =
        (Server::with(&["--recover-events-per-second", "40"]).await, Target::start().await);
    target.script("/t", |_| Answer::status(415));
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    dead_letters(&server, &uuid, 120).await;
    begin(&server, &uuid, "redeliver", json!({"state": "dead"})).await;
    wait_until("a part is sent again", async || (target.requests("/t").len() > 130).then_some(())).await;
    server.kill9();
    server.restart().await;
    let done = ended(&server, &uuid, "redeliver", "done").await;
    // What was in flight at the kill is attempted once more, but each dead letter was asked for once.
    assert_eq!((&done["looked_at"], &done["changed"]), (&json!(120), &json!(120)));
    wait_until("all are dead letters again", async || {
        (counts(&server, &uuid).await["dead"] == 120).then_some(())
    })
    .await;
    let page = server.get(&format!("/eventmatch/{uuid}/deliveries?limit=500")).await.ok().json();
    for listed in page["deliveries"].as_array().unwrap() {
        let story = server.story(listed["event"].as_str().unwrap()).await;
        let asked = story["deliveries"][0]["redeliveries"].as_array().map_or(0, Vec::len);
        assert_eq!(asked, 1, "{story}");
    }
}

#[tokio::test]
async fn one_of_a_kind_runs_at_a_time_and_can_be_cancelled() {
    let (server, target) = (Server::start().await, Target::start().await);
    target.script("/t", |_| Answer::status(415));
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    dead_letters(&server, &uuid, 3).await;
    server.update(&uuid, &json!({"disabled": true})).await;
    let path = format!("/eventmatch/{uuid}/redeliver");
    begin(&server, &uuid, "redeliver", json!({})).await;
    server.post(&path, &json!({})).await.refused(409).says("DELETE");
    let waiting = wait_until("it says what it waits for", async || {
        let job = server.get(&path).await.ok().json();
        job["waiting"].is_string().then_some(job)
    })
    .await;
    assert_eq!(waiting["waiting"], "the subscription is disabled");
    let cancelled = server.delete(&path).await.ok().json();
    assert_eq!((&cancelled["state"], &cancelled["changed"]), (&json!("cancelled"), &json!(0)));
    begin(&server, &uuid, "redeliver", json!({})).await;
    server.user("mallory").get(&path).await.refused(403);
    server.user("mallory").post(&path, &json!({})).await.refused(403);
}

#[tokio::test]
async fn what_is_given_up_is_gone_from_a_disabled_subscription_too() {
    let (server, target) = (Server::with(&["--retry-schedule", "30d"]).await, Target::start().await);
    target.script("/t", |_| Answer::status(503));
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &uuid, "retrying").await;
    server.update(&uuid, &json!({"disabled": true})).await;
    begin(&server, &uuid, "discard", json!({"state": "retrying", "reason": "wrong target"})).await;
    let done = ended(&server, &uuid, "discard", "done").await;
    assert_eq!((&done["reason"], &done["changed"]), (&json!("wrong target"), &json!(1)));
    let delivery = server.delivery_in(&id, &uuid, "skipped").await;
    assert!(delivery["reason"].as_str().unwrap().ends_with("wrong target"), "{delivery}");
}

#[tokio::test]
async fn wrong_input_is_refused_where_it_is_wrong() {
    let server = Server::start().await;
    let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:9/"})).await;
    let post =
        async |kind: &str, body: Value| server.post(&format!("/eventmatch/{uuid}/{kind}"), &body).await;
    post("redeliver", json!({"state": "pending"}))
        .await
        .refused(422)
        .at("/state")
        .says("dead, skipped, denied");
    post("redeliver", json!({"since": "then"})).await.refused(422).at("/since");
    post("redeliver", json!({"reason": "x"})).await.refused(422).at("/reason").says("unknown");
    let times = json!({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"});
    post("redeliver", times).await.refused(422).at("/until");
    post("discard", json!({"reason": "x"})).await.refused(422).at("/state");
    post("discard", json!({"state": "skipped", "reason": "x"})).await.refused(422).at("/state");
    post("discard", json!({"state": "dead"})).await.refused(422).at("/reason");
    post("discard", json!({"state": "dead", "reason": " "})).await.refused(422).at("/reason");
    post("discard", json!({"state": "dead", "reason": "x".repeat(1001)}))
        .await
        .refused(422)
        .at("/reason")
        .says("1000");
}

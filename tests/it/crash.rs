//! Restart, kill -9, SIGTERM: nothing accepted is lost, and a repeat is recognisable (promises 1 and 2).

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{
    Answer, Api, Gate, RawConnection, Request, Server, Target, event, merged, run_in, wait_until,
};

/// Posts events, `producer-0` and on, from `/producer` until the server is gone; returns the producer's ids of the accepted
/// ones.
pub(crate) async fn produce(api: Api, producer: String) -> Vec<String> {
    let mut accepted = Vec::new();
    for n in 0.. {
        let id = format!("{producer}-{n}");
        let body = merged(event(&id), json!({"source": format!("/{producer}")})).to_string();
        match api
            .try_send(http::Method::POST, "/receive", &[("content-type", "application/json")], body)
            .await
        {
            Ok(reply) => drop(reply.ok()),
            Err(_) => break,
        }
        accepted.push(id);
    }
    accepted
}

/// Asserts that each webhook-id belongs to one event and one body, and each event to one webhook-id.
pub(crate) fn assert_repeats_are_recognisable(got: &[Request]) {
    let (mut texts, mut ids) = (HashMap::new(), HashMap::new());
    for request in got {
        let text = texts.entry(request.webhook_id().to_owned()).or_insert_with(|| request.body.clone());
        assert_eq!(*text, request.body, "{} has two texts", request.webhook_id());
        let id = ids.entry(request.event_id()).or_insert_with(|| request.webhook_id().to_owned());
        assert_eq!(id, request.webhook_id(), "{} has two webhook-ids", request.event_id());
    }
}

#[tokio::test]
async fn kill_9_in_the_middle_of_load_loses_nothing_accepted() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    server.subscribe(json!({"target_url": target.url("/a"), "extensions": {"k": "v"}})).await;
    server.subscribe(json!({"target_url": target.url("/b"), "jsonpath": "$.eventID"})).await;
    let mut accepted = Vec::new();
    for round in 1..=4 {
        let mut producers = JoinSet::new();
        for producer in 0..4 {
            producers.spawn(produce(server.user("producer"), format!("{round}-{producer}")));
        }
        target.wait_for("/a", target.requests("/a").len() + 120).await;
        server.kill9();
        for ids in producers.join_all().await {
            assert!(!ids.is_empty());
            accepted.extend(ids);
        }
        server.restart().await;
    }
    for path in ["/a", "/b"] {
        wait_until(&format!("{path} has every accepted event"), async || {
            let got: Vec<_> = target.requests(path).iter().map(Request::event_id).collect();
            let got: std::collections::HashSet<_> = got.into_iter().collect();
            accepted.iter().all(|id| got.contains(id)).then_some(())
        })
        .await;
        assert_repeats_are_recognisable(&target.requests(path));
    }
    // The log has them too, and the server still works.
    let id = server.receive(&event("after")).await;
    server.status_is(&id, "200 OK").await;
}

#[tokio::test]
async fn an_attempt_cut_off_by_kill_9_is_repeated_with_the_same_id_and_bytes() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let gate = target.hang("/t");
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    target.wait_for("/t", 1).await;
    server.kill9();
    gate.open();
    server.restart().await;
    let got = target.wait_for("/t", 2).await;
    assert_repeats_are_recognisable(&got);
    let delivery = server.delivery_in(&id, &subscription, "delivered").await;
    assert_eq!(delivery["id"], got[0].webhook_id());
}

#[tokio::test]
async fn a_restart_continues_where_it_was() {
    let (mut server, target) = (Server::with(&["--retry-schedule", "1s,1s"]).await, Target::start().await);
    target.answers("/t", [Answer::status(503)]);
    target.always("/dead", Answer::status(410).body("gone"));
    let retried = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let dead = server.subscribe(json!({"target_url": target.url("/dead")})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &retried, "retrying").await;
    server.delivery_in(&id, &dead, "dead").await;
    let before = server.disabled(&dead).await;
    server.terminate();
    assert!(server.exited().await.success());
    server.restart().await;
    assert_eq!(server.subscription(&dead).await, before, "still disabled, for the same reason");
    let delivery = server.delivery_in(&id, &retried, "delivered").await;
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "the first attempt is remembered: {delivery}");
    assert_eq!(attempts[1]["number"], 2);
    assert_eq!(server.story(&id).await["event"], event("a"));
    assert_eq!(target.requests("/dead").len(), 1);
}

#[tokio::test]
async fn a_delivered_event_is_not_repeated_after_a_restart() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    for n in 0..50 {
        server.receive(&event(&n.to_string())).await;
    }
    target.wait_for("/t", 50).await;
    server.terminate();
    assert!(server.exited().await.success());
    server.restart().await;
    let last = server.receive(&event("last")).await;
    server.status_is(&last, "200 OK").await;
    assert_eq!(target.requests("/t").len(), 51);
}

#[tokio::test]
async fn sigterm_lets_an_attempt_under_way_finish_and_does_not_repeat_it() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let gate = target.hang("/t");
    let subscription = server.subscribe(json!({"target_url": target.url("/t"), "max_in_flight": 1})).await;
    let first = server.receive(&event("first")).await;
    let second = server.receive(&event("second")).await;
    target.wait_for("/t", 1).await;
    server.terminate();
    wait_until("no new connection is served", async || {
        server.try_send(http::Method::GET, "/healthz", &[("connection", "close")], "").await.err()
    })
    .await;
    assert!(server.is_running(), "it waits for the attempt");
    gate.open();
    assert!(server.exited().await.success());
    server.restart().await;
    server.delivery_in(&first, &subscription, "delivered").await;
    server.delivery_in(&second, &subscription, "delivered").await;
    let ids: Vec<_> = target.requests("/t").iter().map(Request::event_id).collect();
    assert_eq!(ids.iter().filter(|id| *id == "first").count(), 1, "{ids:?}");
    assert_eq!(ids.len(), 2);
}

#[tokio::test]
async fn sigterm_beside_a_hanging_target_ends_within_the_grace() {
    let flags = ["--shutdown-grace-ms", "300", "--attempt-timeout-ms", "600000"];
    let (mut server, target) = (Server::with(&flags).await, Target::start().await);
    let gate = Gate::closed();
    target.always("/t", Answer::status(200).after(&gate));
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    target.wait_for("/t", 1).await;
    server.terminate();
    // The gate stays closed, and the attempt's timeout is longer than the wait here: only the grace ends it.
    assert!(server.exited().await.success());
    gate.open();
    server.restart().await;
    server.delivery_in(&id, &subscription, "delivered").await;
    assert_repeats_are_recognisable(&target.requests("/t"));
}

/// An incomplete request took one grace period, and then an attempt another.
#[tokio::test]
async fn requests_and_attempts_share_one_grace() {
    let (mut server, target) = (Server::with(&["--shutdown-grace-ms", "8000"]).await, Target::start().await);
    let _gate = target.hang("/t");
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    server.receive(&event("a")).await;
    target.wait_for("/t", 1).await;
    let mut half = RawConnection::open(&server.url).await;
    half.write("POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{").await;
    server.get("/healthz").await.ok();
    let asked = std::time::Instant::now();
    server.terminate();
    assert!(server.exited().await.success());
    assert!(asked.elapsed().as_millis() < 15_000, "took {:?}, two graces are 16 s", asked.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    // Neither the grace nor the attempt's timeout ends the attempt within the wait here.
    let flags = ["--shutdown-grace-ms", "600000", "--attempt-timeout-ms", "600000"];
    let (mut server, target) = (Server::with(&flags).await, Target::start().await);
    target.always("/t", Answer::status(200).after(&Gate::closed()));
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    server.receive(&event("a")).await;
    target.wait_for("/t", 1).await;
    server.terminate();
    wait_until("no new connection is served", async || {
        server.try_send(http::Method::GET, "/healthz", &[("connection", "close")], "").await.err()
    })
    .await;
    assert!(server.is_running());
    server.terminate();
    server.exited().await;
}

#[tokio::test]
async fn sigterm_while_idle_exits_0() {
    let mut server = Server::start().await;
    server.terminate();
    assert_eq!(server.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_process_on_the_same_data_gets_a_clear_error() {
    let server = Server::start().await;
    let data = server.data();
    let folder = tempfile::tempdir().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let output = run_in(folder.path(), &serve, &[], "").await;
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{}", output.stderr);
    assert!(
        output.stderr.contains("error: ") && output.stderr.contains(data.to_str().unwrap()),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("another") || output.stderr.contains("already"), "{}", output.stderr);
    server.receive(&event("a")).await;
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused_and_left_unchanged() {
    let mut server = Server::start().await;
    server.receive(&event("a")).await;
    server.kill9();
    let file = std::fs::read_dir(server.data()).unwrap().map(|entry| entry.unwrap().path());
    let file = file.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    std::fs::write(&file, b"this is no database".repeat(1000)).unwrap();
    let serve =
        ["serve", "--listen", "127.0.0.1:0", "--data", server.data().to_str().unwrap()].map(str::to_owned);
    let output = run_in(&server.data(), &serve.each_ref().map(String::as_str), &[], "").await;
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stderr.contains("error: ") && !output.stderr.contains("panicked"), "{}", output.stderr);
    assert!(std::fs::read(&file).unwrap().starts_with(b"this is no database"));
}

#[tokio::test]
async fn a_batch_is_whole_or_absent_after_kill_9() {
    let mut server = Server::start().await;
    for round in 0..3 {
        let events: Vec<Value> = (0..40).map(|n| event(&format!("{round}-{n}"))).collect();
        let body = json!(events).to_string();
        let mut producers = JoinSet::new();
        for _ in 0..3 {
            let (api, body) = (server.user("producer"), body.clone());
            producers.spawn(async move {
                let batch = [("content-type", "application/cloudevents-batch+json")];
                while api.try_send(http::Method::POST, "/receive", &batch, body.clone()).await.is_ok() {}
            });
        }
        wait_until("some batches are in", async || {
            let events = server.get("/events?limit=1").await.ok().json()["events"].clone();
            (events[0]["event_id"].as_str()?.starts_with(&format!("{round}-"))).then_some(())
        })
        .await;
        server.kill9();
        producers.join_all().await;
        server.restart().await;
    }
    let (mut counts, mut next) = (HashMap::<String, usize>::new(), "/events?limit=1000".to_owned());
    loop {
        let page = server.get(&next).await.ok().json();
        for event in page["events"].as_array().unwrap() {
            *counts.entry(event["event_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let Some(further) = page["next"].as_str() else { break };
        next = further.to_owned();
    }
    for round in 0..3 {
        let of_first = counts[&format!("{round}-0")];
        assert!(
            (1..40).all(|n| counts[&format!("{round}-{n}")] == of_first),
            "a batch of round {round} is torn"
        );
    }
}

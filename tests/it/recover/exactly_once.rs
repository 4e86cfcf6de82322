//! Each missing delivery is made once: beside live events, after kill -9, on a full disk.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::task::JoinSet;

use super::{assert_once, ended, fill, ids, recover, recovery};
use crate::disk_full;
use crate::harness::{Api, Launch, Request, Server, Target, event, merged, wait_until};

#[tokio::test]
async fn earliest_at_creation_delivers_the_whole_log_once_and_in_its_order() {
    let (server, target) = (Server::start().await, Target::start().await);
    let mut logged = Vec::new();
    for part in 0..4 {
        logged.extend(fill(&server, &part.to_string(), 97).await);
        let single = format!("{part}-single");
        server.receive(&event(&single)).await;
        logged.push(single);
    }
    let fields = json!({"target_url": target.url("/t"), "start_at": "earliest", "max_in_flight": 1});
    let uuid = server.user("ann").subscribe(fields).await;
    assert_eq!(ids(&target.wait_for("/t", logged.len()).await), logged);
    let done = ended(&server.user("ann"), &uuid, "done").await;
    for count in ["looked_at", "matched", "created"] {
        assert_eq!(done[count], logged.len(), "{done}");
    }
    assert_eq!(
        (&done["since"], &done["until"], &done["by"]),
        (&json!("earliest"), &json!(null), &json!("ann"))
    );
    assert_eq!(done["position"], done["end"]);
    let first = done["oldest"]["event"].as_str().unwrap();
    let delivery = server.delivery_in(first, &uuid, "delivered").await;
    assert_eq!(delivery["recovered"]["by"], "ann");
    let live = server.receive(&event("live")).await;
    let delivery = server.delivery_in(&live, &uuid, "delivered").await;
    assert_eq!(delivery["recovered"], json!(null));
    assert_eq!(target.requests("/t").len(), logged.len() + 1);
    let shown = server.user("ann").subscription(&uuid).await;
    assert!(shown.get("start_at").is_none(), "a GET body can be PUT: {shown}");
}

/// Posts batches until told to stop, and returns the ids of the small events. Each comes before an event that takes long to
/// match, so that it is logged long after it was matched.
async fn produce(api: Api, name: String, stop: Arc<AtomicBool>) -> Vec<String> {
    let items: Vec<_> = (0..4000).map(|n| json!({"a": n, "c": {"a": [n]}})).collect();
    let slow = merged(event("slow"), json!({"eventType": "slow", "data": items}));
    let mut accepted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let id = format!("{name}-{}", accepted.len());
        let batch = json!([event(&id), slow]).to_string();
        api.receive_as("application/cloudevents-batch+json", batch).await.ok();
        accepted.push(id);
    }
    accepted
}

/// An event could be matched before the subscription existed, and be logged after its replay had reached the end of the log.
#[tokio::test]
async fn no_event_is_lost_between_the_replay_and_live_delivery() {
    let flags = ["--recover-events-per-second", "1000000"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    // A filter that has to visit everything.
    server.subscribe(json!({"target_url": target.url("/never"), "jsonpath": "$..[?@.b]"})).await;
    for round in 0..5 {
        let first = server.receive(&event(&format!("{round}-first"))).await;
        let since = server.story(&first).await["received"].clone();
        let stop = Arc::new(AtomicBool::new(false));
        let mut producers = JoinSet::new();
        for producer in 0..3 {
            let name = format!("{round}-{producer}");
            producers.spawn(produce(server.user("producer"), name, Arc::clone(&stop)));
        }
        let mut subscriptions = Vec::new();
        for number in 0..8 {
            let path = format!("/{round}/{number}");
            let filter = "$[?@ == 'org.pacifica.metadata.ingest']";
            let fields = json!({"target_url": target.url(&path), "jsonpath": filter, "start_at": since});
            subscriptions.push((server.subscribe(fields).await, path));
            // The next subscription is created while other events are being accepted.
            server.receive(&merged(event("none"), json!({"eventType": "none"}))).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut all = vec![format!("{round}-first")];
        all.extend(producers.join_all().await.into_iter().flatten());
        for (uuid, path) in subscriptions {
            ended(&server, &uuid, "done").await;
            wait_until(&format!("{path} has all events"), async || {
                (target.requests(&path).len() >= all.len()).then_some(())
            })
            .await;
            assert_once(&target.requests(&path), &all);
            server.delete(&format!("/eventmatch/{uuid}")).await.ok();
        }
    }
    assert!(target.requests("/never").is_empty());
}

#[tokio::test]
async fn kill_9_during_a_replay_loses_nothing_and_makes_no_second_delivery() {
    let flags = ["--recover-events-per-second", "400", "--admin-users", "nobody"];
    let (mut server, target) = (Server::with(&flags).await, Target::start().await);
    let mut logged = Vec::new();
    for part in 0..12 {
        logged.extend(fill(&server, &part.to_string(), 60).await);
    }
    let uuid =
        server.subscribe(json!({"target_url": target.url("/t"), "start_at": "2020-01-01T00:00:00Z"})).await;
    for least in [1, 250, 500] {
        wait_until("some are looked at", async || {
            (recovery(&server, &uuid).await["looked_at"].as_u64()? >= least).then_some(())
        })
        .await;
        server.kill9();
        server.restart().await;
    }
    let done = ended(&server, &uuid, "done").await;
    assert_eq!((&done["looked_at"], &done["created"]), (&json!(logged.len()), &json!(logged.len())));
    wait_until("everything has arrived", async || {
        let got: HashSet<_> = ids(&target.requests("/t")).into_iter().collect();
        (got.len() == logged.len()).then_some(())
    })
    .await;
    let mut webhook_ids: HashMap<String, HashSet<String>> = HashMap::new();
    for request in target.requests("/t") {
        webhook_ids.entry(request.event_id()).or_default().insert(request.webhook_id().to_owned());
    }
    assert!(webhook_ids.values().all(|ids| ids.len() == 1), "one id for each event");
    let distinct: HashSet<_> = webhook_ids.values().flatten().collect();
    assert_eq!(distinct.len(), logged.len());
    let log = server.get("/events?limit=1000").await.ok().json();
    for row in log["events"].as_array().unwrap() {
        let story = server.story(row["id"].as_str().unwrap()).await;
        assert_eq!(story["deliveries"].as_array().unwrap().len(), 1, "{story}");
    }
}

#[tokio::test]
async fn deliveries_are_not_repeated_after_a_restart_or_by_another_replay() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let mut all = fill(&server, "live", 20).await;
    target.wait_for("/t", 20).await;
    let first = recover(&server, &uuid, json!({"since": "earliest"})).await;
    assert_eq!(first["state"], "running");
    let done = ended(&server, &uuid, "done").await;
    assert_eq!((&done["matched"], &done["created"]), (&json!(20), &json!(0)), "all of it came live");
    server.restart().await;
    assert_eq!(recovery(&server, &uuid).await, done);
    let again = recover(&server, &uuid, json!({"since": "earliest"})).await;
    assert_ne!(again["asked"], done["asked"]);
    ended(&server, &uuid, "done").await;
    let last = server.receive(&event("last")).await;
    server.delivery_in(&last, &uuid, "delivered").await;
    all.push("last".to_owned());
    assert_once(&target.requests("/t"), &all);
}

#[tokio::test]
async fn the_replay_of_a_disabled_subscription_waits_and_then_misses_nothing() {
    let (server, target) = (Server::start().await, Target::start().await);
    let mut all = fill(&server, "before", 10).await;
    let fields = json!({"target_url": target.url("/t"), "start_at": "earliest", "disabled": true});
    let uuid = server.subscribe(fields).await;
    let waiting = wait_until("it waits", async || {
        let recovery = recovery(&server, &uuid).await;
        recovery["waiting"].is_string().then_some(recovery)
    })
    .await;
    assert_eq!((&waiting["state"], &waiting["looked_at"]), (&json!("running"), &json!(0)));
    assert!(waiting["waiting"].as_str().unwrap().contains("disabled"));
    let path = format!("/eventmatch/{uuid}/recover");
    assert_eq!(server.delete(&path).await.ok().json()["state"], "cancelled");
    let witness = server.subscribe(json!({"target_url": target.url("/witness")})).await;
    recover(&server, &uuid, json!({"since": "earliest"})).await;
    all.extend(fill(&server, "between", 10).await);
    // By then both paths to the disabled subscription, live and replay, have had their chance.
    target.wait_for("/witness", 10).await;
    wait_until("it waits again", async || {
        recovery(&server, &uuid).await["waiting"].as_str()?.contains("disabled").then_some(())
    })
    .await;
    assert!(target.requests("/t").is_empty());
    server.delete(&format!("/eventmatch/{witness}")).await.ok();
    server.update(&uuid, &json!({"disabled": null})).await;
    all.extend(fill(&server, "after", 10).await);
    ended(&server, &uuid, "done").await;
    target.wait_for("/t", 30).await;
    assert_once(&target.requests("/t"), &all);
}

/// The end of a replay used to be fixed when it began: events that came while its subscription was disabled were neither
/// matched live nor scanned, and the replay reported that it was done.
#[tokio::test]
async fn events_that_come_while_the_subscription_is_disabled_are_replayed_too() {
    let flags = ["--recover-events-per-second", "30", "--admin-users", "nobody"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    let mut all = fill(&server, "before", 100).await;
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "start_at": "earliest"})).await;
    wait_until("some are looked at", async || {
        (recovery(&server, &uuid).await["looked_at"].as_u64()? > 0).then_some(())
    })
    .await;
    server.update(&uuid, &json!({"disabled": true})).await;
    all.extend(fill(&server, "meanwhile", 20).await);
    server.update(&uuid, &json!({"disabled": null})).await;
    let done = ended(&server, &uuid, "done").await;
    assert_eq!(done["looked_at"], 120);
    target.wait_for("/t", 120).await;
    assert_once(&target.requests("/t"), &all);
}

/// Posts events until the server is gone; returns the ids of the accepted ones.
async fn produce_until_killed(api: Api, name: String) -> Vec<String> {
    let mut accepted = Vec::new();
    loop {
        let id = format!("{name}-{}", accepted.len());
        let json = [("content-type", "application/json")];
        match api.try_send(http::Method::POST, "/receive", &json, event(&id).to_string()).await {
            Ok(reply) => drop(reply.ok()),
            Err(_) => return accepted,
        }
        accepted.push(id);
    }
}

#[tokio::test]
async fn kill_9_while_events_come_and_a_replay_begins_loses_nothing() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let mut accepted = fill(&server, "before", 100).await;
    let mut subscriptions = Vec::new();
    for round in 0..4 {
        let mut producers = JoinSet::new();
        for producer in 0..3 {
            producers.spawn(produce_until_killed(server.user("producer"), format!("{round}-{producer}")));
        }
        let path = format!("/{round}");
        let fields = json!({"target_url": target.url(&path), "start_at": "earliest"});
        subscriptions.push((server.subscribe(fields).await, path));
        if round % 2 == 0 {
            target.wait_for(&format!("/{round}"), 20).await;
        }
        server.kill9();
        producers.join_all().await.into_iter().for_each(|ids| accepted.extend(ids));
        server.restart().await;
    }
    for (uuid, path) in &subscriptions {
        ended(&server, uuid, "done").await;
        wait_until(&format!("{path} has every accepted event"), async || {
            let got: HashSet<_> = ids(&target.requests(path)).into_iter().collect();
            accepted.iter().all(|id| got.contains(id)).then_some(())
        })
        .await;
        let got = target.requests(path);
        let webhook_ids: HashSet<_> = got.iter().map(Request::webhook_id).collect();
        let events: HashSet<_> = ids(&got).into_iter().collect();
        assert_eq!(webhook_ids.len(), events.len(), "a repeat carries the same id");
    }
}

#[tokio::test]
async fn a_full_disk_makes_a_replay_wait() {
    let flags = ["--recover-events-per-second", "20"];
    let (server, target) = (Server::launch(Launch::FileSizeErrors, &flags, &[]).await, Target::start().await);
    let logged = fill(&server, "a", 100).await;
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "start_at": "earliest"})).await;
    target.wait_for("/t", 1).await;
    disk_full::limit_files(&server, Some(disk_full::database(&server).metadata().unwrap().len() + 4096));
    disk_full::fill(&server).await;
    wait_until("it waits for the store", async || {
        let reply = server.get(&format!("/eventmatch/{uuid}/recover")).await;
        (reply.status == 200 && reply.json()["waiting"].as_str()?.contains("store")).then_some(())
    })
    .await;
    disk_full::limit_files(&server, None);
    let done = ended(&server, &uuid, "done").await;
    assert_eq!((&done["looked_at"], &done["created"]), (&json!(100), &json!(100)));
    let replayed = wait_until("all have arrived", async || {
        let mut got = target.requests("/t");
        got.retain(|request| request.event_id().starts_with("a-"));
        (got.len() >= 100).then_some(got)
    })
    .await;
    assert_once(&replayed, &logged);
}

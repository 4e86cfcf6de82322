//! The ledger: over any number of kills, each accepted event is delivered, dead or waiting, for each subscription.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::crash::{assert_repeats_are_recognisable, produce};
use crate::harness::{Answer, Request, Server, Target, wait_until};

/// How often the server is killed: `WAYPOST_KILLS`, or so many.
const KILLS: usize = 15;

fn kills() -> usize {
    std::env::var("WAYPOST_KILLS").map_or(KILLS, |kills| kills.parse().expect("WAYPOST_KILLS is a number"))
}

/// Returns how many deliveries of a subscription are in each state.
async fn counts(server: &Server, uuid: &str) -> Value {
    server.get(&format!("/eventmatch/{uuid}/deliveries?limit=1")).await.ok().json()["counts"].clone()
}

fn sum(counts: &Value) -> u64 {
    counts.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

/// Asserts that a target has met the events of each producer in the order in which they were accepted: a kill repeats some,
/// and lets none overtake another.
fn assert_in_order(got: &[Request]) {
    let (mut met, mut last) = (HashSet::new(), HashMap::new());
    for request in got.iter().filter(|request| met.insert(request.event_id())) {
        let id = request.event_id();
        let (producer, number) = id.rsplit_once('-').unwrap();
        let number: u32 = number.parse().unwrap();
        let before = last.insert(producer.to_owned(), number);
        assert!(before.is_none_or(|before| before < number), "{id} comes after {before:?}");
    }
}

#[tokio::test]
async fn accepted_is_delivered_dead_or_waiting_however_often_it_is_killed() {
    // Without admins, operator events go to nobody.
    let flags = ["--retry-schedule", "20ms,20ms,20ms,20ms,20ms,20ms,20ms,20ms", "--admin-users", "nobody"];
    let (mut server, target) = (Server::with(&flags).await, Target::start().await);
    let mut met = HashSet::new();
    target.script("/flaky", move |request| {
        let (id, number) = (request.event_id(), met.len());
        Answer::status(if met.insert(id) && number % 3 == 0 { 503 } else { 204 })
    });
    target.script("/picky", |request| {
        Answer::status(if request.event_id().ends_with('7') { 415 } else { 204 })
    });
    target.always("/down", Answer::status(500));
    for path in ["/fifo", "/keyed"] {
        let mut met = HashSet::new();
        target.script(path, move |request| {
            Answer::status(if met.insert(request.event_id()) && met.len() % 10 == 0 { 503 } else { 204 })
        });
    }
    let mut subscriptions = Vec::new();
    for (path, more) in [
        ("/well", json!({})),
        ("/limited", json!({"rate_limit": "400/s burst 5"})),
        ("/flaky", json!({})),
        ("/picky", json!({})),
        ("/down", json!({"retry": "1h"})),
        ("/fifo", json!({"ordering": "fifo"})),
        ("/keyed", json!({"ordering": {"key": "$.source"}, "on_dead": "stop"})),
    ] {
        let mut fields = more;
        fields["target_url"] = target.url(path).into();
        subscriptions.push((path, server.subscribe(fields).await));
    }
    let mut accepted = Vec::new();
    for round in 1..=kills() {
        let mut producers = JoinSet::new();
        for producer in 0..4 {
            producers.spawn(produce(server.user("producer"), format!("{round}-{producer}")));
        }
        target.wait_for("/well", target.requests("/well").len() + 30 + 7 * (round % 5)).await;
        server.kill9();
        accepted.extend(producers.join_all().await.into_iter().flatten());
        server.restart().await;
    }
    for (path, uuid) in &subscriptions {
        let wanted: HashSet<_> =
            accepted.iter().filter(|id| *path != "/picky" || !id.ends_with('7')).collect();
        if *path == "/down" {
            continue;
        }
        let all = wait_until(&format!("{path} has every accepted event"), async || {
            let got: HashSet<_> = target.requests(path).iter().map(Request::event_id).collect();
            let counts = counts(&server, uuid).await;
            let is_over = ["pending", "retrying", "held"].iter().all(|state| counts[state] == 0);
            (is_over && wanted.iter().all(|id| got.contains(*id))).then_some(counts)
        })
        .await;
        let dead = all["dead"].as_u64().unwrap();
        assert!(*path == "/picky" || dead == 0, "{path}: {all}");
        assert!(all["delivered"].as_u64().unwrap() >= wanted.len() as u64, "{path}: {all}");
        assert_repeats_are_recognisable(&target.requests(path));
        if ["/fifo", "/keyed"].contains(path) {
            assert_in_order(&target.requests(path));
        }
    }
    // An event whose answer the kill has swallowed may be in the log: for all of them alike.
    let ledgers = {
        let mut ledgers = Vec::new();
        for (_, uuid) in &subscriptions {
            ledgers.push(counts(&server, uuid).await);
        }
        ledgers
    };
    let total = sum(&ledgers[0]);
    assert!(total >= accepted.len() as u64);
    assert!(ledgers.iter().all(|counts| sum(counts) == total), "{total}: {ledgers:?}");
    let down = &ledgers[4];
    assert_eq!(down["delivered"], 0, "{down}");
    let (requests, waiting) = (target.requests("/down").len(), down["pending"].as_u64().unwrap());
    assert!(waiting > 0 && requests < accepted.len(), "its breaker opens again after each start: {requests}");
}

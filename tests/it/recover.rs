//! Replaying the log into a subscription: each missing delivery is made once, whatever happens meanwhile.

mod asking;
mod exactly_once;

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::harness::{Api, Request, event, wait_until};

/// Posts events in one batch, and returns the producer's ids.
async fn fill(api: &Api, name: &str, count: usize) -> Vec<String> {
    let ids: Vec<_> = (0..count).map(|n| format!("{name}-{n}")).collect();
    let events: Vec<Value> = ids.iter().map(|id| event(id)).collect();
    api.receive_as("application/cloudevents-batch+json", json!(events).to_string()).await.ok();
    ids
}

async fn recovery(api: &Api, uuid: &str) -> Value {
    api.get(&format!("/eventmatch/{uuid}/recover")).await.ok().json()
}

async fn recover(api: &Api, uuid: &str, body: Value) -> Value {
    let reply = api.post(&format!("/eventmatch/{uuid}/recover"), &body).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.json()
}

/// Waits until a subscription's recovery has ended in this state, and returns it.
async fn ended(api: &Api, uuid: &str, state: &str) -> Value {
    wait_until(&format!("the recovery of {uuid} is {state}"), async || {
        let recovery = recovery(api, uuid).await;
        (recovery["state"] == state).then_some(recovery)
    })
    .await
}

fn ids(got: &[Request]) -> Vec<String> {
    got.iter().map(Request::event_id).collect()
}

/// Asserts that a path got exactly these events, each once, in any order.
#[track_caller]
fn assert_once(got: &[Request], expected: &[String]) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for id in ids(got) {
        *counts.entry(id).or_default() += 1;
    }
    let missing: Vec<_> = expected.iter().filter(|id| !counts.contains_key(*id)).collect();
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(missing.is_empty() && twice.is_empty(), "missing {missing:?}, repeated {twice:?}");
    assert_eq!(got.len(), expected.len());
}

//! The disk is full: a clear 503, nothing accepted is lost, and service resumes without a restart.
//!
//! A file size limit on the running process simulates the full disk: writes past it fail, reads do not.

use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;

use crate::harness::{Answer, Launch, Server, Target, event, merged, wait_until};

pub(crate) fn database(server: &Server) -> PathBuf {
    let files = std::fs::read_dir(server.data()).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

pub(crate) fn limit_files(server: &Server, bytes: Option<u64>) {
    // The hard limit stays unlimited, so that the limit can be raised again.
    prlimit(Some(server.pid()), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

/// Posts smaller and smaller events until nothing fits, not even the probe of `/readyz`; returns the ids of the accepted
/// ones.
pub(crate) async fn fill(server: &Server) -> Vec<String> {
    let mut accepted = Vec::new();
    for bytes in [100_000, 10_000, 1_000, 0] {
        // A failed write frees some room, so one refusal does not mean that the next event is refused too.
        let mut refusals = 0;
        while refusals < 3 {
            let filler = merged(event("filler"), json!({"data": "x".repeat(bytes)}));
            let reply = server.receive_as("application/json", filler.to_string()).await;
            if reply.status == 200 {
                accepted.push(reply.text());
                assert!(accepted.len() < 5000, "the disk does not fill");
            } else {
                reply.refused(503);
                let is_full = bytes > 0 || server.get("/readyz").await.status == 503;
                refusals = if is_full { refusals + 1 } else { 0 };
            }
        }
    }
    accepted
}

#[tokio::test]
async fn a_full_disk_answers_503_keeps_accepted_events_and_resumes() {
    let (server, target) = (
        Server::launch(Launch::FileSizeErrors, &["--retry-schedule", "1s,1s,1s"], &[]).await,
        Target::start().await,
    );
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let mut accepted = Vec::new();
    for n in 0..20 {
        accepted.push(server.receive(&event(&format!("before-{n}"))).await);
    }
    target.wait_for("/t", 20).await;
    limit_files(&server, Some(database(&server).metadata().unwrap().len() + 4096));
    accepted.extend(fill(&server).await);

    let unready = server.get("/readyz").await.refused(503);
    assert!(!unready.detail.is_empty());
    server.get("/healthz").await.ok();
    let large = merged(event("refused"), json!({"data": "x".repeat(100_000)}));
    server.receive_as("application/json", large.to_string()).await.refused(503);
    for id in &accepted {
        assert_eq!(
            server.get(&format!("/events/{id}")).await.status,
            200,
            "{id} is readable while the disk is full"
        );
    }

    limit_files(&server, None);
    wait_until("there is room again", async || (server.get("/readyz").await.status == 200).then_some(()))
        .await;
    accepted.push(server.receive(&event("after")).await);
    for id in &accepted {
        server.delivery_in(id, &subscription, "delivered").await;
    }
    let got = target.requests("/t");
    assert!(got.iter().all(|request| request.event_id() != "refused"), "nothing is half stored");
    assert!(got.len() >= accepted.len());
}

#[tokio::test]
async fn after_a_full_disk_and_kill_9_everything_accepted_is_there() {
    let target = Target::start().await;
    let mut server = Server::launch(Launch::FileSizeErrors, &["--retry-schedule", "1s,1s,1s"], &[]).await;
    let gate = target.hang("/t");
    let subscription = server.subscribe(json!({"target_url": target.url("/t"), "max_in_flight": 1})).await;
    let mut accepted = vec![server.receive(&event("before")).await];
    limit_files(&server, Some(database(&server).metadata().unwrap().len() + 4096));
    accepted.extend(fill(&server).await);
    server.kill9();
    gate.open();
    server.restart().await;
    for id in &accepted {
        server.delivery_in(id, &subscription, "delivered").await;
    }
}

#[tokio::test]
async fn changes_of_subscriptions_are_503_while_the_disk_is_full() {
    let (server, target) = (Server::launch(Launch::FileSizeErrors, &[], &[]).await, Target::start().await);
    target.always("/t", Answer::status(200));
    let kept = server.subscribe(json!({"target_url": target.url("/t"), "jsonpath": "$.nothing"})).await;
    let before = server.subscription(&kept).await;
    limit_files(&server, Some(database(&server).metadata().unwrap().len() + 4096));
    fill(&server).await;
    // A small change may still fit where a large event does not, and each refused one frees some room.
    let (mut before, mut refused) = (before, 0);
    for n in 0..1_000 {
        let name = format!("{n:0200}");
        let reply = server.put(&format!("/eventmatch/{kept}"), &json!({"name": name})).await;
        let now = server.subscription(&kept).await;
        if reply.status == 200 {
            assert_eq!(now["name"], name);
            before = now;
        } else {
            reply.refused(503);
            assert_eq!(now, before, "nothing of it was kept");
            refused += 1;
        }
        if refused == 3 {
            break;
        }
        fill(&server).await;
    }
    assert_eq!(refused, 3, "the disk is not full");
    limit_files(&server, None);
    wait_until("there is room again", async || (server.get("/readyz").await.status == 200).then_some(()))
        .await;
    assert_eq!(server.update(&kept, &json!({"name": "renamed"})).await["name"], "renamed");
}

//! A data folder with a limit: what is settled makes room, what waits is never thrown away, and the file gives room back.

use std::path::Path;

use serde_json::{Value, json};

use crate::disk_full::database;
use crate::harness::{Answer, Reply, Server, Target, event, merged, run, wait_until};

/// The smallest limit.
const MAX: &str = "16777216";
/// How many bytes each event has.
const BYTES: usize = 100_000;

fn large(id: &str) -> Value {
    merged(event(id), json!({"data": "x".repeat(BYTES)}))
}

async fn send(server: &Server, id: &str) -> Reply {
    server.receive_as("application/json", large(id).to_string()).await
}

#[tokio::test]
async fn what_is_settled_makes_room_then_507_and_then_it_accepts_again() {
    let target = Target::start().await;
    let server = Server::with(&["--max-disk-bytes", MAX, "--retry-schedule", "1h"]).await;
    server.subscribe(json!({"name": "good", "target_url": target.url("/good")})).await;
    let mut accepted = Vec::new();
    for number in 0..300 {
        let id = server.receive(&large(&format!("settled-{number}"))).await;
        accepted.push(id);
    }
    let first = format!("/events/{}", accepted[0]);
    wait_until("the oldest event makes room", async || {
        (server.get(&first).await.status == 404).then_some(())
    })
    .await;
    server.get(&format!("/events/{}", accepted[299])).await.ok();
    target.wait_for("/good", 300).await;

    // What waits is kept: at the limit, nothing more comes in.
    target.always("/down", Answer::status(500));
    let waits = server.subscribe(json!({"name": "waits", "target_url": target.url("/down")})).await;
    let mut waiting = Vec::new();
    let refused = loop {
        assert!(waiting.len() < 2_000, "the limit does not hold");
        let reply = send(&server, &format!("waits-{}", waiting.len())).await;
        if reply.status != 200 {
            break reply;
        }
        waiting.push(reply.text());
    };
    assert_eq!(refused.header("retry-after"), "60");
    refused.refused(507).says("max_disk_bytes").says("waypost discard");
    server.get("/readyz").await.ok();
    for id in &waiting {
        let state = server.delivery(id, &waits).await["state"].clone();
        assert!(state == "retrying" || state == "pending", "{id} is {state}");
    }
    // What is deleted waits no more.
    server.delete(&format!("/eventmatch/{waits}")).await.ok();
    let last = wait_until("there is room again", async || {
        let reply = send(&server, "after").await;
        (reply.status == 200).then(|| reply.text())
    })
    .await;
    server.get(&format!("/events/{last}")).await.ok();
    target.wait_for("/good", 300 + waiting.len() + 1).await;
}

#[tokio::test]
async fn a_disabled_backlog_ends_with_its_retention_and_says_so() {
    let target = Target::start().await;
    let mut server = Server::with(&["--backlog-retention", "1ms"]).await;
    let gate = target.hang("/t");
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "max_in_flight": 1})).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(server.receive(&event(&number.to_string())).await);
    }
    target.wait_for("/t", 1).await;
    target.always("/t", Answer::status(410));
    gate.open();
    server.disabled(&uuid).await;
    let pending = async |id: &str| server.delivery(id, &uuid).await["state"] == "pending";
    assert!(pending(&ids[2]).await, "it waits until the subscription is enabled again");
    server.terminate();
    server.exited().await;
    server.restart().await;
    let dead = server.delivery_in(&ids[2], &uuid, "dead").await;
    assert!(dead.to_string().contains("backlog_retention"), "{dead}");
    // And it can be sent again.
    target.always("/t", Answer::status(200));
    server.update(&uuid, &json!({"disabled": null})).await;
    server.post(&format!("/events/{}/retry?subscription={uuid}", ids[2]), &json!({})).await.ok();
    server.delivery_in(&ids[2], &uuid, "delivered").await;
}

#[tokio::test]
async fn an_admin_compacts_the_database_while_it_works() {
    let target = Target::start().await;
    let server = Server::with(&["--admin-users", "ann"]).await;
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    bob.subscribe(json!({"target_url": target.url("/t")})).await;
    let mut ids = Vec::new();
    for number in 0..100 {
        ids.push(bob.receive(&large(&number.to_string())).await);
    }
    target.wait_for("/t", 100).await;
    bob.status_is(&ids[99], "200 OK").await;
    let size = || blocks(&database(&server));
    let before = size();
    wait_until("all are purged", async || {
        let purged = ann.delete("/events?before=2100-01-01T00:00:00Z").await.ok().json();
        (purged["kept"] == 0).then_some(())
    })
    .await;
    bob.post("/db/compact", &json!({})).await.refused(403);
    let flags = ["db", "compact", "--server", &server.url, "--user", "ann"];
    let said = run(&flags, "").await;
    assert_eq!(said.code, 0, "{}", said.stderr);
    let text = said.stdout;
    assert!(
        text.starts_with("the database took ") && text.contains(" bytes of the disk, and takes "),
        "{text}"
    );
    assert!(size() < before / 2, "{} of {before}", size());
    let after = bob.receive(&event("after")).await;
    bob.status_is(&after, "200 OK").await;
    bob.get(&format!("/events/{after}")).await.ok();
}

fn blocks(file: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().unwrap().blocks() * 512
}

//! The outputs, logs and state of one user's plugins have a limit, which affects only that user (promises 3 and 5).

use serde_json::{Value, json};

use super::{probing, using};
use crate::harness::{Answer, Server, Target, event_1_0, merged};

/// An event from which the guest makes an output of about this many bytes.
fn large(id: &str, bytes: usize) -> Value {
    merged(event_1_0(id), json!({"data": "x".repeat(bytes)}))
}

/// Outputs of dead letters were kept without a limit: one user's dead target could fill the disk for everyone.
#[tokio::test]
async fn outputs_beyond_a_users_share_wait_and_others_are_delivered() {
    let flags = ["--user-bytes-max", "250000", "--retry-schedule", "none"];
    let (mut server, target) = (Server::with(&flags).await, Target::start().await);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    target.always("/ann", Answer::status(415));
    let upper = json!({"transform": "upper"});
    let of_ann = probing(&ann, &target.url("/ann"), upper.clone()).await;
    let of_bob = probing(&bob, &target.url("/bob"), upper).await;
    let mut dead = Vec::new();
    for n in 0..2 {
        let id = server.receive(&large(&format!("dead-{n}"), 100_000)).await;
        server.delivery_in(&id, &of_ann, "dead").await;
        dead.push(id);
    }
    let waits = server.receive(&large("waits", 100_000)).await;
    let delivery = server.delivery_in(&waits, &of_ann, "retrying").await;
    let reason = delivery["reason"].as_str().unwrap();
    assert!(reason.contains("`ann`") && reason.contains("250000 (the setting user_bytes_max)"), "{reason}");
    for id in dead.iter().chain([&waits]) {
        server.delivery_in(id, &of_bob, "delivered").await;
    }
    assert_eq!(target.requests("/ann").len(), 2, "nothing is sent that is not kept");
    assert_eq!(ann.subscription(&of_ann).await["disabled"], Value::Null);

    server.restart().await;
    server.delivery_in(&waits, &of_ann, "retrying").await;
    target.always("/ann", Answer::status(200));
    server.post(&format!("/events/{}/retry", dead[0]), &Value::Null).await.ok();
    server.delivery_in(&dead[0], &of_ann, "delivered").await;
    // The end of the dead letter freed its room.
    let delivery = server.delivery_in(&waits, &of_ann, "delivered").await;
    assert!(delivery["attempts"].as_array().unwrap().iter().all(|attempt| attempt["number"] == 1));
}

/// Subscriptions were not counted: a user could create any number, of 256 KiB each.
#[tokio::test]
async fn subscriptions_beyond_a_users_share_are_507_and_existing_ones_can_be_paused_and_deleted() {
    let server = Server::with(&["--user-bytes-max", "20000"]).await;
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let large = json!({"extensions": {"a": "x".repeat(15_000)}, "target_url": "http://127.0.0.1:9/"});
    let uuid = ann.subscribe(large.clone()).await;
    let whole = ann.subscription(&uuid).await;
    ann.post("/eventmatch", &whole).await.refused(507).says("20000 (the setting user_bytes_max)");
    let path = format!("/eventmatch/{uuid}");
    let larger = json!({"extensions": {"a": "x".repeat(25_000)}});
    ann.put(&path, &larger).await.refused(507).says("user_bytes_max");
    bob.subscribe(large).await;
    ann.update(&uuid, &json!({"disabled": "2026-01-31T12:00:00Z"})).await;
    ann.update(&uuid, &json!({"disabled": null, "name": "n"})).await;
    ann.delete(&path).await.ok();
}

#[tokio::test]
async fn a_success_keeps_the_end_of_its_log_and_a_failure_all_of_it() {
    let line = "l".repeat(900);
    let flags = ["--retry-schedule", "none", "--plugin-success-log-bytes", "500"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    let good = probing(&server, &target.url("/t"), json!({"log": line})).await;
    let config = json!({"log": line, "transform": "invalid-event: no rows"});
    let bad = using(&server, waypost_guests::PROBE, &target.url("/t"), json!({"config": config})).await;
    target.always("/t", Answer::status(200).body("a".repeat(5_000)));
    let id = server.receive(&event_1_0("a")).await;
    let delivered = server.delivery_in(&id, &good, "delivered").await;
    let run = &delivered["attempts"][0]["plugin"];
    assert_eq!((&run["logs"], &run["logs_dropped"]), (&json!([]), &json!(1)), "{run}");
    assert_eq!(delivered["attempts"][0]["target"]["body"].as_str().unwrap().len(), 1_024);
    let dead = server.delivery_in(&id, &bad, "dead").await;
    assert_eq!(dead["attempts"][0]["plugin"]["logs"][0]["message"], line);
}

//! Targets that hang, trickle, never end, or answer what nobody asked for.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Scene;
use crate::harness::{Act, RawTarget};

const FLAGS: [&str; 4] = ["--attempt-timeout-ms", "2000", "--retry-schedule", "none"];

/// What becomes of an event whose target answers so.
const DELIVERED: bool = true;
const DEAD: bool = false;

/// The cases: a status that has arrived decides, whatever follows.
fn cases() -> Vec<(&'static str, Act, bool)> {
    let stall = |text: &str| Act::Stall(text.into());
    let endless = |text: &str, again: String| Act::Endless(text.into(), again.into_bytes());
    let filler = "x".repeat(16 * 1024);
    vec![
        ("hangs-before-headers", stall(""), DEAD),
        ("hangs-in-the-status-line", stall("HTTP/1.1 20"), DEAD),
        ("hangs-in-headers", stall("HTTP/1.1 200 OK\r\nServer: "), DEAD),
        ("hangs-after-headers", stall("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), DELIVERED),
        ("trickles-headers", Act::Trickle("HTTP/1.1 200 OK\r\n\r\n".into()), DEAD),
        ("endless-line", endless("HTTP/1.1 200 OK\r\nX-A: ", filler.clone()), DELIVERED),
        ("endless-headers", endless("HTTP/1.1 200 OK\r\n", "X-A: b\r\n".repeat(1_000)), DELIVERED),
        ("endless-status", endless("HTTP/1.1 200 ", filler.clone()), DELIVERED),
        (
            "endless-body",
            endless("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", filler.clone()),
            DELIVERED,
        ),
        ("body-to-the-end-of-the-connection", endless("HTTP/1.1 200 OK\r\n\r\n", filler.clone()), DELIVERED),
        (
            "endless-chunks",
            endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", format!("4000\r\n{filler}\r\n")),
            DELIVERED,
        ),
        (
            "endless-chunk-extension",
            endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", filler.clone()),
            DELIVERED,
        ),
        ("endless-failure", endless("HTTP/1.1 500 No\r\nContent-Length: 99999999999\r\n\r\n", filler), DEAD),
        ("informational-flood", endless("", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)), DEAD),
        ("continue-flood", endless("", "HTTP/1.1 100 Continue\r\nX: y\r\n\r\n".repeat(100)), DEAD),
        (
            "much-information-and-an-answer",
            Act::Answer(
                ["HTTP/1.1 102 Wait\r\n\r\n".repeat(200), "HTTP/1.1 204 OK\r\n\r\n".to_owned()]
                    .concat()
                    .into(),
            ),
            DELIVERED,
        ),
        ("switches-protocols", Act::Last("HTTP/1.1 101 Switching Protocols\r\n\r\n".into()), DEAD),
        ("garbage", Act::Last((0..=255).rev().cycle().take(4_096).collect()), DEAD),
        ("no-status", Act::Last("HTTP/1.1 999999 What\r\n\r\n".into()), DEAD),
        (
            "shorter-than-it-says",
            Act::Last("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok".into()),
            DELIVERED,
        ),
        ("negative-length", Act::Last("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok".into()), DELIVERED),
        (
            "two-lengths",
            Act::Last("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok".into()),
            DELIVERED,
        ),
    ]
}

#[tokio::test]
async fn whatever_a_target_does_a_healthy_one_stays_fast_and_no_event_is_lost() {
    let mut scene = Scene::with(&FLAGS).await;
    let mut targets = Vec::new();
    for (name, act, _) in cases() {
        let target = RawTarget::always(act).await;
        scene.subscribe_faulty(name, target.url("/t"), json!({})).await;
        targets.push(target);
    }
    scene.fault().await;
    for _ in 0..3 {
        scene.send().await;
    }
    let mut wrong = Vec::new();
    for (name, _, is_delivered) in cases() {
        let ends = scene.ends(name).await;
        if ends != (if is_delivered { (1, 0) } else { (0, 1) }) {
            wrong.push((name, ends));
        }
    }
    assert_eq!(wrong, []);
    scene.close().await;
}

/// What stands behind an answer is not the answer to the next request: with it, a target (or what sits before it) could have
/// answered for events that it has not seen.
#[tokio::test]
async fn bytes_behind_an_answer_are_no_answer_to_the_next_request() {
    let mut scene = Scene::with(&FLAGS).await;
    let answer =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n";
    let target = RawTarget::always(Act::Answer(answer.into())).await;
    let uuid = scene.subscribe("longer-than-it-says", json!({"target_url": target.url("/t")})).await;
    for _ in 0..5 {
        let id = scene.send().await;
        let delivery = scene.server.user("longer-than-it-says").delivery_in(&id, &uuid, "delivered").await;
        assert_eq!(delivery["attempts"][0]["target"]["status"], 200, "{delivery}");
    }
    let shown = scene.server.user("longer-than-it-says").subscription(&uuid).await;
    assert_eq!((&shown["disabled"], target.requests().len()), (&Value::Null, 5));
    scene.close().await;
}

/// A target that closes after each answer and does not say so: what was sent on the dying connection is repeated on another.
#[tokio::test]
async fn connections_that_close_after_each_answer_fail_no_attempt() {
    let mut scene = Scene::with(&FLAGS).await;
    let target = RawTarget::always(Act::Last("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into())).await;
    let fields = json!({"target_url": target.url("/t"), "max_in_flight": 4});
    let uuid = scene.subscribe("closing", fields).await;
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(scene.send().await);
    }
    assert_eq!(scene.ends("closing").await, (60, 0));
    for id in &ids {
        let delivery = scene.server.user("closing").delivery(id, &uuid).await;
        assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1, "{delivery}");
    }
    scene.close().await;
}

/// A large event to a target that accepts connections and reads nothing: the attempt ends at its time.
#[tokio::test]
async fn a_target_that_reads_nothing_ends_the_attempt_at_its_time() {
    let mut scene = Scene::with(&FLAGS).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let uuid = scene.subscribe_faulty("deaf", url, json!({})).await;
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(listener.accept().await.unwrap());
        }
    });
    let id = scene.fault_with(json!({"data": {"text": "x".repeat(900_000)}})).await;
    scene.server.user("deaf").delivery_in(&id, &uuid, "dead").await;
    assert_eq!(scene.ends("deaf").await, (0, 1));
    scene.close().await;
}

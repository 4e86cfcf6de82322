//! Producers that break off, and crowds of clients that send a byte now and then.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Scene;
use crate::harness::{event, wait_until};

/// The most clients that are slow at once.
const CROWD: u64 = 5_000;
/// How many files the test and the service need besides.
const OTHER_FILES: u64 = 1_000;
/// What a connection may take in a debug build: its task, and the buffer of 8 KiB that hyper reads into first.
const CLIENT_BYTES_MAX: u64 = 32 * 1024;

/// Returns what to send to accept events.
fn request(media: &str, body: &str) -> Vec<u8> {
    let head = "POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/";
    format!("{head}{media}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn connect(scene: &Scene) -> TcpStream {
    TcpStream::connect(scene.server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Returns how many events are in the log, at most 1,000.
async fn logged(scene: &Scene) -> usize {
    scene.server.get("/events?limit=1000").await.ok().json()["events"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_producer_that_breaks_off_leaves_nothing_and_delays_nobody() {
    let mut scene = Scene::with(&[]).await;
    let batch: Vec<Value> = (0..50).map(|n| event(&format!("broken-{n}"))).collect();
    let one = request("cloudevents+json", &event("broken").to_string());
    let many = request("cloudevents-batch+json", &json!(batch).to_string());
    let chunked =
        b"POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cloudevents+json\r\n\
        Transfer-Encoding: chunked\r\n\r\nff\r\n{\"specversion\"";
    for whole in [one, many, chunked.to_vec()] {
        // In the head, and everywhere in the body.
        for part in 0..40 {
            let sent = (whole.len() - 1) * part / 39;
            let mut stream = connect(&scene).await;
            stream.write_all(&whole[..sent]).await.unwrap();
            if part % 2 == 0 {
                stream.set_zero_linger().unwrap();
            }
        }
        scene.send().await;
    }
    scene.send().await;
    assert_eq!(logged(&scene).await, scene.accepted.len(), "and nothing of a batch");
    scene.close().await;
}

/// A producer that goes before it has read the answer: its batch is logged whole, or not at all.
#[tokio::test]
async fn a_producer_that_goes_before_the_answer_has_sent_all_or_nothing() {
    let mut scene = Scene::with(&["--dedup-window", "1h"]).await;
    for number in 0..20 {
        let batch: Vec<Value> = (0..10).map(|place| event(&format!("gone-{number}-{place}"))).collect();
        let mut stream = connect(&scene).await;
        stream.write_all(&request("cloudevents-batch+json", &json!(batch).to_string())).await.unwrap();
        stream.set_zero_linger().unwrap();
    }
    // It asks again, and learns which of them the service has.
    for number in 0..20 {
        let batch: Vec<Value> = (0..10).map(|place| event(&format!("gone-{number}-{place}"))).collect();
        let media = "application/cloudevents-batch+json";
        let reply = scene.server.receive_as(media, json!(batch).to_string()).await.ok();
        let repeats = reply.headers.get("waypost-duplicate").map(|value| value.to_str().unwrap().to_owned());
        assert!(repeats.as_deref().is_none_or(|repeats| repeats == "true"), "{number}: {repeats:?}");
        scene.accepted.extend(reply.text().lines().map(str::to_owned));
    }
    scene.healthy.wait_for("/healthy", scene.accepted.len()).await;
    assert_eq!(logged(&scene).await, scene.accepted.len());
    scene.close().await;
}

/// Raises the limit of open files as far as it goes, and returns how many clients there is room for.
#[expect(clippy::print_stdout, reason = "it says how many they are")]
fn crowd() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let clients = maximum.map_or(CROWD, |most| CROWD.min(most.saturating_sub(OTHER_FILES) / 2));
    println!("{clients} slow clients of {CROWD}: RLIMIT_NOFILE is {maximum:?}");
    assert!(clients >= 100, "RLIMIT_NOFILE leaves room for {clients} clients");
    clients
}

/// Clients that send a byte of a request now and then: with all places taken, connections that are served are served on, others
/// are refused at once, and the places are free again after the header timeout.
#[tokio::test]
async fn a_crowd_of_slow_clients_keeps_nobody_out_for_longer_than_the_header_timeout() {
    let clients = crowd();
    let places = clients.to_string();
    let flags = ["--connections-max", &places, "--header-timeout-ms", "5000"];
    let mut scene = Scene::with(&flags).await;
    scene.memory_max += clients * CLIENT_BYTES_MAX;
    // The connection of the producer is kept open.
    scene.send().await;
    let mut crowd = JoinSet::new();
    for _ in 0..clients + clients / 10 {
        let mut stream = connect(&scene).await;
        crowd.spawn(async move {
            let mut now_and_then = tokio::time::interval(Duration::from_secs(1));
            let mut answer = [0; 512];
            for byte in b"POST /receive HTTP/1.1\r\nHost: localhost\r\nX-Slow: xxxxxxxxxxxxxxxxxxxx" {
                tokio::select! {
                    biased;
                    _ = stream.read(&mut answer) => return,
                    _ = now_and_then.tick() => {}
                }
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        });
    }
    for _ in 0..10 {
        scene.send().await;
    }
    let gone = wait_until("the slow ones are disconnected", async || {
        while crowd.try_join_next().is_some() {}
        crowd.is_empty().then_some(())
    });
    gone.await;
    let mut new = connect(&scene).await;
    new.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    new.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    scene.close().await;
}

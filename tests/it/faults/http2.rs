//! HTTP/2 targets that go away, reset every stream, or send frames without end.

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Scene, acceptor};
use crate::harness::{Authority, serve_each};

const FLAGS: [&str; 4] = ["--attempt-timeout-ms", "2000", "--retry-schedule", "none"];

/// What a client sends first (RFC 9113 §3.4).
const PREFACE: usize = 24;
const HEADERS: u8 = 1;

/// Returns a frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns a GOAWAY after a stream, with an error code.
fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A target that answers the first request of each connection with frames, and then with others for as long as it can.
struct FrameTarget {
    port: u16,
    _tasks: JoinSet<()>,
}

impl FrameTarget {
    async fn start(acceptor: TlsAcceptor, first: Vec<u8>, again: Option<Vec<u8>>) -> Self {
        let serve = move |stream| {
            let (acceptor, first, again) = (acceptor.clone(), first.clone(), again.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let (mut reading, mut writing) = tokio::io::split(stream);
                drop(writing.write_all(&frame(4, 0, 0, &[])).await);
                if !has_request(&mut reading).await || writing.write_all(&first).await.is_err() {
                    return;
                }
                let Some(again) = again else { return };
                let flood = async { while writing.write_all(&again).await.is_ok() {} };
                let mut sink = tokio::io::sink();
                let (_, read) = tokio::join!(flood, tokio::io::copy(&mut reading, &mut sink));
                drop(read);
            }
        };
        let (port, tasks) = serve_each(serve).await;
        Self { port, _tasks: tasks }
    }
}

/// Reads up to the headers of a request.
async fn has_request(reading: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut skipped = vec![0; PREFACE];
    if reading.read_exact(&mut skipped).await.is_err() {
        return false;
    }
    let mut head = [0; 9];
    while reading.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        skipped.resize(length, 0);
        if reading.read_exact(&mut skipped).await.is_err() {
            return false;
        }
        if head[3] == HEADERS {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn frames_without_end_and_streams_that_are_reset_fail_their_attempts_alone() {
    let mut scene = Scene::with(&FLAGS).await;
    let authority = Authority::new();
    let reset = |code: u32| frame(3, 0, 1, &code.to_be_bytes());
    // `:status: 103`, as a literal with an indexed name (RFC 7541 §6.2.2).
    let hints = frame(HEADERS, 4, 1, &[&[0x08, 3][..], b"103"].concat());
    let unfinished = frame(HEADERS, 0, 1, &[&[0x08, 3][..], b"200"].concat());
    // `a: ` and 250 bytes, as a literal with a new name.
    let filler = [&[0x00, 1, b'a', 0x7f, 123][..], &[b'x'; 250]].concat();
    let cases = [
        ("goes-away", goaway(0, 0), None),
        ("goes-away-with-an-error", goaway(1, 11), None),
        ("goaway-flood", Vec::new(), Some(goaway(0, 0))),
        ("refuses-the-stream", reset(7), None),
        ("rst-flood", reset(7), Some(reset(8))),
        ("rst-without-a-reason", reset(0), None),
        ("ping-flood", Vec::new(), Some(frame(6, 0, 0, &[7; 8]).repeat(100))),
        ("settings-flood", Vec::new(), Some(frame(4, 0, 0, &[]).repeat(100))),
        ("continuation-flood", unfinished, Some(frame(9, 0, 1, &filler.repeat(60)))),
        ("informational-flood", Vec::new(), Some(hints.repeat(100))),
        ("data-before-headers", frame(0, 0, 1, b"no"), None),
        ("unknown-frames", Vec::new(), Some(frame(0xee, 0, 1, &[0; 4_096]))),
        ("garbage", vec![0xff; 4_096], None),
    ];
    let mut targets = Vec::new();
    for (name, first, again) in cases {
        let target = FrameTarget::start(acceptor(&authority, &["h2"]), first, again).await;
        let url = format!("https://localhost:{}/", target.port);
        scene.subscribe_faulty(name, url, json!({"target_ca": authority.pem()})).await;
        targets.push((name, target));
    }
    scene.fault().await;
    scene.send().await;
    for (name, _) in &targets {
        assert_eq!(scene.ends(name).await, (0, 1), "{name}");
    }
    scene.close().await;
}

/// A target that restarts gracefully all the time answers what it has begun.
#[tokio::test]
async fn a_target_that_goes_away_after_each_answer_gets_all_events() {
    let mut scene = Scene::with(&FLAGS).await;
    let authority = Authority::new();
    let acceptor = acceptor(&authority, &["h2"]);
    let serve = move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let answer = http::Response::builder().status(204).body(()).unwrap();
                drop(respond.send_response(answer, true));
                connection.graceful_shutdown();
            }
        }
    };
    let (port, _tasks) = serve_each(serve).await;
    let url = format!("https://localhost:{port}/");
    let uuid = scene.subscribe("leaving", json!({"target_url": url, "target_ca": authority.pem()})).await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(scene.send().await);
    }
    assert_eq!(scene.ends("leaving").await, (30, 0));
    for id in &ids {
        let delivery = scene.server.user("leaving").delivery(id, &uuid).await;
        assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1, "{delivery}");
    }
    scene.close().await;
}

//! Connections that are reset after each number of bytes, in the request, in the answer and in the handshake of TLS.

use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Scene, acceptor};
use crate::harness::{Act, Authority, RawTarget, serve_each};

const FLAGS: [&str; 4] = ["--attempt-timeout-ms", "5000", "--retry-schedule", "none"];
const ANSWER: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// After how many bytes, and of which side, a connection is reset.
#[derive(Clone, Copy)]
enum Cut {
    Request(usize),
    Answer(usize),
}

/// Passes bytes between the service and a target, and resets each connection at its cut.
struct Cutter {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Cutter {
    async fn start(to: u16, cut: Cut) -> Self {
        let (port, tasks) = serve_each(move |stream| pass(stream, to, cut)).await;
        Self { port, _tasks: tasks }
    }
}

async fn pass(mut client: TcpStream, to: u16, cut: Cut) {
    let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
    let (request_max, answer_max) = match cut {
        Cut::Request(bytes) => (bytes as u64, u64::MAX),
        Cut::Answer(bytes) => (u64::MAX, bytes as u64),
    };
    {
        let (from_client, mut to_client) = client.split();
        let (from_server, mut to_server) = server.split();
        let (mut request, mut answer) = (from_client.take(request_max), from_server.take(answer_max));
        tokio::select! {
            _ = copy(&mut request, &mut to_server) => {}
            _ = copy(&mut answer, &mut to_client) => {}
        }
    }
    client.set_zero_linger().unwrap();
    server.set_zero_linger().unwrap();
}

#[tokio::test]
async fn a_reset_at_each_byte_of_an_answer_is_a_failure_until_the_status_is_there() {
    let mut scene = Scene::with(&FLAGS).await;
    let target = RawTarget::always(Act::Answer(ANSWER.into())).await;
    let mut cutters = Vec::new();
    for bytes in 0..=ANSWER.len() {
        let cutter = Cutter::start(target.port(), Cut::Answer(bytes)).await;
        let url = format!("http://127.0.0.1:{}/{bytes}", cutter.port);
        scene.subscribe_faulty(&format!("answer-{bytes}"), url, json!({})).await;
        cutters.push(cutter);
    }
    scene.fault().await;
    let status = "HTTP/1.1 204".len();
    for bytes in 0..=ANSWER.len() {
        let ends = if bytes < status { (0, 1) } else { (1, 0) };
        assert_eq!(scene.ends(&format!("answer-{bytes}")).await, ends, "after {bytes} bytes");
    }
    scene.close().await;
}

#[tokio::test]
async fn a_reset_in_a_request_is_a_failure_and_the_target_gets_no_half_of_it() {
    let mut scene = Scene::with(&FLAGS).await;
    let target = RawTarget::always(Act::Answer(ANSWER.into())).await;
    let places: Vec<_> = (0..300).step_by(7).collect();
    let mut cutters = Vec::new();
    for bytes in &places {
        let cutter = Cutter::start(target.port(), Cut::Request(*bytes)).await;
        let url = format!("http://127.0.0.1:{}/{bytes}", cutter.port);
        scene.subscribe_faulty(&format!("request-{bytes}"), url, json!({})).await;
        cutters.push(cutter);
    }
    scene.fault().await;
    for bytes in places {
        assert_eq!(scene.ends(&format!("request-{bytes}")).await, (0, 1), "after {bytes} bytes");
    }
    assert_eq!(target.requests().len(), 0);
    scene.close().await;
}

/// A TLS target that answers 204.
async fn tls_target(authority: &Authority) -> (u16, JoinSet<()>) {
    let acceptor = acceptor(authority, &["http/1.1"]);
    serve_each(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut request = Vec::new();
            while matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                if request.ends_with(b"}") {
                    drop(stream.write_all(ANSWER.as_bytes()).await);
                    request.clear();
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn tls_that_breaks_off_anywhere_is_a_failure() {
    let mut scene = Scene::with(&FLAGS).await;
    let authority = Arc::new(Authority::new());
    let (target, _tasks) = tls_target(&authority).await;
    // A hello has more than 120 bytes, and a certificate more than 400; the last is after the whole exchange.
    let cuts = (0..120).step_by(12).map(Cut::Request).chain((0..400).step_by(20).map(Cut::Answer));
    let mut cutters = Vec::new();
    for (number, cut) in cuts.chain([Cut::Answer(1_000_000)]).enumerate() {
        let cutter = Cutter::start(target, cut).await;
        let url = format!("https://localhost:{}/", cutter.port);
        let trust = json!({"target_ca": authority.pem()});
        scene.subscribe_faulty(&format!("tls-{number}"), url, trust).await;
        cutters.push(cutter);
    }
    scene.fault().await;
    for number in 0..cutters.len() - 1 {
        assert_eq!(scene.ends(&format!("tls-{number}")).await, (0, 1), "tls-{number}");
    }
    assert_eq!(scene.ends(&format!("tls-{}", cutters.len() - 1)).await, (1, 0));
    scene.close().await;
}

//! The targets of a soak, and its producers.

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Shared;
use super::book::Arrival;
use super::kinds::{Does, KINDS, PRODUCERS, Plugin};
use crate::event::{EventName, Template};
use crate::producer;

/// How long a producer waits before it connects again.
const PAUSE: Duration = Duration::from_millis(50);

/// What `webhook-id`s are hashed with.
static HASHED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Returns a number that nobody foresees.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// Starts the targets, each at its place in [`KINDS`] as path; returns their address.
pub(super) async fn start(book: &Shared, tasks: &mut JoinSet<()>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("failed to bind the targets")?;
    let address = listener.local_addr()?;
    let book = Arc::clone(book);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    stream.set_nodelay(true).ok();
                    let book = Arc::clone(&book);
                    let service = service_fn(move |request| answer(request, Arc::clone(&book)));
                    connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
                Some(_closed) = connections.join_next() => {}
            }
        }
    });
    Ok(address)
}

async fn answer(request: Request<Incoming>, book: Shared) -> Result<Response<Empty<Bytes>>, Infallible> {
    let place = request
        .uri()
        .path()
        .trim_start_matches('/')
        .parse::<usize>()
        .ok()
        .filter(|place| *place < KINDS.len());
    let webhook = request.headers().get("webhook-id").map_or(0, |id| short(HASHED.hash_one(id.as_bytes())));
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (Some(place), Some(name)) = (place, EventName::find(&body)) else {
        book.lock().expect("no target panics").strays += 1;
        return Ok(status(StatusCode::OK));
    };
    let (arrives, answer) = match KINDS[place].does {
        Does::Answer => (true, StatusCode::NO_CONTENT),
        Does::Wait(time) => {
            sleep(time).await;
            (true, StatusCode::NO_CONTENT)
        }
        Does::FailAtRandom(of) if random().is_multiple_of(of) => (false, StatusCode::INTERNAL_SERVER_ERROR),
        Does::FailAtRandom(_) => (true, StatusCode::NO_CONTENT),
        Does::Refuse if (name.seq / PRODUCERS).is_multiple_of(10) => (true, StatusCode::NO_CONTENT),
        Does::Refuse => (true, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        Does::Down => (false, StatusCode::SERVICE_UNAVAILABLE),
    };
    let number = number(&body);
    let is_altered = match KINDS[place].plugin {
        Plugin::None => false,
        Plugin::Transform => !has_data_of(&body, name),
        Plugin::State => number.is_none(),
    };
    let mut book = book.lock().expect("no target panics");
    book.altered += u64::from(is_altered);
    if arrives {
        book.arrive(place, Arrival { seq: name.seq, webhook, number });
    }
    Ok(status(answer))
}

fn short(hash: u64) -> u32 {
    u32::try_from(hash & u64::from(u32::MAX)).expect("32 bits")
}

/// Returns the number behind an event's id, where a body is no more than that.
fn number(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body).ok()?.split_once(' ')?.1.parse().ok()
}

/// Tells whether a body is an event with the data that were sent under this name.
fn has_data_of(body: &[u8], name: EventName) -> bool {
    let sent = Template::new().render(name, Some((name.seq % PRODUCERS, PRODUCERS)));
    let data = |body: &[u8]| serde_json::from_slice::<Value>(body).ok().map(|mut event| event["data"].take());
    data(body).is_some_and(|data| !data.is_null()) && data(body) == data(&sent)
}

fn status(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

/// Sends a producer's events, one every `every` at most, until `ends`. It survives the service's kills.
pub(super) async fn produce(
    number: usize,
    every: Duration,
    book: Shared,
    mut at: watch::Receiver<SocketAddr>,
    mut ends: watch::Receiver<bool>,
) {
    let (template, mut seq) = (Template::new(), number);
    let mut due = interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*ends.borrow_and_update() {
        let address = *at.borrow_and_update();
        let Ok((mut sender, wire)) = producer::connect(address).await else {
            sleep(PAUSE).await;
            continue;
        };
        let mut connection = JoinSet::new();
        connection.spawn(wire);
        while !*ends.borrow_and_update() {
            due.tick().await;
            let name = EventName { run: 0, seq };
            seq += PRODUCERS;
            let body = template.render(name, Some((number, PRODUCERS)));
            let request = Request::post("/receive")
                .header(HOST, address.to_string())
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body))
                .expect("these are headers");
            book.lock().expect("no target panics").send(name.seq);
            let answer = producer::exchange(&mut sender, request).await;
            let mut book = book.lock().expect("no target panics");
            match answer {
                Ok((StatusCode::OK, _)) => book.accept(name.seq),
                Ok(_) => book.refuse(name.seq),
                Err(_) => {
                    book.break_off(name.seq);
                    break;
                }
            }
        }
    }
}

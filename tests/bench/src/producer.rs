//! The load: keep-alive connections, each sending its next event when the last was answered.
//!
//! One thread with its own runtime runs all of them, so that a wake-up never crosses threads; one task polls a request and
//! its connection. The same producers load Waypost and the echo.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::event::Template;
use crate::ledger::Ledger;

/// The Waypost id of one accepted event in this many is kept.
const SAMPLE: usize = 997;

pub(crate) type Body = Full<Bytes>;
pub(crate) type Wire = Connection<TokioIo<TcpStream>, Body>;

/// When a producer sends, and when it stops.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as answers come, for this time.
    For(Duration),
    /// As fast as answers come, until the run has this many events in all.
    Until(usize),
    /// One event every `every`, however long the answers take (open loop), for `length`.
    Every { every: Duration, length: Duration },
}

/// What to send, and where to.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    pub(crate) ledger: Arc<Ledger>,
    /// The token of each request, if it has one.
    pub(crate) token: Option<String>,
}

/// The result of a load.
#[derive(Default)]
pub(crate) struct Sent {
    /// When the first request went out, and when the last was answered.
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
    /// How many were accepted in that time, and how many deliveries were still on their way at its end.
    pub(crate) accepted: usize,
    pub(crate) lag: usize,
    /// Requests with another answer than 200, and requests without an answer.
    pub(crate) refused: usize,
    pub(crate) broken: usize,
    pub(crate) first_failure: Option<String>,
    /// The ids that Waypost gave to a sample of the events.
    pub(crate) ids: Vec<String>,
}

impl Sent {
    /// Returns the rate of accepted events.
    pub(crate) fn per_second(&self) -> f64 {
        self.accepted as f64 / (self.ended - self.started).as_secs_f64()
    }

    /// Adds a later load of the same ledger; the time between the two does not count.
    pub(crate) fn join(&mut self, later: Self) {
        let took = (self.ended - self.started) + (later.ended - later.started);
        (self.started, self.ended, self.lag) = (later.ended.saturating_sub(took), later.ended, later.lag);
        self.accepted += later.accepted;
        self.first_failure = self.first_failure.take().or_else(|| later.first_failure.clone());
        self.merge(later);
    }

    fn fail(&mut self, why: impl FnOnce() -> String) {
        if self.first_failure.is_none() {
            self.first_failure = Some(why());
        }
    }

    fn merge(&mut self, other: Self) {
        self.refused += other.refused;
        self.broken += other.broken;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.ids.extend(other.ids);
    }
}

/// Starts a load on its own thread; the future ends with it.
pub(crate) fn start(load: Load) -> Result<impl Future<Output = Result<Sent>>> {
    let (report, done) = oneshot::channel();
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let sent = runtime.context("failed to build a runtime").and_then(|it| it.block_on(run(load)));
        report.send(sent).ok();
    };
    std::thread::Builder::new().name("producers".into()).spawn(body).context("failed to start a thread")?;
    Ok(async { done.await.map_err(|_| anyhow!("the producers panicked"))? })
}

async fn run(load: Load) -> Result<Sent> {
    let mut connections = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        connections.push(
            connect(load.target).await.with_context(|| format!("failed to connect to {}", load.target))?,
        );
    }
    let load = Arc::new(load);
    let accepted_before = load.ledger.accepted();
    let mut total = Sent { started: load.ledger.now(), ..Sent::default() };
    let mut producers = JoinSet::new();
    for (sender, wire) in connections {
        producers.spawn(together(sender, wire, Arc::clone(&load), total.started));
    }
    while let Some(sent) = producers.join_next().await {
        total.merge(sent.context("a producer panicked")?);
    }
    total.ended = load.ledger.now();
    total.accepted = load.ledger.accepted() - accepted_before;
    total.lag = load.ledger.owed().saturating_sub(load.ledger.arrived());
    Ok(total)
}

/// Connects to a server.
pub(crate) async fn connect(target: SocketAddr) -> Result<(SendRequest<Body>, Wire)> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(handshake(TokioIo::new(stream)).await?)
}

/// Polls a connection and its producer in one task; the producer first, so that its request goes out at once.
async fn together(sender: SendRequest<Body>, wire: Wire, load: Arc<Load>, started: Duration) -> Sent {
    let mut producing = std::pin::pin!(produce(sender, &load, started));
    tokio::select! {
        biased;
        sent = &mut producing => sent,
        // If the connection ends first, its request has failed, which the producer reports.
        _ended = wire => producing.await,
    }
}

async fn produce(mut sender: SendRequest<Body>, load: &Load, started: Duration) -> Sent {
    let (ledger, template) = (&load.ledger, Template::new());
    let host = HeaderValue::from_str(&load.target.to_string()).expect("an address is a header value");
    let bearer = load.token.as_ref().map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
    let bearer = bearer.transpose().expect("a token is a header value");
    let (end, limit) = match load.pace {
        Pace::For(length) | Pace::Every { length, .. } => (started + length, usize::MAX),
        Pace::Until(count) => (Duration::MAX, count),
    };
    let mut sent = Sent::default();
    let mut due = started;
    loop {
        let mut at = ledger.now();
        if let Pace::Every { every, .. } = load.pace {
            // A delay by the last answer counts; a delay by the timer's resolution does not.
            let late = at > due;
            if !late {
                sleep(due - at).await;
            }
            at = if late { due } else { ledger.now() };
            due += every;
        }
        if at >= end {
            return sent;
        }
        let Some(name) = ledger.take(limit) else { return sent };
        let mut request = Request::new(Full::new(template.render(name, ledger.fan().pick(name.seq))));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/receive");
        request.headers_mut().insert(HOST, host.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(bearer) = &bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
            // The server does not count requests from this machine itself.
            request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        }
        ledger.send(name, at);
        match exchange(&mut sender, request).await {
            Ok((StatusCode::OK, body)) => {
                ledger.accept(name);
                if name.seq % SAMPLE == 0 {
                    sent.ids.push(String::from_utf8_lossy(&body).into_owned());
                }
            }
            Ok((status, body)) => {
                sent.refused += 1;
                sent.fail(|| format!("{status}: {}", String::from_utf8_lossy(&body)));
            }
            Err(error) => {
                sent.broken += 1;
                sent.fail(|| format!("{:#}", anyhow!(error)));
                return sent;
            }
        }
    }
}

/// Sends a request, and reads the answer.
pub(crate) async fn exchange(
    sender: &mut SendRequest<Body>,
    request: Request<Body>,
) -> hyper::Result<(StatusCode, Bytes)> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

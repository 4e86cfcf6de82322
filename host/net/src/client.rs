//! The client of what goes to targets: connections that are kept, and the beginning of an answer.

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connector::{Connector, connector};
use super::error::{Error, find};
use super::proxy::Proxy;
use super::reach::Reach;
use super::service::SetUpError;
use super::wire::{self, Wire};
use waypost_runtime::chain;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How often an HTTP/2 connection with requests under way is pinged, and how long its answer may take. Attempts share
/// the connection, so giving one up does not close it: without pings, all attempts would use a dead connection until
/// TCP notices.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that a response's body is waited for: the status has decided by then.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(1);

type Http = legacy::Client<Connector, Full<Bytes>>;

/// A client that does not keep connections: each ends with its request.
pub struct Unpooled<B> {
    client: legacy::Client<Connector, B>,
    proxy: Option<Arc<Proxy>>,
}

impl<B> Unpooled<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + Unpin + 'static,
{
    /// Makes a client that connects within a reach.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(reach: Reach) -> Result<Self, SetUpError> {
        let proxy = reach.proxy();
        let connector = connector(reach, None).map_err(SetUpError::Tls)?;
        let client = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, proxy })
    }

    /// Sends a request, and waits for the head of its response.
    ///
    /// # Errors
    /// When there is none.
    pub async fn send(&self, mut request: Request<B>) -> Result<Response<Incoming>, Error> {
        if let Some(proxy) = &self.proxy {
            proxy.authorize(&mut request);
        }
        self.client.request(request).await.map_err(|error| match error.is_connect() {
            true => Error::unconnected(error),
            false => Error::broken_off(error),
        })
    }
}

/// A client that keeps its connections.
pub struct Client {
    kept: Http,
    /// Keeps no connections: each request gets a new one.
    fresh: Http,
    /// How many connections there are, and may be kept.
    open: Arc<AtomicUsize>,
    kept_max: KeptMax,
    connector: Connector,
    proxy: Option<Arc<Proxy>>,
}

/// How many connections are kept. Each needs a file descriptor.
#[derive(Clone, Copy, Debug)]
pub struct KeptMax {
    /// Idle ones to each host.
    pub host: usize,
    /// In total. While so many are open, further requests get connections that end with them.
    pub all: usize,
}

/// An answer, from its status on.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    rest: Result<Incoming, String>,
}

/// Why a request has no answer, and whether that is only because its connection had been closed before.
struct Failure {
    error: Error,
    was_closed: bool,
}

impl Client {
    /// Makes a client that connects within a reach, each time for at most `connect_timeout`.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(reach: Reach, connect_timeout: Duration, kept_max: KeptMax) -> Result<Self, SetUpError> {
        let proxy = reach.proxy();
        let connector = connector(reach, Some(connect_timeout)).map_err(SetUpError::Tls)?;
        Ok(Self::over(connector, kept_max, proxy))
    }

    /// Makes a client that differs by its TLS alone: it goes where this one goes, and its connections count with this
    /// one's.
    pub fn with_tls(&self, tls: rustls::ClientConfig) -> Self {
        Self::over(self.connector.with_tls(tls), self.kept_max, self.proxy.clone())
    }

    fn over(connector: Connector, kept_max: KeptMax, proxy: Option<Arc<Proxy>>) -> Self {
        let build = |idle_per_host: usize| {
            legacy::Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                // A malformed response is accepted if it can be parsed leniently: only the status counts.
                .http1_allow_spaces_after_header_name_in_responses(true)
                .http1_allow_obsolete_multiline_headers_in_responses(true)
                .http1_ignore_invalid_headers_in_responses(true)
                .http2_keep_alive_interval(PING_INTERVAL)
                .http2_keep_alive_timeout(PING_TIMEOUT)
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(idle_per_host)
                .build(connector.clone())
        };
        let (kept, fresh) = (build(kept_max.host), build(0));
        Self { kept, fresh, open: connector.open(), kept_max, connector, proxy }
    }

    /// Sends a request and waits at most `wait` for the head of its response. If a kept connection turns out to have
    /// been closed by the target before any response, the request that `again` makes is sent over a new connection, at
    /// once and only once.
    ///
    /// Dropping the future closes an HTTP/1 connection, and resets a stream of HTTP/2.
    ///
    /// # Errors
    /// When there is no status.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        again: impl FnOnce() -> Option<Request<Full<Bytes>>>,
        wait: Duration,
    ) -> Result<Reply, Error> {
        if let Some(proxy) = &self.proxy {
            proxy.authorize(&mut request);
        }
        let client =
            if self.open.load(Ordering::Relaxed) < self.kept_max.all { &self.kept } else { &self.fresh };
        let mut expired = pin!(tokio::time::sleep(wait));
        let answered = tokio::select! {
            biased;
            answered = client.request(request) => answered,
            () = &mut expired => return Err(Error::TimedOut { waited: wait }),
        };
        let error = match judge(answered) {
            Ok(reply) => return Ok(reply),
            Err(Failure { error, was_closed: false }) => return Err(error),
            Err(Failure { error, was_closed: true }) => error,
        };
        let Some(mut request) = again() else { return Err(error) };
        if let Some(proxy) = &self.proxy {
            proxy.authorize(&mut request);
        }
        tracing::debug!(error = chain::text(&error), "a kept connection was closed: once more");
        tokio::select! {
            biased;
            answered = self.fresh.request(request) => judge(answered).map_err(|failure| failure.error),
            () = expired => Err(Error::TimedOut { waited: wait }),
        }
    }
}

fn judge(answered: Result<Response<Incoming>, legacy::Error>) -> Result<Reply, Failure> {
    let error = match answered {
        Ok(response) => {
            let (head, body) = response.into_parts();
            return Ok(Reply { status: head.status, headers: head.headers, rest: Ok(body) });
        }
        Err(error) => error,
    };
    if error.is_connect() {
        return Err(Failure { error: Error::unconnected(error), was_closed: false });
    }
    let mut extras = http::Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extras);
    }
    let Some(wire) = extras.get::<Arc<Wire>>() else {
        return Err(Failure { error: Error::broken_off(error), was_closed: false });
    };
    if error.connect_info().is_some_and(legacy::connect::Connected::is_negotiated_h2) {
        let was_closed = find::<h2::Error>(&error).is_some_and(is_unprocessed);
        return Err(Failure { error: Error::broken_off(error), was_closed });
    }
    let begin = wire.begin();
    match wire::status(&begin) {
        // The status has arrived, followed by something that hyper cannot parse.
        Some(status) if !status.is_informational() => {
            let unread = format!("the rest of the answer cannot be read: {}", reason(&error));
            return Ok(Reply { status, headers: HeaderMap::new(), rest: Err(unread) });
        }
        Some(_) | None => {}
    }
    if !wire::may_be_http(&begin) {
        let begin = begin.escape_ascii().to_string();
        return Err(Failure { error: Error::NotHttp { begin }, was_closed: false });
    }
    let was_closed = begin.is_empty() && wire.is_used();
    Err(Failure { error: Error::broken_off(error), was_closed })
}

/// Tells whether a target says that it did nothing with a request (RFC 9113 §8.7): it refuses the stream, or had closed the
/// connection to new ones.
fn is_unprocessed(error: &h2::Error) -> bool {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => true,
        Some(h2::Reason::NO_ERROR) => error.is_go_away(),
        Some(_) | None => false,
    }
}

/// Returns what hyper says is wrong, without the words of the client around it.
fn reason(error: &legacy::Error) -> String {
    error.source().map_or_else(|| error.to_string(), chain::text)
}

impl Reply {
    /// Reads the beginning of the body as text: so many bytes at most, for `BODY_TIME` at most, and no longer
    /// than until `stop` resolves. What is missing is said at its end.
    pub async fn text(self, bytes_max: usize, stop: impl Future<Output = ()>) -> String {
        match self.rest {
            Ok(body) => {
                let mut bytes = Vec::new();
                // Responses without a body need not pay for the size of this future.
                let missing = match body.is_end_stream() {
                    true => None,
                    false => Box::pin(beginning(body, bytes_max, &mut bytes, stop)).await,
                };
                let text = String::from_utf8_lossy(&bytes);
                match missing {
                    None => text.into_owned(),
                    Some(missing) if text.is_empty() => format!("({missing})"),
                    Some(missing) => format!("{text}\n({missing})"),
                }
            }
            Err(unread) => format!("({unread})"),
        }
    }
}

/// Reads the beginning of a body whose status has decided, as [`Reply::text`] does; returns what is missing.
pub async fn beginning<B: Body<Data = Bytes> + Unpin>(
    body: B,
    bytes_max: usize,
    kept: &mut Vec<u8>,
    stop: impl Future<Output = ()>,
) -> Option<String> {
    if body.is_end_stream() {
        return None;
    }
    tokio::select! {
        biased;
        broken = read(body, bytes_max, kept) => broken.then(|| "the answer broke off here".to_owned()),
        () = stop => Some("the rest was not read: the service stops".to_owned()),
        () = tokio::time::sleep(BODY_TIME) => {
            Some(format!("the rest did not come within {} s", BODY_TIME.as_secs()))
        }
    }
}

/// Reads at most `bytes_max` bytes, and returns whether the body was cut off. Cancel safe: `kept` has the bytes so far.
async fn read<B: Body<Data = Bytes> + Unpin>(mut body: B, bytes_max: usize, kept: &mut Vec<u8>) -> bool {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return true };
        let Some(data) = frame.data_ref() else { continue };
        let room = bytes_max - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if kept.len() == bytes_max {
            break;
        }
    }
    false
}

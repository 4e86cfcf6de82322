//! The client of guests' requests. It stays within their reach, marks each request, and keeps no connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OnceCell;
use wasmtime_wasi_http::{Error, WasiBody};

use waypost_net::{self as net, Agent, Guard, Reach, Refused, Unpooled, mark};
use waypost_runtime::chain;

/// The client of all calls.
pub(super) struct Web {
    agent: Agent,
    guard: Arc<Guard>,
    reach: Reach,
    /// Made at the first request, because it belongs to the runtime of that request.
    ///
    /// No connection is kept after its request: a plugin that calls many names in turn would leave open connections
    /// until the process runs out of file descriptors.
    client: OnceCell<Unpooled<WasiBody>>,
}

/// Why there is no response.
pub(super) enum SendError {
    /// The request must not go there.
    Refused(Refused),
    /// The reason for the log, and the error for the guest.
    Other(String, Error),
}

impl Web {
    /// Makes the client of plugins.
    pub(super) fn of_plugins(guard: Arc<Guard>) -> Self {
        Self::of(Agent::Plugin, guard)
    }

    /// Makes the client of programs.
    pub(super) fn of_programs(guard: Arc<Guard>) -> Self {
        Self::of(Agent::Handler, guard)
    }

    fn of(agent: Agent, guard: Arc<Guard>) -> Self {
        let reach = Reach::guarded(Arc::clone(&guard), agent);
        Self { agent, guard, reach, client: OnceCell::new() }
    }

    /// Returns the guard that plugins' headers are checked against.
    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Returns the client. The first call reads the system's certificates, which is slow.
    async fn client(&self) -> Result<&Unpooled<WasiBody>, SendError> {
        let failed = |reason: String| SendError::Other(reason, Error::ConfigurationError);
        let make = || async {
            let reach = self.reach.clone();
            let made = tokio::task::spawn_blocking(move || Unpooled::new(reach)).await;
            made.map_err(|error| failed(chain::text(&error)))?.map_err(|error| failed(chain::text(&error)))
        };
        self.client.get_or_try_init(make).await
    }

    /// Sends a request whose URL has been allowed. The address is checked when the connection is made.
    pub(super) async fn send(
        &self,
        mut request: Request<WasiBody>,
        first_byte: Option<Duration>,
    ) -> Result<Response<Incoming>, SendError> {
        mark(request.headers_mut(), self.agent);
        let sending = self.client().await?.send(request);
        let sent = match first_byte {
            None => sending.await,
            Some(wait) => tokio::time::timeout(wait, sending).await.map_err(|_| {
                let reason = format!("no answer within the {} ms that the guest allowed", wait.as_millis());
                SendError::Other(reason, Error::ConnectionReadTimeout)
            })?,
        };
        sent.map_err(SendError::from)
    }
}

impl From<net::Error> for SendError {
    fn from(error: net::Error) -> Self {
        let (reason, told) = match &error {
            net::Error::Refused(refused) => return Self::Refused(refused.clone()),
            net::Error::Unreachable(source) | net::Error::Proxy(source) => {
                (chain::text(source), Error::ConnectionRefused)
            }
            net::Error::BrokenOff(source) => (chain::text(source), Error::HttpProtocolError),
            net::Error::Shortage(_) => (chain::text(&error), Error::ConnectionLimitReached),
            net::Error::TimedOut { .. } | net::Error::NotHttp { .. } => {
                (chain::text(&error), Error::HttpProtocolError)
            }
        };
        Self::Other(reason, told)
    }
}

/// How many bytes of responses a call may still read; clones share it.
#[derive(Clone)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    pub(super) fn of(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Limits a body. `over` is called once, when there is more of it than may be read.
    pub(super) fn limit<B, F: FnOnce()>(&self, body: B, over: F) -> LimitedBody<B, F> {
        LimitedBody { body, left: Arc::clone(&self.0), over: Some(over) }
    }
}

/// A body that ends with an error at the limit.
pub(super) struct LimitedBody<B, F> {
    body: B,
    left: Arc<AtomicUsize>,
    over: Option<F>,
}

impl<B, F> Body for LimitedBody<B, F>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
    F: FnOnce() + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| {
            let frame = match frame? {
                Ok(frame) => frame,
                Err(error) => return Some(Err(Error::Hyper(error))),
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let taken = |left: usize| left.checked_sub(bytes);
            if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok() {
                return Some(Ok(frame));
            }
            if let Some(over) = self.over.take() {
                over();
            }
            Some(Err(Error::HttpResponseBodySize(None)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

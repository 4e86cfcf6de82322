//! The accept loop: connections within their limits, and a graceful shutdown.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse;
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::browsers;
use super::connection::{Answer, Patience, Talk, Wire, attend};
use super::error::ApiError;
use super::handshake::{Arrival, Stream};
use super::seats::Seats;
use super::tls::Tls;
use crate::identity::PeerCertificate;

/// How long the loop pauses after a failed accept, such as one without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many connections over the limit get a response at once; more are closed without one.
const REFUSALS_MAX: usize = 32;
/// The longest that such a response may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The limits of connections.
#[derive(Clone, Debug)]
pub struct Connections {
    /// The most at once.
    pub max: usize,
    /// The longest that the headers of a request may take, and the TLS handshake before them.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request, or a client may not read what is sent to it.
    pub idle_timeout: Duration,
    /// The networks of trusted proxies. Their addresses and this machine may take all connections, any other
    /// address at most a quarter.
    pub trusted: Arc<[IpNet]>,
}

/// Serves `router` until `shutdown` resolves and the requests under way are answered, or until the grace period is
/// over that `shutdown` returns. With `tls`, connections use TLS. Requests that are left are dropped, as they are when this future is
/// dropped.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Connections,
    tls: Option<Arc<Tls>>,
    shutdown: impl Future<Output = Duration>,
) {
    let seats = Seats::new(limits.max, Arc::clone(&limits.trusted));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let (graceful, mut tasks) = (GracefulShutdown::new(), JoinSet::new());
    let builder = builder(limits.header_timeout);
    let stop = CancellationToken::new();
    let acceptor = Arc::new(Acceptor { router, builder, limits, tls, stop: stop.clone() });
    tokio::pin!(shutdown);
    let grace = loop {
        while let Some(ended) = tasks.try_join_next() {
            log_panic(ended);
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            grace = &mut shutdown => break grace,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small responses are sent at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY on a connection");
        }
        let acceptor = Arc::clone(&acceptor);
        let seat = match seats.take(address.ip()) {
            Ok(seat) => seat,
            Err(why) => {
                if let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() {
                    tasks.spawn(async move {
                        acceptor.turn_away(stream, why).await;
                        drop(refusal);
                    });
                }
                continue;
            }
        };
        let watcher = graceful.watcher();
        tasks.spawn(async move {
            if let Err(error) = acceptor.admit(stream, address, watcher).await {
                tracing::debug!(error, %address, "a connection ended early");
            }
            drop(seat);
        });
    };
    drop(listener);
    stop.cancel();
    finish(graceful, tasks, grace).await;
}

/// What all connections share.
struct Acceptor {
    router: Router,
    builder: auto::Builder<TokioExecutor>,
    limits: Connections,
    tls: Option<Arc<Tls>>,
    /// Cancelled at shutdown, to end handshakes that are not complete.
    stop: CancellationToken,
}

impl Acceptor {
    /// Serves a connection to its end.
    async fn admit(&self, stream: TcpStream, address: SocketAddr, watcher: Watcher) -> Result<(), String> {
        let Arrival { stream, peer, refusal } = self.arrive(stream, self.limits.header_timeout).await?;
        if let Some(refusal) = refusal {
            drop(watcher);
            self.refuse(stream, refusal).await;
            return Ok(());
        }
        let (talk, is_tls) = (Arc::<Talk>::default(), stream.is_tls());
        let wire = TokioIo::new(Wire::new(stream, Arc::clone(&talk)));
        let caller = Caller { address, peer, is_tls };
        let connection =
            self.builder.serve_connection(wire, service(self.router.clone(), caller, Arc::clone(&talk)));
        let patience = Patience { head: self.limits.header_timeout, idle: self.limits.idle_timeout };
        attend(watcher.watch(connection.into_owned()), talk, patience).await
    }

    /// Performs the TLS handshake if there is TLS, within `most`.
    async fn arrive(&self, stream: TcpStream, most: Duration) -> Result<Arrival, String> {
        let Some(tls) = &self.tls else { return Ok(Arrival::plain(stream)) };
        // Boxed, because it is the largest part of a connection by far, and is over before the rest begins.
        let handshake = Box::pin(tokio::time::timeout(most, Arrival::over_tls(tls, stream)));
        match self.stop.run_until_cancelled(handshake).await {
            Some(Ok(Ok(arrival))) => Ok(arrival),
            Some(Ok(Err(error))) => Err(format!("its handshake failed: {error}")),
            Some(Err(_)) => {
                Err(format!("its handshake took longer than {most:?} (the setting header_timeout_ms)"))
            }
            None => Err("the service stops".to_owned()),
        }
    }

    /// Tells a client that there are too many connections, and closes.
    async fn turn_away(&self, stream: TcpStream, why: String) {
        if let Ok(Arrival { stream, .. }) = self.arrive(stream, REFUSAL_TIMEOUT).await {
            self.refuse(stream, ApiError::unavailable(why)).await;
        }
    }

    /// Answers a client's request with an error, and closes.
    async fn refuse(&self, stream: Stream, refusal: ApiError) {
        let service = service_fn(move |_: Request<Incoming>| {
            let mut response = browsers::inform(refusal.clone().into_response());
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let _answered_or_not = tokio::time::timeout(REFUSAL_TIMEOUT, connection).await;
    }
}

/// The other end of a connection.
#[derive(Clone)]
struct Caller {
    address: SocketAddr,
    peer: Option<PeerCertificate>,
    is_tls: bool,
}

/// Waits until the requests under way are answered, or `grace` is over.
async fn finish(graceful: GracefulShutdown, mut tasks: JoinSet<()>, grace: Duration) {
    let ended = async {
        graceful.shutdown().await;
        while let Some(ended) = tasks.join_next().await {
            log_panic(ended);
        }
    };
    if tokio::time::timeout(grace, ended).await.is_err() {
        tracing::warn!("requests were still under way at the end of the grace period");
    }
}

/// Logs that the task of a connection panicked, which affects only that connection.
fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection panicked");
    }
}

fn builder(header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // `connection` limits the time of headers: hyper would count the time between requests as well.
    builder.http1().header_read_timeout(None::<Duration>);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(header_timeout))
        .max_concurrent_streams(256);
    builder
}

/// Makes the service of one connection. It adds the address and the certificate of the client to each
/// request, and notes the request in `talk`.
fn service(
    router: Router,
    caller: Caller,
    talk: Arc<Talk>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = http::Response<Answer>,
    Error = Infallible,
    Future: Send,
> + Clone {
    service_fn(move |mut request: Request<Incoming>| {
        let open = talk.begin(request.version());
        request.extensions_mut().insert(ConnectInfo(caller.address));
        if let Some(peer) = &caller.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let (answered, is_tls) = (router.clone().oneshot(request.map(Body::new)), caller.is_tls);
        async move {
            let mut response = answered.await?;
            if is_tls {
                browsers::require_tls(&mut response);
            }
            Ok(Answer::of(response, open))
        }
    })
}

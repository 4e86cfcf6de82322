//! The accept loop: connections within their limits, and an end in good order.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tower::ServiceExt;

use super::connection::{Answer, Patience, Talk, Wire, attend};
use super::error::ApiError;

/// How long the loop rests after a failed accept, such as one for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many connections over the limit get a response at once; more are closed without one.
const REFUSALS_MAX: usize = 32;
/// The longest that such a response may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// The most at once.
    pub max: usize,
    /// The longest that the headers of a request may take.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request, or not read what is sent to it.
    pub idle_timeout: Duration,
    /// The longest that requests under way may take after shutdown has begun.
    pub grace: Duration,
}

/// Serves `router` until `shutdown` resolves and the requests under way are answered, or until `grace` is over.
/// Requests that are left then are dropped, as they are when this future is dropped.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Connections,
    shutdown: impl Future<Output = ()>,
) {
    let (places, refusals) = (Arc::new(Semaphore::new(limits.max)), Arc::new(Semaphore::new(REFUSALS_MAX)));
    let (graceful, mut tasks) = (GracefulShutdown::new(), JoinSet::new());
    let builder = builder(limits.header_timeout);
    let patience = Patience { head: limits.header_timeout, idle: limits.idle_timeout };
    tokio::pin!(shutdown);
    loop {
        while let Some(ended) = tasks.try_join_next() {
            tell(ended);
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
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
            tracing::debug!(%error, "a connection keeps its delay");
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() {
                let (builder, max) = (builder.clone(), limits.max);
                tasks.spawn(async move {
                    refuse(stream, &builder, max).await;
                    drop(refusal);
                });
            }
            continue;
        };
        let talk = Arc::<Talk>::default();
        let wire = TokioIo::new(Wire::new(stream, Arc::clone(&talk)));
        let connection = builder.serve_connection(wire, service(router.clone(), address, Arc::clone(&talk)));
        let connection = attend(graceful.watch(connection.into_owned()), talk, patience);
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, %address, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    finish(graceful, tasks, limits.grace).await;
}

/// Waits until the requests under way are answered, or `grace` is over.
async fn finish(graceful: GracefulShutdown, mut tasks: JoinSet<()>, grace: Duration) {
    let ended = async {
        graceful.shutdown().await;
        while let Some(ended) = tasks.join_next().await {
            tell(ended);
        }
    };
    if tokio::time::timeout(grace, ended).await.is_err() {
        tracing::warn!("requests were still under way at the end of the grace period");
    }
}

/// Reports a connection that ended by a panic, which harms only that connection.
fn tell(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended by a panic");
    }
}

fn builder(header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // `connection` has the limit of headers: hyper's would count the time between requests as well.
    builder.http1().header_read_timeout(None::<Duration>);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(header_timeout))
        .max_concurrent_streams(256);
    builder
}

/// Makes the service of one connection: its requests carry the address that they come from, and are noted.
fn service(
    router: Router,
    address: SocketAddr,
    talk: Arc<Talk>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = http::Response<Answer>,
    Error = Infallible,
    Future: Send,
> + Clone {
    service_fn(move |mut request: Request<Incoming>| {
        let open = talk.begin(request.version());
        request.extensions_mut().insert(ConnectInfo(address));
        let answered = router.clone().oneshot(request.map(Body::new));
        async move { answered.await.map(|response| Answer::of(response, open)) }
    })
}

/// Tells a client that there are too many connections, and closes.
async fn refuse(stream: TcpStream, builder: &auto::Builder<TokioExecutor>, max: usize) {
    let service = service_fn(move |_: Request<Incoming>| async move {
        let detail = format!("all {max} connections are in use (the setting connections_max): try again");
        let mut response = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok::<_, Infallible>(response)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let _told_or_not = tokio::time::timeout(REFUSAL_TIMEOUT, connection).await;
}

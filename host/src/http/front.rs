//! The outermost layer: limits the rate of each address, and adds the headers for browsers to every response.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use futures_util::TryFutureExt as _;
use futures_util::future::{Either, MapOk};
use tower::{Layer, Service};

use super::{Api, body, browsers};

/// The layer.
#[derive(Clone)]
pub(super) struct Front(pub(super) Arc<Api>);

impl<S> Layer<S> for Front {
    type Service = Fronted<S>;

    fn layer(&self, inner: S) -> Fronted<S> {
        Fronted { inner, api: Arc::clone(&self.0) }
    }
}

/// Routes behind the layer.
#[derive(Clone)]
pub(super) struct Fronted<S> {
    inner: S,
    api: Arc<Api>,
}

impl<S> Service<Request<Body>> for Fronted<S>
where
    S: Service<Request<Body>, Response = Response>,
    S::Error: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<
        MapOk<S::Future, fn(Response) -> Response>,
        Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Without an address, no user can be identified, and the gate refuses the request.
        if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
            let asker = self.api.identity.asker(peer.ip(), request.headers());
            if let Err(refusal) = self.api.rates.count(asker) {
                return Either::Right(Box::pin(async move {
                    tracing::debug!(?asker, "a request is refused: too many a second");
                    body::drain(request.into_body()).await;
                    Ok(browsers::inform(refusal.into_response()))
                }));
            }
            request.extensions_mut().insert(asker);
        }
        let inform: fn(Response) -> Response = browsers::inform;
        Either::Left(self.inner.call(request).map_ok(inform))
    }
}

//! The gate before each route: it asks `identity` for the user, and checks the scope. Each route is declared
//! together with the scope that it needs, so that none can be forgotten.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::handler::Handler;
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;

use super::Api;
use super::body;
use super::error::ApiError;
use crate::identity::{Sender, User};
use waypost_domain::Scope;

pub use crate::identity::Caller;

/// What a route needs of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: it reveals nothing about users.
    Nothing,
    /// A user with this scope; [`Scope::Receive`] is for senders of events.
    Scope(Scope),
}

pub(super) const ANYONE: Needs = Needs::Nothing;
pub(super) const RECEIVE: Needs = Needs::Scope(Scope::Receive);
pub(super) const READ: Needs = Needs::Scope(Scope::Read);
pub(super) const SUBSCRIBE: Needs = Needs::Scope(Scope::Subscribe);
pub(super) const ADMIN: Needs = Needs::Scope(Scope::Admin);

/// A method of a path.
pub(super) struct Endpoint {
    pub(super) method: &'static str,
    pub(super) needs: Needs,
    pub(super) router: MethodRouter<Arc<Api>>,
}

macro_rules! endpoints {
    ($($name:ident = $method:literal;)+) => {$(
        pub(super) fn $name<H: Handler<T, Arc<Api>>, T: 'static>(needs: Needs, handler: H) -> Endpoint {
            Endpoint { method: $method, needs, router: axum::routing::$name(handler) }
        }
    )+};
}

endpoints! {
    get = "GET";
    post = "POST";
    put = "PUT";
    delete = "DELETE";
    options = "OPTIONS";
}

impl Endpoint {
    /// Gives an extension to its handler.
    pub(super) fn with<T: Clone + Send + Sync + 'static>(self, extension: T) -> Self {
        Self { router: self.router.layer(Extension(extension)), ..self }
    }

    /// Puts the gate before it.
    pub(super) fn gated(self, api: &Arc<Api>) -> MethodRouter<Arc<Api>> {
        match self.needs {
            Needs::Nothing => self.router,
            Needs::Scope(needs) => {
                let state = (Arc::clone(api), needs);
                self.router.route_layer(middleware::from_fn_with_state(state, pass))
            }
        }
    }
}

/// Lets a request in, with the [`User`] or the [`Sender`] as its extension.
async fn pass(State((api, needs)): State<(Arc<Api>, Scope)>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(&api, needs, &mut parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refused) => refuse(refused, body).await,
    }
}

fn admit(api: &Api, needs: Scope, parts: &mut Parts) -> Result<(), ApiError> {
    // An application that nests the routes may not tell addresses: then no request counts as this machine's.
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let address = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip());
    match needs {
        Scope::Receive => {
            let sender = api.identity.sender(address, parts)?;
            // A producer counts towards its address only, because its signature is not verified yet.
            if let Sender::Known(name) = &sender {
                api.rates.count_user(parts, name)?;
            }
            parts.extensions.insert(sender);
        }
        Scope::Read | Scope::Subscribe | Scope::Admin => {
            let user = api.identity.user(address, parts, needs)?;
            api.rates.count_user(parts, &user.name)?;
            parts.extensions.insert(user);
        }
    }
    Ok(())
}

/// Answers a request that does not reach its route. The body is read first: a client that is still sending
/// would not see the response.
async fn refuse(refused: ApiError, body: Body) -> Response {
    body::drain(body).await;
    refused.into_response()
}

impl FromRequestParts<Arc<Api>> for User {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().expect("the gate of a route with a user lets users in").clone())
    }
}

impl FromRequestParts<Arc<Api>> for Sender {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().expect("the gate of `/receive` lets senders in").clone())
    }
}

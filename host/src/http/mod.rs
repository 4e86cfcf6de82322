//! REST: routes and JSON bodies, one resource in each file.
//!
//! A handler extracts, calls, and wraps. Bodies are built only here; the statuses of errors are chosen only
//! in `error`. `server` accepts connections within their limits, `sites` refuses requests of other sites'
//! pages.

mod audit;
mod body;
mod browsers;
mod coding;
mod connection;
mod database;
mod deliveries;
mod dispatch;
mod docs;
mod dry_run;
mod error;
pub(crate) mod eventmatch;
mod events;
mod explain;
mod front;
mod gate;
mod handshake;
mod health;
mod id;
mod idempotency;
mod jobs;
mod jwks;
mod me;
mod module;
mod multipart;
mod openapi;
mod parameters;
mod peer;
mod plugins;
mod rates;
mod receive;
pub(crate) mod recover;
pub(crate) mod reference;
mod report;
mod room;
mod runs;
mod scriptlog;
mod seats;
mod sending;
mod server;
mod sessions;
mod sites;
mod static_body;
pub(crate) mod story;
mod subscription_body;
mod tail;
mod tasks;
mod tls;
mod tokens;
mod version;
mod words;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::routing::MethodRouter;
use axum::{Extension, Router};
use tokio_util::sync::CancellationToken;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::identity::Identity;
use gate::{ADMIN, ANYONE, Endpoint, Needs, READ, RECEIVE, SUBSCRIBE, delete, get, options, post, put};
use room::Room;
#[cfg(test)]
use waypost_domain::Scope;
use waypost_domain::{FilterDialect, Token};
use waypost_engine::delivery::Dispatcher;
use waypost_engine::directory::Directory;
use waypost_engine::intake::Intake;
use waypost_engine::jobs::Jobs;
use waypost_engine::modules::Modules;
use waypost_engine::recovery::Recoveries;
use waypost_handlers::Runs;
use waypost_net::Guard;
use waypost_secrets::signing::ServiceKey;
use waypost_store::Store;

pub(crate) use error::{ApiError, Kind};
pub use gate::Caller;
pub use rates::{PerSecond, Rates};
pub use report::show as show_report;
pub use server::{Connections, serve};
pub use sites::Sites;
pub use tls::{Tls, TlsError, TlsFiles};
pub use tokens::show as show_token;
pub(crate) use version::IfMatch;

/// Reads the body of `POST /tokens` into a token, whose `hash` and `by` are still to be set.
///
/// # Errors
/// Says what is wrong with the body.
pub fn wanted_token(body: Map<String, Value>, now: Timestamp) -> Result<Token, String> {
    tokens::wanted(body, now).map_err(|refused| refused.detail().to_owned())
}

/// The limits of requests.
#[derive(Clone, Debug)]
pub struct Limits {
    event: body::Limit,
    subscription: body::Limit,
    plugin: body::Limit,
}

/// How many bytes the bodies of requests may have.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// One with events.
    pub event: usize,
    /// One with a subscription.
    pub subscription: usize,
    /// A module.
    pub plugin: usize,
    /// All bodies under way, together.
    pub all: usize,
}

impl Limits {
    /// Returns how many bytes a body with events may have.
    pub(crate) fn event_bytes(&self) -> usize {
        self.event.bytes
    }

    /// Makes the limits: the most bytes, and the longest that a body may take to arrive.
    pub fn new(sizes: Sizes, timeout: Duration) -> Self {
        let room = Arc::new(Room::new(sizes.all));
        let limit = |what, key, bytes| body::Limit { what, key, bytes, timeout, room: Arc::clone(&room) };
        Self {
            event: limit("the event", "event_bytes_max", sizes.event),
            subscription: limit("the subscription", "subscription_bytes_max", sizes.subscription),
            plugin: limit("the module", "plugin_bytes_max", sizes.plugin),
        }
    }
}

/// What the routes use.
#[derive(Clone)]
pub struct Api {
    /// The log.
    pub store: Arc<Store>,
    /// The subscriptions.
    pub directory: Arc<Directory>,
    /// The uploaded modules.
    pub modules: Arc<Modules>,
    /// Accepts events into the log.
    pub intake: Intake,
    /// Runs the workers.
    pub dispatcher: Arc<Dispatcher>,
    /// Runs the recoveries.
    pub recoveries: Arc<Recoveries>,
    /// Runs the jobs on deliveries.
    pub jobs: Arc<Jobs>,
    /// Handlers and their runs.
    pub runs: Arc<Runs>,
    /// Decides where targets may lead.
    pub guard: Arc<Guard>,
    /// Signs deliveries; its public part is shown.
    pub service_key: Arc<ServiceKey>,
    /// Finds the user of a request.
    pub identity: Arc<Identity>,
    /// Refuses requests of other sites' pages.
    pub sites: Arc<Sites>,
    /// Refuses requests that come too fast.
    pub rates: Arc<Rates>,
    /// The size and time limits of requests.
    pub limits: Limits,
    /// The language of a subscription's filter that does not name its own.
    pub filter_dialect: FilterDialect,
}

/// All routes, in the order of the manual.
struct Routes(Vec<(&'static str, Vec<Endpoint>)>);

impl Routes {
    fn route(mut self, path: &'static str, endpoints: impl Into<Vec<Endpoint>>) -> Self {
        self.0.push((path, endpoints.into()));
        self
    }

    /// Lists each method of each path, with what it needs.
    fn list(&self) -> Vec<(&'static str, &'static str, Needs)> {
        let methods = self.0.iter().flat_map(|(path, endpoints)| endpoints.iter().map(move |it| (*path, it)));
        methods.map(|(path, endpoint)| (path, endpoint.method, endpoint.needs)).collect()
    }

    /// Puts the gate before each. They also match with a slash at the end.
    fn gated(self, api: &Arc<Api>) -> Router<Arc<Api>> {
        let mut router = Router::new();
        for (path, endpoints) in self.0 {
            let methods = endpoints.into_iter().map(|endpoint| endpoint.gated(api));
            let methods = methods.fold(MethodRouter::new(), MethodRouter::merge);
            // What `/receive` answers is too short to become shorter, and this is its fast path.
            let methods = if path == "/receive" { methods } else { methods.layer(compression()) };
            router = router.route(path, methods.clone());
            // A catch-all includes the slash in its last part.
            if path != "/" && !path.contains('*') {
                router = router.route(&format!("{path}/"), methods);
            }
        }
        router
    }
}

/// Returns the compression of answers. Modules hardly become shorter; `/openapi.json` and the manual are stored compressed.
fn compression() -> CompressionLayer<impl Predicate + Send + Sync + 'static> {
    let is_worth_it = DefaultPredicate::new().and(NotForContentType::const_new(module::WASM));
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(is_worth_it)
}

/// Returns all routes. Requests need the address that they come from
/// ([`ConnectInfo`](axum::extract::ConnectInfo)) as an extension, as [`serve`] adds it. Streams end when `stopping` is
/// cancelled.
pub fn router(api: Api, stopping: CancellationToken) -> Router {
    let guard = sites::Guard(Arc::clone(&api.sites));
    let api = Arc::new(api);
    let front = front::Front(Arc::clone(&api));
    routes()
        .gated(&api)
        // Bodies are read by `body` and `multipart`, which have limits of their own.
        .layer(DefaultBodyLimit::disable())
        .layer(Extension(tail::Stopping(stopping)))
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::unknown_method)
        .layer(guard)
        .layer(front)
        .with_state(api)
}

/// Lists every method of every path, with the scope that it needs, if any.
#[cfg(test)]
pub(crate) fn needs() -> Vec<(&'static str, &'static str, Option<Scope>)> {
    let scope = |needs| match needs {
        Needs::Nothing => None,
        Needs::Scope(scope) => Some(scope),
    };
    routes().list().into_iter().map(|(path, method, needs)| (path, method, scope(needs))).collect()
}

/// Makes all routes.
fn routes() -> Routes {
    let dry_runs = dry_run::DryRunPermits::default();
    let streams = tail::Streams::default();
    Routes(Vec::new())
        .route("/receive", [post(RECEIVE, receive::receive), options(RECEIVE, receive::handshake)])
        .route("/eventmatch", [get(READ, eventmatch::list), post(SUBSCRIBE, eventmatch::create)])
        .route(
            "/eventmatch/{uuid}",
            [
                get(READ, eventmatch::read),
                put(SUBSCRIBE, eventmatch::update),
                delete(SUBSCRIBE, eventmatch::remove),
            ],
        )
        .route("/eventmatch/{uuid}/test", [post(SUBSCRIBE, dry_run::test).with(dry_runs.clone())])
        .route("/eventmatch/{uuid}/rotate-secret", [post(SUBSCRIBE, eventmatch::rotate_secret)])
        .route("/eventmatch/{uuid}/probe", [post(SUBSCRIBE, eventmatch::probe)])
        .route("/eventmatch/{uuid}/deliveries", [get(READ, deliveries::list)])
        .route("/eventmatch/{uuid}/tail", [get(READ, tail::deliveries).with(streams.clone())])
        .route(
            "/eventmatch/{uuid}/recover",
            [get(READ, recover::read), post(SUBSCRIBE, recover::begin), delete(SUBSCRIBE, recover::cancel)],
        )
        .route(
            "/eventmatch/{uuid}/redeliver",
            [
                get(READ, jobs::read_redeliver),
                post(SUBSCRIBE, jobs::begin_redeliver),
                delete(SUBSCRIBE, jobs::cancel_redeliver),
            ],
        )
        .route(
            "/eventmatch/{uuid}/discard",
            [
                get(READ, jobs::read_discard),
                post(SUBSCRIBE, jobs::begin_discard),
                delete(SUBSCRIBE, jobs::cancel_discard),
            ],
        )
        .route(
            "/eventmatch/{uuid}/plugin",
            [get(READ, module::read), put(SUBSCRIBE, module::update), delete(SUBSCRIBE, module::remove)],
        )
        .route("/plugins", [get(READ, plugins::list), post(SUBSCRIBE, plugins::upload)])
        .route("/plugins/{digest}", [get(READ, plugins::read)])
        .route("/events", [get(READ, events::list).with(dry_runs.clone()), delete(ADMIN, events::purge)])
        .route("/events/tail", [get(READ, tail::events).with(streams).with(dry_runs.clone())])
        .route(
            "/events/{id}",
            [get(READ, events::read).with(dry_runs.clone()), delete(ADMIN, events::purge_one)],
        )
        .route("/events/{id}/retry", [post(SUBSCRIBE, events::retry)])
        .route("/status/{id}", [get(READ, tasks::status)])
        .route("/get/{id}", [get(READ, tasks::read)])
        .route("/", [get(READ, tasks::list).with(dry_runs.clone())])
        .route("/scriptlog", [get(READ, scriptlog::list).with(dry_runs)])
        .route("/scriptlog/{id}", [get(READ, scriptlog::read)])
        .route(
            "/dispatch/{handler}",
            [get(SUBSCRIBE, dispatch::dispatch), post(SUBSCRIBE, dispatch::dispatch)],
        )
        .route(
            "/dispatch/{handler}/{*arguments}",
            [get(SUBSCRIBE, dispatch::dispatch_with), post(SUBSCRIBE, dispatch::dispatch_with)],
        )
        .route("/me", [get(READ, me::read)])
        .route("/tokens", [get(READ, tokens::list), post(ADMIN, tokens::create)])
        .route("/tokens/{id}", [delete(SUBSCRIBE, tokens::revoke)])
        .route(
            "/sessions",
            [get(READ, sessions::list), post(READ, sessions::begin), delete(READ, sessions::end_own)],
        )
        .route("/sessions/{id}", [delete(READ, sessions::end)])
        .route("/audit", [get(ADMIN, audit::list)])
        .route("/db/compact", [post(ADMIN, database::compact)])
        .route("/.well-known/jwks.json", [get(ANYONE, jwks::read)])
        .route("/openapi.json", [get(ANYONE, openapi::read)])
        .route("/docs", [get(ANYONE, docs::index)])
        .route("/docs/{page}", [get(ANYONE, docs::page)])
        .route("/healthz", [get(ANYONE, health::healthz)])
        .route("/readyz", [get(ANYONE, health::readyz).with(health::Probe::default())])
}

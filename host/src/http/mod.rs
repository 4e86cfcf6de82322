//! REST: routes and JSON bodies, one resource in each file.
//!
//! A handler extracts, calls, and wraps. Bodies are built here and nowhere else; statuses of errors are chosen in
//! `error` and nowhere else. `server` accepts connections within their limits, `sites` keeps web pages of others out.

mod body;
mod coding;
mod connection;
mod deliveries;
mod dispatch;
mod dry_run;
mod error;
mod eventmatch;
mod events;
mod explain;
mod health;
mod id;
mod identity;
mod module;
mod multipart;
mod parameters;
mod plugins;
mod receive;
mod recover;
mod room;
mod runs;
mod scriptlog;
mod server;
mod sites;
mod story;
mod subscription_body;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};

use crate::delivery::Dispatcher;
use crate::directory::Directory;
use crate::domain::FilterDialect;
use crate::handler::Runs;
use crate::intake::Intake;
use crate::modules::Modules;
use crate::net::Guard;
use crate::recovery::Recoveries;
use crate::store::Store;
use room::Room;

pub use identity::Identity;
pub use server::{Connections, serve};
pub use sites::Sites;

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
    /// All that are under way.
    pub all: usize,
}

impl Limits {
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
    /// Handlers, and what they run.
    pub runs: Arc<Runs>,
    /// Refuses targets that are this service itself.
    pub guard: Arc<Guard>,
    /// Finds the user of a request.
    pub identity: Arc<Identity>,
    /// Refuses requests of other sites' pages.
    pub sites: Arc<Sites>,
    /// How much a request may be.
    pub limits: Limits,
    /// The language of a subscription's filter that does not say its own.
    pub filter_dialect: FilterDialect,
}

/// Routes that a slash at the end does not change.
struct Routes(Router<Arc<Api>>);

impl Routes {
    fn route(self, path: &str, methods: MethodRouter<Arc<Api>>) -> Self {
        let router = self.0.route(path, methods.clone());
        // A catch-all has it in its last part.
        match path == "/" || path.contains('*') {
            true => Self(router),
            false => Self(router.route(&format!("{path}/"), methods)),
        }
    }
}

/// Returns all routes. Requests need the address that they come from
/// ([`ConnectInfo`](axum::extract::ConnectInfo)) as an extension, as [`serve`] adds it.
pub fn router(api: Api) -> Router {
    let guard = sites::Guard(Arc::clone(&api.sites));
    Routes(Router::new())
        .route("/receive", post(receive::receive).options(receive::handshake))
        .route("/eventmatch", get(eventmatch::list).post(eventmatch::create))
        .route("/eventmatch/{uuid}", get(eventmatch::read).put(eventmatch::update).delete(eventmatch::remove))
        .route(
            "/eventmatch/{uuid}/test",
            post(dry_run::test).layer(Extension(dry_run::DryRunPermits::default())),
        )
        .route("/eventmatch/{uuid}/deliveries", get(deliveries::list))
        .route("/eventmatch/{uuid}/recover", get(recover::read).post(recover::begin).delete(recover::cancel))
        .route("/eventmatch/{uuid}/plugin", get(module::read).put(module::update).delete(module::remove))
        .route("/plugins", get(plugins::list).post(plugins::upload))
        .route("/plugins/{digest}", get(plugins::read))
        .route("/events", get(events::list).delete(events::purge))
        .route("/events/{id}", get(events::read).delete(events::purge_one))
        .route("/events/{id}/retry", post(events::retry))
        .route("/status/{id}", get(tasks::status))
        .route("/get/{id}", get(tasks::read))
        .route("/", get(tasks::list))
        .route("/scriptlog", get(scriptlog::list))
        .route("/scriptlog/{id}", get(scriptlog::read))
        .route("/dispatch/{handler}", get(dispatch::dispatch).post(dispatch::dispatch))
        .route("/dispatch/{handler}/{*arguments}", get(dispatch::dispatch).post(dispatch::dispatch))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz).layer(Extension(health::Probe::default())))
        .0
        // Bodies are read by `body` and `multipart`, which have limits of their own.
        .layer(DefaultBodyLimit::disable())
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::unknown_method)
        .layer(guard)
        .with_state(Arc::new(api))
}

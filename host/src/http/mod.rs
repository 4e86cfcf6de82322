//! REST: routes and JSON bodies, one resource in each file.
//!
//! A handler extracts, calls, and wraps. Bodies are built here and nowhere else; statuses of errors are chosen in
//! `error` and nowhere else. `server` accepts connections within their limits.

mod body;
mod deliveries;
mod dispatch;
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
mod runs;
mod scriptlog;
mod server;
mod story;
mod subscription_body;
mod tasks;
mod trial;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Extension, Router};

use crate::delivery::Dispatcher;
use crate::directory::Directory;
use crate::handler::Runs;
use crate::intake::Intake;
use crate::modules::Modules;
use crate::net::Guard;
use crate::recovery::Recoveries;
use crate::store::Store;

pub use identity::Identity;
pub use server::{Connections, serve};

/// The limits of requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    event: body::Limit,
    subscription: body::Limit,
    plugin: body::Limit,
}

impl Limits {
    /// Makes the limits: the most bytes of a request with events, of one with a subscription and of a module, and the
    /// longest that any of them may take to arrive.
    pub fn new(
        event_bytes: usize,
        subscription_bytes: usize,
        plugin_bytes: usize,
        timeout: Duration,
    ) -> Self {
        Self {
            event: body::Limit { what: "the event", key: "event_bytes_max", bytes: event_bytes, timeout },
            subscription: body::Limit {
                what: "the subscription",
                key: "subscription_bytes_max",
                bytes: subscription_bytes,
                timeout,
            },
            plugin: body::Limit { what: "the module", key: "plugin_bytes_max", bytes: plugin_bytes, timeout },
        }
    }
}

/// What the handlers use.
#[derive(Clone)]
pub struct Api {
    /// The log.
    pub store: Arc<dyn Store>,
    /// The subscriptions.
    pub directory: Arc<Directory>,
    /// The uploaded modules.
    pub modules: Arc<Modules>,
    /// The way in.
    pub intake: Intake,
    /// What is under way.
    pub dispatcher: Arc<Dispatcher>,
    /// What is replayed.
    pub recoveries: Arc<Recoveries>,
    /// Handlers, and what they run.
    pub runs: Arc<Runs>,
    /// Where no subscription's target leads.
    pub guard: Arc<Guard>,
    /// Who is asking.
    pub identity: Arc<Identity>,
    /// How much a request may be.
    pub limits: Limits,
}

/// Returns all routes. Requests need the address that they come from
/// ([`ConnectInfo`](axum::extract::ConnectInfo)) as an extension, as [`serve`] adds it.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/receive", post(receive::receive).options(receive::handshake))
        .route("/eventmatch", get(eventmatch::list).post(eventmatch::create))
        .route("/eventmatch/{uuid}", get(eventmatch::read).put(eventmatch::update).delete(eventmatch::remove))
        .route("/eventmatch/{uuid}/test", post(trial::test).layer(Extension(trial::Places::default())))
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
        .route("/readyz", get(health::readyz))
        // Bodies are read by `body` and `multipart`, which have limits of their own.
        .layer(DefaultBodyLimit::disable())
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::unknown_method)
        .with_state(Arc::new(api))
}

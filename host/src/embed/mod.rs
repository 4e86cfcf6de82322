//! The library's front door: [`Waypost`] and what its methods take and return.
//!
//! Each method goes the way of the REST request that does the same, with the same checks, limits and entries in the
//! audit. What is beneath ([`crate::service`], [`crate::http`]) is not part of the public API.

mod builder;
mod event;
#[cfg(feature = "handlers")]
mod handlers;
mod policy;
mod story;
mod subscriptions;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::http::story::View;
use crate::identity::User;
use crate::service::{self, Service};
use waypost_domain::{Event, EventId, Scopes, TargetUrl, Via};
use waypost_engine::delivery::{FunctionCall, FunctionError};
use waypost_runtime::chain;
use waypost_runtime::stage::DeadStage;

pub use builder::{Builder, OpenError};
pub use event::{NewEvent, PublishError};
#[cfg(feature = "handlers")]
pub use handlers::{AddHandler, Handlers};
pub use policy::{Decision, Policy};
pub use story::{DeliveryStory, EventStory};
pub use subscriptions::{NewSubscription, Since, Subscription, SubscriptionError, Subscriptions};

/// A running router. Clones are handles of the same one, and cheap.
///
/// It speaks for one user: what it subscribes is theirs, and what it publishes was sent by them. The handle that
/// [`Builder::open`] returns speaks for [`Builder::user`], who may see and change everything, as an admin;
/// [`Waypost::as_user`] makes one for a user who may do what users may.
///
/// When the last clone is dropped without [`Waypost::shutdown`], work in flight is abandoned, and done again after the
/// next start.
#[derive(Clone)]
pub struct Waypost {
    inner: Arc<Inner>,
    user: Arc<str>,
    scopes: Scopes,
}

/// The store cannot be read now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(String);

struct Inner {
    service: Service,
    /// The right to make the subscription of a function.
    registering: tokio::sync::Mutex<()>,
    /// What [`Waypost::in_memory`] keeps on disk.
    _folder: Option<TempDir>,
}

impl Waypost {
    /// Begins to set up a router with its data in this folder, which is created when it is missing.
    pub fn builder(folder: impl Into<std::path::PathBuf>) -> Builder {
        Builder::in_folder(folder.into())
    }

    /// Begins to set up a router that keeps events, subscriptions and deliveries in memory, for tests and examples:
    /// nothing of them survives it. Uploaded modules and the runs of handlers are in a temporary folder meanwhile.
    pub fn in_memory() -> Builder {
        Builder::in_memory()
    }

    fn new(service: Service, user: String, folder: Option<TempDir>) -> Self {
        let inner = Arc::new(Inner { service, registering: Default::default(), _folder: folder });
        Self { inner, user: user.into(), scopes: Scopes::ADMIN }
    }

    /// Returns a handle of the same router that speaks for another user, and may do what users may.
    #[must_use]
    pub fn as_user(&self, name: &str) -> Self {
        Self { inner: Arc::clone(&self.inner), user: name.into(), scopes: Scopes::USER }
    }

    /// Publishes an event. When this returns, the event and every delivery that it causes are on disk (of a router in
    /// memory: in memory).
    ///
    /// # Errors
    /// When the event is not valid, or the store cannot take it now; nothing of it is kept then.
    pub async fn publish(
        &self,
        event: impl TryInto<Event, Error: Into<PublishError>>,
    ) -> Result<EventId, PublishError> {
        let ids = self.publish_batch([event]).await?;
        Ok(ids[0])
    }

    /// Publishes events, all or none, in one commit. Returns their ids in the same order.
    ///
    /// # Errors
    /// As for [`Self::publish`].
    pub async fn publish_batch<E>(
        &self,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Vec<EventId>, PublishError>
    where
        E: TryInto<Event, Error: Into<PublishError>>,
    {
        let events = events.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>, _>>();
        let events = events.map_err(Into::into)?;
        event::check(&events, self.service().api().limits.event_bytes())?;
        self.service().accept(events, &self.user).await.map_err(PublishError::refused)
    }

    /// Subscribes a target to events.
    ///
    /// # Errors
    /// When a member is not valid, the target is not open to users, the user has too many subscriptions, or the store
    /// cannot write.
    pub async fn subscribe(&self, subscription: NewSubscription) -> Result<Subscription, SubscriptionError> {
        self.subscriptions().create(subscription).await
    }

    /// Subscribes a function of this program, which is called for each event that the filter matches. Its deliveries are
    /// stored, and retried by the schedule, as those to a URL.
    ///
    /// `name` is what stays: after a start, register the function under the same name again, and it gets what it has
    /// missed. A new filter replaces the one before, and a subscription that failures have disabled is enabled again; what
    /// came meanwhile, [`Subscriptions::recover`] brings. Functions may be called more than once for a delivery
    /// ([`Delivery::id`](FunctionCall::id) is then the same), and for several deliveries at a time.
    ///
    /// # Errors
    /// As for [`Self::subscribe`].
    pub async fn subscribe_fn<F, R>(
        &self,
        name: &str,
        filter: &str,
        function: F,
    ) -> Result<Subscription, SubscriptionError>
    where
        F: Fn(FunctionCall) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), FunctionError>> + Send + 'static,
    {
        let function =
            Arc::new(move |call| -> futures_util::future::BoxFuture<'static, _> { Box::pin(function(call)) });
        // Two users do not share a function: encoded, no user's name has the `/`.
        let user = utf8_percent_encode(&self.user, NON_ALPHANUMERIC);
        let target = TargetUrl::in_process(&format!("{user}/{name}"));
        // Of two calls at once, the second finds what the first has made.
        let _turn = self.inner.registering.lock().await;
        self.subscriptions().put_function(name, filter, target, function).await
    }

    /// Returns the subscriptions of the user.
    pub fn subscriptions(&self) -> Subscriptions<'_> {
        Subscriptions::new(self)
    }

    /// Returns what became of an event, as far as the user may see it; `None` when there is no such event.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn event(&self, id: EventId) -> Result<Option<EventStory>, ReadError> {
        let found = self.service().story(id).await.map_err(|error| ReadError(chain::text(&error)))?;
        let view = found.and_then(|story| View::of(story, &self.caller(), self.service().api()));
        Ok(view.and_then(EventStory::of))
    }

    /// Returns the REST API, to nest into an application of your own.
    ///
    /// A request needs a user: by a token, by [`Caller`](crate::Caller), which a layer of your application inserts into
    /// its extensions once it knows who it is, or by the address that it comes from, which is known where the
    /// application is served with `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn http(&self) -> axum::Router {
        self.service().router()
    }

    /// Serves the REST API on a listener, until the router is shut down. Requests in flight get the grace of
    /// [`Self::shutdown`] then, or the setting `shutdown_grace_ms` when a stage of the router has died.
    ///
    /// # Errors
    /// When a stage of the router has died.
    pub async fn serve(&self, listener: TcpListener) -> Result<(), DeadStage> {
        self.service().serve_on(listener).await
    }

    /// Waits until a part of the router has died: it accepts and delivers nothing more until it is opened again.
    /// Cancel safe.
    pub async fn failed(&self) -> DeadStage {
        self.service().dead_stage().await
    }

    /// Ends the router: nothing new begins, what is in flight (attempts, runs, requests to [`Self::serve`]) gets `grace`,
    /// and then the store writes what is queued. The data folder is free once all clones are dropped.
    pub async fn shutdown(&self, grace: Duration) {
        self.service().shutdown(grace).await;
    }

    fn service(&self) -> &Service {
        &self.inner.service
    }

    /// Returns the user as requests have one.
    fn caller(&self) -> User {
        User {
            name: self.user.as_ref().to_owned(),
            scopes: self.scopes,
            via: Via::Program,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            expires: None,
        }
    }
}

impl std::fmt::Debug for Waypost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waypost").field("user", &self.user).finish_non_exhaustive()
    }
}

impl From<service::Error> for OpenError {
    fn from(error: service::Error) -> Self {
        Self::Start(Box::new(error))
    }
}

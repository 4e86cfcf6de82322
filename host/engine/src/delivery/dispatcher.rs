//! The delivery stage: the workers of subscriptions.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Limits;
use super::breaker::{BreakerState, Breakers};
use super::clients::Clients;
use super::functions::{Function, Functions};
use super::gate::{GateHold, Gates, TargetState};
use super::handshake::Handshakes;
use super::last_success::LastSuccess;
use super::oauth::Tokens;
use super::order;
use super::targets::Targets;
use crate::announcer::Notices;
use crate::directory::Directory;
use crate::modules::Modules;
use crate::policy::Policy;
use crate::worker::{Mailboxes, SLICE, Slots, Workers};
#[cfg(doc)]
use waypost_domain::TargetUrl;
use waypost_domain::{EventId, Holder, RecipientId, Subscription, SubscriptionId};
use waypost_net::{Agent, Client, Guard, KeptMax, Reach, SetUpError};
use waypost_secrets::signing::ServiceKey;
use waypost_store::{self as store, LoggedEvent, Store, Wake};

/// Why the dispatcher cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP client cannot be made.
    #[error("failed to make the HTTP client")]
    Client(#[source] SetUpError),
    /// The store cannot be read.
    #[error("failed to read when targets were last reached")]
    Store(#[source] store::Error),
}

/// The delivery stage: a handle on its workers.
pub struct Dispatcher {
    workers: Workers<Targets>,
    pub(super) targets: Arc<Targets>,
}

impl Dispatcher {
    /// Starts to attempt pending deliveries.
    ///
    /// # Errors
    /// When the store cannot be read or TLS cannot be set up.
    pub async fn start(
        store: Arc<Store>,
        directory: Arc<Directory>,
        modules: Arc<Modules>,
        policy: Policy,
        guard: Arc<Guard>,
        service_key: Arc<ServiceKey>,
        limits: Limits,
    ) -> Result<Self, StartError> {
        let reach = Reach::guarded(Arc::clone(&guard), Agent::Delivery);
        let kept = KeptMax { host: limits.subscription_in_flight_max, all: limits.kept_connections_max };
        let client = Client::new(reach, limits.connect_timeout, kept).map_err(StartError::Client)?;
        let searched = *store.share().changed().borrow();
        let reached = store.reached().await.map_err(StartError::Store)?;
        let (stop, tasks) = (store.alarm().stop_token(), TaskTracker::new());
        let gates = Arc::<Gates>::default();
        let targets = Arc::new(Targets {
            store: Arc::clone(&store),
            directory,
            modules,
            policy,
            clients: Clients::new(client),
            functions: Functions::default(),
            service_key,
            tokens: Tokens::new(),
            handshakes: Handshakes::new(limits.webhook_origin.clone()),
            guard,
            slots: Slots::new(limits.in_flight_max, SLICE, tasks.clone()),
            limits,
            last_success: LastSuccess::new(reached),
            breakers: Arc::new(Breakers::new(Arc::clone(gates.notices()))),
            gates,
            stop: stop.clone(),
        });
        let stage = "the dispatcher of deliveries";
        let workers = Workers::start(stage, store, Arc::clone(&targets), searched, stop, tasks);
        Ok(Self { workers, targets })
    }

    /// Tells whether an attempt of this delivery is in flight.
    pub fn is_in_flight(&self, event: EventId, recipient: RecipientId) -> bool {
        self.workers.in_flight().contains(event, recipient)
    }

    /// Tells whether a policy server or plugin decides who may see an event.
    pub fn asks_policy(&self) -> bool {
        match self.targets.policy {
            Policy::Everyone => false,
            Policy::Server(_) | Policy::Plugin(_) | Policy::Program(_) => true,
        }
    }

    /// Drops the cached policy answers about an event and the users of these recipients. Called before it is
    /// redelivered.
    pub async fn ask_policy_again(&self, event: EventId, recipients: &[RecipientId]) {
        for subscription in
            recipients.iter().filter_map(|id| self.targets.directory.get(id.subscription_id()))
        {
            self.targets.policy.forget(event, &subscription.user).await;
        }
    }

    /// Registers the function that subscriptions with the target [`TargetUrl::in_process`] of this name have, and
    /// lets their deliveries go on.
    pub fn register(&self, name: &str, function: Function) {
        self.targets.functions.register(name.to_owned(), function);
        let waiting = self.targets.directory.with_function(name);
        self.targets.store.wakes().push(waiting.into_iter().map(|id| (id.into(), Wake::read())));
    }

    /// Returns the state of a subscription's plugin, if it has failed recently.
    pub fn breaker(&self, subscription: SubscriptionId) -> Option<BreakerState> {
        self.targets.breakers.state(&*self.targets.directory.get(subscription)?)
    }

    /// Returns the state of a subscription's target, if it has failed lately.
    pub fn target(&self, subscription: &Subscription) -> Option<TargetState> {
        self.targets.gates.target(subscription)
    }

    /// Returns what holds back a subscription's deliveries because of their target: its breaker, a pause that it has asked
    /// for, or the rate limit.
    pub fn gate(&self, subscription: &Subscription) -> Option<GateHold> {
        self.targets.gates.hold(subscription, Instant::now())
    }

    /// Returns what holds a pending delivery by its subscription's order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn held_by_order(
        &self,
        subscription: &Subscription,
        event: &LoggedEvent,
    ) -> Result<Option<GateHold>, store::Error> {
        order::hold(&self.targets.store, subscription, event).await
    }

    /// Returns whether a dead letter stops deliveries of a subscription by its order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn stopped(&self, subscription: &Subscription) -> Result<Option<GateHold>, store::Error> {
        order::stopped(&self.targets.store, subscription).await
    }

    /// Tries the target of a subscription now, whose breaker is open: with the delivery that is due next, if any waits.
    /// Tells whether the breaker is open.
    pub fn probe(&self, subscription: &Subscription) -> bool {
        let is_open = self.targets.gates.hurry(subscription, Instant::now());
        if is_open {
            self.targets.store.wakes().push([(subscription.id.into(), Wake::early())]);
        }
        is_open
    }

    /// Returns where to tell operators what is not kept.
    pub fn notices(&self) -> Arc<Notices> {
        Arc::clone(self.targets.gates.notices())
    }

    /// Returns what holds a subscription's deliveries, other than their target and plugin, and since when.
    pub fn hold(&self, recipient: RecipientId) -> Option<(Holder, Timestamp)> {
        self.workers.hold(recipient)
    }

    /// Returns the mailboxes of the running workers.
    pub fn mailboxes(&self) -> Arc<Mailboxes> {
        self.workers.mailboxes()
    }

    /// Starts no more attempts, waits for those in flight at most `grace`, and then drops them: they are
    /// repeated after the next start.
    pub async fn stop(&self, grace: Duration) {
        self.workers.stop(grace).await;
    }
}

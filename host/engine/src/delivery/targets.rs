//! Makes the attempts to deliver to subscriptions' targets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::Trouble;
use super::breaker::{Breakers, Permit};
use super::clients::Clients;
use super::credentials::Credentials;
use super::functions::{Function, Functions};
use super::gate::{Gates, Ticket};
use super::handshake::Handshakes;
use super::last_success::LastSuccess;
use super::oauth::Tokens;
use super::order::order;
use super::outcome::{Retry, SubscriptionEffect, failure};
use super::pipeline::PluginContext;
use super::state_cache::StateCache;
use super::{Limits, attempt};
use crate::directory::Directory;
use crate::modules::Modules;
use crate::policy::Policy;
use crate::worker::{
    self, Assignment, AttemptRecord, Choice, Deliverer, Division, Effect, Next, Rules, Slots, Standing,
    Window,
};
use waypost_domain::{Answer, Order, OrderBy, Outcome, RecipientId, Subscription};
use waypost_net::Guard;
use waypost_runtime::chain;
use waypost_runtime::clock;
use waypost_runtime::stage::PANICKED;
use waypost_secrets::signing::ServiceKey;
use waypost_store::{self as store, PendingDelivery, Store, WakeSet};

/// The deliverer of subscriptions: what all attempts share.
pub(super) struct Targets {
    /// For rendered payloads and plugins' state.
    pub(super) store: Arc<Store>,
    pub(super) directory: Arc<Directory>,
    pub(super) modules: Arc<Modules>,
    pub(super) policy: Policy,
    pub(super) clients: Clients,
    pub(super) functions: Functions,
    pub(super) service_key: Arc<ServiceKey>,
    pub(super) tokens: Tokens,
    pub(super) handshakes: Handshakes,
    /// Checks the headers that a plugin or a subscription sets.
    pub(super) guard: Arc<Guard>,
    pub(super) limits: Limits,
    /// Every attempt needs one.
    pub(super) slots: Arc<Slots>,
    pub(super) last_success: LastSuccess,
    /// The breakers of plugins.
    pub(super) breakers: Arc<Breakers>,
    pub(super) gates: Arc<Gates>,
    /// Cancelled when the service stops.
    pub(super) stop: CancellationToken,
}

/// What an attempt for a subscription is begun with.
pub(super) struct TargetPermit {
    ticket: Ticket,
    plugin: Option<PluginContext>,
}

/// The rules of the workers of subscriptions.
pub(crate) const RULES: Rules = Rules {
    division: Division::ByRecipient,
    linger: Duration::from_secs(1),
    hold_min: Duration::from_secs(1),
    insists: false,
    panic_pause: Duration::from_secs(1),
};

impl Deliverer for Targets {
    const RULES: Rules = RULES;
    type Subject = Subscription;
    type Cache = StateCache;
    type Permit = TargetPermit;
    type Mark = ();

    fn wakes(&self, store: &Store) -> Arc<WakeSet> {
        store.wakes()
    }

    /// Deliveries to a function wait until the program has registered it.
    fn standing(&self, recipient: RecipientId) -> Standing<Subscription> {
        match standing(&self.directory, recipient) {
            Standing::Active(subscription)
                if subscription.target_url.function().is_some() && self.function(&subscription).is_none() =>
            {
                Standing::Inactive
            }
            standing => standing,
        }
    }

    fn window(&self, subscription: &Subscription) -> Window {
        let own = subscription.max_in_flight.and_then(|own| usize::try_from(own).ok()).unwrap_or(usize::MAX);
        let most = match &subscription.order {
            Some(Order { by: OrderBy::Fifo, .. }) => 1,
            Some(Order { by: OrderBy::Key(_), .. }) | None => own,
        };
        Window { min: 1, max: self.limits.subscription_in_flight_max.min(most).max(1) }
    }

    fn order(&self, subscription: &Subscription) -> Option<worker::CompiledOrder> {
        order(subscription)
    }

    fn is_ordered(&self, subscription: &Subscription) -> bool {
        subscription.order.is_some()
    }

    fn slots(&self, _: &Subscription) -> &Arc<Slots> {
        &self.slots
    }

    fn owner<'s>(&self, subscription: &'s Subscription) -> &'s str {
        &subscription.user
    }

    /// The target's gate comes first. While the plugin's breaker is open, only a delivery that needs no plugin may be
    /// attempted.
    fn choose(
        &self,
        subscription: &Subscription,
        waiting: &VecDeque<PendingDelivery>,
        cache: &Arc<StateCache>,
    ) -> Choice<TargetPermit> {
        let now = Instant::now();
        let ticket = match self.gates.ask(subscription, now) {
            Ok(ticket) => ticket,
            Err(until) => return Choice { next: None, held_until: Some(until) },
        };
        let (Some(_), Some(first)) = (&subscription.plugin, waiting.front()) else {
            return Choice { next: Some((0, TargetPermit { ticket, plugin: None })), held_until: None };
        };
        let is_decided = |pending: &PendingDelivery| pending.rendered || pending.progress.passed;
        let permit = match is_decided(first) {
            true => Permit::Call,
            false => self.breakers.ask(subscription, now),
        };
        let (place, held_until) = match permit {
            Permit::Not { until, holds: true } => (waiting.iter().position(is_decided), Some(until)),
            Permit::Call | Permit::Try(_) | Permit::Not { .. } => (Some(0), None),
        };
        let plugin = Some(PluginContext { permit, state_cache: Arc::clone(cache) });
        let next = place.map(|place| (place, TargetPermit { ticket, plugin }));
        Choice { next, held_until }
    }

    fn held_until(&self, subscription: &Subscription) -> Option<Instant> {
        self.gates.shut_until(subscription, Instant::now())
    }

    fn mark(&self) {}

    async fn deliver(
        self: &Arc<Self>,
        assignment: &Assignment<'_, Self>,
        TargetPermit { ticket, plugin }: TargetPermit,
        record: &mut AttemptRecord,
    ) -> Next {
        let next = match attempt::make(self, assignment, ticket, plugin, record).await {
            Some(next) => next,
            None => Next::GaveWay(format!(
                "the attempt gave way to others after {} ms: {} were under way (the setting in_flight_max)",
                assignment.slot.elapsed().as_millis(),
                self.limits.in_flight_max
            )),
        };
        if let Next::Over(Outcome::Delivered, _) = &next {
            record.target.iter_mut().for_each(Answer::keep_little);
        }
        next.map_effect(|effect| self.effect(assignment, effect))
    }

    /// A panic is not the subscription's fault: it has no effect on it.
    async fn panicked(self: &Arc<Self>, assignment: &Assignment<'_, Self>, _: &mut AttemptRecord) -> Next {
        let (reason, error) = (PANICKED.to_owned(), String::new());
        let (outcome, _) = failure(reason, error, None, self.retry(assignment).context());
        Next::Over(outcome, Effect::Nothing)
    }

    fn forget(&self, recipient: RecipientId) {
        let id = recipient.subscription_id();
        self.breakers.forget(id);
        self.gates.forget(id);
        self.last_success.forget(id);
    }

    /// Another node may have reached targets.
    async fn gained(&self) -> Result<(), store::Error> {
        self.last_success.merge(self.store.reached().await?);
        Ok(())
    }
}

/// Returns where a subscription stands.
pub(crate) fn standing(directory: &Directory, recipient: RecipientId) -> Standing<Subscription> {
    match directory.recipient(recipient) {
        None => Standing::Inactive,
        Some(subscription) if subscription.deleted.is_some() => Standing::Gone,
        Some(subscription) if subscription.is_active() => Standing::Active(subscription),
        Some(_) => Standing::Inactive,
    }
}

impl Targets {
    /// Returns how a delivery is retried if this attempt fails.
    pub(super) fn retry<'a>(&'a self, assignment: &Assignment<'a, Self>) -> Retry<'a> {
        let schedule = assignment.subject.retry.as_ref().unwrap_or(&self.limits.retry_schedule);
        Retry { schedule, failed: assignment.pending.progress.failed + 1, missed: 0 }
    }

    /// Does the same for an attempt that may be the probe of the target's breaker: while it was open, the delivery's
    /// schedule went on.
    pub(super) fn retry_of_probe<'a>(
        &'a self,
        assignment: &Assignment<'a, Self>,
        ticket: &Ticket,
        now: Instant,
    ) -> Retry<'a> {
        let retry = self.retry(assignment);
        let Some(open_for) = ticket.open_for(now) else { return retry };
        let pending = assignment.pending;
        let due = pending.position.due.unwrap_or(pending.event.received);
        let late = Duration::try_from(clock::now().duration_since(due)).unwrap_or_default();
        // A wall clock that has jumped ahead makes nothing later than the breaker has been open.
        let missed = retry.schedule.missed(pending.progress.failed, late.min(open_for));
        Retry { failed: retry.failed + missed, missed, ..retry }
    }

    /// Returns the function that a subscription's events are for, if its target is one that is registered.
    pub(super) fn function(&self, subscription: &Subscription) -> Option<Function> {
        self.functions.get(subscription.target_url.function()?)
    }

    /// Opens what a subscription adds to its requests.
    pub(super) fn credentials(&self, subscription: &Subscription) -> Result<Credentials, Trouble> {
        Credentials::open(self.store.vault(), &self.service_key, &self.guard, subscription)
    }

    /// Notes that the target was reached, or returns how the subscription is disabled.
    fn effect(self: &Arc<Self>, assignment: &Assignment<'_, Self>, effect: SubscriptionEffect) -> Effect {
        let (error, unless_reached) = match effect {
            SubscriptionEffect::Nothing => return Effect::Nothing,
            SubscriptionEffect::Reached => {
                self.last_success.note(assignment.subject.id, clock::now());
                return Effect::Nothing;
            }
            SubscriptionEffect::DisableUnlessReached(error) => (error, true),
            SubscriptionEffect::Disable(error) => (error, false),
        };
        if RecipientId::from(assignment.subject.id).dead_letters_owner().is_some() {
            return Effect::Nothing;
        }
        let first = assignment.pending.progress.first_attempt.unwrap_or(assignment.at);
        let (targets, subscription) = (Arc::clone(self), Arc::clone(assignment.subject));
        Effect::First(Box::pin(async move {
            if !(unless_reached && targets.last_success.since(subscription.id, first)) {
                targets.disable(&subscription, error).await;
            }
        }))
    }

    async fn disable(&self, subscription: &Arc<Subscription>, error: String) {
        let id = subscription.id;
        tracing::warn!(subscription = %id, error, "the subscription is disabled");
        if let Err(failure) = self.directory.disable(subscription, clock::now(), error).await {
            tracing::error!(subscription = %id, error = chain::text(&failure), "the subscription could not be disabled");
        }
    }
}

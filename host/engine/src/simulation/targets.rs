//! Targets that answer as the dice say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::RngExt as _;

use super::life::ALL;
use super::world::{Change, Mood, World, is_final};
use crate::delivery;
use crate::directory::Directory;
use crate::worker::{
    self, Assignment, AttemptRecord, Choice, Deliverer, Effect, Next, Rules, Slots, Standing, Window,
};
use waypost_domain::{
    EventId, Holder, OnDead, Order, OrderBy, Outcome, RecipientId, RetrySchedule, State, Subscription,
};
use waypost_runtime::clock;
use waypost_runtime::dice;
use waypost_store::{EventHistory, LoggedEvent, PendingDelivery, Store, WakeSet};

/// Makes attempts without any network, with the rules of subscriptions' targets.
pub(super) struct Targets {
    pub(super) store: Arc<Store>,
    pub(super) directory: Arc<Directory>,
    pub(super) slots: Arc<Slots>,
    pub(super) schedule: RetrySchedule,
    pub(super) world: Arc<Mutex<World>>,
}

/// How a target behaves in one attempt.
enum Behaviour {
    Delivers,
    Fails,
    Panics,
    Lacks,
}

impl Deliverer for Targets {
    const RULES: Rules = delivery::RULES;
    type Subject = Subscription;
    type Cache = ();
    type Permit = ();
    type Mark = ();

    fn wakes(&self, store: &Store) -> Arc<WakeSet> {
        store.wakes()
    }

    fn standing(&self, recipient: RecipientId) -> Standing<Subscription> {
        delivery::standing(&self.directory, recipient)
    }

    fn window(&self, subscription: &Subscription) -> Window {
        let is_fifo = matches!(&subscription.order, Some(Order { by: OrderBy::Fifo, .. }));
        Window { min: 1, max: if is_fifo { 1 } else { 3 } }
    }

    fn order(&self, subscription: &Subscription) -> Option<worker::CompiledOrder> {
        delivery::order(subscription)
    }

    fn is_ordered(&self, subscription: &Subscription) -> bool {
        subscription.order.is_some()
    }

    fn slots(&self, _: &Subscription) -> &Arc<Slots> {
        &self.slots
    }

    fn choose(&self, _: &Subscription, _: &VecDeque<PendingDelivery>, _: &Arc<()>) -> Choice<()> {
        Choice { next: Some((0, ())), held_until: None }
    }

    fn mark(&self) {}

    async fn deliver(
        self: &Arc<Self>,
        assignment: &Assignment<'_, Self>,
        (): (),
        _: &mut AttemptRecord,
    ) -> Next {
        let (event, recipient) = (assignment.pending.event.id, assignment.recipient);
        let history = self.store.history(event).await.ok();
        self.world().begin_attempt(event, recipient, assignment.pending.progress.failed, history);
        let _attempt = Attempt(self, event, recipient);
        self.check_order(assignment).await;
        let (behaviour, wait) = self.behaviour();
        if assignment.slot.unless_needed(tokio::time::sleep(wait)).await.is_none() {
            return Next::GaveWay("another needed it".to_owned());
        }
        match behaviour {
            Behaviour::Delivers => Next::Over(Outcome::Delivered, Effect::Nothing),
            Behaviour::Fails => self.failed(assignment, "500"),
            Behaviour::Panics => std::panic::resume_unwind(Box::new("the target's client panicked")),
            Behaviour::Lacks => Next::Held(Holder::Host, "descriptors".to_owned()),
        }
    }

    async fn panicked(self: &Arc<Self>, assignment: &Assignment<'_, Self>, _: &mut AttemptRecord) -> Next {
        self.failed(assignment, "panic").map_effect(|_| Effect::Nothing)
    }
}

/// An attempt in flight, until it ends or is dropped.
struct Attempt<'a>(&'a Targets, EventId, RecipientId);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.world().end_attempt(self.1, self.2);
    }
}

impl Targets {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn behaviour(&self) -> (Behaviour, Duration) {
        let mut world = self.world();
        let (mood, luck) = (world.mood, world.dice.random_range(0..100));
        let seconds = if world.chance(0.3) { world.dice.random_range(0..40) } else { 0 };
        match (mood, luck) {
            (Mood::Good, _) => (Behaviour::Delivers, Duration::ZERO),
            (Mood::Mixed, 0..60) => (Behaviour::Delivers, Duration::from_secs(seconds)),
            (Mood::Mixed | Mood::Bad, 60..70) => (Behaviour::Lacks, Duration::from_secs(seconds)),
            (Mood::Mixed | Mood::Bad, 70..75) => (Behaviour::Panics, Duration::from_secs(seconds)),
            (Mood::Mixed | Mood::Bad, _) => (Behaviour::Fails, Duration::from_secs(seconds)),
        }
    }

    /// Holds an attempt to its subscription's order.
    async fn check_order(&self, assignment: &Assignment<'_, Self>) {
        let Some(order) = delivery::order(assignment.subject) else { return };
        let Ok(histories) = self.store.histories(ALL).await else { return };
        let (event, recipient) = (&assignment.pending.event, assignment.recipient);
        if is_stopped(&histories, recipient, event, &order) {
            self.world().fail(format!("{} is attempted, which a dead letter stops", event.id));
        }
        let open = earlier(&histories, recipient, event, &order).find(|(_, state)| !is_final(state));
        if let Some((earlier, state)) = open {
            let (at, order) = (event.id, &assignment.subject.order);
            self.world().fail(format!("{at} before {earlier}, which is {state:?}: {order:?}"));
        }
    }

    /// A subscription whose delivery is given up is disabled.
    fn failed(self: &Arc<Self>, assignment: &Assignment<'_, Self>, reason: &str) -> Next {
        let failed = assignment.pending.progress.failed + 1;
        let (wait_min, random) = (Duration::ZERO, dice::fraction());
        let now = clock::now();
        let outcome =
            Outcome::after_failure(reason.to_owned(), &self.schedule, failed, wait_min, now, random);
        if !matches!(outcome, Outcome::Dead { .. }) {
            return Next::Over(outcome, Effect::Nothing);
        }
        let (targets, subscription) = (Arc::clone(self), Arc::clone(assignment.subject));
        let kind = self.world().subscriptions[&subscription.id].kind;
        self.world().begin_change(subscription.id, kind);
        let disabling = async move {
            let directory = &targets.directory;
            let disabled = directory.disable(&subscription, clock::now(), "given up".to_owned()).await;
            let is_active = directory.get(subscription.id).is_some_and(|found| found.is_active());
            let change = if disabled.is_ok() { Change::Declined(is_active) } else { Change::Failed };
            targets.world().end_change(subscription.id, change);
        };
        Next::Over(outcome, Effect::First(Box::pin(disabling)))
    }
}

/// Returns where a recipient's deliveries of earlier events stand that are in the lane of this one.
fn earlier<'h>(
    histories: &'h [EventHistory],
    recipient: RecipientId,
    event: &LoggedEvent,
    order: &worker::CompiledOrder,
) -> impl Iterator<Item = (EventId, &'h State)> {
    let of = |history: &&EventHistory| {
        history.event.id < event.id && order.lane(&history.event) == order.lane(event)
    };
    let own = move |history: &'h EventHistory| {
        let own = history.deliveries.iter().find(|delivery| delivery.recipient == recipient)?;
        Some((history.event.id, &own.state))
    };
    histories.iter().filter(of).filter_map(own).collect::<Vec<_>>().into_iter()
}

/// Tells whether a dead letter stops a recipient's delivery of an event.
pub(super) fn is_stopped(
    histories: &[EventHistory],
    recipient: RecipientId,
    event: &LoggedEvent,
    order: &worker::CompiledOrder,
) -> bool {
    let is_dead = |(_, state): (_, &State)| matches!(state, State::Dead { .. });
    order.on_dead == OnDead::Stop && earlier(histories, recipient, event, order).any(is_dead)
}

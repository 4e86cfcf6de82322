//! Targets that answer as the dice say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rand::RngExt as _;
use tokio::time::Instant;

use super::life::ALL;
use super::world::{Change, Mood, World, is_final};
use crate::delivery::{self, Echo, Finding, Gates, Ticket};
use crate::directory::Directory;
use crate::policy::{Policy, ProgramPolicy, Verdict};
use crate::worker::{
    self, Assignment, AttemptRecord, Choice, Deliverer, Effect, Next, Rules, Slots, Standing, Window,
};
use waypost_domain::plugin::{self, Failure, Output, PluginResult, PluginRun, RenderedPayload};
use waypost_domain::{
    Event, EventId, Holder, OnDead, Order, OrderBy, Outcome, PluginDigest, PluginUse, RecipientId,
    RetrySchedule, State, Subscription,
};
use waypost_runtime::clock;
use waypost_runtime::dice;
use waypost_store::{self as store, EventHistory, LoggedEvent, PendingDelivery, Rendering, Store, WakeSet};

/// Makes attempts without any network, with the rules of subscriptions' targets.
pub(super) struct Targets {
    pub(super) store: Arc<Store>,
    pub(super) directory: Arc<Directory>,
    pub(super) slots: Arc<Slots>,
    pub(super) schedule: RetrySchedule,
    pub(super) policy: Policy,
    pub(super) gates: Arc<Gates>,
    pub(super) world: Arc<Mutex<World>>,
}

/// A policy that denies some events for good, and is away now and then.
pub(super) struct Judge(pub(super) Arc<Mutex<World>>);

impl ProgramPolicy for Judge {
    fn ask<'a>(&'a self, _: &'a str, event: &'a Event) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.0.lock().unwrap().judge(event)
        })
    }
}

/// How a target behaves in one attempt.
enum Behaviour {
    Delivers,
    Fails,
    /// It answers that it gets too much.
    IsBusy,
    Panics,
    Lacks,
}

impl Deliverer for Targets {
    const RULES: Rules = delivery::RULES;
    type Subject = Subscription;
    type Cache = ();
    type Permit = Ticket;
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

    fn choose(
        &self,
        subscription: &Subscription,
        _: &VecDeque<PendingDelivery>,
        _: &Arc<()>,
    ) -> Choice<Ticket> {
        match self.gates.ask(subscription, Instant::now()) {
            Ok(ticket) => Choice { next: Some((0, ticket)), held_until: None },
            Err(until) => Choice { next: None, held_until: Some(until) },
        }
    }

    fn held_until(&self, subscription: &Subscription) -> Option<Instant> {
        self.gates.shut_until(subscription, Instant::now())
    }

    fn mark(&self) {}

    async fn deliver(
        self: &Arc<Self>,
        assignment: &Assignment<'_, Self>,
        mut ticket: Ticket,
        record: &mut AttemptRecord,
    ) -> Next {
        let (event, recipient) = (assignment.pending.event.id, assignment.recipient);
        let history = self.store.history(event).await.ok();
        let again = self.world().begin_attempt(event, recipient, assignment.pending.progress.failed, history);
        let _attempt = Attempt(self, event, recipient);
        self.check_order(assignment).await;
        match delivery::ask_policy(&self.policy, assignment, record).await {
            None => return Next::GaveWay("another needed it".to_owned()),
            Some(Some(end)) => return end.map_effect(|()| Effect::Nothing),
            Some(None) => record.progress.allowed = true,
        }
        let body = match self.render(assignment, record, again).await {
            Ok(body) => body,
            Err(end) => return end,
        };
        self.world().send(&assignment.pending.event, (recipient, again), body);
        ticket.spend();
        let (begun, (behaviour, wait)) = (Instant::now(), self.behaviour());
        if assignment.slot.unless_needed(tokio::time::sleep(wait)).await.is_none() {
            return Next::GaveWay("another needed it".to_owned());
        }
        match behaviour {
            Behaviour::Delivers => {
                self.note(assignment, ticket, Finding::Alive, begun);
                Next::Over(Outcome::Delivered, Effect::Nothing)
            }
            Behaviour::Fails => {
                self.note(assignment, ticket, Finding::Down("500".to_owned(), None), begun);
                self.failed(assignment, "500")
            }
            Behaviour::IsBusy => {
                self.note(assignment, ticket, Finding::Busy(Some(Duration::from_secs(20))), begun);
                self.failed(assignment, "429")
            }
            Behaviour::Panics => std::panic::resume_unwind(Box::new("the target's client panicked")),
            Behaviour::Lacks => {
                ticket.unspend();
                Next::Held(Holder::Host, "descriptors".to_owned())
            }
        }
    }

    fn forget(&self, recipient: RecipientId) {
        self.gates.forget(recipient.subscription_id());
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
            (Mood::Mixed | Mood::Bad, 75..80) => (Behaviour::IsBusy, Duration::from_secs(seconds)),
            (Mood::Mixed | Mood::Bad, _) => (Behaviour::Fails, Duration::from_secs(seconds)),
        }
    }

    /// Lets the double of a plugin decide. What it renders is frozen first, and then sent by each attempt; `None` where the
    /// event goes as it is. An error ends the attempt.
    async fn render(
        &self,
        assignment: &Assignment<'_, Self>,
        record: &mut AttemptRecord,
        again: usize,
    ) -> Result<Option<Bytes>, Next> {
        let (pending, recipient) = (assignment.pending, assignment.recipient);
        let held = |error: store::Error| Next::Held(Holder::Store, error.to_string());
        if pending.rendered {
            let rendered = self.store.rendered(pending.event.id, recipient).await.map_err(held)?;
            let Some(RenderedPayload { result: PluginResult::Outputs(outputs), .. }) = rendered else {
                self.world().fail(format!("{} for {recipient} has lost {rendered:?}", pending.event.id));
                return Ok(None);
            };
            return Ok(outputs.into_iter().find_map(body));
        }
        let has_plugin = recipient.uuid().as_u128().is_multiple_of(2);
        if !has_plugin || pending.progress.passed {
            return Ok(None);
        }
        let used = PluginUse::new(PluginDigest::of(b"module"));
        let (luck, text) = {
            let mut world = self.world();
            (world.dice.random_range(0..10), Bytes::from(world.dice.random::<u32>().to_string()))
        };
        match luck {
            0 => Err(Next::Over(Outcome::Denied, Effect::Nothing)),
            1 => Err(Next::Over(Outcome::Skipped { reason: "nothing to send".to_owned() }, Effect::Nothing)),
            2 | 3 => {
                record.progress.passed = true;
                Ok(None)
            }
            _ => {
                let failed = Failure::Host(String::new());
                let run = PluginRun {
                    verdict: plugin::Verdict::Transformed { outputs: 1 },
                    ..PluginRun::failed(used.digest, pending.progress.failed + 1, clock::now(), failed)
                };
                let output = Output::Raw {
                    content_type: "text/plain".to_owned(),
                    headers: Vec::new(),
                    body: text.clone(),
                };
                let rendering = Rendering {
                    recipient,
                    event: pending.event.id,
                    position: pending.position,
                    run: Box::new(run),
                    payload: RenderedPayload::by(&used, PluginResult::Outputs(vec![output])),
                    state: Vec::new(),
                };
                self.world().render((pending.event.id, recipient, again), text.clone());
                if !self.store.freeze(rendering).await.map_err(held)? {
                    let reason = "given up meanwhile".to_owned();
                    return Err(Next::Over(Outcome::Skipped { reason }, Effect::Nothing));
                }
                record.rendered = true;
                Ok(Some(text))
            }
        }
    }

    /// Notes what an attempt says of its target, and holds it to its rate limit.
    fn note(&self, assignment: &Assignment<'_, Self>, ticket: Ticket, finding: Finding, begun: Instant) {
        let subscription = assignment.subject;
        self.gates.note(subscription, ticket, finding, Instant::now(), Echo::No);
        if let Some(limit) = subscription.rate_limit {
            self.world().note_rate((assignment.recipient, subscription.updated), limit, begun);
        }
    }

    /// Holds an attempt to its subscription's order.
    async fn check_order(&self, assignment: &Assignment<'_, Self>) {
        let Some(order) = delivery::order(assignment.subject) else { return };
        let (event, recipient) = (&assignment.pending.event, assignment.recipient);
        // What is added or sent again while others are in flight may be before them.
        if self.world().walked.contains(&recipient) {
            return;
        }
        let Ok(histories) = self.store.histories(ALL).await else { return };
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

fn body(output: Output) -> Option<Bytes> {
    match output {
        Output::Raw { body, .. } => Some(body),
        Output::Event(_) => None,
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

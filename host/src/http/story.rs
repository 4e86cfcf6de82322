//! An event's story as JSON, and how much of it a user may see.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::value::RawValue;

use waypost_api::v1;

use super::{Api, runs, words};
use crate::identity::User;
use waypost_domain::event::Wire;
use waypost_domain::plugin::{PluginRun, Verdict};
use waypost_domain::{
    Answer, Attempt, DeliveryId, Entry, HandlerRun, Holder, OPERATOR, Outcome, RecipientId, State,
    Subscription, TaskStatus, operator,
};
use waypost_engine::delivery::{BreakerState, GateHold};
use waypost_handlers::Progress;
use waypost_runtime::clock;
use waypost_store::{self as store, EventHistory, FailedFilter, LoggedEvent};

/// One delivery of an event, with what is known now.
pub(crate) struct Delivery {
    pub(crate) recipient: RecipientId,
    /// The subscription as it is now.
    pub(super) now: Option<Arc<Subscription>>,
    pub(crate) state: State,
    /// Whether policy has ever let the user see the event.
    was_allowed: bool,
    /// The handler's name, if it is a run.
    pub(crate) handler: Option<String>,
    /// How far the run has come, while it is under way.
    pub(super) progress: Option<Progress>,
    /// Why it waits: its handler is gone, or the breaker of its plugin is open.
    held: Option<String>,
    /// What other deliveries of the subscription are held for, and since when.
    others_held: Option<(Holder, Timestamp)>,
    /// What keeps the subscription's deliveries from the target.
    gate: Option<GateHold>,
    history: Vec<Entry>,
}

/// Of how many deliveries of one event it is found out whether their order holds them: each takes a read.
const ORDERS_LOOKED_AT: usize = 32;

/// An event as one user may see it.
pub(crate) struct View {
    pub(crate) event: Arc<LoggedEvent>,
    pub(crate) deliveries: Vec<Delivery>,
    /// The filters that failed on it.
    pub(crate) failed: Vec<FailedFilter>,
    /// Whether the user may see the event itself, and not only that a filter failed on it.
    pub(crate) shows_event: bool,
}

impl View {
    /// Returns what `user` may see of a story, if anything. An admin sees all of it. The sender sees the
    /// event. The owner of a subscription sees the event with the deliveries to it that policy has allowed,
    /// and the failure of its filter if there is no policy. Deliveries that policy has not allowed are left
    /// out: that a filter matches an event reveals something about its content.
    pub(crate) fn of(story: EventHistory, user: &User, api: &Api) -> Option<Self> {
        let event = story.event;
        let deliveries = story.deliveries.into_iter();
        let deliveries = deliveries.map(|stored| Delivery::of(&event, stored, api));
        let is_visible = |subscription: Option<&Arc<Subscription>>| {
            user.is_admin() || subscription.is_some_and(|subscription| subscription.user == user.name)
        };
        let is_free = user.is_admin() || event.sender == user.name;
        // Policy does not ask about operator events.
        let all_may = event.sender != OPERATOR && !api.dispatcher.asks_policy();
        let may_know = |was_allowed| is_free || was_allowed || all_may;
        let is_seen = |delivery: &Delivery| match delivery.handler {
            // A run can be seen by admins and the event's sender only.
            Some(_) => is_free,
            // What goes where dead letters go was allowed before it died.
            None => {
                let was_allowed = delivery.was_allowed || delivery.recipient.dead_letters_owner().is_some();
                is_visible(delivery.now.as_ref()) && may_know(was_allowed)
            }
        };
        let deliveries: Vec<_> = deliveries.filter(is_seen).collect();
        let mut failed = story.failed;
        failed.retain(|failed| {
            may_know(false) && is_visible(api.directory.get(failed.recipient.subscription_id()).as_ref())
        });
        let shows_event = is_free || !deliveries.is_empty();
        let is_seen = shows_event || !failed.is_empty();
        is_seen.then_some(Self { event, deliveries, failed, shows_event })
    }

    /// Finds out which pending deliveries wait because of their subscription's order.
    pub(super) async fn look_at_orders(&mut self, api: &Api) -> Result<(), store::Error> {
        let pending = self.deliveries.iter_mut().filter(|delivery| {
            let is_ordered = delivery.now.as_ref().is_some_and(|now| now.is_active() && now.order.is_some());
            is_ordered && delivery.gate.is_none() && matches!(delivery.state, State::Pending)
        });
        for delivery in pending.take(ORDERS_LOOKED_AT) {
            let Some(now) = &delivery.now else { continue };
            delivery.gate = api.dispatcher.held_by_order(now, &self.event).await?;
        }
        Ok(())
    }

    /// Returns the status of the deliveries that the user may see.
    pub(super) fn status(&self) -> TaskStatus {
        TaskStatus::of(self.deliveries.iter().map(|delivery| &delivery.state))
    }

    /// Returns the row of a list.
    pub(super) fn summary(&self) -> v1::EventSummary {
        let event = &self.event.event;
        v1::EventSummary {
            id: self.event.id.uuid(),
            received: self.event.received.into(),
            status: self.status().to_string(),
            spec_version: event.spec_version().as_str().to_owned(),
            event_id: event.id().to_owned(),
            source: event.source().to_owned(),
            kind: event.ty().to_owned(),
            subject: event.subject(),
        }
    }

    /// Returns the whole story. The event's own JSON stays as it was received, including its numbers; it is
    /// null for a user who may see only that a filter failed on it.
    pub(super) fn whole(&self, api: &Api, explain: Option<v1::Explanation>) -> serde_json::Result<v1::Story> {
        let (mode, content_type) = match self.event.event.wire() {
            Wire::Structured { content_type, .. } => (v1::Mode::Structured, content_type),
            Wire::Binary { content_type, .. } => (v1::Mode::Binary, content_type),
        };
        Ok(v1::Story {
            id: self.event.id.uuid(),
            received: self.event.received.into(),
            status: self.status().to_string(),
            sender: operator::shown(&self.event.sender).to_owned(),
            mode,
            content_type: content_type.clone().filter(|_| self.shows_event),
            event: self.shows_event.then(|| raw_json(&self.event)).transpose()?,
            data: self.event.event.unreadable_data().filter(|_| self.shows_event),
            deliveries: self.deliveries.iter().map(|delivery| delivery.show(&self.event)).collect(),
            filters_failed: self.failed.iter().map(|failed| show_failed(failed, api)).collect(),
            explain,
        })
    }
}

/// Returns an event's JSON unchanged.
fn raw_json(logged: &LoggedEvent) -> serde_json::Result<Box<RawValue>> {
    serde_json::from_slice(&logged.event.json())
}

fn show_failed(failed: &FailedFilter, api: &Api) -> v1::FailedFilter {
    let now = api.directory.get(failed.recipient.subscription_id());
    let handler = api.runs.name(failed.recipient).map(ToString::to_string);
    v1::FailedFilter {
        subscription: failed.recipient.uuid(),
        name: now.as_ref().map(|now| now.name.clone()).or(handler),
        user: now.as_ref().map(|now| now.user.clone()),
        reason: failed.reason.clone(),
        at: failed.at.into(),
    }
}

/// Explains that a run waits for a handler that is no longer configured.
fn stranded(api: &Api, recipient: RecipientId) -> Option<String> {
    let is_there = api.directory.recipient(recipient).is_some() || api.runs.name(recipient).is_some();
    (!is_there).then(|| "waits: its handler is not in the configuration any more".to_owned())
}

/// Explains that a subscription's deliveries wait for the breaker of its plugin.
fn open_breaker(api: &Api, recipient: RecipientId) -> Option<String> {
    let BreakerState { open_until, reason, .. } = api.dispatcher.breaker(recipient.subscription_id())?;
    let until = open_until?;
    Some(format!("waits: the plugin's breaker is open until {until:.0} ({reason})"))
}

impl Delivery {
    /// Returns what happened to it.
    pub(crate) fn into_history(self) -> Vec<Entry> {
        self.history
    }
}

impl Delivery {
    fn of(event: &LoggedEvent, stored: store::Delivery, api: &Api) -> Self {
        let store::Delivery { recipient, state, was_allowed, history } = stored;
        let progress = api.runs.progress(event.id, recipient);
        let state = match state {
            state if state.is_final() => state,
            _ if progress.is_some() || api.dispatcher.is_in_flight(event.id, recipient) => State::Delivering,
            state => state,
        };
        let held = match state {
            State::Pending => stranded(api, recipient).or_else(|| open_breaker(api, recipient)),
            State::Retrying { .. } | State::Held { .. } => stranded(api, recipient),
            State::Delivering
            | State::Delivered { .. }
            | State::Denied { .. }
            | State::Skipped { .. }
            | State::Dead { .. } => None,
        };
        // A finished run may still be cleaning up.
        let progress = progress.filter(|_| state == State::Delivering);
        let now = api.directory.recipient(recipient);
        let others_held = api.dispatcher.hold(recipient).or_else(|| api.runs.hold(recipient));
        let gate = now.as_ref().filter(|now| now.is_active()).and_then(|now| api.dispatcher.gate(now));
        let mut delivery = Self {
            recipient,
            now,
            state,
            was_allowed,
            handler: None,
            progress,
            held,
            others_held,
            gate,
            history,
        };
        delivery.handler = match &delivery.now {
            Some(_) => None,
            None => Some(delivery.handler_name(api)),
        };
        delivery
    }

    /// Returns the name of the handler, even if it is no longer configured but has run before.
    fn handler_name(&self, api: &Api) -> String {
        let known = api.runs.name(self.recipient).map(ToString::to_string);
        let ran = || self.runs().last().map(|run| run.handler.clone());
        known.or_else(ran).unwrap_or_else(|| "unknown".to_owned())
    }

    pub(super) fn show(&self, event: &LoggedEvent) -> v1::Delivery {
        let (reason, due) = match &self.state {
            State::Retrying { due, reason } | State::Held { due, reason, .. } => {
                (Some(self.held.as_ref().unwrap_or(reason)), Some((*due).into()))
            }
            State::Skipped { reason } | State::Dead { reason } => (Some(reason), None),
            State::Denied { .. } => {
                (self.attempts_with_runs().last().and_then(|(_, done)| denial(done.plugin)), None)
            }
            State::Pending => (self.held.as_ref(), None),
            State::Delivering | State::Delivered { .. } => (None, None),
        };
        let attempts = self.attempts_with_runs();
        v1::Delivery {
            id: DeliveryId::of(event.id, self.recipient).uuid(),
            subscription: self.recipient.uuid(),
            handler: self.handler.clone(),
            name: self.now.as_ref().map(|now| &now.name).or(self.handler.as_ref()).cloned(),
            user: self.now.as_ref().map(|now| operator::shown(&now.user).to_owned()),
            target_url: self.now.as_ref().map(|now| now.target_url.as_str().to_owned()),
            state: words::delivery_state(&self.state),
            reason: reason.cloned(),
            due,
            held: self.hold(),
            progress: self.progress.as_ref().map(runs::show_progress),
            attempts: attempts.map(|(attempt, run)| show_attempt(attempt, run)).collect(),
            recovered: self.history.iter().find_map(show_recovered),
            redeliveries: self.history.iter().filter_map(show_redelivery).collect(),
        }
    }

    /// Returns what holds the delivery back: neither its own last attempt nor its plugin.
    fn hold(&self) -> Option<v1::Hold> {
        let by_gate = || self.gate.map(words::gate_hold);
        let (by, since) = match self.state {
            State::Held { by, since, .. } => (by, since),
            State::Retrying { due, .. } => return by_gate().filter(|_| due <= clock::now()),
            // It has had no attempt, while other deliveries of its subscription are held.
            State::Pending if self.gate.is_none() && self.history.iter().all(Entry::is_run) => {
                self.others_held?
            }
            State::Pending => return by_gate(),
            State::Delivering
            | State::Delivered { .. }
            | State::Denied { .. }
            | State::Skipped { .. }
            | State::Dead { .. } => return None,
        };
        Some(v1::Hold { by: by.name().to_owned(), since: since.into(), until: None })
    }

    /// Returns all attempts, oldest first, each with what the plugin or the handler did in it.
    fn attempts_with_runs(&self) -> impl Iterator<Item = (&Attempt, AttemptDetails<'_>)> {
        let mut last = AttemptDetails::default();
        self.history.iter().filter_map(move |entry| match entry {
            Entry::Attempt(attempt) => Some((attempt, std::mem::take(&mut last))),
            Entry::Plugin(plugin) => {
                last.plugin = Some(plugin);
                None
            }
            Entry::Run(run) => {
                last.run = Some(run);
                None
            }
            Entry::Redelivery { .. }
            | Entry::Dropped { .. }
            | Entry::FilterFailed { .. }
            | Entry::Recovered { .. }
            | Entry::Held { .. } => None,
        })
    }

    /// Returns all attempts, oldest first.
    pub(super) fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts_with_runs().map(|(attempt, _)| attempt)
    }

    /// Returns what a handler did in each attempt, oldest first.
    pub(super) fn runs(&self) -> impl Iterator<Item = &HandlerRun> {
        self.attempts_with_runs().filter_map(|(_, done)| done.run)
    }
}

/// What the plugin or the handler did in an attempt.
#[derive(Clone, Copy, Default)]
struct AttemptDetails<'a> {
    plugin: Option<&'a PluginRun>,
    run: Option<&'a HandlerRun>,
}

fn show_attempt(attempt: &Attempt, done: AttemptDetails<'_>) -> v1::Attempt {
    let (outcome, reason) = match &attempt.outcome {
        Outcome::Delivered => (v1::Outcome::Delivered, None),
        Outcome::Denied => (v1::Outcome::Denied, denial(done.plugin)),
        Outcome::Skipped { reason } => (v1::Outcome::Skipped, Some(reason)),
        Outcome::Retry { reason, .. } => (v1::Outcome::Retry, Some(reason)),
        Outcome::Dead { reason } => (v1::Outcome::Dead, Some(reason)),
    };
    v1::Attempt {
        number: attempt.number,
        at: attempt.at.into(),
        took_ms: words::millis(attempt.took),
        outcome,
        reason: reason.cloned(),
        policy: attempt.policy.as_ref().map(show_answer),
        plugin: done.plugin.map(show_run),
        run: done.run.map(runs::show_run),
        target: attempt.target.as_ref().map(show_answer),
    }
}

/// Returns why a plugin denied, if it did.
fn denial(run: Option<&PluginRun>) -> Option<&String> {
    match &run?.verdict {
        Verdict::Denied { reason } => Some(reason),
        Verdict::Deliver | Verdict::Transformed { .. } | Verdict::Skipped { .. } | Verdict::Failed(_) => None,
    }
}

/// Shows what a plugin did in an attempt.
pub(super) fn show_run(run: &PluginRun) -> v1::PluginRun {
    let (verdict, reason, outputs) = match &run.verdict {
        Verdict::Deliver => (v1::PluginVerdict::Deliver, None, None),
        Verdict::Transformed { outputs } => (v1::PluginVerdict::Transformed, None, Some(*outputs)),
        Verdict::Denied { reason } => (v1::PluginVerdict::Denied, Some(reason.clone()), None),
        Verdict::Skipped { reason } => (v1::PluginVerdict::Skipped, Some(reason.clone()), None),
        Verdict::Failed(failed) => (v1::PluginVerdict::Failed, Some(failed.reason()), None),
    };
    let logs = run.logs.iter().map(|line| v1::LogLine {
        level: words::log_level(line.level),
        message: line.message.clone(),
        fields: line.fields.clone(),
    });
    v1::PluginRun {
        digest: run.digest.to_string(),
        took_ms: run.took.as_secs_f64() * 1e3,
        answered: run.answered.clone(),
        verdict,
        reason,
        outputs,
        logs: logs.collect(),
        logs_dropped: run.logs_dropped,
        stderr: run.stderr.clone(),
        memory_bytes: run.memory_bytes,
    }
}

pub(super) fn show_answer(answer: &Answer) -> v1::Answer {
    v1::Answer { status: answer.status, body: answer.body.clone() }
}

fn show_redelivery(entry: &Entry) -> Option<v1::RequestedBy> {
    match entry {
        Entry::Redelivery { at, by } => Some(v1::RequestedBy { at: (*at).into(), by: by.clone() }),
        Entry::Attempt(_)
        | Entry::Dropped { .. }
        | Entry::FilterFailed { .. }
        | Entry::Recovered { .. }
        | Entry::Held { .. }
        | Entry::Plugin(_)
        | Entry::Run(_) => None,
    }
}

fn show_recovered(entry: &Entry) -> Option<v1::RequestedBy> {
    match entry {
        Entry::Recovered { at, by } => Some(v1::RequestedBy { at: (*at).into(), by: by.clone() }),
        Entry::Attempt(_)
        | Entry::Dropped { .. }
        | Entry::FilterFailed { .. }
        | Entry::Held { .. }
        | Entry::Redelivery { .. }
        | Entry::Plugin(_)
        | Entry::Run(_) => None,
    }
}

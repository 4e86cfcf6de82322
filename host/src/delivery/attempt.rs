//! One attempt: ask policy and the plugin, make the request, send it, classify the response.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::context::DeliveryContext;
use super::outcome::{Next, Response, RetryContext, SubscriptionEffect, classify_response, of_output};
use super::pipeline::{PluginContext, SendPlan};
use super::request;
use super::slots::{Occupied, Slot};
use crate::domain::plugin::PluginRun;
use crate::domain::{Answer, Attempt, Holder, Outcome, Subscription};
use crate::policy::{Policy, Verdict};
use crate::stage::{PANICKED, caught};
use crate::store::{PendingDelivery, Progress, Release, Settlement};
use crate::{chain, clock};

/// How long a delivery is put off without being counted: at first, and at most. In between each wait is as long as
/// all before it together.
const HOLD: Duration = Duration::from_secs(1);
const HOLD_MAX: Duration = Duration::from_secs(5 * 60);
/// The most characters of a policy server's answer in the reason of a held delivery.
const TOLD_MAX: usize = 200;

/// How an attempt ended.
pub(super) struct AttemptResult {
    /// For the store.
    pub(super) end: AttemptEnd,
    /// For the subscription.
    pub(super) effect: SubscriptionEffect,
    /// The subscription as the attempt used it.
    pub(super) subscription: Arc<Subscription>,
    pub(super) took: Duration,
    /// Whether it gave way to other workers.
    pub(super) gave_way: bool,
}

/// How an attempt ended, for the store.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, which is not to cost an allocation"
)]
pub(super) enum AttemptEnd {
    /// It counts.
    Settled(Settlement),
    /// It does not.
    Released(Box<Release>),
}

/// What an attempt in flight has found out so far.
struct AttemptRecord {
    progress: Progress,
    policy: Option<Answer>,
    target: Option<Answer>,
    /// What the plugin did, unless the store has it already.
    plugin: Option<Box<PluginRun>>,
    rendered: bool,
}

impl DeliveryContext {
    /// Makes one attempt. Dropping the future undoes it, except that the target may have received the event. A panic is
    /// an outcome of this attempt alone.
    pub(super) async fn attempt(
        self: Arc<Self>,
        subscription: Arc<Subscription>,
        pending: PendingDelivery,
        plugin_context: Option<PluginContext>,
        slot: Slot,
    ) -> (AttemptResult, Slot) {
        let _under_way = self.in_flight.enter(pending.event.id, subscription.id.into());
        let at = clock::now();
        let mut record = AttemptRecord {
            progress: pending.progress,
            policy: None,
            target: None,
            plugin: None,
            rendered: pending.rendered,
        };
        let occupied = slot.occupy();
        // The number of failures, if this attempt fails.
        let failed = pending.progress.failed + 1;
        let schedule = subscription.retry.as_ref().unwrap_or(&self.limits.retry_schedule);
        let retry_context = || RetryContext { schedule, failed, now: clock::now(), random: rand::random() };
        let next = match caught(self.make(
            &subscription,
            &pending,
            plugin_context,
            occupied,
            &mut record,
            &retry_context,
        ))
        .await
        {
            Ok(next) => next,
            Err(panic) => {
                tracing::error!(subscription = %subscription.id, event = %pending.event.id, panic, "an attempt panicked");
                // A panic is not the subscription's fault: it has no effect on it.
                let RetryContext { schedule, failed, now, random } = retry_context();
                let reason = PANICKED.to_owned();
                let outcome = Outcome::after_failure(reason, schedule, failed, Duration::ZERO, now, random);
                Next::Over(outcome, SubscriptionEffect::Nothing)
            }
        };
        let took = occupied.elapsed();
        let gave_way = matches!(next, Next::GaveWay);
        let (end, effect) = match next {
            Next::Over(outcome, effect) => {
                (AttemptEnd::Settled(settlement(&subscription, &pending, record, at, took, outcome)), effect)
            }
            Next::Held(by, reason) => {
                (released(&subscription, &pending, &record, by, reason), SubscriptionEffect::Nothing)
            }
            Next::GaveWay => {
                let reason = format!(
                    "the attempt gave way to others after {} ms: {} were under way (the setting in_flight_max)",
                    took.as_millis(),
                    self.limits.in_flight_max
                );
                (
                    released(&subscription, &pending, &record, Holder::Host, reason),
                    SubscriptionEffect::Nothing,
                )
            }
        };
        (AttemptResult { end, effect, subscription, took, gave_way }, slot)
    }

    async fn make<'s>(
        &self,
        subscription: &Arc<Subscription>,
        pending: &PendingDelivery,
        plugin_context: Option<PluginContext>,
        slot: Occupied<'_>,
        record: &mut AttemptRecord,
        retry_context: &impl Fn() -> RetryContext<'s>,
    ) -> Next {
        if !record.progress.allowed && !matches!(self.policy, Policy::Everyone) {
            let asking = Box::pin(self.policy.ask(pending.event.id, &pending.event.event, subscription));
            let Some(verdict) = slot.unless_needed(asking).await else { return Next::GaveWay };
            match &*verdict {
                Verdict::Allowed(answer) => record.policy.clone_from(answer),
                Verdict::Denied(answer) => {
                    record.policy = Some(answer.clone());
                    return Next::Over(Outcome::Denied, SubscriptionEffect::Nothing);
                }
                Verdict::Unavailable { reason, answer } => {
                    return Next::Held(Holder::Policy, with_answer(reason, answer.as_ref()));
                }
            }
        }
        record.progress.allowed = true;
        let plan = if subscription.plugin.is_none() && !pending.rendered {
            SendPlan::Event
        } else {
            let deciding = self.decide(
                subscription,
                pending,
                plugin_context,
                pending.progress.failed + 1,
                retry_context,
            );
            // Boxed, so that deliveries without a plugin do not pay for the size of this future.
            let decided = Box::pin(deciding).await;
            (record.plugin, record.rendered) = (decided.run, decided.is_rendered);
            decided.plan
        };
        match plan {
            SendPlan::Event => {
                record.progress.passed |= subscription.plugin.is_some() && !record.rendered;
                let timeout = subscription.timeout.unwrap_or(self.limits.attempt_timeout);
                let request = || request::make(&pending.event, subscription);
                let Some(response) = self.exchange(request, timeout, slot).await else {
                    return Next::GaveWay;
                };
                let next = classify_response(&response, retry_context());
                record.target = answer_of(response);
                next
            }
            SendPlan::Outputs(outputs) => {
                let sending =
                    self.send_outputs(subscription, pending, &outputs, slot, &mut record.progress.sent);
                let Some((place, response)) = Box::pin(sending).await else { return Next::GaveWay };
                let next = classify_response(&response, retry_context());
                record.target = answer_of(response);
                of_output(next, place, outputs.len())
            }
            SendPlan::End(outcome, effect) => Next::Over(outcome, effect),
            SendPlan::Held(by, reason) => Next::Held(by, reason),
        }
    }

    /// Remembers that a target was reached.
    pub(super) fn note_success(&self, ended: &AttemptResult) {
        if ended.effect == SubscriptionEffect::Reached {
            self.last_success.note(ended.subscription.id, clock::now());
        }
    }

    /// Disables a subscription if the end of an attempt requires it.
    pub(super) async fn apply_effect(&self, AttemptResult { end, effect, subscription, .. }: &AttemptResult) {
        let id = subscription.id;
        let first = match end {
            AttemptEnd::Settled(settlement) => {
                settlement.progress.first_attempt.unwrap_or(settlement.attempt.at)
            }
            AttemptEnd::Released(_) => return,
        };
        let error = match effect {
            SubscriptionEffect::Nothing | SubscriptionEffect::Reached => return,
            SubscriptionEffect::DisableUnlessReached(_) if self.last_success.since(id, first) => return,
            SubscriptionEffect::DisableUnlessReached(error) | SubscriptionEffect::Disable(error) => {
                error.clone()
            }
        };
        tracing::warn!(subscription = %id, error, "the subscription is disabled");
        if let Err(failure) = self.directory.disable(subscription, clock::now(), error).await {
            tracing::error!(subscription = %id, error = chain::of(&failure), "the subscription could not be disabled");
        }
    }
}

fn settlement(
    subscription: &Subscription,
    pending: &PendingDelivery,
    record: AttemptRecord,
    at: Timestamp,
    took: Duration,
    outcome: Outcome,
) -> Settlement {
    let AttemptRecord { mut progress, policy, mut target, plugin, rendered } = record;
    if outcome == Outcome::Delivered {
        target.iter_mut().for_each(Answer::keep_little);
    }
    progress.failed += 1;
    progress.held = None;
    progress.first_attempt.get_or_insert(at);
    let attempt = Attempt { number: progress.failed, at, took, policy, target, outcome };
    let (event, position, recipient) = (pending.event.id, pending.position, subscription.id.into());
    Settlement { recipient, event, position, plugin, run: None, attempt, progress, rendered }
}

/// Releases a delivery. The answers of policy and plugin are not kept: the history of an event would not show them.
fn released(
    subscription: &Subscription,
    pending: &PendingDelivery,
    record: &AttemptRecord,
    by: Holder,
    reason: String,
) -> AttemptEnd {
    let now = clock::now();
    let since = pending.progress.held.unwrap_or(now);
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let wait = waited.clamp(HOLD, HOLD_MAX).mul_f64(rand::random_range(0.9..1.1));
    let due = now.checked_add(wait).unwrap_or(Timestamp::MAX);
    let in_micros = |at: Timestamp| Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
    AttemptEnd::Released(Box::new(Release {
        recipient: subscription.id.into(),
        event: pending.event.id,
        position: pending.position,
        progress: Progress { sent: record.progress.sent, ..pending.progress },
        by,
        reason,
        since: in_micros(since),
        // The precision of the store's keys.
        due: in_micros(due),
    }))
}

fn with_answer(reason: &str, answer: Option<&Answer>) -> String {
    match answer.map(|answer| answer.body.trim()).filter(|body| !body.is_empty()) {
        Some(body) => format!("{reason}: {}", body.chars().take(TOLD_MAX).collect::<String>()),
        None => reason.to_owned(),
    }
}

fn answer_of(response: Response) -> Option<Answer> {
    match response {
        Response::Answered { answer, .. } => Some(answer),
        Response::Unsendable(_) | Response::Failed(_) | Response::Shortage(_) => None,
    }
}

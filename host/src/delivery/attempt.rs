//! One attempt: ask policy and the plugin, make the request, send it, judge the answer.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::engine::Engine;
use super::outcome::{Consequence, Next, Response, Situation, judge, of_output};
use super::pipeline::{Course, Visit};
use super::request;
use super::slots::{Occupied, Slot};
use crate::domain::plugin::PluginRun;
use crate::domain::{Answer, Attempt, Holder, Outcome, Subscription};
use crate::policy::{Policy, Verdict};
use crate::stage::{PANICKED, caught};
use crate::store::{Finished, Owed, Progress, Release};
use crate::{chain, clock};

/// How long a delivery is put off without being counted: at first, and at the most. In between each wait is as long as
/// all before it together.
const HOLD: Duration = Duration::from_secs(1);
const HOLD_MAX: Duration = Duration::from_secs(5 * 60);
/// How much of a policy server's answer is told with what is held.
const TOLD_MAX: usize = 200;

/// How an attempt ended.
pub(super) struct Ended {
    /// For the store.
    pub(super) end: End,
    /// For the subscription.
    pub(super) consequence: Consequence,
    /// The subscription as it was tried.
    pub(super) subscription: Arc<Subscription>,
    pub(super) took: Duration,
    /// Whether it gave way to other lanes.
    pub(super) gave_way: bool,
}

/// What the store is told of an attempt.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, which is not to cost an allocation"
)]
pub(super) enum End {
    /// It counts.
    Finished(Finished),
    /// It does not.
    Released(Box<Release>),
}

/// What is known of an attempt that is under way.
struct Made {
    progress: Progress,
    policy: Option<Answer>,
    target: Option<Answer>,
    /// What the plugin did, where the store does not have it yet.
    plugin: Option<Box<PluginRun>>,
    prepared: bool,
}

impl Engine {
    /// Makes one attempt. Dropping the future is as if the attempt had not begun, but that the target may have
    /// got the event. A panic is an outcome of this attempt alone.
    pub(super) async fn attempt(
        self: Arc<Self>,
        subscription: Arc<Subscription>,
        owed: Owed,
        visit: Option<Visit>,
        slot: Slot,
    ) -> (Ended, Slot) {
        let _under_way = self.under_way.enter(owed.event.id, subscription.id.into());
        let at = clock::now();
        let mut made = Made {
            progress: owed.progress,
            policy: None,
            target: None,
            plugin: None,
            prepared: owed.prepared,
        };
        let occupied = slot.occupy();
        // What a failure counts as, should this attempt fail.
        let failed = owed.progress.failed + 1;
        let schedule = subscription.retry.as_ref().unwrap_or(&self.limits.retry_schedule);
        let situation = || Situation { schedule, failed, now: clock::now(), random: rand::random() };
        let next = match caught(self.make(&subscription, &owed, visit, occupied, &mut made, &situation)).await
        {
            Ok(next) => next,
            Err(panic) => {
                tracing::error!(subscription = %subscription.id, event = %owed.event.id, panic, "an attempt panicked");
                // The subscription is not to blame.
                let Situation { schedule, failed, now, random } = situation();
                let reason = PANICKED.to_owned();
                let outcome = Outcome::after_failure(reason, schedule, failed, Duration::ZERO, now, random);
                Next::Over(outcome, Consequence::Nothing)
            }
        };
        let took = occupied.elapsed();
        let gave_way = matches!(next, Next::GaveWay);
        let (end, consequence) = match next {
            Next::Over(outcome, consequence) => {
                (End::Finished(finished(&subscription, &owed, made, at, took, outcome)), consequence)
            }
            Next::Held(by, reason) => {
                (released(&subscription, &owed, &made, by, reason), Consequence::Nothing)
            }
            Next::GaveWay => {
                let reason = format!(
                    "the attempt gave way to others after {} ms: {} were under way (the setting in_flight_max)",
                    took.as_millis(),
                    self.limits.in_flight_max
                );
                (released(&subscription, &owed, &made, Holder::Host, reason), Consequence::Nothing)
            }
        };
        (Ended { end, consequence, subscription, took, gave_way }, slot)
    }

    async fn make<'s>(
        &self,
        subscription: &Arc<Subscription>,
        owed: &Owed,
        visit: Option<Visit>,
        slot: Occupied<'_>,
        made: &mut Made,
        situation: &impl Fn() -> Situation<'s>,
    ) -> Next {
        if !made.progress.allowed && !matches!(self.policy, Policy::Everyone) {
            let asking = Box::pin(self.policy.ask(owed.event.id, &owed.event.event, subscription));
            let Some(verdict) = slot.unless_needed(asking).await else { return Next::GaveWay };
            match &*verdict {
                Verdict::Allowed(answer) => made.policy.clone_from(answer),
                Verdict::Denied(answer) => {
                    made.policy = Some(answer.clone());
                    return Next::Over(Outcome::Denied, Consequence::Nothing);
                }
                Verdict::Unavailable { reason, answer } => {
                    return Next::Held(Holder::Policy, with_answer(reason, answer.as_ref()));
                }
            }
        }
        made.progress.allowed = true;
        let course = if subscription.plugin.is_none() && !owed.prepared {
            Course::Event
        } else {
            let deciding = self.decide(subscription, owed, visit, owed.progress.failed + 1, situation);
            // Deliveries without a plugin do not pay for the size of this future.
            let decided = Box::pin(deciding).await;
            (made.plugin, made.prepared) = (decided.run, decided.is_prepared);
            decided.course
        };
        match course {
            Course::Event => {
                made.progress.passed |= subscription.plugin.is_some() && !made.prepared;
                let timeout = subscription.timeout.unwrap_or(self.limits.attempt_timeout);
                let request = || request::make(&owed.event, subscription);
                let Some(response) = self.exchange(request, timeout, slot).await else {
                    return Next::GaveWay;
                };
                let next = judge(&response, situation());
                made.target = answer_of(response);
                next
            }
            Course::Outputs(outputs) => {
                let sending = self.send_outputs(subscription, owed, &outputs, slot, &mut made.progress.sent);
                let Some((place, response)) = Box::pin(sending).await else { return Next::GaveWay };
                let next = judge(&response, situation());
                made.target = answer_of(response);
                of_output(next, place, outputs.len())
            }
            Course::End(outcome, consequence) => Next::Over(outcome, consequence),
            Course::Held(by, reason) => Next::Held(by, reason),
        }
    }

    /// Remembers that a target was reached.
    pub(super) fn note_reached(&self, ended: &Ended) {
        if ended.consequence == Consequence::Reached {
            self.reached.note(ended.subscription.id, clock::now());
        }
    }

    /// Disables a subscription, where an attempt's end means that.
    pub(super) async fn follow(&self, Ended { end, consequence, subscription, .. }: &Ended) {
        let id = subscription.id;
        let first = match end {
            End::Finished(finished) => finished.progress.first_attempt.unwrap_or(finished.attempt.at),
            End::Released(_) => return,
        };
        let error = match consequence {
            Consequence::Nothing | Consequence::Reached => return,
            Consequence::DisableUnlessReached(_) if self.reached.since(id, first) => return,
            Consequence::DisableUnlessReached(error) | Consequence::Disable(error) => error.clone(),
        };
        tracing::warn!(subscription = %id, error, "the subscription is disabled");
        if let Err(failure) = self.directory.disable(subscription, clock::now(), error).await {
            tracing::error!(subscription = %id, error = chain::of(&failure), "the subscription could not be disabled");
        }
    }
}

fn finished(
    subscription: &Subscription,
    owed: &Owed,
    made: Made,
    at: Timestamp,
    took: Duration,
    outcome: Outcome,
) -> Finished {
    let Made { mut progress, policy, mut target, plugin, prepared } = made;
    if outcome == Outcome::Delivered {
        target.iter_mut().for_each(Answer::keep_little);
    }
    progress.failed += 1;
    progress.held = None;
    progress.first_attempt.get_or_insert(at);
    let attempt = Attempt { number: progress.failed, at, took, policy, target, outcome };
    let (event, place, recipient) = (owed.event.id, owed.place, subscription.id.into());
    Finished { recipient, event, place, plugin, run: None, attempt, progress, prepared }
}

/// Puts a delivery off. Of what policy and the plugin have said nothing is kept: the story would not show it.
fn released(subscription: &Subscription, owed: &Owed, made: &Made, by: Holder, reason: String) -> End {
    let now = clock::now();
    let since = owed.progress.held.unwrap_or(now);
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let wait = waited.clamp(HOLD, HOLD_MAX).mul_f64(rand::random_range(0.9..1.1));
    let due = now.checked_add(wait).unwrap_or(Timestamp::MAX);
    let in_micros = |at: Timestamp| Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
    End::Released(Box::new(Release {
        recipient: subscription.id.into(),
        event: owed.event.id,
        place: owed.place,
        progress: Progress { sent: made.progress.sent, ..owed.progress },
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

//! One attempt: ask policy and the plugin, make the request, send it, judge the answer.

use std::sync::Arc;
use std::time::Instant;

use super::engine::Engine;
use super::outcome::{Consequence, Response, Situation, judge, judge_unavailable, of_output};
use super::pipeline::{Course, Visit};
use super::request;
use crate::domain::{Answer, Attempt, Outcome, Subscription};
use crate::policy::Verdict;
use crate::store::{Finished, Owed};
use crate::{chain, clock};

/// How an attempt ended.
pub(super) struct Ended {
    /// For the store.
    pub(super) finished: Finished,
    /// For the subscription.
    pub(super) consequence: Consequence,
    /// The subscription as it was tried.
    pub(super) subscription: Arc<Subscription>,
}

impl Engine {
    /// Makes one attempt. Dropping the future is as if the attempt had not begun, but that the target may have
    /// got the event.
    pub(super) async fn attempt(
        &self,
        subscription: Arc<Subscription>,
        owed: Owed,
        visit: Option<Visit>,
    ) -> Ended {
        let _under_way = self.under_way.enter(owed.event.id, subscription.id);
        let (at, begun) = (clock::now(), Instant::now());
        let mut progress = owed.progress;
        progress.first_attempt.get_or_insert(at);
        let (mut policy, mut target) = (None, None);
        let (mut plugin, mut prepared) = (None, owed.prepared);
        // What a failure counts as, should this attempt fail.
        progress.failed += 1;
        let failed = progress.failed;
        let schedule = subscription.retry.as_ref().unwrap_or(&self.limits.retry_schedule);
        let situation = || Situation { schedule, failed, now: clock::now(), random: rand::random() };
        let verdict = match progress.allowed {
            true => None,
            false => Some(self.policy.ask(owed.event.id, &owed.event.event, &subscription).await),
        };
        let (outcome, consequence) = match verdict.as_deref() {
            None | Some(Verdict::Allowed(_)) => {
                let course = if subscription.plugin.is_none() && !owed.prepared {
                    Course::Event
                } else {
                    let deciding = self.decide(&subscription, &owed, visit, failed, &situation);
                    // Deliveries without a plugin do not pay for the size of this future.
                    let decided = Box::pin(deciding).await;
                    (plugin, prepared) = (decided.run, decided.is_prepared);
                    decided.course
                };
                match course {
                    Course::Event => {
                        progress.passed |= subscription.plugin.is_some() && !prepared;
                        let response = self.send(&subscription, &owed).await;
                        let judged = judge(&response, situation());
                        target = answer_of(response);
                        judged
                    }
                    Course::Outputs(outputs) => {
                        let sending = self.send_outputs(&subscription, &owed, &outputs, &mut progress.sent);
                        let (place, response) = Box::pin(sending).await;
                        let (outcome, consequence) = judge(&response, situation());
                        target = answer_of(response);
                        (of_output(outcome, place, outputs.len()), consequence)
                    }
                    Course::End(outcome, consequence) => (outcome, consequence),
                }
            }
            Some(Verdict::Denied(_)) => (Outcome::Denied, Consequence::Nothing),
            Some(Verdict::Unavailable { reason, answer }) => {
                judge_unavailable(reason, answer.as_ref(), situation())
            }
        };
        match verdict.as_deref() {
            Some(Verdict::Allowed(answer)) => {
                policy.clone_from(answer);
                progress.allowed = true;
            }
            Some(Verdict::Denied(answer)) => policy = Some(answer.clone()),
            Some(Verdict::Unavailable { answer, .. }) => policy.clone_from(answer),
            None => {}
        }
        let attempt = Attempt { number: failed, at, took: begun.elapsed(), policy, target, outcome };
        let finished = Finished {
            subscription: subscription.id,
            event: owed.event.id,
            place: owed.place,
            plugin,
            run: None,
            attempt,
            progress,
            prepared,
        };
        Ended { finished, consequence, subscription }
    }

    async fn send(&self, subscription: &Subscription, owed: &Owed) -> Response {
        let timeout = subscription.timeout.unwrap_or(self.limits.attempt_timeout);
        self.exchange(|| request::make(&owed.event, subscription), timeout).await
    }

    /// Does what an attempt means for its subscription.
    pub(super) async fn follow(&self, ended: &Ended) {
        let Ended { finished, consequence, subscription } = ended;
        let id = subscription.id;
        let first = finished.progress.first_attempt.unwrap_or(finished.attempt.at);
        let error = match consequence {
            Consequence::Nothing => return,
            Consequence::Reached => return self.reached.note(id, clock::now()),
            Consequence::DisableUnlessReached(_) if self.reached.since(id, first) => return,
            Consequence::DisableUnlessReached(error) | Consequence::Disable(error) => error.clone(),
        };
        tracing::warn!(subscription = %id, error, "the subscription is disabled");
        if let Err(failure) = self.directory.disable(subscription, clock::now(), error).await {
            tracing::error!(subscription = %id, error = chain::of(&failure), "the subscription could not be disabled");
        }
    }
}

fn answer_of(response: Response) -> Option<Answer> {
    match response {
        Response::Answered { answer, .. } => Some(answer),
        Response::Unsendable(_) | Response::Failed(_) => None,
    }
}

//! One attempt: ask policy and the plugin, make the request, send it, classify the response.

use tokio::time::Instant;

use super::answer::exchange;
use super::credentials::Credentials;
use super::functions;
use super::gate::{Echo, Finding, Ticket};
use super::outcome::{Response, SubscriptionEffect, classify_response, of_output};
use super::outputs::send_outputs;
use super::pipeline::{PluginContext, SendPlan, decide};
use super::request;
use super::targets::Targets;
use crate::policy::{Policy, Verdict};
use crate::worker::{Assignment, AttemptRecord, Next};
use waypost_domain::{Answer, Holder, OPERATOR, Outcome};

/// The most characters of a policy server's answer in the reason of a held delivery.
const TOLD_MAX: usize = 200;

/// Makes one attempt. Dropping the future undoes it, except that the target may have received the event. `None` when it
/// has to give way to other workers.
pub(super) async fn make(
    targets: &Targets,
    assignment: &Assignment<'_, Targets>,
    mut ticket: Ticket,
    plugin_context: Option<PluginContext>,
    record: &mut AttemptRecord,
) -> Option<Next<SubscriptionEffect>> {
    let Assignment { subject: subscription, pending, slot, .. } = *assignment;
    let is_told = pending.event.sender == OPERATOR;
    if is_told && !targets.directory.may_get(subscription, &pending.event) {
        // Its user is no admin any more.
        return Some(Next::Over(Outcome::Denied, SubscriptionEffect::Nothing));
    }
    if !is_told && !record.progress.allowed && !matches!(targets.policy, Policy::Everyone) {
        let asking = Box::pin(targets.policy.ask(pending.event.id, &pending.event.event, subscription));
        match &*slot.unless_needed(asking).await? {
            Verdict::Allowed(answer) => record.policy.clone_from(answer),
            Verdict::Denied(answer) => {
                record.policy = Some(answer.clone());
                return Some(Next::Over(Outcome::Denied, SubscriptionEffect::Nothing));
            }
            Verdict::Unavailable { reason, answer } => {
                return Some(Next::Held(Holder::Policy, with_answer(reason, answer.as_ref())));
            }
        }
    }
    record.progress.allowed = true;
    if let Some(function) = targets.function(subscription) {
        return Some(Box::pin(functions::call(targets, assignment, ticket, function, record)).await);
    }
    let plan = if subscription.plugin.is_none() && !pending.rendered {
        SendPlan::Event
    } else {
        // Boxed, so that deliveries without a plugin do not pay for the size of this future.
        Box::pin(decide(targets, assignment, plugin_context, record)).await
    };
    let begun = Instant::now();
    let (response, output) = match plan {
        SendPlan::End(next) => return Some(next),
        SendPlan::Event => {
            ticket.spend();
            record.progress.passed |= subscription.plugin.is_some() && !record.rendered;
            let timeout = subscription.timeout.unwrap_or(targets.limits.attempt_timeout);
            let request = |with: &Credentials| request::make(&pending.event, subscription, with);
            (exchange(targets, subscription, request, timeout, slot).await?, None)
        }
        SendPlan::Outputs(outputs) => {
            ticket.spend();
            let sending = send_outputs(targets, assignment, &outputs, &mut record.progress.sent);
            let (place, response) = Box::pin(sending).await?;
            (response, Some((place, outputs.len())))
        }
    };
    Some(conclude(targets, assignment, (ticket, begun), (response, output), record))
}

/// Classifies a response, of one output among several if it is one; notes what it says of the target.
fn conclude(
    targets: &Targets,
    assignment: &Assignment<'_, Targets>,
    (mut ticket, begun): (Ticket, Instant),
    (response, output): (Response, Option<(usize, usize)>),
    record: &mut AttemptRecord,
) -> Next<SubscriptionEffect> {
    let now = Instant::now();
    let retry = targets.retry_of_probe(assignment, &ticket, now);
    if let Some(finding) = Finding::of(&response) {
        record.answered_in = Some(now - begun);
        let echo = Echo::of(&assignment.pending.event.sender);
        targets.gates.note(assignment.subject, ticket, finding, now, echo);
    } else {
        ticket.unspend();
    }
    let next = classify_response(&response, retry.context());
    record.missed = retry.missed;
    record.target = answer_of(response);
    match output {
        None => next,
        Some((place, count)) => of_output(next, place, count),
    }
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
        Response::Unsendable(_)
        | Response::Refused(_)
        | Response::Failed(_)
        | Response::Unsent(_)
        | Response::Shortage(_) => None,
    }
}

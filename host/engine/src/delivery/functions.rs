//! Targets inside this program: functions that an embedding program registers under a name.
//!
//! A subscription whose target is a function is stored, matched, asked about and retried as any other; only the last
//! step of an attempt calls the function where others send a request. Functions are not stored: until the program has
//! registered a function after a start, its deliveries wait.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::gate::{Echo, Finding, Ticket};
use super::outcome::{SubscriptionEffect, failure};
use super::targets::Targets;
use crate::worker::{Assignment, AttemptRecord, Next};
use waypost_domain::{DeliveryId, Event, EventId, Outcome, SubscriptionId};

/// One call of a function: a delivery that it may have got before.
#[derive(Clone, Debug)]
pub struct FunctionCall {
    /// The delivery, the same for each attempt: what targets get as `webhook-id`.
    pub id: DeliveryId,
    /// The event's id in the log.
    pub event_id: EventId,
    /// The event.
    pub event: Event,
    /// The subscription that it matched.
    pub subscription: SubscriptionId,
    /// Which attempt this is, from 1 on.
    pub attempt: u32,
}

/// Why a function has not taken an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    /// It may take it later: the subscription's schedule says when it is called again.
    #[error("{0}")]
    Retry(String),
    /// It never will: the delivery is a dead letter.
    #[error("{0}")]
    Final(String),
}

/// A function that takes events.
pub type Function = Arc<dyn Fn(FunctionCall) -> BoxFuture<'static, Result<(), FunctionError>> + Send + Sync>;

/// The functions that the program has registered since it started.
#[derive(Default)]
pub(super) struct Functions(RwLock<HashMap<String, Function>>);

impl Functions {
    pub(super) fn register(&self, name: String, function: Function) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, function);
    }

    pub(super) fn get(&self, name: &str) -> Option<Function> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// Calls the function of a subscription, within the time that an attempt has.
pub(super) async fn call(
    targets: &Targets,
    assignment: &Assignment<'_, Targets>,
    mut ticket: Ticket,
    function: Function,
    record: &mut AttemptRecord,
) -> Next<SubscriptionEffect> {
    let Assignment { subject: subscription, pending, .. } = *assignment;
    let call = FunctionCall {
        id: DeliveryId::of(pending.event.id, subscription.id),
        event_id: pending.event.id,
        event: pending.event.event.clone(),
        subscription: subscription.id,
        attempt: pending.progress.failed + 1,
    };
    let time = subscription.timeout.unwrap_or(targets.limits.attempt_timeout);
    ticket.spend();
    let begun = Instant::now();
    let result = match tokio::time::timeout(time, function(call)).await {
        Ok(result) => result,
        Err(_) => Err(FunctionError::Retry(format!("the function took longer than {} ms", time.as_millis()))),
    };
    let now = Instant::now();
    let retry = targets.retry_of_probe(assignment, &ticket, now);
    let finding = match &result {
        Ok(()) | Err(FunctionError::Final(_)) => Finding::Alive,
        Err(FunctionError::Retry(reason)) => Finding::Down(reason.clone(), None),
    };
    let echo = Echo::of(&assignment.pending.event.sender);
    targets.gates.note(subscription, ticket, finding, now, echo);
    (record.answered_in, record.missed) = (Some(now - begun), retry.missed);
    let (outcome, effect) = match result {
        Ok(()) => (Outcome::Delivered, SubscriptionEffect::Reached),
        Err(FunctionError::Final(reason)) => (Outcome::Dead { reason }, SubscriptionEffect::Nothing),
        Err(FunctionError::Retry(reason)) => failure(reason.clone(), reason, None, retry.context()),
    };
    Next::Over(outcome, effect)
}

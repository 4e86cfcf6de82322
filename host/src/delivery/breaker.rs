//! When a plugin fails again and again, its subscription's deliveries wait instead of using up their attempts.
//!
//! A breaker opens after [`FAILURES_MAX`] failures in a row. While it is open the plugin is not called; then one delivery
//! at a time tries it, and each failed trial doubles the wait, up to [`WAIT_MAX`]. A change of the subscription closes it:
//! its owner may have mended the plugin. It lives in memory: a restart is a trial.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use super::traffic::lock;
use crate::domain::{Subscription, SubscriptionId};

/// How many failures in a row open a breaker.
const FAILURES_MAX: u32 = 5;
/// How long it stays open at first, and at the most.
const WAIT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// How the plugin of a subscription does that has failed of late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerState {
    /// How many failures there were in a row.
    pub failures: u32,
    /// Until when it is not called; a time that is past means that the next delivery tries it. None while it is called.
    pub open_until: Option<Timestamp>,
    /// What failed last.
    pub reason: String,
}

/// A failure of a plugin that its breaker counts.
pub(super) struct Failed {
    /// What failed.
    pub(super) reason: String,
    /// Whether deliveries wait while the breaker is open; otherwise `on_error` says what becomes of them at once.
    pub(super) holds: bool,
}

/// What a delivery may do about its plugin.
pub(super) enum Permit {
    /// Call it.
    Call,
    /// Call it, as the only one.
    Try(Trial),
    /// Not call it before this time, or while another tries it.
    Not {
        /// When the breaker is open no more.
        until: Timestamp,
        /// See [`Failed::holds`].
        holds: bool,
    },
}

/// The breakers of all subscriptions whose plugins have failed of late.
#[derive(Default)]
pub(super) struct Breakers(Mutex<HashMap<SubscriptionId, Breaker>>);

/// One delivery's right to try a plugin whose breaker is open. Dropping it gives the right to the next.
pub(super) struct Trial {
    breakers: Arc<Breakers>,
    of: SubscriptionId,
    is_over: bool,
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(open) = lock(&self.breakers.0).get_mut(&self.of).and_then(|known| known.open.as_mut())
        {
            open.is_tried = false;
        }
    }
}

impl Breakers {
    /// Asks whether a delivery may call its plugin now.
    pub(super) fn ask(self: &Arc<Self>, subscription: &Subscription, now: Timestamp) -> Permit {
        let mut all = lock(&self.0);
        let Some(known) = all.get_mut(&subscription.id) else { return Permit::Call };
        if known.version != subscription.updated {
            all.remove(&subscription.id);
            return Permit::Call;
        }
        match known.ask(now) {
            Asked::Call => Permit::Call,
            Asked::Try => {
                let (breakers, of) = (Arc::clone(self), subscription.id);
                Permit::Try(Trial { breakers, of, is_over: false })
            }
            Asked::Not { until, holds } => Permit::Not { until, holds },
        }
    }

    /// Notes how a call ended.
    pub(super) fn note(
        &self,
        subscription: &Subscription,
        permit: Permit,
        result: Result<(), Failed>,
        now: Timestamp,
    ) {
        let trial = match permit {
            Permit::Try(trial) => Some(trial),
            Permit::Call | Permit::Not { .. } => None,
        };
        let (mut all, id) = (lock(&self.0), subscription.id);
        let is_trial = trial.is_some();
        if let Some(mut trial) = trial {
            trial.is_over = true;
        }
        let known = all.get_mut(&id).filter(|known| known.version == subscription.updated);
        match (known, result) {
            (Some(known), Ok(())) if known.closes(is_trial) => {
                if known.open.is_some() {
                    tracing::info!(subscription = %id, "its plugin works again: the breaker is closed");
                }
                all.remove(&id);
            }
            (_, Ok(())) => {}
            (Some(known), Err(failed)) => known.fail(failed, is_trial, id, now),
            (None, Err(failed)) => {
                let mut known = Breaker::new(subscription.updated);
                known.fail(failed, is_trial, id, now);
                all.insert(id, known);
            }
        }
    }

    /// Forgets a deleted subscription.
    pub(super) fn forget(&self, id: SubscriptionId) {
        lock(&self.0).remove(&id);
    }

    /// Returns how a subscription's plugin does, if it has failed of late.
    pub(super) fn state(&self, subscription: &Subscription) -> Option<BreakerState> {
        let all = lock(&self.0);
        let known = all.get(&subscription.id).filter(|known| known.version == subscription.updated)?;
        Some(BreakerState {
            failures: known.failures,
            open_until: known.open.as_ref().map(|open| open.until),
            reason: known.reason.clone(),
        })
    }
}

/// One breaker; pure, the clock is passed in.
struct Breaker {
    /// When the subscription was changed last: what happened before says nothing about it now.
    version: Timestamp,
    failures: u32,
    reason: String,
    open: Option<Open>,
}

struct Open {
    until: Timestamp,
    wait: Duration,
    holds: bool,
    /// Whether a trial is under way.
    is_tried: bool,
}

#[derive(Debug, PartialEq)]
enum Asked {
    Call,
    Try,
    Not { until: Timestamp, holds: bool },
}

impl Breaker {
    fn new(version: Timestamp) -> Self {
        Self { version, failures: 0, reason: String::new(), open: None }
    }

    fn ask(&mut self, now: Timestamp) -> Asked {
        match &mut self.open {
            None => Asked::Call,
            Some(open) if now >= open.until && !open.is_tried => {
                open.is_tried = true;
                Asked::Try
            }
            Some(Open { until, holds, .. }) => Asked::Not { until: *until, holds: *holds },
        }
    }

    /// Tells whether a success closes it: a call that began before it opened says nothing.
    fn closes(&self, is_trial: bool) -> bool {
        self.open.is_none() || is_trial
    }

    fn fail(&mut self, failed: Failed, is_trial: bool, id: SubscriptionId, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let wait = match &self.open {
            None if self.failures < FAILURES_MAX => None,
            None => Some(WAIT),
            Some(open) if is_trial => Some((2 * open.wait).min(WAIT_MAX)),
            // A call that began before it opened.
            Some(_) => None,
        };
        if let Some(wait) = wait {
            let until = now.checked_add(wait).unwrap_or(Timestamp::MAX);
            let (failures, reason) = (self.failures, &failed.reason);
            tracing::warn!(subscription = %id, failures, reason, %until, "its plugin fails: the breaker is open");
            self.open = Some(Open { until, wait, holds: failed.holds, is_tried: false });
        }
        self.reason = failed.reason;
    }
}

//! A circuit breaker for plugins: when a plugin fails repeatedly, its subscription's deliveries are held instead of
//! using up their attempts.
//!
//! A breaker opens after [`FAILURES_MAX`] failures in a row. While it is open, the plugin is not called. After its
//! wait, one delivery at a time is a probe, and each failed probe doubles the wait, up to [`WAIT_MAX`]. A change of the
//! subscription closes the breaker, because its owner may have fixed the plugin. Its state is in memory only: after a
//! restart it is closed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use waypost_domain::{Subscription, SubscriptionId};

/// How many failures in a row open a breaker.
const FAILURES_MAX: u32 = 5;
/// How long it stays open at first, and at most.
const WAIT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// The state of a plugin that has failed recently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerState {
    /// How many failures there were in a row.
    pub failures: u32,
    /// The plugin is not called before this time; if it is past, the next delivery is the probe. `None` while the
    /// plugin is called.
    pub open_until: Option<Timestamp>,
    /// What failed last.
    pub reason: String,
}

/// A failure of a plugin that its breaker counts.
pub(super) struct BreakerFailure {
    /// What failed.
    pub(super) reason: String,
    /// Whether deliveries are held while the breaker is open; otherwise `on_error` decides about them at once.
    pub(super) holds: bool,
}

/// Whether a delivery may call its plugin.
pub(super) enum Permit {
    /// It may.
    Call,
    /// It may, as the probe.
    Try(Probe),
    /// It may not, before this time or while another delivery is the probe.
    Not {
        /// The end of the breaker's wait.
        until: Timestamp,
        /// See [`BreakerFailure::holds`].
        holds: bool,
    },
}

/// The breakers of all subscriptions whose plugins have failed recently.
#[derive(Default)]
pub(super) struct Breakers(Mutex<HashMap<SubscriptionId, Breaker>>);

/// The right of one delivery to be the probe. Dropping it passes the right to the next.
pub(super) struct Probe {
    breakers: Arc<Breakers>,
    of: SubscriptionId,
    is_over: bool,
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(open) = self.breakers.0.lock().get_mut(&self.of).and_then(|known| known.open.as_mut())
        {
            open.is_tried = false;
        }
    }
}

impl Breakers {
    /// Asks whether a delivery may call its plugin now.
    pub(super) fn ask(self: &Arc<Self>, subscription: &Subscription, now: Timestamp) -> Permit {
        let mut all = self.0.lock();
        let Some(known) = all.get_mut(&subscription.id) else { return Permit::Call };
        if known.version != subscription.updated {
            all.remove(&subscription.id);
            return Permit::Call;
        }
        known.ask(now, || Probe { breakers: Arc::clone(self), of: subscription.id, is_over: false })
    }

    /// Notes the result of a call.
    pub(super) fn note(
        &self,
        subscription: &Subscription,
        permit: Permit,
        result: Result<(), BreakerFailure>,
        now: Timestamp,
    ) {
        let probe = match permit {
            Permit::Try(probe) => Some(probe),
            Permit::Call | Permit::Not { .. } => None,
        };
        let (mut all, id) = (self.0.lock(), subscription.id);
        let is_probe = probe.is_some();
        if let Some(mut probe) = probe {
            probe.is_over = true;
        }
        let known = all.get_mut(&id).filter(|known| known.version == subscription.updated);
        match (known, result) {
            (Some(known), Ok(())) if known.closes(is_probe) => {
                if known.open.is_some() {
                    tracing::info!(subscription = %id, "its plugin works again: the breaker is closed");
                }
                all.remove(&id);
            }
            (_, Ok(())) => {}
            (Some(known), Err(failed)) => known.fail(failed, is_probe, id, now),
            (None, Err(failed)) => {
                let mut known = Breaker::new(subscription.updated);
                known.fail(failed, is_probe, id, now);
                all.insert(id, known);
            }
        }
    }

    /// Forgets a deleted subscription.
    pub(super) fn forget(&self, id: SubscriptionId) {
        self.0.lock().remove(&id);
    }

    /// Returns the state of a subscription's plugin, if it has failed recently.
    pub(super) fn state(&self, subscription: &Subscription) -> Option<BreakerState> {
        let all = self.0.lock();
        let known = all.get(&subscription.id).filter(|known| known.version == subscription.updated)?;
        Some(BreakerState {
            failures: known.failures,
            open_until: known.open.as_ref().map(|open| open.until),
            reason: known.reason.clone(),
        })
    }
}

/// One breaker. Pure: the clock is passed in.
struct Breaker {
    /// When the subscription was last changed: results from before say nothing about it now.
    version: Timestamp,
    failures: u32,
    reason: String,
    open: Option<Open>,
}

struct Open {
    until: Timestamp,
    wait: Duration,
    holds: bool,
    /// Whether a probe is in flight.
    is_tried: bool,
}

impl Breaker {
    fn new(version: Timestamp) -> Self {
        Self { version, failures: 0, reason: String::new(), open: None }
    }

    fn ask(&mut self, now: Timestamp, probe: impl FnOnce() -> Probe) -> Permit {
        match &mut self.open {
            None => Permit::Call,
            Some(open) if now >= open.until && !open.is_tried => {
                open.is_tried = true;
                Permit::Try(probe())
            }
            Some(Open { until, holds, .. }) => Permit::Not { until: *until, holds: *holds },
        }
    }

    /// Tells whether a success closes it: the success of a call that began before it opened does not.
    fn closes(&self, is_probe: bool) -> bool {
        self.open.is_none() || is_probe
    }

    fn fail(&mut self, failed: BreakerFailure, is_probe: bool, id: SubscriptionId, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let wait = match &self.open {
            None if self.failures < FAILURES_MAX => None,
            None => Some(WAIT),
            Some(open) if is_probe => Some((2 * open.wait).min(WAIT_MAX)),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn subscription() -> Subscription {
        let target = "http://localhost:1/".parse().unwrap();
        Subscription::new("u".to_owned(), "n".to_owned(), "$".to_owned(), target, at(0))
    }

    fn failed() -> Result<(), BreakerFailure> {
        Err(BreakerFailure { reason: "plugin: oops".to_owned(), holds: true })
    }

    /// Returns breakers, of which this subscription's has been open since `at(0)`.
    fn open(subscription: &Subscription) -> Arc<Breakers> {
        let breakers = Arc::<Breakers>::default();
        for _ in 0..FAILURES_MAX {
            let permit = breakers.ask(subscription, at(0));
            assert!(matches!(permit, Permit::Call));
            breakers.note(subscription, permit, failed(), at(0));
        }
        breakers
    }

    fn refused_until(permit: &Permit) -> Option<Timestamp> {
        match permit {
            Permit::Not { until, holds: true } => Some(*until),
            Permit::Not { .. } | Permit::Call | Permit::Try(_) => None,
        }
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let (breakers, subscription) = (Arc::<Breakers>::default(), subscription());
        for _ in 0..3 {
            for _ in 1..FAILURES_MAX {
                breakers.note(&subscription, Permit::Call, failed(), at(0));
            }
            assert_eq!(breakers.state(&subscription).unwrap().open_until, None);
            breakers.note(&subscription, Permit::Call, Ok(()), at(0));
            assert_eq!(breakers.state(&subscription), None);
        }
        assert_eq!(refused_until(&open(&subscription).ask(&subscription, at(9))), Some(at(10)));
    }

    #[test]
    fn then_there_is_one_probe_at_a_time_and_each_failure_doubles_the_wait() {
        let subscription = subscription();
        let breakers = open(&subscription);
        let (mut now, mut waits) = (10, Vec::new());
        for _ in 0..8 {
            let probe = breakers.ask(&subscription, at(now));
            assert!(matches!(probe, Permit::Try(_)));
            assert!(refused_until(&breakers.ask(&subscription, at(now))).is_some(), "one at a time");
            breakers.note(&subscription, probe, failed(), at(now));
            let until = refused_until(&breakers.ask(&subscription, at(now))).unwrap();
            waits.push(until.duration_since(at(now)).as_secs());
            now += waits[waits.len() - 1];
        }
        assert_eq!(waits, [20, 40, 80, 160, 320, 600, 600, 600]);
        let probe = breakers.ask(&subscription, at(now));
        breakers.note(&subscription, probe, Ok(()), at(now));
        assert!(matches!(breakers.ask(&subscription, at(now)), Permit::Call));
    }

    #[test]
    fn a_dropped_probe_passes_its_right_on() {
        let subscription = subscription();
        let breakers = open(&subscription);
        drop(breakers.ask(&subscription, at(10)));
        assert!(matches!(breakers.ask(&subscription, at(10)), Permit::Try(_)));
    }

    #[test]
    fn a_call_from_before_it_opened_changes_nothing() {
        let subscription = subscription();
        let breakers = open(&subscription);
        breakers.note(&subscription, Permit::Call, Ok(()), at(1));
        breakers.note(&subscription, Permit::Call, failed(), at(1));
        assert_eq!(refused_until(&breakers.ask(&subscription, at(1))), Some(at(10)));
    }

    #[test]
    fn a_change_of_the_subscription_closes_it() {
        let subscription = subscription();
        let breakers = open(&subscription);
        let changed = Subscription { updated: at(1), ..subscription.clone() };
        assert_eq!(breakers.state(&changed), None);
        assert!(matches!(breakers.ask(&changed, at(1)), Permit::Call));
        breakers.note(&changed, Permit::Call, failed(), at(1));
        assert_eq!(breakers.state(&changed).unwrap().failures, 1);
    }
}

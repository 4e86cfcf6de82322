//! A circuit breaker for plugins: when a plugin fails repeatedly, its subscription's deliveries are held instead of
//! using up their attempts.
//!
//! The rules are [`PLUGIN`], the state machine is in [`super::circuit`]. A change of the subscription closes the breaker,
//! because its owner may have fixed the plugin. Its state is in memory only: after a restart it is closed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::circuit::{Circuit, Rules, Success, Turn};
use super::gate::Echo;
use crate::announcer::Notices;
use waypost_domain::operator;
use waypost_domain::{Guarded, Notice, Subscription, SubscriptionId};
use waypost_runtime::clock::Wall;

/// When the breaker of a plugin opens, and for how long.
const PLUGIN: Rules =
    Rules { failures: 5, wait: Duration::from_secs(10), wait_max: Duration::from_secs(10 * 60), trial: 0 };

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
        until: Instant,
        /// See [`BreakerFailure::holds`].
        holds: bool,
    },
}

/// The breakers of all subscriptions whose plugins have failed recently.
#[derive(Default)]
pub(super) struct Breakers {
    map: Mutex<HashMap<SubscriptionId, Breaker>>,
    wall: Wall,
    /// Operators are told of breakers.
    notices: Arc<Notices>,
}

/// One breaker.
struct Breaker {
    /// When the subscription was last changed: results from before say nothing about it now.
    version: Timestamp,
    /// See [`BreakerFailure::holds`]: of the failure that opened it.
    holds: bool,
    circuit: Circuit,
}

/// The right of one delivery to be the probe. Dropping it passes the right to the next.
pub(super) struct Probe {
    breakers: Arc<Breakers>,
    of: SubscriptionId,
    is_over: bool,
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(known) = self.breakers.map.lock().get_mut(&self.of)
        {
            known.circuit.pass_on();
        }
    }
}

impl Breakers {
    pub(super) fn new(notices: Arc<Notices>) -> Self {
        Self { notices, ..Self::default() }
    }

    /// Asks whether a delivery may call its plugin now.
    pub(super) fn ask(self: &Arc<Self>, subscription: &Subscription, now: Instant) -> Permit {
        let mut all = self.map.lock();
        let Some(known) = all.get_mut(&subscription.id) else { return Permit::Call };
        if known.version != subscription.updated {
            all.remove(&subscription.id);
            return Permit::Call;
        }
        match known.circuit.ask(now) {
            Turn::Free => Permit::Call,
            Turn::Probe(_) => {
                Permit::Try(Probe { breakers: Arc::clone(self), of: subscription.id, is_over: false })
            }
            Turn::Not(until) => Permit::Not { until, holds: known.holds },
        }
    }

    /// Notes the result of a call. Operators are told of the breaker, except by an `echo`: a call for what tells them something.
    pub(super) fn note(
        &self,
        subscription: &Subscription,
        permit: Permit,
        result: Result<(), BreakerFailure>,
        now: Instant,
        echo: Echo,
    ) {
        if let (Some(notice), Echo::No) = (self.change(subscription, permit, result, now), echo) {
            self.notices.tell(notice);
        }
    }

    fn change(
        &self,
        subscription: &Subscription,
        permit: Permit,
        result: Result<(), BreakerFailure>,
        now: Instant,
    ) -> Option<Notice> {
        let (mut all, id) = (self.map.lock(), subscription.id);
        let is_probe = match permit {
            Permit::Try(mut probe) => {
                probe.is_over = true;
                true
            }
            Permit::Call | Permit::Not { .. } => false,
        };
        if all.get(&id).is_some_and(|known| known.version != subscription.updated) {
            match result {
                // It says nothing about the subscription as it is now, or that was before this.
                Ok(()) => return None,
                Err(_) => drop(all.remove(&id)),
            }
        }
        match result {
            Ok(()) => {
                let Success::Clean { was_open } = all.get_mut(&id)?.circuit.succeed(is_probe, now) else {
                    return None;
                };
                all.remove(&id);
                was_open.then(|| {
                    tracing::info!(subscription = %id, "its plugin works again: the breaker is closed");
                    Notice::BreakerClosed { subscription: id, of: Guarded::Plugin }
                })
            }
            Err(BreakerFailure { reason, holds }) => {
                let new = || Breaker { version: subscription.updated, holds, circuit: Circuit::new(&PLUGIN) };
                let known = all.entry(id).or_insert_with(new);
                let was_open = known.circuit.open().is_some();
                let until = self.wall.at(known.circuit.fail(reason, is_probe, now, now)?);
                known.holds = holds;
                let (failures, reason) = (known.circuit.failures(), known.circuit.reason());
                tracing::warn!(subscription = %id, failures, reason, %until, "its plugin fails: the breaker is open");
                let (reason, of) = (operator::shortened(reason), Guarded::Plugin);
                (!was_open).then_some(Notice::BreakerOpened { subscription: id, of, failures, reason, until })
            }
        }
    }

    /// Forgets a deleted subscription.
    pub(super) fn forget(&self, id: SubscriptionId) {
        self.map.lock().remove(&id);
    }

    /// Returns what the wall clock shows at a moment.
    pub(super) fn wall(&self, at: Instant) -> Timestamp {
        self.wall.at(at)
    }

    /// Returns the state of a subscription's plugin, if it has failed recently.
    pub(super) fn state(&self, subscription: &Subscription) -> Option<BreakerState> {
        let all = self.map.lock();
        let known = all.get(&subscription.id).filter(|known| known.version == subscription.updated)?;
        Some(BreakerState {
            failures: known.circuit.failures(),
            open_until: known.circuit.open().map(|open| self.wall.at(open.until)),
            reason: known.circuit.reason().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription() -> Subscription {
        let (target, now) = ("http://localhost:1/".parse().unwrap(), Timestamp::UNIX_EPOCH);
        Subscription::new("u".to_owned(), "n".to_owned(), "$".to_owned(), target, now)
    }

    fn failed() -> Result<(), BreakerFailure> {
        Err(BreakerFailure { reason: "plugin: oops".to_owned(), holds: true })
    }

    /// Returns breakers, of which this subscription's opened `now`.
    fn open(subscription: &Subscription, now: Instant) -> Arc<Breakers> {
        let breakers = Arc::<Breakers>::default();
        for _ in 0..PLUGIN.failures {
            let permit = breakers.ask(subscription, now);
            assert!(matches!(permit, Permit::Call));
            breakers.note(subscription, permit, failed(), now, Echo::No);
        }
        breakers
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let (breakers, subscription, now) = (Arc::<Breakers>::default(), subscription(), Instant::now());
        for _ in 0..3 {
            for _ in 1..PLUGIN.failures {
                breakers.note(&subscription, Permit::Call, failed(), now, Echo::No);
            }
            assert_eq!(breakers.state(&subscription).unwrap().open_until, None);
            breakers.note(&subscription, Permit::Call, Ok(()), now, Echo::No);
            assert_eq!(breakers.state(&subscription), None);
        }
        let permit = open(&subscription, now).ask(&subscription, now);
        assert!(matches!(permit, Permit::Not { until, holds: true } if until == now + PLUGIN.wait));
    }

    #[test]
    fn a_dropped_probe_passes_its_right_on_and_a_successful_one_closes_it() {
        let (subscription, now) = (subscription(), Instant::now());
        let breakers = open(&subscription, now);
        let later = now + PLUGIN.wait;
        drop(breakers.ask(&subscription, later));
        let probe = breakers.ask(&subscription, later);
        assert!(matches!(probe, Permit::Try(_)));
        breakers.note(&subscription, probe, Ok(()), later, Echo::No);
        assert!(matches!(breakers.ask(&subscription, later), Permit::Call));
    }

    #[test]
    fn a_change_of_the_subscription_closes_it() {
        let (subscription, now) = (subscription(), Instant::now());
        let breakers = open(&subscription, now);
        let changed = Subscription { updated: Timestamp::MAX, ..subscription.clone() };
        assert_eq!(breakers.state(&changed), None);
        assert!(matches!(breakers.ask(&changed, now), Permit::Call));
        breakers.note(&changed, Permit::Call, failed(), now, Echo::No);
        assert_eq!(breakers.state(&changed).unwrap().failures, 1);
    }

    /// Those of targets were announced, and these were not.
    #[test]
    fn operators_are_told_when_it_opens_and_closes_but_not_by_what_tells_them() {
        let (subscription, now) = (subscription(), Instant::now());
        let told = |breakers: &Breakers| -> Vec<_> {
            breakers.notices.take(now).into_iter().map(|(_, notice)| notice).collect()
        };
        let breakers = open(&subscription, now);
        let opened = told(&breakers);
        assert!(
            matches!(&opened[..], [Notice::BreakerOpened { of: Guarded::Plugin, failures: 5, reason, .. }]
                if reason == "plugin: oops"),
            "{opened:?}"
        );
        let later = now + PLUGIN.wait;
        let probe = breakers.ask(&subscription, later);
        breakers.note(&subscription, probe, failed(), later, Echo::No);
        assert_eq!(told(&breakers), [], "it is still open");
        let later = later + 2 * PLUGIN.wait;
        let probe = breakers.ask(&subscription, later);
        breakers.note(&subscription, probe, Ok(()), later, Echo::No);
        assert_eq!(
            told(&breakers),
            [Notice::BreakerClosed { subscription: subscription.id, of: Guarded::Plugin }]
        );
        let breakers = Breakers::default();
        for _ in 0..2 * PLUGIN.failures {
            breakers.note(&subscription, Permit::Call, failed(), now, Echo::Yes);
        }
        assert!(breakers.state(&subscription).unwrap().open_until.is_some() && told(&breakers).is_empty());
    }
}

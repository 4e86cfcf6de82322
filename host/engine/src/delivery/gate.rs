//! What stands between a subscription's deliveries and its target: its rate limit, the pause that the target has asked for,
//! and the breaker of a target that is down.
//!
//! Deliveries that a gate holds back wait in the store and use up no attempt. A gate is in memory only, and is new after a
//! restart and after each change of its subscription. It measures with the monotonic clock: a wall clock that jumps holds
//! nothing. Subscriptions without a limit whose targets are well have none.
//!
//! An attempt that sends something takes one [`Ticket`] of the rate, whatever number of requests its plugin has made. While
//! the breaker is open, one attempt at a time is its probe. It replaces the attempts, not their schedule: a delivery
//! whose time has come counts as tried when the next probe fails ([`Ticket::open_for`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::circuit::{Circuit, Rules, Success, Turn};
use super::outcome::Response;
use crate::announcer::Notices;
use waypost_domain::{Guarded, Notice, OPERATOR, RateLimit, Subscription, SubscriptionId, operator};
use waypost_runtime::clock::Wall;

/// When the breaker of a target opens, and for how long.
const TARGET: Rules =
    Rules { failures: 10, wait: Duration::from_secs(5), wait_max: Duration::from_secs(5 * 60), trial: 10 };
/// The longest pause of a subscription that a target may ask for; that of the delivery itself may be longer.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);
/// The pause after an answer that says 429 and not for how long: at first, doubled by each in a row, and at most.
const PAUSE_OWN: Duration = Duration::from_secs(1);
const PAUSE_OWN_MAX: Duration = Duration::from_secs(60);

/// The gates of all subscriptions that need one.
#[derive(Default)]
pub(super) struct Gates {
    map: Mutex<HashMap<SubscriptionId, Gate>>,
    /// How many there are: usually none, which is then known without the lock.
    count: AtomicUsize,
    wall: Wall,
    /// Operators are told of breakers.
    notices: Arc<Notices>,
}

/// The gate of one subscription.
struct Gate {
    /// When the subscription was last changed.
    version: Timestamp,
    bucket: Option<Bucket>,
    pause: Option<Pause>,
    /// How many answers in a row asked for a pause.
    busy: u32,
    circuit: Option<Circuit>,
}

/// A rate limit, as far as it is used up (GCRA, the leaky bucket as a meter).
struct Bucket {
    interval: Duration,
    /// How far ahead of the steady rate a burst may be.
    ahead_max: Duration,
    /// When the steady rate has caught up with what was sent.
    even: Instant,
    /// When it was used up last.
    empty_since: Instant,
}

struct Pause {
    since: Instant,
    until: Instant,
}

/// What holds back the deliveries of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// The breaker of its target.
    Breaker,
    /// Its target, which has asked for a pause.
    Target,
    /// Its rate limit.
    RateLimit,
    /// Their order: another one comes first.
    Order,
}

/// Deliveries of a subscription are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateHold {
    /// By what.
    pub by: HeldBy,
    /// Since when.
    pub since: Timestamp,
    /// When the next delivery may go; `None` for now, or while one is the probe.
    pub until: Option<Timestamp>,
}

/// The state of a target that has failed lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetState {
    /// Whether its breaker is closed, open, being tried, or closed for a trial.
    pub phase: TargetPhase,
    /// How many failures there were since it was last well.
    pub failures: u32,
    /// What failed last.
    pub reason: String,
    /// Since when the breaker is open.
    pub since: Option<Timestamp>,
    /// When the next probe is made; if it is past, with the next delivery.
    pub next_probe: Option<Timestamp>,
}

/// Where the breaker of a target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetPhase {
    /// It has failed, and its breaker is still closed.
    Failing,
    /// Its deliveries wait.
    Open,
    /// One delivery tries whether it is well.
    Probing,
    /// It has answered again: a failure now opens the breaker for longer.
    Opening,
}

/// The right to make one attempt. Dropping it gives back what was not used.
pub(super) struct Ticket {
    /// `None` where there is nothing to give back.
    gate: Option<(Arc<Gates>, SubscriptionId, Timestamp)>,
    /// When it was given.
    given: Instant,
    /// Whether it holds a token of the rate, and whether that is used.
    has_token: bool,
    is_spent: bool,
    /// When the breaker opened whose probe it is.
    probe: Option<Instant>,
}

/// Whether an attempt is one to tell operators something: what follows from it is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// It is.
    Yes,
    /// It is one for an event of a producer.
    No,
}

/// What an attempt says of its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It answered.
    Alive,
    /// It answered that it gets too much, and for how long it wants a pause.
    Busy(Option<Duration>),
    /// It did not answer, or that it cannot; and for how long it wants a pause.
    Down(String, Option<Duration>),
}

impl Echo {
    /// Tells which an attempt is for an event of this sender.
    pub(super) fn of(sender: &str) -> Self {
        if sender == OPERATOR { Self::Yes } else { Self::No }
    }
}

impl Finding {
    /// Reads a response. `None` when nothing was sent to the target.
    pub(super) fn of(response: &Response) -> Option<Self> {
        match response {
            Response::Answered { answer, retry_after, .. } => {
                let status = StatusCode::from_u16(answer.status).ok();
                Some(match status {
                    Some(StatusCode::TOO_MANY_REQUESTS) => Self::Busy(*retry_after),
                    Some(status) if status.is_server_error() => {
                        let wait = retry_after.filter(|_| status == StatusCode::SERVICE_UNAVAILABLE);
                        Self::Down(format!("the target answered {status}"), wait)
                    }
                    Some(_) | None => Self::Alive,
                })
            }
            Response::Failed(reason) => Some(Self::Down(reason.clone(), None)),
            Response::Unsendable(_) | Response::Refused(_) | Response::Unsent(_) | Response::Shortage(_) => {
                None
            }
        }
    }
}

impl Gates {
    /// Asks whether an attempt may be made now; otherwise returns when the next may.
    pub(super) fn ask(
        self: &Arc<Self>,
        subscription: &Subscription,
        now: Instant,
    ) -> Result<Ticket, Instant> {
        if subscription.rate_limit.is_none() && self.count.load(Ordering::Relaxed) == 0 {
            return Ok(Ticket::free(now));
        }
        let mut map = self.map.lock();
        let ticket = match Self::of(&mut map, subscription, now) {
            None => Ok(Ticket::free(now)),
            Some(gate) => gate.ask(now).map(|probe| Ticket {
                has_token: gate.bucket.is_some(),
                given: now,
                is_spent: false,
                gate: Some((Arc::clone(self), subscription.id, subscription.updated)),
                probe,
            }),
        };
        self.count.store(map.len(), Ordering::Relaxed);
        ticket
    }

    /// Returns the gate of a subscription as it is now; a limited one always has one.
    fn of<'m>(
        map: &'m mut HashMap<SubscriptionId, Gate>,
        subscription: &Subscription,
        now: Instant,
    ) -> Option<&'m mut Gate> {
        let is_other = |gate: &Gate| gate.version != subscription.updated;
        if map.get(&subscription.id).is_some_and(is_other) {
            map.remove(&subscription.id);
        }
        if subscription.rate_limit.is_some() {
            return Some(map.entry(subscription.id).or_insert_with(|| Gate::new(subscription, now)));
        }
        map.get_mut(&subscription.id)
    }

    /// Returns where operators are told of breakers.
    pub(super) fn notices(&self) -> &Arc<Notices> {
        &self.notices
    }

    /// Notes what an attempt that sent something says of the target. Operators are told of its breaker, except by an
    /// `echo`: an attempt to tell them something.
    pub(super) fn note(
        &self,
        subscription: &Subscription,
        mut ticket: Ticket,
        finding: Finding,
        now: Instant,
        echo: Echo,
    ) {
        let (is_probe, begun) = (ticket.probe.take().is_some(), ticket.given);
        ticket.spend();
        if finding == Finding::Alive && self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let (mut map, id) = (self.map.lock(), subscription.id);
        if finding == Finding::Alive && !map.contains_key(&id) {
            return;
        }
        let gate = map.entry(id).or_insert_with(|| Gate::new(subscription, now));
        if gate.version != subscription.updated {
            // The subscription was changed meanwhile: this says nothing about it as it is now.
            return;
        }
        let notice = gate.note(id, finding, (is_probe, begun), now, &self.wall);
        if gate.is_clean(now) {
            map.remove(&id);
        }
        self.count.store(map.len(), Ordering::Relaxed);
        drop(map);
        if let (Some(notice), Echo::No) = (notice, echo) {
            self.notices.tell(notice);
        }
    }

    /// Returns when a subscription's next attempt may be made, if not now.
    pub(super) fn shut_until(&self, subscription: &Subscription, now: Instant) -> Option<Instant> {
        let map = self.map.lock();
        let gate = map.get(&subscription.id).filter(|gate| gate.version == subscription.updated)?;
        gate.shut_until(now)
    }

    /// Returns what holds back the deliveries of a subscription now, if anything does.
    pub(super) fn hold(&self, subscription: &Subscription, now: Instant) -> Option<GateHold> {
        let map = self.map.lock();
        let gate = map.get(&subscription.id).filter(|gate| gate.version == subscription.updated)?;
        let (by, since) = gate.held(now)?;
        let until = gate.shut_until(now).map(|until| self.wall.at(until));
        Some(GateHold { by, since: self.wall.at(since), until })
    }

    /// Returns the state of a subscription's target, if it has failed lately.
    pub(super) fn target(&self, subscription: &Subscription) -> Option<TargetState> {
        let map = self.map.lock();
        let gate = map.get(&subscription.id).filter(|gate| gate.version == subscription.updated)?;
        let circuit = gate.circuit.as_ref()?;
        let open = circuit.open();
        let phase = match open {
            Some(open) if open.is_tried => TargetPhase::Probing,
            Some(_) => TargetPhase::Open,
            None if circuit.is_on_trial() => TargetPhase::Opening,
            None => TargetPhase::Failing,
        };
        Some(TargetState {
            phase,
            failures: circuit.failures(),
            reason: circuit.reason().to_owned(),
            since: open.map(|open| self.wall.at(open.since)),
            next_probe: open.filter(|open| !open.is_tried).map(|open| self.wall.at(open.until)),
        })
    }

    /// Lets the next probe of a target be made now, also during a pause that it has asked for. Tells whether its breaker is open.
    pub(super) fn hurry(&self, subscription: &Subscription, now: Instant) -> bool {
        let mut map = self.map.lock();
        let gate = map.get_mut(&subscription.id).filter(|gate| gate.version == subscription.updated);
        gate.is_some_and(|gate| {
            let is_open = gate.circuit.as_mut().is_some_and(|circuit| circuit.hurry(now));
            if is_open {
                gate.pause = None;
            }
            is_open
        })
    }

    /// Forgets a deleted subscription.
    pub(super) fn forget(&self, id: SubscriptionId) {
        let mut map = self.map.lock();
        map.remove(&id);
        self.count.store(map.len(), Ordering::Relaxed);
        drop(map);
        self.notices.forget(id);
    }
}

impl Gate {
    fn new(subscription: &Subscription, now: Instant) -> Self {
        let bucket = subscription.rate_limit.map(|limit| Bucket::new(limit, now));
        Self { version: subscription.updated, bucket, pause: None, busy: 0, circuit: None }
    }

    /// Takes a token, and the right of the probe where the breaker is open: returns when that opened.
    fn ask(&mut self, now: Instant) -> Result<Option<Instant>, Instant> {
        if let Some(pause) = self.paused(now) {
            return Err(pause.until);
        }
        if let Some(until) = self.bucket.as_ref().and_then(|bucket| bucket.empty_until(now)) {
            return Err(until);
        }
        let probe = match self.circuit.as_mut().map_or(Turn::Free, |circuit| circuit.ask(now)) {
            Turn::Free => None,
            Turn::Probe(since) => Some(since),
            Turn::Not(until) => return Err(until),
        };
        if let Some(bucket) = &mut self.bucket {
            bucket.take(now);
        }
        Ok(probe)
    }

    fn note(
        &mut self,
        id: SubscriptionId,
        finding: Finding,
        (is_probe, begun): (bool, Instant),
        now: Instant,
        wall: &Wall,
    ) -> Option<Notice> {
        let mut notice = None;
        let asked_for = match finding {
            Finding::Alive => {
                self.busy = 0;
                return self.succeed(id, is_probe, now);
            }
            Finding::Busy(wait) => {
                notice = self.succeed(id, is_probe, now);
                let own = || (PAUSE_OWN * 2u32.saturating_pow(self.busy.min(16))).min(PAUSE_OWN_MAX);
                // Of several that were under way at once, only the first begins a pause of our own.
                wait.or_else(|| self.paused(now).is_none().then(own))
            }
            Finding::Down(reason, wait) => {
                let circuit = self.circuit.get_or_insert_with(|| Circuit::new(&TARGET));
                let was_open = circuit.open().is_some();
                if let Some(until) = circuit.fail(reason, is_probe, begun, now) {
                    let (failures, reason, until) = (circuit.failures(), circuit.reason(), wall.at(until));
                    tracing::warn!(subscription = %id, failures, reason, %until, "its target is down: the breaker is open");
                    let (subscription, reason) = (id, operator::shortened(reason));
                    let of = Guarded::Target;
                    let opened = Notice::BreakerOpened { subscription, of, failures, reason, until };
                    notice = (!was_open).then_some(opened);
                }
                wait
            }
        };
        if let Some(wait) = asked_for {
            let until = now + wait.min(PAUSE_MAX);
            let (since, until) = match self.paused(now) {
                Some(pause) => (pause.since, pause.until.max(until)),
                None => {
                    self.busy = self.busy.saturating_add(1);
                    (now, until)
                }
            };
            self.pause = Some(Pause { since, until });
        }
        notice
    }

    fn succeed(&mut self, id: SubscriptionId, is_probe: bool, now: Instant) -> Option<Notice> {
        let circuit = self.circuit.as_mut()?;
        let success = circuit.succeed(is_probe, now);
        if let Success::Clean { .. } = success {
            self.circuit = None;
        }
        if matches!(success, Success::Closed | Success::Clean { was_open: true }) {
            tracing::info!(subscription = %id, "its target answers again: the breaker is closed");
            return Some(Notice::BreakerClosed { subscription: id, of: Guarded::Target });
        }
        None
    }

    /// Tells whether there is nothing to remember.
    fn is_clean(&self, now: Instant) -> bool {
        self.bucket.is_none() && self.paused(now).is_none() && self.busy == 0 && self.circuit.is_none()
    }

    fn shut_until(&self, now: Instant) -> Option<Instant> {
        let pause = self.paused(now).map(|pause| pause.until);
        let rate = self.bucket.as_ref().and_then(|bucket| bucket.empty_until(now));
        let breaker = self.circuit.as_ref().and_then(|circuit| circuit.shut_until(now));
        [pause, rate, breaker].into_iter().flatten().max()
    }

    /// Returns what holds back deliveries, and since when.
    fn held(&self, now: Instant) -> Option<(HeldBy, Instant)> {
        let breaker = self.circuit.as_ref().and_then(Circuit::open);
        let breaker = breaker.map(|open| (HeldBy::Breaker, open.since));
        let pause = self.paused(now).map(|pause| (HeldBy::Target, pause.since));
        let rate = self.bucket.as_ref().filter(|bucket| bucket.empty_until(now).is_some());
        breaker.or(pause).or(rate.map(|bucket| (HeldBy::RateLimit, bucket.empty_since)))
    }

    /// Returns the pause that the target has asked for, while it lasts.
    fn paused(&self, now: Instant) -> Option<&Pause> {
        self.pause.as_ref().filter(|pause| now < pause.until)
    }
}

impl Bucket {
    fn new(limit: RateLimit, now: Instant) -> Self {
        let interval = limit.interval();
        // The first of a burst is no advance.
        let ahead_max = interval * (limit.burst() - 1);
        Self { interval, ahead_max, even: now, empty_since: now }
    }

    /// Returns when there is a token again, if there is none.
    fn empty_until(&self, now: Instant) -> Option<Instant> {
        let free = self.even.checked_sub(self.ahead_max).unwrap_or(now);
        (free > now).then_some(free)
    }

    fn take(&mut self, now: Instant) {
        self.even = self.even.max(now) + self.interval;
        if self.empty_until(now).is_some() {
            self.empty_since = now;
        }
    }

    fn give_back(&mut self) {
        self.even = self.even.checked_sub(self.interval).unwrap_or(self.even);
    }
}

impl Ticket {
    /// Makes that of a subscription without a gate.
    fn free(now: Instant) -> Self {
        Self { gate: None, given: now, has_token: false, is_spent: false, probe: None }
    }

    /// Notes that a request may go out: its token is used.
    pub(super) fn spend(&mut self) {
        self.is_spent = true;
    }

    /// Notes that none went out after all.
    pub(super) fn unspend(&mut self) {
        self.is_spent = false;
    }

    /// Returns for how long the breaker has been open whose probe this is.
    pub(super) fn open_for(&self, now: Instant) -> Option<Duration> {
        self.probe.map(|since| now.saturating_duration_since(since))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let has_token = self.has_token && !self.is_spent;
        if !has_token && self.probe.is_none() {
            return;
        }
        let Some((gates, id, version)) = &self.gate else { return };
        let mut map = gates.map.lock();
        let Some(gate) = map.get_mut(id).filter(|gate| gate.version == *version) else { return };
        if let Some(bucket) = gate.bucket.as_mut().filter(|_| has_token) {
            bucket.give_back();
        }
        if let Some(circuit) = gate.circuit.as_mut().filter(|_| self.probe.is_some()) {
            circuit.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use waypost_domain::Answer;

    fn subscription(limit: Option<&str>) -> Subscription {
        let (target, now) = ("http://localhost:1/".parse().unwrap(), Timestamp::UNIX_EPOCH);
        let subscription = Subscription::new("u".to_owned(), "n".to_owned(), "$".to_owned(), target, now);
        Subscription { rate_limit: limit.map(|limit| limit.parse().unwrap()), ..subscription }
    }

    fn down() -> Finding {
        Finding::Down("oops".to_owned(), None)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Asks, and answers with what the attempt says.
    fn attempt(gates: &Arc<Gates>, of: &Subscription, finding: Finding, now: Instant) -> Result<(), Instant> {
        let ticket = gates.ask(of, now)?;
        gates.note(of, ticket, finding, now, Echo::No);
        Ok(())
    }

    #[test]
    fn a_burst_goes_at_once_and_then_one_each_interval() {
        let (gates, limited, now) =
            (Arc::<Gates>::default(), subscription(Some("10/s burst 3")), Instant::now());
        assert_eq!(gates.hold(&limited, now), None);
        for _ in 0..3 {
            attempt(&gates, &limited, Finding::Alive, now).unwrap();
        }
        let until = now + Duration::from_millis(100);
        assert_eq!(gates.ask(&limited, now).err(), Some(until));
        assert_eq!(gates.shut_until(&limited, now), Some(until));
        assert_eq!(gates.hold(&limited, now).unwrap().by, HeldBy::RateLimit);
        attempt(&gates, &limited, Finding::Alive, until).unwrap();
        assert!(gates.ask(&limited, until).is_err());
        assert!((0..3).all(|_| attempt(&gates, &limited, Finding::Alive, until + secs(9)).is_ok()));
        assert!(gates.ask(&limited, until + secs(9)).is_err(), "no more than a burst after a pause");
        let free = Subscription { rate_limit: None, updated: Timestamp::MAX, ..limited };
        assert!(gates.ask(&free, until).is_ok(), "a limit that is lifted");
        assert_eq!(gates.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_ticket_that_sent_nothing_goes_back() {
        let (gates, limited, now) = (Arc::<Gates>::default(), subscription(Some("1/h")), Instant::now());
        drop(gates.ask(&limited, now).unwrap());
        let mut ticket = gates.ask(&limited, now).unwrap();
        assert!(gates.ask(&limited, now).is_err());
        ticket.spend();
        drop(ticket);
        assert_eq!(gates.ask(&limited, now).err(), Some(now + secs(3600)));
        let later = now + secs(3600);
        let mut ticket = gates.ask(&limited, later).unwrap();
        ticket.spend();
        ticket.unspend();
        drop(ticket);
        assert!(gates.ask(&limited, later).is_ok(), "there was nothing to send after all");
    }

    proptest! {
        /// In any time, no more than its part of the rate and one burst.
        #[test]
        fn no_more_than_the_rate_and_one_burst_goes(
            count in 1..200u32,
            burst in 1..20u32,
            gaps in proptest::collection::vec(0..200u64, 1..300),
        ) {
            let text = format!("{count}/s burst {burst}");
            let (gates, limited) = (Arc::<Gates>::default(), subscription(Some(&text)));
            let (begun, mut at, mut sent) = (Instant::now(), Instant::now(), Vec::new());
            for gap in gaps {
                at += Duration::from_millis(gap);
                if attempt(&gates, &limited, Finding::Alive, at).is_ok() {
                    sent.push((at - begun).as_secs_f64());
                }
            }
            for (first, from) in sent.iter().enumerate() {
                for (last, to) in sent.iter().enumerate().skip(first) {
                    let allowed = f64::from(burst) + (to - from) * f64::from(count);
                    let count = f64::from(u32::try_from(last - first + 1).unwrap());
                    prop_assert!(count <= allowed + 1e-3, "{count} in {}", to - from);
                }
            }
        }
    }

    #[test]
    fn a_target_is_left_alone_for_as_long_as_it_asked() {
        let (gates, plain, now) = (Arc::<Gates>::default(), subscription(None), Instant::now());
        attempt(&gates, &plain, Finding::Busy(Some(secs(30))), now).unwrap();
        assert_eq!(gates.ask(&plain, now + secs(29)).err(), Some(now + secs(30)));
        let hold = gates.hold(&plain, now + secs(29)).unwrap();
        assert_eq!(hold.by, HeldBy::Target);
        // One that was under way is answered.
        gates.note(&plain, Ticket::free(now), Finding::Alive, now + secs(1), Echo::No);
        assert!(gates.ask(&plain, now + secs(29)).is_err(), "the pause goes on");
        assert!(gates.ask(&subscription(None), now).is_ok(), "another subscription");
        // Without a word on how long, each answer in a row doubles the pause; those of one moment are one.
        let mut at = now + secs(30);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            attempt(&gates, &plain, Finding::Busy(None), at).unwrap();
            gates.note(&plain, Ticket::free(now), Finding::Busy(None), at, Echo::No);
            assert_eq!(gates.shut_until(&plain, at), Some(at + secs(wait)));
            at += secs(wait);
        }
        attempt(&gates, &plain, Finding::Alive, at).unwrap();
        assert_eq!((gates.hold(&plain, at), gates.count.load(Ordering::Relaxed)), (None, 0));
        attempt(&gates, &plain, Finding::Down("503".to_owned(), Some(Duration::MAX)), at).unwrap();
        assert_eq!(gates.shut_until(&plain, at), Some(at + PAUSE_MAX));
    }

    /// Each attempt that was under way when its subscription was changed made the new limit's burst anew.
    #[test]
    fn an_attempt_for_an_older_version_changes_nothing() {
        let (gates, old, now) = (Arc::<Gates>::default(), subscription(Some("1/h")), Instant::now());
        let ticket = gates.ask(&old, now).unwrap();
        let new = Subscription { updated: Timestamp::MAX, ..old.clone() };
        attempt(&gates, &new, Finding::Alive, now).unwrap();
        gates.note(&old, ticket, Finding::Busy(None), now, Echo::No);
        assert_eq!(gates.ask(&new, now).err(), Some(now + secs(3600)));
    }

    #[test]
    fn a_target_that_is_down_gets_one_probe_at_a_time_and_the_others_wait() {
        let (gates, plain, now) = (Arc::<Gates>::default(), subscription(None), Instant::now());
        for number in 1..=TARGET.failures {
            assert_eq!(gates.target(&plain).map(|state| state.failures), (number > 1).then_some(number - 1));
            attempt(&gates, &plain, down(), now).unwrap();
        }
        assert_eq!(gates.target(&plain).unwrap().phase, TargetPhase::Open);
        let later = now + TARGET.wait;
        assert_eq!(gates.shut_until(&plain, now), Some(later));
        let probe = gates.ask(&plain, later).unwrap();
        assert_eq!(probe.open_for(later), Some(TARGET.wait));
        assert_eq!(gates.target(&plain).unwrap().phase, TargetPhase::Probing);
        assert!(gates.ask(&plain, later).is_err());
        drop(probe);
        let probe = gates.ask(&plain, later).unwrap();
        gates.note(&plain, probe, Finding::Alive, later, Echo::No);
        assert_eq!(gates.target(&plain).unwrap().phase, TargetPhase::Opening);
        attempt(&gates, &plain, down(), later).unwrap();
        assert_eq!(
            gates.shut_until(&plain, later),
            Some(later + 2 * TARGET.wait),
            "on trial, one failure is enough"
        );
        assert!(gates.hurry(&plain, later));
        attempt(&gates, &plain, Finding::Alive, later).unwrap();
        for _ in 0..TARGET.trial {
            attempt(&gates, &plain, Finding::Alive, later).unwrap();
        }
        assert_eq!((gates.target(&plain), gates.hurry(&plain, later)), (None, false));
        assert_eq!(gates.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_what_is_the_targets_counts_as_down() {
        let answered = |status| {
            let answer = Answer { status, body: String::new() };
            Finding::of(&Response::Answered { answer, location: None, retry_after: Some(secs(7)) })
        };
        for status in [200, 204, 301, 400, 404, 410, 415] {
            assert_eq!(answered(status), Some(Finding::Alive), "{status}");
        }
        assert_eq!(answered(429), Some(Finding::Busy(Some(secs(7)))));
        for status in [500, 502, 503, 504, 599] {
            let Some(Finding::Down(_, wait)) = answered(status) else { panic!("{status}") };
            assert_eq!(wait.is_some(), status == 503, "{status}");
        }
        assert!(matches!(Finding::of(&Response::Failed("refused".to_owned())), Some(Finding::Down(..))));
        let none = [
            Response::Refused(String::new()),
            Response::Unsent(String::new()),
            Response::Shortage(String::new()),
        ];
        assert!(none.iter().all(|response| Finding::of(response).is_none()));
    }
}

//! A circuit breaker. Pure: the time is passed in.
//!
//! It opens after several failures in a row. While it is open, nothing is tried. After its wait, one try at a time is a
//! probe; each failed probe doubles the wait. Where it has a trial, a failure soon after a successful probe opens it again
//! for twice as long.

use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Debug)]
pub(super) struct Rules {
    /// How many failures in a row open it.
    pub(super) failures: u32,
    /// How long it stays open at first, and at most.
    pub(super) wait: Duration,
    pub(super) wait_max: Duration,
    /// How many successes after that of the probe end the trial.
    pub(super) trial: u32,
}

/// The state of one breaker.
#[derive(Debug)]
pub(super) struct Circuit {
    rules: &'static Rules,
    failures: u32,
    reason: String,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open(Open),
    /// It was open for `wait`, and has so many successes to go.
    Trial {
        since: Instant,
        left: u32,
        wait: Duration,
    },
}

/// An open breaker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    /// When it opened.
    pub(super) since: Instant,
    /// When the next probe may be made.
    pub(super) until: Instant,
    /// Whether a probe is under way.
    pub(super) is_tried: bool,
    wait: Duration,
}

/// Whether something may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may.
    Free,
    /// It may, as the probe of a breaker that opened then.
    Probe(Instant),
    /// It may not, before this time or while another is the probe.
    Not(Instant),
}

/// What follows from a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Success {
    /// Nothing.
    Nothing,
    /// The breaker has closed, and its trial begins.
    Closed,
    /// There is nothing to remember; whether it has just closed.
    Clean {
        /// Whether it was open until now.
        was_open: bool,
    },
}

impl Circuit {
    pub(super) fn new(rules: &'static Rules) -> Self {
        Self { rules, failures: 0, reason: String::new(), phase: Phase::Closed }
    }

    /// Asks whether something may be tried; a probe that is granted has to end in [`Self::succeed`], [`Self::fail`] or
    /// [`Self::pass_on`].
    pub(super) fn ask(&mut self, now: Instant) -> Turn {
        match &mut self.phase {
            Phase::Closed | Phase::Trial { .. } => Turn::Free,
            Phase::Open(open) if now >= open.until && !open.is_tried => {
                open.is_tried = true;
                Turn::Probe(open.since)
            }
            Phase::Open(open) => Turn::Not(open.until),
        }
    }

    /// Returns when something may be tried, unless it may be now or a probe is under way.
    pub(super) fn shut_until(&self, now: Instant) -> Option<Instant> {
        self.open().filter(|open| !open.is_tried && open.until > now).map(|open| open.until)
    }

    /// Notes a success. That of a try from before it opened says nothing.
    pub(super) fn succeed(&mut self, is_probe: bool, now: Instant) -> Success {
        match &mut self.phase {
            Phase::Open(_) if !is_probe => Success::Nothing,
            Phase::Open(open) if self.rules.trial > 0 => {
                self.phase = Phase::Trial { since: now, left: self.rules.trial, wait: open.wait };
                Success::Closed
            }
            Phase::Open(_) => Success::Clean { was_open: true },
            Phase::Trial { left, .. } if *left > 1 => {
                *left -= 1;
                Success::Nothing
            }
            Phase::Closed | Phase::Trial { .. } => Success::Clean { was_open: false },
        }
    }

    /// Notes the failure of a try that began then; returns when the next probe may be made, if that was set now.
    pub(super) fn fail(
        &mut self,
        reason: String,
        is_probe: bool,
        begun: Instant,
        now: Instant,
    ) -> Option<Instant> {
        self.failures = self.failures.saturating_add(1);
        self.reason = reason;
        let Rules { failures, wait, wait_max, .. } = self.rules;
        let (since, wait) = match &self.phase {
            Phase::Closed if self.failures < *failures => return None,
            Phase::Closed => (now, *wait),
            // Of a try from before the probe.
            Phase::Trial { since, .. } if begun < *since => return None,
            Phase::Trial { wait, .. } => (now, (2 * *wait).min(*wait_max)),
            Phase::Open(open) if is_probe => (open.since, (2 * open.wait).min(*wait_max)),
            // Of a try from before it opened.
            Phase::Open(_) => return None,
        };
        let until = now + wait;
        self.phase = Phase::Open(Open { since, until, is_tried: false, wait });
        Some(until)
    }

    /// Lets another be the probe.
    pub(super) fn pass_on(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.is_tried = false;
        }
    }

    /// Lets the next probe be made now. Tells whether the breaker is open.
    pub(super) fn hurry(&mut self, now: Instant) -> bool {
        match &mut self.phase {
            Phase::Open(open) => {
                open.until = open.until.min(now);
                true
            }
            Phase::Closed | Phase::Trial { .. } => false,
        }
    }

    /// Returns its opening, while it is open.
    pub(super) fn open(&self) -> Option<Open> {
        match &self.phase {
            Phase::Open(open) => Some(*open),
            Phase::Closed | Phase::Trial { .. } => None,
        }
    }

    pub(super) fn is_on_trial(&self) -> bool {
        matches!(self.phase, Phase::Trial { .. })
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// What failed last.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { failures: 3, wait: Duration::from_secs(10), wait_max: Duration::from_secs(60), trial: 2 };
    const NO_TRIAL: Rules = Rules { trial: 0, ..RULES };

    fn fail(circuit: &mut Circuit, is_probe: bool, now: Instant) -> Option<u64> {
        let until = circuit.fail("oops".to_owned(), is_probe, now, now)?;
        Some((until - now).as_secs())
    }

    /// A breaker that opened at `now`.
    fn open(rules: &'static Rules, now: Instant) -> Circuit {
        let mut circuit = Circuit::new(rules);
        assert_eq!([0, 1, 2].map(|_| fail(&mut circuit, false, now)), [None, None, Some(10)]);
        circuit
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_each_failed_probe_doubles_the_wait() {
        let (begun, mut circuit) = (Instant::now(), Circuit::new(&NO_TRIAL));
        assert_eq!(circuit.ask(begun), Turn::Free);
        assert_eq!(circuit.succeed(false, begun), Success::Clean { was_open: false });
        let (mut circuit, mut now) = (open(&NO_TRIAL, begun), begun);
        let mut waits = Vec::new();
        for wait in [10, 20, 40, 60, 60] {
            assert!(matches!(circuit.ask(now), Turn::Not(_)));
            now += Duration::from_secs(wait);
            assert_eq!(circuit.ask(now), Turn::Probe(begun), "it has been open since then");
            assert!(matches!(circuit.ask(now), Turn::Not(_)), "one at a time");
            waits.push(fail(&mut circuit, true, now).unwrap());
        }
        assert_eq!(waits, [20, 40, 60, 60, 60]);
        assert_eq!((circuit.failures(), circuit.reason()), (8, "oops"));
        assert_eq!(circuit.ask(now + Duration::from_secs(60)), Turn::Probe(begun));
        assert_eq!(circuit.succeed(true, now), Success::Clean { was_open: true });
    }

    #[test]
    fn a_failure_soon_after_the_probe_opens_it_again_for_longer_and_one_later_does_not() {
        let begun = Instant::now();
        let mut circuit = open(&RULES, begun);
        let now = begun + Duration::from_secs(10);
        assert_eq!(circuit.ask(now), Turn::Probe(begun));
        assert_eq!(circuit.succeed(true, now), Success::Closed);
        assert!(circuit.is_on_trial() && circuit.ask(now) == Turn::Free);
        assert_eq!(circuit.succeed(false, now), Success::Nothing);
        assert_eq!(circuit.fail("late".to_owned(), false, begun, now), None, "it began before the probe");
        assert_eq!(fail(&mut circuit, false, now), Some(20));
        assert_eq!(circuit.open().unwrap().since, now);
        circuit.ask(now + Duration::from_secs(20));
        assert_eq!(circuit.succeed(true, now), Success::Closed);
        assert_eq!(circuit.succeed(false, now), Success::Nothing);
        assert_eq!(circuit.succeed(false, now), Success::Clean { was_open: false });
    }

    #[test]
    fn what_began_before_it_opened_changes_nothing() {
        let now = Instant::now();
        let mut circuit = open(&RULES, now);
        assert_eq!(circuit.succeed(false, now), Success::Nothing);
        assert_eq!(fail(&mut circuit, false, now + Duration::from_secs(5)), None);
        assert_eq!(circuit.shut_until(now), Some(now + Duration::from_secs(10)));
    }

    #[test]
    fn a_probe_can_be_passed_on_and_hurried() {
        let now = Instant::now();
        let mut circuit = open(&RULES, now);
        assert!(circuit.hurry(now) && circuit.ask(now) == Turn::Probe(now));
        assert_eq!(circuit.shut_until(now), None, "it is under way");
        circuit.pass_on();
        assert_eq!(circuit.ask(now), Turn::Probe(now));
        circuit.succeed(true, now);
        assert!(!circuit.hurry(now));
    }
}

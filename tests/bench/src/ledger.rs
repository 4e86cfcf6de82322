//! Records what was sent, what was accepted and what arrived where: the measurements, and the proof that nothing is lost.
//!
//! Producers and the sink write it from two threads, with one monotonic clock. Each cell has one writer at a time, so
//! relaxed atomics suffice. It is allocated as a whole before a run, since a page fault would count as latency.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::event::EventName;

/// Which of the subscriptions an event must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fan {
    /// All of this many.
    All(usize),
    /// One of this many: the `seq % n`-th.
    OneOf(usize),
    /// The only one; events are of this many kinds in turn.
    Kinds(usize),
}

impl Fan {
    /// Returns how many deliveries one event causes.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::All(n) => n,
            Self::OneOf(_) | Self::Kinds(_) => 1,
        }
    }

    /// Returns how many subscriptions there are.
    pub(crate) fn subscriptions(self) -> usize {
        match self {
            Self::All(n) | Self::OneOf(n) => n,
            Self::Kinds(_) => 1,
        }
    }

    /// Returns which of how many kinds an event is of, unless all are alike.
    pub(crate) fn pick(self, seq: usize) -> Option<(usize, usize)> {
        match self {
            Self::All(_) => None,
            Self::OneOf(n) | Self::Kinds(n) => Some((seq % n, n)),
        }
    }
}

/// One delivery's arrivals.
#[derive(Default)]
struct Slot {
    first_at: AtomicU64,
    count: AtomicU32,
    webhook: AtomicU32,
    /// Whether a repeat carried another `webhook-id` than the first.
    renamed: AtomicU32,
}

/// The ledger of one run.
pub(crate) struct Ledger {
    run: usize,
    fan: Fan,
    clock: Instant,
    next: AtomicUsize,
    accepted: AtomicUsize,
    arrived: AtomicUsize,
    strays: AtomicUsize,
    last_arrival: AtomicU64,
    sent: Box<[AtomicU64]>,
    acked: Box<[AtomicU64]>,
    slots: Box<[Slot]>,
}

/// The result of a run's ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Audit {
    /// Deliveries of accepted events that never arrived.
    pub(crate) lost: usize,
    /// Arrivals beyond the first of each delivery.
    pub(crate) repeated: usize,
    /// Deliveries with a repeat that had another `webhook-id`.
    pub(crate) renamed: usize,
    /// Arrivals at a subscription that should not get the event, or of an event that is not of this run.
    pub(crate) strays: usize,
}

impl Ledger {
    /// Opens a ledger for at most `capacity` events, which also bounds the load.
    pub(crate) fn new(fan: Fan, capacity: usize) -> Self {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        Self {
            run: RUNS.fetch_add(1, Relaxed) % 10_000,
            fan,
            clock: Instant::now(),
            next: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            strays: AtomicUsize::new(0),
            last_arrival: AtomicU64::new(0),
            sent: std::iter::repeat_with(AtomicU64::default).take(capacity).collect(),
            acked: std::iter::repeat_with(AtomicU64::default).take(capacity).collect(),
            slots: std::iter::repeat_with(Slot::default).take(capacity * fan.width()).collect(),
        }
    }

    /// Returns which subscriptions an event must reach.
    pub(crate) fn fan(&self) -> Fan {
        self.fan
    }

    /// Returns the time since the ledger was opened.
    pub(crate) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Takes the next event's name, unless `limit` or the capacity is reached.
    pub(crate) fn take(&self, limit: usize) -> Option<EventName> {
        let limit = limit.min(self.sent.len());
        let seq = self.next.fetch_update(Relaxed, Relaxed, |next| (next < limit).then_some(next + 1)).ok()?;
        Some(EventName { run: self.run, seq })
    }

    /// Records that an event was sent at `at`.
    pub(crate) fn send(&self, name: EventName, at: Duration) {
        self.sent[name.seq].store(nanos(at), Relaxed);
    }

    /// Records that an event was accepted.
    pub(crate) fn accept(&self, name: EventName) {
        self.acked[name.seq].store(nanos(self.now()), Relaxed);
        self.accepted.fetch_add(1, Relaxed);
    }

    /// Records that an event arrived at a subscription.
    pub(crate) fn arrive(&self, subscription: usize, name: Option<EventName>, webhook_id: &[u8]) {
        let slot = name.and_then(|name| self.slot(subscription, name));
        let Some(slot) = slot else {
            self.strays.fetch_add(1, Relaxed);
            return;
        };
        let (now, webhook) = (nanos(self.now()), fingerprint(webhook_id));
        if slot.count.fetch_add(1, Relaxed) == 0 {
            slot.first_at.store(now, Relaxed);
            slot.webhook.store(webhook, Relaxed);
            self.last_arrival.store(now, Relaxed);
            self.arrived.fetch_add(1, Relaxed);
        } else if slot.webhook.load(Relaxed) != webhook {
            slot.renamed.store(1, Relaxed);
        }
    }

    fn slot(&self, subscription: usize, EventName { run, seq }: EventName) -> Option<&Slot> {
        let place = match self.fan {
            Fan::All(n) if subscription < n => seq * n + subscription,
            Fan::OneOf(n) if subscription == seq % n => seq,
            Fan::Kinds(_) if subscription == 0 => seq,
            Fan::All(_) | Fan::OneOf(_) | Fan::Kinds(_) => return None,
        };
        (run == self.run && seq < self.next.load(Relaxed)).then(|| self.slots.get(place))?
    }

    /// Returns how many events were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    /// Returns how many deliveries the accepted events cause.
    pub(crate) fn owed(&self) -> usize {
        self.accepted() * self.fan.width()
    }

    /// Returns how many deliveries arrived, without repeats.
    pub(crate) fn arrived(&self) -> usize {
        self.arrived.load(Relaxed)
    }

    /// Returns the time of the latest first arrival of a delivery.
    pub(crate) fn last_arrival(&self) -> Duration {
        Duration::from_nanos(self.last_arrival.load(Relaxed))
    }

    /// Counts the faults so far.
    pub(crate) fn audit(&self) -> Audit {
        let mut audit = Audit { strays: self.strays.load(Relaxed), ..Audit::default() };
        for (seq, slots) in self.taken() {
            let accepted = self.acked[seq].load(Relaxed) != 0;
            for slot in slots {
                let count = slot.count.load(Relaxed) as usize;
                audit.lost += usize::from(accepted && count == 0);
                audit.repeated += count.saturating_sub(1);
                audit.renamed += slot.renamed.load(Relaxed) as usize;
            }
        }
        audit
    }

    /// Returns for each accepted event the nanoseconds from sending to the answer.
    pub(crate) fn ack_nanos(&self) -> Vec<u64> {
        let times =
            self.sent.iter().zip(&self.acked).map(|(sent, acked)| (sent.load(Relaxed), acked.load(Relaxed)));
        times.filter(|&(_, acked)| acked != 0).map(|(sent, acked)| acked.saturating_sub(sent)).collect()
    }

    /// Returns for each delivery the nanoseconds from the producer's sending to its first arrival.
    pub(crate) fn arrival_nanos(&self) -> Vec<u64> {
        let mut all = Vec::with_capacity(self.arrived());
        for (seq, slots) in self.taken() {
            let sent = self.sent[seq].load(Relaxed);
            let arrivals = slots.iter().filter(|slot| slot.count.load(Relaxed) > 0);
            all.extend(arrivals.map(|slot| slot.first_at.load(Relaxed).saturating_sub(sent)));
        }
        all
    }

    fn taken(&self) -> impl Iterator<Item = (usize, &[Slot])> {
        let width = self.fan.width();
        (0..self.next.load(Relaxed)).map(move |seq| (seq, &self.slots[seq * width..(seq + 1) * width]))
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}

/// FNV-1a: enough to notice a changed id.
fn fingerprint(id: &[u8]) -> u32 {
    id.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(ledger: &Ledger) -> EventName {
        let name = ledger.take(usize::MAX).unwrap();
        ledger.send(name, ledger.now());
        name
    }

    #[test]
    fn an_accepted_event_that_misses_one_subscription_is_lost_once() {
        let ledger = Ledger::new(Fan::All(2), 10);
        let name = sent(&ledger);
        ledger.accept(name);
        ledger.arrive(1, Some(name), b"a");
        assert_eq!(ledger.audit(), Audit { lost: 1, ..Audit::default() });
        ledger.arrive(0, Some(name), b"b");
        assert_eq!(ledger.audit(), Audit::default());
        assert_eq!((ledger.owed(), ledger.arrived()), (2, 2));
        assert_eq!((ledger.ack_nanos().len(), ledger.arrival_nanos().len()), (1, 2));
    }

    #[test]
    fn an_event_without_an_answer_may_arrive_or_not() {
        let ledger = Ledger::new(Fan::All(1), 10);
        let (arriving, _vanishing) = (sent(&ledger), sent(&ledger));
        ledger.arrive(0, Some(arriving), b"a");
        assert_eq!(ledger.audit(), Audit::default());
    }

    #[test]
    fn repeats_are_counted_and_must_keep_their_id() {
        let ledger = Ledger::new(Fan::All(1), 10);
        let name = sent(&ledger);
        ledger.accept(name);
        for webhook_id in [b"a", b"a", b"b"] {
            ledger.arrive(0, Some(name), webhook_id);
        }
        assert_eq!(ledger.audit(), Audit { repeated: 2, renamed: 1, ..Audit::default() });
    }

    #[test]
    fn arrivals_at_the_wrong_place_are_strays() {
        let ledger = Ledger::new(Fan::OneOf(3), 10);
        let name = sent(&ledger);
        ledger.accept(name);
        ledger.arrive(0, Some(name), b"a");
        ledger.arrive(1, Some(name), b"a");
        ledger.arrive(0, Some(EventName { run: name.run + 1, ..name }), b"a");
        ledger.arrive(0, Some(EventName { seq: 3, ..name }), b"a");
        ledger.arrive(0, None, b"a");
        assert_eq!(ledger.audit(), Audit { strays: 4, ..Audit::default() });
    }

    #[test]
    fn takes_no_more_than_the_limit_or_the_capacity() {
        let ledger = Ledger::new(Fan::All(1), 3);
        assert!(ledger.take(1).is_some());
        assert!(ledger.take(1).is_none());
        assert!(ledger.take(usize::MAX).is_some() && ledger.take(usize::MAX).is_some());
        assert!(ledger.take(usize::MAX).is_none());
    }
}

//! The store against a model that is too simple to be wrong, in random order: at any time each delivery waits in
//! one place or is over, and every reader says so.

#[path = "model/steps.rs"]
mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join;
use proptest::prelude::*;

use self::steps::{End, Step, Work, steps};
use super::*;
use crate::{DeliveriesQuery, Forward, JobStep, LoggedEvent, QueuePosition, Step as StoreStep, StoredState};
use waypost_domain::Recovery;
use waypost_domain::job::{self, Job, Kind};
use waypost_domain::recovery::{self, Mark, ScanProgress};

/// The subscriptions of the model.
const SUBSCRIPTIONS: [u128; 3] = [1, 2, 3];

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Row {
    Fresh,
    Due(Timestamp, Progress),
    Over,
}

#[derive(Debug)]
struct Delivery {
    row: Row,
    state: StoredState,
    /// How many lines its history has.
    entries: usize,
    /// Whether its payload is rendered.
    rendered: bool,
}

impl Delivery {
    /// Makes one that waits.
    fn new(row: Row, entries: usize) -> Self {
        Self { row, state: StoredState::Pending, entries, rendered: false }
    }

    /// Lets it wait for an attempt at `at`, as somebody asked for.
    fn again(&mut self, at: Timestamp) {
        (self.row, self.state) = (Row::Due(at, Progress::default()), StoredState::Pending);
        self.entries += 1;
    }

    /// Ends it without an attempt.
    fn skip(&mut self) {
        (self.row, self.state, self.rendered) = (Row::Over, StoredState::Skipped, false);
        self.entries += 1;
    }
}

#[derive(Debug)]
struct Known {
    received: Timestamp,
    deliveries: BTreeMap<u128, Delivery>,
}

impl Known {
    fn is_open(&self) -> bool {
        self.deliveries.values().any(|delivery| delivery.row != Row::Over)
    }
}

struct Model {
    folder: tempfile::TempDir,
    store: Option<Store>,
    log: BTreeMap<EventId, Known>,
    /// All ids that were ever given.
    given: Vec<EventId>,
    under_way: Vec<(u128, PendingDelivery)>,
    /// How often each subscription's plugin has rendered a payload: its state counts that.
    counts: BTreeMap<u128, u32>,
    /// How many announcements wait: one for each death, each recovery and each job.
    announced: usize,
    /// The model's clock, which is exact: it advances by a microsecond for each event and each request.
    now: Timestamp,
}

impl Model {
    fn new() -> Self {
        let (folder, store) = fresh();
        let now = clock::now() - Duration::from_secs(1);
        Self {
            folder,
            store: Some(store),
            log: BTreeMap::new(),
            given: Vec::new(),
            under_way: Vec::new(),
            counts: BTreeMap::new(),
            announced: 0,
            now,
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn tick(&mut self) -> Timestamp {
        self.now += Duration::from_micros(1);
        self.now
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Accept(masks) => self.accept(&masks).await,
            Step::Begin(index) => {
                let mut all = Vec::new();
                for number in SUBSCRIPTIONS {
                    let waiting = ready(self.store(), sub(number)).await;
                    all.extend(
                        waiting
                            .first_attempts
                            .into_iter()
                            .chain(waiting.due)
                            .map(|pending| (number, pending)),
                    );
                }
                // As in the delivery stage, which never attempts a delivery twice at once.
                let is_in_flight = |number, pending: &PendingDelivery| {
                    self.under_way
                        .iter()
                        .any(|(other, taken)| (*other, taken.event.id) == (number, pending.event.id))
                };
                all.retain(|(number, pending)| !is_in_flight(*number, pending));
                if !all.is_empty() {
                    self.under_way.push(all.swap_remove(index.index(all.len())));
                }
            }
            Step::End(index, end) => {
                if !self.under_way.is_empty() {
                    let (number, pending) = self.under_way.swap_remove(index.index(self.under_way.len()));
                    self.end(number, &pending, end).await;
                }
            }
            Step::Prepare(index) => {
                if !self.under_way.is_empty() {
                    let place = index.index(self.under_way.len());
                    self.freeze(place).await;
                }
            }
            Step::Redeliver(index, mask) => {
                if !self.given.is_empty() {
                    self.redeliver(self.given[index.index(self.given.len())], mask).await;
                }
            }
            Step::Recover(index, mask) => self.recover(SUBSCRIPTIONS[index.index(3)], mask).await,
            Step::PurgeEvents(indices) => {
                if !self.given.is_empty() {
                    let ids: Vec<_> =
                        indices.iter().map(|index| self.given[index.index(self.given.len())]).collect();
                    self.purge(Purge::Events(ids.clone()), |id, _| ids.contains(&id)).await;
                }
            }
            Step::PurgeBefore(index) => {
                let times: Vec<_> = self.log.values().map(|known| known.received).chain([self.now]).collect();
                let time = times[index.index(times.len())];
                self.purge(Purge::Before(time), |_, known| known.received < time).await;
            }
            Step::CancelPending(index, limit) => {
                self.cancel_pending(SUBSCRIPTIONS[index.index(3)], limit).await
            }
            Step::Job(index, work, rows) => self.job(SUBSCRIPTIONS[index.index(3)], work, rows).await,
            Step::Crash => {
                self.under_way.clear();
                let (folder, store) = crashed(self.folder.path());
                close(self.store.replace(store).unwrap()).await;
                self.folder = folder;
            }
            Step::Reopen => {
                self.under_way.clear();
                close(self.store.take().unwrap()).await;
                self.store = Some(open(self.folder.path()));
            }
        }
    }

    async fn accept(&mut self, masks: &[u8]) {
        let mut arrivals = Vec::new();
        for mask in masks {
            arrivals.push(Arrival { received: self.tick(), ..arrival("a", &of_mask(*mask)) });
        }
        let ids = self.store().log(arrivals.clone()).await.unwrap();
        assert_eq!(ids.len(), masks.len());
        for (id, arrival) in ids.into_iter().zip(arrivals) {
            assert!(self.given.last().is_none_or(|last| *last < id), "ids grow");
            let delivery = |id: &RecipientId| (id.uuid().as_u128(), Delivery::new(Row::Fresh, 0));
            let deliveries = arrival.matched.iter().map(delivery).collect();
            self.log.insert(id, Known { received: arrival.received, deliveries });
            self.given.push(id);
        }
    }

    async fn end(&mut self, number: u128, pending: &PendingDelivery, end: End) {
        let outcome = match end {
            End::Delivered => Outcome::Delivered,
            End::Dead => dead(),
            End::Retry(seconds) => retry(after(seconds)),
        };
        let settlement = ending(sub(number), pending, outcome);
        // The probe gives the ending a commit to join, so that it does not wait.
        let (ended, probed) = join(self.store().settle(settlement.clone()), self.store().probe()).await;
        ended.unwrap();
        probed.unwrap();
        let Some(known) = self.log.get_mut(&pending.event.id) else { return };
        let delivery = known.deliveries.get_mut(&number).unwrap();
        delivery.entries += 1;
        let due = match delivery.row {
            Row::Fresh => Some(None),
            Row::Due(due, _) => Some(Some(due)),
            Row::Over => None,
        };
        if due == Some(pending.position.due) {
            delivery.rendered &= !matches!(end, End::Delivered);
            self.announced += usize::from(matches!(end, End::Dead));
            delivery.row = match end {
                End::Delivered | End::Dead => Row::Over,
                End::Retry(seconds) => Row::Due(after(seconds), settlement.progress),
            };
            delivery.state = match end {
                End::Delivered => StoredState::Delivered,
                End::Dead => StoredState::Dead,
                End::Retry(_) => StoredState::Retrying,
            };
        }
    }

    async fn freeze(&mut self, place: usize) {
        let (number, pending) = &mut self.under_way[place];
        // As in the delivery stage, which calls no plugin twice for a delivery.
        if pending.rendered {
            return;
        }
        let store = self.store.as_ref().unwrap();
        let count = self.counts.get(number).map_or(0, |count| *count) + 1;
        let is_kept = store.freeze(counting(sub(*number), pending, count)).await.unwrap();
        let known = self.log.get_mut(&pending.event.id).and_then(|known| known.deliveries.get_mut(number));
        let waits = known.as_ref().is_some_and(|delivery| match delivery.row {
            Row::Fresh => pending.position.due.is_none(),
            Row::Due(due, _) => pending.position.due == Some(due),
            Row::Over => false,
        });
        assert_eq!(is_kept, waits);
        if let Some(delivery) = known.filter(|_| waits) {
            delivery.rendered = true;
            delivery.entries += 1;
            pending.rendered = true;
            self.counts.insert(*number, count);
        }
    }

    async fn redeliver(&mut self, id: EventId, mask: u8) {
        let at = self.tick();
        let found = self.store().redeliver(id, of_mask(mask), "bob".to_owned(), at, None).await.unwrap();
        assert_eq!(found, self.log.contains_key(&id));
        let Some(known) = self.log.get_mut(&id) else { return };
        for subscription in of_mask(mask) {
            let delivery = Delivery::new(Row::Over, 0);
            let delivery = known.deliveries.entry(subscription.uuid().as_u128()).or_insert(delivery);
            if delivery.row != Row::Fresh {
                delivery.again(at);
            }
        }
    }

    async fn recover(&mut self, number: u128, mask: u8) {
        let (asked, at) = (self.tick(), self.tick());
        let store = self.store.as_ref().unwrap();
        let recovery = Recovery::new(sub(number), None, None, "bob".to_owned(), asked);
        assert!(store.begin_recovery(recovery, None).await.unwrap());
        let step = async |step| store.recover(sub(number), asked, step, at, None).await.unwrap().unwrap();
        let mut recovery = step(StoreStep::Begin).await;
        let (mut place, mut created) = (0, 0);
        while recovery.is_running() {
            let after = recovery.position.map(|mark| mark.event);
            let last = recovery.end.unwrap().event;
            let query = Forward { after, last, since: None, until: None, events: 3, bytes: usize::MAX };
            let page = store.forward(query).await.unwrap();
            let mark = |logged: &Arc<LoggedEvent>| Mark { event: logged.id, received: logged.received };
            let mut matched = Vec::new();
            for logged in &page {
                if mask >> (place % 8) & 1 == 1 {
                    matched.push(logged.id);
                    let deliveries = &mut self.log.get_mut(&logged.id).unwrap().deliveries;
                    deliveries.entry(number).or_insert_with(|| {
                        created += 1;
                        Delivery::new(Row::Due(at, Progress::default()), 1)
                    });
                }
                place += 1;
            }
            let (first, last, events) =
                (page.first().map(mark), mark(page.last().unwrap()), page.len() as u64);
            recovery =
                step(StoreStep::Advance(ScanProgress { first, last, events, failed: 0, matched })).await;
        }
        assert_eq!((recovery.looked_at, recovery.created), (self.log.len() as u64, created));
        assert_eq!(place, self.log.len());
        self.announced += 1;
    }

    /// Runs a whole job.
    async fn job(&mut self, number: u128, work: Work, rows: u32) {
        let (asked, at) = (self.tick(), self.tick());
        let (of, work) = match work {
            Work::Redeliver(of) => (of, job::Work::Redeliver),
            Work::Discard(of) => (of, job::Work::Discard { reason: "of no use".to_owned() }),
        };
        let kind = work.kind();
        let (given_up, mut changed) = (kind == Kind::Discard, 0);
        let wanted = Job {
            subscription: sub(number),
            work,
            of,
            since: None,
            until: None,
            asked,
            by: "bob".to_owned(),
            total: None,
            end: None,
            position: None,
            looked_at: 0,
            changed: 0,
            state: recovery::State::Running,
        };
        assert!(self.store().begin_job(wanted, None).await.unwrap());
        let mut job = self.store().job(sub(number), kind).await.unwrap().unwrap();
        while job.is_running() {
            let step = JobStep::Advance { rows };
            let advanced = self.store().advance_job((sub(number), kind), asked, step, at, None).await;
            job = advanced.unwrap().unwrap();
        }
        for delivery in self.log.values_mut().filter_map(|known| known.deliveries.get_mut(&number)) {
            if delivery.state == of.into() {
                if given_up {
                    delivery.skip()
                } else {
                    delivery.again(at)
                }
                changed += 1;
            }
        }
        assert_eq!(job.changed, changed);
        self.announced += 1;
    }

    async fn purge(&mut self, what: Purge, is_meant: impl Fn(EventId, &Known) -> bool) {
        let meant: Vec<_> =
            self.log.iter().filter(|(id, known)| is_meant(**id, known)).map(|(id, _)| *id).collect();
        let (kept, gone): (Vec<_>, Vec<_>) = meant.into_iter().partition(|id| self.log[id].is_open());
        gone.iter().for_each(|id| drop(self.log.remove(id)));
        assert_eq!(purge(self.store(), what).await, (gone.len() as u64, kept.len() as u64));
        for (id, number) in gone.iter().flat_map(|id| SUBSCRIPTIONS.map(|number| (*id, number))) {
            assert!(self.store().rendered(id, sub(number)).await.unwrap().is_none());
        }
    }

    async fn cancel_pending(&mut self, number: u128, limit: usize) {
        while self.store().cancel_pending(sub(number), limit).await.unwrap() {}
        for delivery in self.log.values_mut().filter_map(|known| known.deliveries.get_mut(&number)) {
            if delivery.row != Row::Over {
                delivery.skip();
            }
            delivery.rendered = false;
        }
        self.counts.remove(&number);
    }

    /// Asks the store everything and compares.
    async fn compare(&self) {
        let mut recipients_with_backlog = Vec::new();
        for number in SUBSCRIPTIONS {
            let waiting = ready(self.store(), sub(number)).await;
            let seen = |pending: &PendingDelivery| match pending.position {
                QueuePosition { due: None, .. } => (pending.event.id, Row::Fresh),
                QueuePosition { due: Some(due), .. } => (pending.event.id, Row::Due(due, pending.progress)),
            };
            assert!(waiting.first_attempts.iter().all(|pending| pending.position.due.is_none()));
            for pending in waiting.first_attempts.iter().chain(&waiting.due) {
                assert_eq!(pending.rendered, self.log[&pending.event.id].deliveries[&number].rendered);
            }
            for (id, known) in &self.log {
                let rendered = known.deliveries.get(&number).is_some_and(|delivery| delivery.rendered);
                assert_eq!(self.store().rendered(*id, sub(number)).await.unwrap().is_some(), rendered);
            }
            let state = self.store().plugin_state(sub(number)).await.unwrap();
            let count =
                state.get("count").map(|value| u32::from_le_bytes(value.bytes[..].try_into().unwrap()));
            assert_eq!(count, self.counts.get(&number).copied());
            assert!(waiting.due.iter().map(|pending| pending.position.due.unwrap()).is_sorted());
            let mut found: Vec<_> = waiting.first_attempts.iter().chain(&waiting.due).map(seen).collect();
            found.sort_by_key(|(id, _)| *id);
            let rows =
                self.log.iter().filter_map(|(id, known)| Some((*id, known.deliveries.get(&number)?.row)));
            let expected: Vec<_> = rows.filter(|(_, row)| *row != Row::Over).collect();
            assert_eq!(found, expected, "subscription {number}");
            self.compare_counts(number).await;
            if !expected.is_empty() {
                recipients_with_backlog.push(sub(number));
            }
        }
        assert_eq!(self.store().recipients_with_backlog().await.unwrap(), recipients_with_backlog);
        let announced = self.store().announcements(usize::MAX).await.unwrap();
        assert_eq!(announced.map_or(0, |page| page.found.len()), self.announced);
        let histories = self.store().histories(ALL).await.unwrap();
        assert!(histories.iter().map(|history| history.event.id).eq(self.log.keys().rev().copied()));
        for history in &histories {
            let known = &self.log[&history.event.id];
            assert_eq!(history.deliveries.len(), known.deliveries.len());
            for found in &history.deliveries {
                let delivery = &known.deliveries[&found.recipient.uuid().as_u128()];
                assert_eq!(found.history.len(), delivery.entries);
                match (found.state.clone(), delivery.row) {
                    (State::Pending, Row::Fresh | Row::Due(..)) => {}
                    (State::Retrying { due, .. }, Row::Due(row, _)) if due == row => {}
                    (state, Row::Over) if state.is_final() => {}
                    told => panic!("the history and the pending deliveries differ: {told:?}"),
                }
            }
        }
    }
}

impl Model {
    /// Compares the numbers of a subscription's deliveries, and the lists of them.
    async fn compare_counts(&self, number: u128) {
        let counts = self.store().counts(sub(number)).await.unwrap();
        for state in StoredState::ALL {
            let query = DeliveriesQuery {
                recipient: sub(number),
                state: Some(state),
                since: None,
                until: None,
                before: None,
                limit: usize::MAX,
            };
            let listed = self.store().deliveries(query).await.unwrap();
            let expected = self.log.values().filter_map(|known| known.deliveries.get(&number));
            let expected = expected.filter(|delivery| delivery.state == state).count();
            assert_eq!((counts.of(state), listed.len()), (expected as u64, expected), "{state:?}");
        }
    }
}

fn of_mask(mask: u8) -> Vec<RecipientId> {
    SUBSCRIPTIONS.into_iter().filter(|number| mask >> (number - 1) & 1 == 1).map(sub).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_delivery_is_in_one_place_or_over(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new();
            for step in steps {
                model.step(step).await;
                model.compare().await;
            }
            model.step(Step::Reopen).await;
            model.compare().await;
        });
    }
}

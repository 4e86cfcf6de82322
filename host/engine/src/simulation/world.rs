//! What the world outside knows of a simulated service, and what it holds the service to.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use waypost_domain::{Entry, EventId, RecipientId, State, SubscriptionId};
use waypost_store::EventHistory;

/// How targets answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Any attempt may fail, hang, panic, or lack something of this machine.
    Mixed,
    /// All hang or fail.
    Bad,
    /// All deliver at once.
    Good,
}

/// What is known of a subscription from outside.
#[derive(Debug)]
pub(super) struct SubscriptionModel {
    pub(super) kind: usize,
    /// Whether it is active, if that is known for sure.
    pub(super) is_active: Option<bool>,
    /// How often a change of it was asked for.
    version: u64,
    /// How many changes are on their way.
    changing: usize,
    /// Whether a change failed, and may come about later, since the last one that was written.
    is_uncertain: bool,
}

/// How a change of a subscription was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Change {
    /// It is written; now the subscription is active, or not.
    Written(bool),
    /// Nothing was to be changed; the directory has it active, or not.
    Declined(bool),
    Failed,
}

/// What was asked of a logged event when it was acknowledged.
#[derive(Debug)]
struct EventModel {
    must_match: BTreeSet<RecipientId>,
    must_not_match: BTreeSet<RecipientId>,
}

/// A request that was answered with an error, or not at all: its events are all there, or none is.
type Unanswered = Vec<String>;

pub(super) struct World {
    pub(super) dice: StdRng,
    pub(super) mood: Mood,
    pub(super) subscriptions: BTreeMap<SubscriptionId, SubscriptionModel>,
    events: BTreeMap<EventId, EventModel>,
    requests: BTreeMap<u64, Unanswered>,
    in_flight: BTreeSet<(EventId, RecipientId)>,
    ended: BTreeMap<(EventId, RecipientId), String>,
    /// The first promise that was broken.
    broken: Option<String>,
    /// A digest of everything that happened.
    trace: DefaultHasher,
    pub(super) stats: Stats,
}

/// How much has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) attempts: u64,
    pub(super) ended: u64,
    pub(super) crashes: u64,
}

impl Stats {
    pub(super) fn add(&mut self, more: Self) {
        self.accepted += more.accepted;
        self.refused += more.refused;
        self.attempts += more.attempts;
        self.ended += more.ended;
        self.crashes += more.crashes;
    }
}

/// The subscriptions whose state was known when a request began.
pub(super) struct Known(Vec<(SubscriptionId, u64, bool)>);

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dice: StdRng::seed_from_u64(seed),
            mood: Mood::Mixed,
            subscriptions: BTreeMap::new(),
            events: BTreeMap::new(),
            requests: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            ended: BTreeMap::new(),
            broken: None,
            trace: DefaultHasher::new(),
            stats: Stats::default(),
        }
    }

    /// Notes something for the digest of the run.
    pub(super) fn note(&mut self, what: impl Hash) {
        what.hash(&mut self.trace);
    }

    pub(super) fn digest(&self) -> u64 {
        self.trace.finish()
    }

    /// Prints what happens, to find the reason of a failure.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if std::env::var_os("WAYPOST_TRACE").is_some() {
            eprintln!("{}", what());
        }
    }

    /// Notes that a promise is broken.
    pub(super) fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.dice.random_bool(probability)
    }

    /// A life of the service ends: nothing is in flight, and what was on its way may have come about or not.
    pub(super) fn end_life(&mut self) {
        self.in_flight.clear();
        for model in self.subscriptions.values_mut() {
            if model.changing > 0 {
                (model.changing, model.is_active) = (0, None);
            }
        }
    }

    pub(super) fn begin_change(&mut self, id: SubscriptionId, kind: usize) {
        let new = SubscriptionModel { kind, is_active: None, version: 0, changing: 0, is_uncertain: false };
        let model = self.subscriptions.entry(id).or_insert(new);
        model.version += 1;
        model.changing += 1;
        model.is_active = None;
    }

    /// A change is answered.
    pub(super) fn end_change(&mut self, id: SubscriptionId, change: Change) {
        self.note((id, change));
        self.tell(|| format!("changed {id}: {change:?}"));
        let model = self.subscriptions.get_mut(&id).unwrap();
        model.changing -= 1;
        let is_active = match change {
            Change::Written(is_active) => {
                model.is_uncertain = false;
                Some(is_active)
            }
            Change::Declined(is_active) => Some(is_active),
            Change::Failed => {
                model.is_uncertain = true;
                None
            }
        };
        if model.changing == 0 && !model.is_uncertain {
            model.is_active = is_active;
        }
    }

    /// Checks a subscription in the directory of a service that has just started.
    pub(super) fn found(&mut self, id: SubscriptionId, is_active: bool) {
        let model = self.subscriptions.get_mut(&id).unwrap();
        let known = model.is_active.replace(is_active);
        model.is_uncertain = false;
        if known.is_some_and(|known| known != is_active) {
            self.fail(format!("{id} is active after a restart: {is_active}; it was acknowledged otherwise"));
        }
    }

    /// A request with events begins.
    pub(super) fn begin_request(&mut self, request: u64, names: Vec<String>) -> Known {
        self.requests.insert(request, names);
        let known =
            |(id, model): (&SubscriptionId, &SubscriptionModel)| Some((*id, model.version, model.is_active?));
        Known(self.subscriptions.iter().filter_map(known).collect())
    }

    /// A request is acknowledged: all of its events are of this kind.
    pub(super) fn acknowledge(&mut self, request: u64, kind: usize, ids: &[EventId], Known(known): Known) {
        let names = self.requests.remove(&request).unwrap();
        if names.len() != ids.len() {
            self.fail(format!("{} ids for {} events", ids.len(), names.len()));
        }
        let (mut must_match, mut must_not_match) = (BTreeSet::new(), BTreeSet::new());
        for (id, version, is_active) in known {
            let model = &self.subscriptions[&id];
            if model.version == version {
                let set = if is_active && model.kind == kind { &mut must_match } else { &mut must_not_match };
                set.insert(RecipientId::from(id));
            }
        }
        for id in ids {
            let (must_match, must_not_match) = (must_match.clone(), must_not_match.clone());
            self.events.insert(*id, EventModel { must_match, must_not_match });
        }
        self.stats.accepted += ids.len() as u64;
        self.note(ids);
    }

    /// An attempt begins, about which the store says this, if it can be read.
    pub(super) fn begin_attempt(
        &mut self,
        event: EventId,
        recipient: RecipientId,
        failed: u32,
        history: Option<Option<EventHistory>>,
    ) {
        self.stats.attempts += 1;
        self.tell(|| format!("attempt at {event} for {recipient}, {failed} failed"));
        self.note((event, recipient, failed));
        if !self.in_flight.insert((event, recipient)) {
            self.fail(format!("two attempts at once of {event} for {recipient}"));
        }
        let Some(history) = history else { return };
        let Some(history) = history else {
            return self.fail(format!("{event} is attempted and not in the log"));
        };
        if !history.event.matched.contains(&recipient) {
            self.fail(format!("{event} is attempted for {recipient}, which it does not match"));
        }
        let Some(delivery) = history.deliveries.iter().find(|delivery| delivery.recipient == recipient)
        else {
            return self.fail(format!("{event} has no delivery for {recipient}"));
        };
        let before = counted(&delivery.history);
        if is_final(&delivery.state) {
            self.fail(format!("{event} is attempted for {recipient} after its end: {:?}", delivery.state));
        }
        if before != failed {
            self.fail(format!(
                "{event} for {recipient}: {before} attempts are recorded, the next has {failed} behind it"
            ));
        }
    }

    pub(super) fn end_attempt(&mut self, event: EventId, recipient: RecipientId) {
        self.in_flight.remove(&(event, recipient));
    }

    /// Looks at the whole log.
    pub(super) fn observe(&mut self, histories: &[EventHistory]) {
        let logged: BTreeMap<_, _> = histories.iter().map(|history| (history.event.id, history)).collect();
        let names: BTreeSet<_> =
            histories.iter().map(|history| history.event.event.id().to_owned()).collect();
        if names.len() != histories.len() {
            self.fail("an event is logged twice".to_owned());
        }
        for (id, EventModel { must_match, must_not_match }) in std::mem::take(&mut self.events) {
            match logged.get(&id) {
                None => self.fail(format!("{id} was acknowledged and is not in the log")),
                Some(history) => {
                    let matched: BTreeSet<_> = history.event.matched.iter().copied().collect();
                    if !must_match.is_subset(&matched) || !must_not_match.is_disjoint(&matched) {
                        self.fail(format!(
                            "{id} matched {matched:?}, not {must_match:?} without {must_not_match:?}"
                        ));
                    }
                }
            }
            self.events.insert(id, EventModel { must_match, must_not_match });
        }
        for unanswered in self.requests.values() {
            let there = unanswered.iter().filter(|name| names.contains(*name)).count();
            if there != 0 && there != unanswered.len() {
                self.broken.get_or_insert(format!("{there} of {unanswered:?} are logged"));
            }
        }
        for history in histories {
            for delivery in &history.deliveries {
                self.observe_delivery(
                    history.event.id,
                    delivery.recipient,
                    &delivery.state,
                    &delivery.history,
                );
            }
        }
    }

    fn observe_delivery(&mut self, event: EventId, recipient: RecipientId, state: &State, entries: &[Entry]) {
        let numbers = entries.iter().filter_map(|entry| match entry {
            Entry::Attempt(attempt) => Some(attempt.number),
            _ => None,
        });
        if !numbers.eq(1..=counted(entries)) {
            self.fail(format!("the attempts of {event} for {recipient} have gaps: {entries:?}"));
        }
        let end = is_final(state).then(|| format!("{state:?}"));
        match (self.ended.get(&(event, recipient)), end) {
            (Some(known), end) if end.as_ref() != Some(known) => {
                self.fail(format!("{event} for {recipient} had ended as {known}, and is {state:?}"));
            }
            (None, Some(end)) => {
                self.note(&end);
                self.stats.ended += 1;
                self.ended.insert((event, recipient), end);
            }
            (Some(_) | None, _) => {}
        }
    }
}

fn counted(entries: &[Entry]) -> u32 {
    let attempts = entries.iter().filter(|entry| matches!(entry, Entry::Attempt(_))).count();
    u32::try_from(attempts).unwrap()
}

pub(super) fn is_final(state: &State) -> bool {
    match state {
        State::Delivered { .. } | State::Denied { .. } | State::Skipped { .. } | State::Dead { .. } => true,
        State::Pending | State::Delivering | State::Retrying { .. } | State::Held { .. } => false,
    }
}

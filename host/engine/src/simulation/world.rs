//! What the world outside knows of a simulated service, and what it holds the service to.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use jiff::Timestamp;
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::policy::Verdict;
use waypost_domain::{Answer, Entry, Event, EventId, RateLimit, RecipientId, State, SubscriptionId};
use waypost_store::{EventHistory, LoggedEvent};

/// A delivery, and how often it had been asked to be sent again: no subscription here has a plugin by its record, so what was
/// rendered is discarded then.
type Sending = (EventId, RecipientId, usize);

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
    /// What the doubles of plugins have rendered for a delivery, stored or not, and what its target has got.
    rendered: BTreeMap<Sending, Vec<Bytes>>,
    bodies: BTreeMap<Sending, Bytes>,
    /// The events that policy has allowed.
    allowed: BTreeSet<String>,
    /// When requests were made for recipients that have a rate limit, for each version of theirs.
    sent: BTreeMap<(RecipientId, Timestamp), Vec<Instant>>,
    /// The ends of deliveries, and how often each had been asked to be sent again.
    ended: BTreeMap<(EventId, RecipientId), (usize, String)>,
    /// The recipients for which a recovery or a job was asked for.
    pub(super) walked: BTreeSet<RecipientId>,
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
    /// How many deliveries recoveries of the whole log have created.
    pub(super) recovered: u64,
    /// How often policy has denied an event.
    pub(super) denied: u64,
    /// How often a rendered payload was sent.
    pub(super) rendered: u64,
    /// How many deliveries were sent again after their end.
    pub(super) again: u64,
}

impl Stats {
    pub(super) fn add(&mut self, more: Self) {
        self.accepted += more.accepted;
        self.refused += more.refused;
        self.attempts += more.attempts;
        self.ended += more.ended;
        self.crashes += more.crashes;
        self.recovered += more.recovered;
        self.denied += more.denied;
        self.rendered += more.rendered;
        self.again += more.again;
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
            rendered: BTreeMap::new(),
            bodies: BTreeMap::new(),
            allowed: BTreeSet::new(),
            sent: BTreeMap::new(),
            ended: BTreeMap::new(),
            walked: BTreeSet::new(),
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
        self.sent.clear();
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

    /// A recovery or a job of a subscription is asked for, or cancelled.
    pub(super) fn begin_walk(&mut self, id: SubscriptionId) {
        self.note(id);
        self.tell(|| format!("a walk for {id}"));
        self.walked.insert(id.into());
    }

    /// Decides whether an event may be seen.
    pub(super) fn judge(&mut self, event: &Event) -> Verdict {
        let is_away = self.mood != Mood::Good && self.chance(0.1);
        if is_away {
            return Verdict::Unavailable { reason: "away".to_owned(), answer: None };
        }
        if is_denied(event) {
            self.stats.denied += 1;
            return Verdict::Denied(Answer { status: 403, body: "no".to_owned() });
        }
        self.allowed.insert(event.id().to_owned());
        Verdict::Allowed(None)
    }

    /// A payload was rendered, and is about to be stored.
    pub(super) fn render(&mut self, delivery: Sending, body: Bytes) {
        self.rendered.entry(delivery).or_default().push(body);
    }

    /// A target gets an event, or what was rendered of it.
    pub(super) fn send(
        &mut self,
        event: &LoggedEvent,
        (recipient, again): (RecipientId, usize),
        body: Option<Bytes>,
    ) {
        let key = (event.id, recipient, again);
        if let (Some(body), true) = (body, again != usize::MAX) {
            self.stats.rendered += 1;
            if !self.rendered.get(&key).is_some_and(|all| all.contains(&body)) {
                self.fail(format!(
                    "{body:?} is sent to {recipient} for {}: nothing has rendered it",
                    event.id
                ));
            }
            let first = self.bodies.entry(key).or_insert_with(|| body.clone()).clone();
            if first != body {
                self.fail(format!("{recipient} gets {body:?} for {}, and had got {first:?}", event.id));
            }
        } else if self.bodies.contains_key(&key) {
            self.fail(format!("{recipient} gets {} as it is, and had got what was rendered", event.id));
        }
        if is_denied(&event.event) || !self.allowed.contains(event.event.id()) {
            self.fail(format!("{} is sent to {recipient}, and policy has not allowed it", event.id));
        }
    }

    /// A request was made at this time to a target that has a rate limit.
    pub(super) fn note_rate(&mut self, of: (RecipientId, Timestamp), limit: RateLimit, at: Instant) {
        let sent = self.sent.entry(of).or_default();
        sent.push(at);
        sent.sort_unstable();
        for (place, first) in sent.iter().enumerate() {
            let (most, rest) = (u128::from(limit.burst()), &sent[place..]);
            // Two attempts may have got theirs before the others, and send later.
            let allowed =
                |until: Instant| most + (until - *first).as_millis() / limit.interval().as_millis() + 2;
            if let Some((count, _)) =
                rest.iter().enumerate().find(|(count, at)| *count as u128 + 1 > allowed(**at))
            {
                let what = format!("{} requests to {}, whose limit is {limit}: {rest:?}", count + 1, of.0);
                return self.fail(what);
            }
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

    /// An attempt begins, about which the store says this, if it can be read. Returns how often the delivery had been asked to
    /// be sent again, as far as that is known.
    pub(super) fn begin_attempt(
        &mut self,
        event: EventId,
        recipient: RecipientId,
        failed: u32,
        history: Option<Option<EventHistory>>,
    ) -> usize {
        self.stats.attempts += 1;
        self.tell(|| format!("attempt at {event} for {recipient}, {failed} failed"));
        self.note((event, recipient, failed));
        if !self.in_flight.insert((event, recipient)) {
            self.fail(format!("two attempts at once of {event} for {recipient}"));
        }
        let Some(history) = history else { return usize::MAX };
        let Some(history) = history else {
            self.fail(format!("{event} is attempted and not in the log"));
            return 0;
        };
        let Some(delivery) = history.deliveries.iter().find(|delivery| delivery.recipient == recipient)
        else {
            self.fail(format!("{event} has no delivery for {recipient}"));
            return 0;
        };
        let is_recovered = delivery.history.iter().any(|entry| matches!(entry, Entry::Recovered { .. }));
        if !history.event.matched.contains(&recipient) && !is_recovered {
            self.fail(format!("{event} is attempted for {recipient}, which it does not match"));
        }
        let before = counted(&delivery.history);
        if is_final(&delivery.state) {
            self.fail(format!("{event} is attempted for {recipient} after its end: {:?}", delivery.state));
        }
        if before != failed {
            self.fail(format!(
                "{event} for {recipient}: {before} attempts are recorded, the next has {failed} behind it"
            ));
        }
        delivery.history.iter().filter(|entry| matches!(entry, Entry::Redelivery { .. })).count()
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
                if is_denied(&history.event.event)
                    && matches!(delivery.state, State::Delivered { .. } | State::Dead { .. })
                {
                    self.fail(format!("policy denies {}, which is {:?}", history.event.id, delivery.state));
                }
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
        let is_again = |entry: &Entry| matches!(entry, Entry::Redelivery { .. });
        // The schedule starts over when it is sent again.
        for entries in entries.split(is_again) {
            let numbers = entries.iter().filter_map(|entry| match entry {
                Entry::Attempt(attempt) => Some(attempt.number),
                _ => None,
            });
            if !numbers.eq(1..=counted(entries)) {
                self.fail(format!("the attempts of {event} for {recipient} have gaps: {entries:?}"));
            }
        }
        let again = entries.iter().filter(|entry| is_again(entry)).count();
        if again > 0 && !self.walked.contains(&recipient) {
            self.fail(format!("{event} is sent again to {recipient}, which nobody has asked for"));
        }
        let end = is_final(state).then(|| (again, format!("{state:?}")));
        let known = self.ended.get(&(event, recipient)).cloned();
        match (known, end) {
            (Some((before, known)), _) if again < before => {
                self.fail(format!("{event} for {recipient} is {state:?}, and was sent again after {known}"));
            }
            (Some(known), end) if known.0 == again && end.as_ref() != Some(&known) => {
                self.fail(format!("{event} for {recipient} had ended as {known:?}, and is {state:?}"));
            }
            (known, Some(end)) if known.as_ref() != Some(&end) => {
                self.note(&end);
                self.stats.ended += 1;
                self.stats.again += u64::from(known.is_some());
                self.ended.insert((event, recipient), end);
            }
            (Some(_) | None, _) => {}
        }
    }
}

/// Tells whether policy denies an event to everyone.
fn is_denied(event: &Event) -> bool {
    event.id().bytes().map(u32::from).sum::<u32>().is_multiple_of(8)
}

/// Counts the attempts since a delivery was asked to be sent again, if it was.
fn counted(entries: &[Entry]) -> u32 {
    let last = entries.rsplit(|entry| matches!(entry, Entry::Redelivery { .. })).next().unwrap_or_default();
    let attempts = last.iter().filter(|entry| matches!(entry, Entry::Attempt(_))).count();
    u32::try_from(attempts).unwrap()
}

pub(super) fn is_final(state: &State) -> bool {
    match state {
        State::Delivered { .. } | State::Denied { .. } | State::Skipped { .. } | State::Dead { .. } => true,
        State::Pending | State::Delivering | State::Retrying { .. } | State::Held { .. } => false,
    }
}

//! Which deliveries of a recipient may be attempted now, where those of one **lane** wait for each other.
//!
//! The deliveries of a lane are attempted one at a time, in the order of acceptance. Its **head** is the one whose turn it
//! is; the lane is free again when the end of its head is recorded. Behind the head only ids are kept, a bounded number for
//! all lanes together: the longest queue is **cut** when there are too many, and read again from there when its lane has
//! nothing else. So any number of deliveries behind one that fails delays no other lane, and takes little memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use jiff::Timestamp;

use waypost_domain::{EventId, OnDead};

/// The most ids behind heads.
const IDS_MAX: usize = 64 * 1024;
/// The most lanes that are not free. With more, no further ones are looked for.
const LANES_MAX: usize = 64 * 1024;

/// The lanes of one recipient.
pub(super) struct Lanes {
    on_dead: OnDead,
    ids_max: usize,
    lanes: HashMap<u64, Lane>,
    /// The heads that are taken, and those that are being read.
    busy: HashMap<EventId, u64>,
    /// The first in the queue of each free lane.
    ready: BTreeMap<EventId, u64>,
    /// When heads are due again.
    due: BTreeSet<(Timestamp, u64)>,
    /// How many ids are in queues.
    ids: usize,
}

#[derive(Default)]
struct Lane {
    head: Head,
    /// Those behind the head, in order.
    queue: VecDeque<EventId>,
    /// The first one that is not in the queue any more.
    cut: Option<EventId>,
    /// The first dead letter, if it stops those behind it.
    stop: Option<EventId>,
    /// What stands for it among those that are ready.
    ready: Option<EventId>,
}

/// Where the head of a lane stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Head {
    /// There is none: the lane is free.
    #[default]
    Free,
    /// It is being read, waits, is attempted, or its end is not recorded yet.
    Busy(EventId),
    /// It is due again at this time.
    Due(EventId, Timestamp),
}

/// What is to become of a delivery that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Its turn has come: it is the head now.
    Take,
    /// It has to wait, or is known.
    Leave,
}

/// How the head of a lane ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadEnd {
    /// It is over.
    Over,
    /// It is a dead letter.
    Dead,
    /// It is due again at this time.
    Again(Timestamp),
}

impl Lane {
    /// Tells whether nothing is known of it.
    fn is_blank(&self) -> bool {
        self.head == Head::Free && self.queue.is_empty() && self.cut.is_none() && self.stop.is_none()
    }

    /// Returns the first in the queue, if it may be the next head.
    fn next(&self) -> Option<EventId> {
        let first = self.queue.front().filter(|_| self.head == Head::Free)?;
        self.stop.is_none_or(|stop| *first <= stop).then_some(*first)
    }

    /// Adds a delivery where it belongs in the queue; tells whether it was not there.
    fn insert(&mut self, event: EventId) -> bool {
        match self.queue.binary_search(&event) {
            Ok(_) => false,
            Err(place) => {
                self.queue.insert(place, event);
                true
            }
        }
    }
}

impl Lanes {
    pub(super) fn new(on_dead: OnDead) -> Self {
        Self::bounded(on_dead, IDS_MAX)
    }

    fn bounded(on_dead: OnDead, ids_max: usize) -> Self {
        Self {
            on_dead,
            ids_max,
            lanes: HashMap::new(),
            busy: HashMap::new(),
            ready: BTreeMap::new(),
            due: BTreeSet::new(),
            ids: 0,
        }
    }

    /// Notes a delivery that was read, and when it is due, if it is a further attempt. With `room`, it may be taken.
    pub(super) fn offer(
        &mut self,
        event: EventId,
        lane: u64,
        due: Option<Timestamp>,
        now: Timestamp,
        room: bool,
    ) -> Offer {
        let known = self.lanes.entry(lane).or_default();
        let is_head = match known.head {
            Head::Free => false,
            Head::Busy(head) | Head::Due(head, _) => head == event,
        };
        if is_head || known.cut.is_some_and(|cut| cut <= event) || !known.insert(event) {
            return Offer::Leave;
        }
        self.ids += 1;
        if let Head::Due(head, at) = known.head
            && event < head
        {
            // Somebody has sent an older one again.
            known.head = Head::Free;
            self.ids += usize::from(known.insert(head));
            self.due.remove(&(at, lane));
        }
        let is_next = known.next() == Some(event);
        match due.filter(|due| *due > now) {
            Some(due) if is_next => {
                self.pop(lane);
                self.wait(lane, event, due);
                Offer::Leave
            }
            None if is_next && room => {
                self.pop(lane);
                self.occupy(lane, event);
                Offer::Take
            }
            Some(_) | None => {
                self.settle(lane);
                self.cut_longest();
                Offer::Leave
            }
        }
    }

    /// Returns at most so many heads that are to be read now, oldest first: they are busy until they are found or gone.
    pub(super) fn take_ready(&mut self, most: usize, now: Timestamp) -> Vec<EventId> {
        while let Some((at, lane)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.rouse(at, lane);
        }
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((event, lane)) = self.ready.first_key_value().map(|(event, lane)| (*event, *lane))
        {
            self.pop(lane);
            self.occupy(lane, event);
            taken.push(event);
        }
        taken
    }

    /// Makes the head that is due next ready before its time, and returns it.
    pub(super) fn rouse_next(&mut self) -> Option<EventId> {
        let (at, lane) = self.due.first().copied()?;
        self.rouse(at, lane);
        self.lanes.get(&lane)?.ready
    }

    /// Notes that heads were not read.
    pub(super) fn put_back(&mut self, events: &[EventId]) {
        for event in events {
            let Some(lane) = self.busy.remove(event) else { continue };
            let known = self.lanes.entry(lane).or_default();
            known.head = Head::Free;
            self.ids += usize::from(known.insert(*event));
            self.settle(lane);
        }
    }

    /// Notes how a head ended: its lane is free, or waits.
    pub(super) fn end(&mut self, event: EventId, end: HeadEnd) {
        let Some(lane) = self.busy.remove(&event) else { return };
        let known = self.lanes.entry(lane).or_default();
        known.head = Head::Free;
        match end {
            HeadEnd::Over => {
                // It was sent again.
                known.stop = known.stop.filter(|stop| *stop != event);
            }
            HeadEnd::Dead if self.on_dead == OnDead::Stop => {
                known.stop = Some(known.stop.map_or(event, |stop| stop.min(event)));
            }
            HeadEnd::Dead => {}
            HeadEnd::Again(due) if known.queue.front().is_none_or(|first| event < *first) => {
                return self.wait(lane, event, due);
            }
            HeadEnd::Again(_) => self.ids += usize::from(known.insert(event)),
        }
        self.settle(lane);
    }

    /// Notes a dead letter: those behind it in its lane wait.
    pub(super) fn stop(&mut self, event: EventId, lane: u64) {
        let known = self.lanes.entry(lane).or_default();
        known.stop = Some(known.stop.map_or(event, |stop| stop.min(event)));
        self.settle(lane);
    }

    /// Tells whether others wait for the end of this head.
    pub(super) fn is_awaited(&self, event: EventId) -> bool {
        let lane = self.busy.get(&event).and_then(|lane| self.lanes.get(lane));
        lane.is_some_and(|lane| !lane.queue.is_empty() || lane.cut.is_some())
    }

    /// Returns from where to read again, if a free lane needs it: from there its cut is mended.
    pub(super) fn take_cut(&mut self) -> Option<EventId> {
        let is_starving = |lane: &&mut Lane| {
            lane.head == Head::Free
                && lane.queue.is_empty()
                && lane.cut.is_some_and(|cut| lane.stop.is_none_or(|stop| cut <= stop))
        };
        let cuts = self.lanes.values_mut().filter(is_starving);
        cuts.filter_map(|lane| lane.cut.take()).min()
    }

    /// Forgets everything but what is under way.
    pub(super) fn restart(&mut self) {
        self.lanes.retain(|_, lane| matches!(lane.head, Head::Busy(_)));
        for lane in self.lanes.values_mut() {
            *lane = Lane { head: lane.head, ..Lane::default() };
        }
        self.ready.clear();
        self.due.clear();
        self.ids = 0;
    }

    /// Returns when the first head is due again.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Tells whether heads can be read now.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Tells whether a dead letter stops a lane.
    pub(super) fn has_stopped(&self) -> bool {
        self.lanes.values().any(|lane| lane.stop.is_some())
    }

    /// Tells whether no delivery is known.
    pub(super) fn is_idle(&self) -> bool {
        self.busy.is_empty() && self.due.is_empty() && self.ids == 0
    }

    /// Tells whether more can be looked for.
    pub(super) fn has_room(&self) -> bool {
        self.lanes.len() < LANES_MAX
    }

    /// Returns how many deliveries are known that have to wait.
    pub(super) fn known(&self) -> usize {
        self.ids + self.due.len()
    }

    fn occupy(&mut self, lane: u64, event: EventId) {
        self.lanes.entry(lane).or_default().head = Head::Busy(event);
        self.busy.insert(event, lane);
    }

    fn wait(&mut self, lane: u64, event: EventId, due: Timestamp) {
        self.lanes.entry(lane).or_default().head = Head::Due(event, due);
        self.due.insert((due, lane));
    }

    /// Makes a head ready that was to wait until `at`.
    fn rouse(&mut self, at: Timestamp, lane: u64) {
        self.due.remove(&(at, lane));
        let known = self.lanes.entry(lane).or_default();
        if let Head::Due(event, _) = std::mem::take(&mut known.head) {
            self.ids += usize::from(known.insert(event));
        }
        self.settle(lane);
    }

    /// Removes the first of a lane's queue, which becomes its head.
    fn pop(&mut self, lane: u64) {
        let Some(known) = self.lanes.get_mut(&lane) else { return };
        self.ids -= usize::from(known.queue.pop_front().is_some());
        if let Some(ready) = known.ready.take() {
            self.ready.remove(&ready);
        }
    }

    /// Lets the next of a lane stand among those that are ready, if there is one, and forgets a lane of which nothing is
    /// known.
    fn settle(&mut self, lane: u64) {
        let Entry::Occupied(mut known) = self.lanes.entry(lane) else { return };
        let next = known.get().next();
        if let Some(ready) = std::mem::replace(&mut known.get_mut().ready, next) {
            self.ready.remove(&ready);
        }
        if let Some(next) = next {
            self.ready.insert(next, lane);
        } else if known.get().is_blank() {
            known.remove();
        }
    }

    /// Halves the longest queues while there are too many ids: more than the limit besides one for each lane.
    fn cut_longest(&mut self) {
        while self.ids > self.ids_max + self.lanes.len() {
            let longest = self.lanes.values().map(|lane| lane.queue.len()).max().unwrap_or_default();
            // All that are about as long at once: each look takes a walk.
            let kept = (longest / 2).max(1);
            let mut cut = 0;
            for lane in self.lanes.values_mut().filter(|lane| lane.queue.len() > kept) {
                let rest = lane.queue.split_off(kept);
                cut += rest.len();
                lane.cut = rest.front().copied();
            }
            self.ids -= cut;
            if cut == 0 {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(number: u64) -> EventId {
        EventId::from_uuid(Uuid::from_u128(number.into()))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Offers first attempts of one lane; returns those that are taken.
    fn offer(lanes: &mut Lanes, lane: u64, events: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let take = |event: &u64| lanes.offer(id(*event), lane, None, at(0), true) == Offer::Take;
        events.into_iter().filter(take).collect()
    }

    #[test]
    fn one_of_a_lane_is_under_way_and_others_beside_it() {
        let mut lanes = Lanes::new(OnDead::Continue);
        assert_eq!(offer(&mut lanes, 1, 1..4), [1]);
        assert_eq!(offer(&mut lanes, 2, 4..6), [4]);
        assert!(lanes.take_ready(9, at(0)).is_empty() && lanes.is_awaited(id(1)));
        lanes.end(id(1), HeadEnd::Over);
        assert_eq!(lanes.take_ready(9, at(0)), [id(2)]);
        lanes.end(id(2), HeadEnd::Again(at(5)));
        lanes.end(id(4), HeadEnd::Dead);
        assert_eq!(lanes.take_ready(9, at(4)), [id(5)], "a dead letter lets the next go");
        assert_eq!(lanes.next_due(), Some(at(5)));
        assert_eq!(lanes.take_ready(9, at(5)), [id(2)], "the one that failed comes before the next");
        for event in [2, 5] {
            lanes.end(id(event), HeadEnd::Over);
        }
        assert_eq!(lanes.take_ready(9, at(5)), [id(3)]);
        lanes.end(id(3), HeadEnd::Over);
        assert_eq!((lanes.lanes.len(), lanes.is_idle()), (0, true), "nothing is kept of what is over");
    }

    #[test]
    fn a_dead_letter_stops_what_is_behind_it_until_it_is_sent_again() {
        let mut lanes = Lanes::new(OnDead::Stop);
        assert_eq!(offer(&mut lanes, 1, 2..5), [2]);
        lanes.end(id(2), HeadEnd::Dead);
        assert!(!lanes.has_ready() && lanes.has_stopped());
        assert_eq!(offer(&mut lanes, 1, [1, 5]), [1], "an older one is not behind it");
        lanes.end(id(1), HeadEnd::Over);
        assert_eq!(offer(&mut lanes, 1, [2]), [2], "it is sent again");
        lanes.end(id(2), HeadEnd::Over);
        assert_eq!(lanes.take_ready(1, at(0)), [id(3)]);
    }

    #[test]
    fn an_older_one_that_is_sent_again_comes_before_what_waits_for_its_retry() {
        let mut lanes = Lanes::new(OnDead::Continue);
        offer(&mut lanes, 1, [4, 5]);
        lanes.end(id(4), HeadEnd::Again(at(60)));
        assert_eq!(offer(&mut lanes, 1, [2]), [2]);
        lanes.end(id(2), HeadEnd::Over);
        assert_eq!(lanes.take_ready(1, at(0)), [id(4)], "it is read, which tells when it is due");
        lanes.end(id(4), HeadEnd::Again(at(60)));
        assert!(!lanes.has_ready() && lanes.next_due() == Some(at(60)));
        assert_eq!(lanes.rouse_next(), Some(id(4)), "a probe does not wait");
    }

    #[test]
    fn a_million_behind_one_head_keep_the_others_going_in_little_memory() {
        let mut lanes = Lanes::new(OnDead::Continue);
        assert_eq!(offer(&mut lanes, 1, 0..1_000_000), [0]);
        assert!(lanes.known() <= IDS_MAX);
        assert_eq!(offer(&mut lanes, 2, [1_000_000, 1_000_001]), [1_000_000]);
        lanes.end(id(1_000_000), HeadEnd::Over);
        assert_eq!(lanes.take_ready(1, at(0)), [id(1_000_001)]);
        assert_eq!(lanes.take_cut(), None, "while its head is under way, the cut one needs nothing");
    }

    /// A store of deliveries, each of a lane, as the lanes are to hand them out.
    #[derive(Debug)]
    struct Model {
        pending: BTreeMap<u64, (u64, Option<Timestamp>)>,
        read_to: u64,
    }

    impl Model {
        /// Reads pages until nothing more can be taken, as a backlog does; returns what is taken.
        fn read(&mut self, lanes: &mut Lanes, room: usize, now: Timestamp) -> Vec<u64> {
            let mut taken = Vec::new();
            loop {
                let asked = lanes.take_ready(room - taken.len(), now);
                for event in &asked {
                    let number = u64::try_from(event.uuid().as_u128()).unwrap();
                    match self.pending.get(&number) {
                        None => lanes.end(*event, HeadEnd::Over),
                        Some((_, Some(due))) if *due > now => lanes.end(*event, HeadEnd::Again(*due)),
                        Some(_) => taken.push(number),
                    }
                }
                if !asked.is_empty() {
                    continue;
                }
                if let Some(cut) = lanes.take_cut() {
                    self.read_to = self.read_to.min(u64::try_from(cut.uuid().as_u128()).unwrap());
                }
                let Some((&event, &(lane, due))) = self.pending.range(self.read_to..).next() else { break };
                if taken.len() >= room {
                    break;
                }
                self.read_to = event + 1;
                if lanes.offer(id(event), lane, due, now, true) == Offer::Take {
                    taken.push(event);
                }
            }
            taken
        }
    }

    proptest! {
        /// Deliveries of few lanes are handed out, fail, die and are sent again in any order, with queues that are cut all
        /// the time.
        #[test]
        fn each_lane_comes_in_its_order_and_one_at_a_time(
            lanes_of in prop::collection::vec(0u64..4, 1..60),
            steps in prop::collection::vec((0u8..10, any::<prop::sample::Index>()), 1..200),
            room in 1usize..5,
            stops in any::<bool>(),
        ) {
            let on_dead = if stops { OnDead::Stop } else { OnDead::Continue };
            let mut lanes = Lanes::bounded(on_dead, 3);
            let mut pending: BTreeMap<u64, (u64, Option<Timestamp>)> =
                (1u64..).zip(lanes_of).map(|(event, lane)| (event, (lane, None))).collect();
            let all = pending.clone();
            let mut model = Model { pending: std::mem::take(&mut pending), read_to: 0 };
            let (mut flying, mut dead): (Vec<u64>, BTreeSet<u64>) = (Vec::new(), BTreeSet::new());
            let mut now = at(0);
            // In the end everything is delivered, and what has died is sent again.
            let last = std::iter::repeat_n((9u8, None), 2_000);
            for (step, index) in steps.into_iter().map(|(step, index)| (step, Some(index))).chain(last) {
                now += jiff::SignedDuration::from_secs(1);
                for event in model.read(&mut lanes, room.saturating_sub(flying.len()), now) {
                    let lane = all[&event].0;
                    prop_assert!(!flying.iter().any(|other| all[other].0 == lane), "two of a lane");
                    let older = model.pending.range(..event).find(|(_, (of, _))| *of == lane);
                    prop_assert!(older.is_none(), "{event} before {older:?}");
                    let stop = dead.range(..event).find(|other| all[other].0 == lane);
                    prop_assert!(!stops || stop.is_none(), "{event} behind {stop:?}");
                    flying.push(event);
                }
                let chosen = index.filter(|_| !flying.is_empty()).map(|index| index.index(flying.len()));
                let Some(event) = chosen.or((!flying.is_empty()).then_some(0)).map(|at| flying.remove(at)) else {
                    if step == 9 && let Some(event) = dead.pop_first() {
                        model.pending.insert(event, (all[&event].0, Some(now)));
                        lanes.restart();
                        dead.iter().for_each(|event| if stops { lanes.stop(id(*event), all[event].0) });
                        model.read_to = 0;
                    }
                    continue;
                };
                match step {
                    0..3 => {
                        let due = now + jiff::SignedDuration::from_secs(i64::from(step) * 3);
                        model.pending.get_mut(&event).unwrap().1 = Some(due);
                        lanes.end(id(event), HeadEnd::Again(due));
                    }
                    3 => {
                        model.pending.remove(&event);
                        dead.insert(event);
                        lanes.end(id(event), HeadEnd::Dead);
                    }
                    _ => {
                        model.pending.remove(&event);
                        lanes.end(id(event), HeadEnd::Over);
                    }
                }
                prop_assert!(lanes.ids <= 3 + 4 + 1);
            }
            prop_assert!(model.pending.is_empty() && dead.is_empty(), "left: {model:?} {dead:?}");
            prop_assert_eq!((lanes.lanes.len(), lanes.is_idle()), (0, true));
        }
    }
}

//! Slots for attempts: all that are under way at once, of all subscriptions together, have one each.
//!
//! A lane that has no attempt under way may wait for a slot; further attempts of a lane get one only when one is free and
//! no lane waits. So that hanging targets keep nobody out, an attempt that has lasted longer than its lane's patience
//! gives way when a lane waits: it is put off, uncounted. Its lane then has twice the patience, so that a slow target
//! gets its time in the end; patient lanes together have at most half of the slots, so that the others' turn never
//! takes longer than [`SLICE`] for as many lanes as the other half has slots.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::traffic::lock;

/// How long an attempt may last though a lane waits, and the patience that a lane begins with.
pub(super) const SLICE: Duration = Duration::from_secs(2);
/// How many times in a slice the lanes that wait look for attempts that have lasted too long.
const LOOKS: u32 = 20;

/// The slots.
pub(super) struct Slots {
    state: Mutex<State>,
    max: usize,
    /// The most that patient lanes have.
    patient_max: usize,
    slice: Duration,
}

struct State {
    /// For each slot that was ever needed: how it is taken, and what is told to give way.
    taken: Vec<Option<Taken>>,
    turns: Vec<Arc<Notify>>,
    /// Those of them that are free.
    free: Vec<usize>,
    /// How many are taken by patient lanes.
    patient: usize,
    /// Lanes without a slot, in the order of their coming.
    waiting: VecDeque<Waiter>,
    /// How many of those that are taken have been told to give way.
    told: usize,
    /// When it is looked again for some that have to.
    look: Instant,
}

struct Taken {
    /// Until when it need not give way.
    until: Instant,
    is_patient: bool,
    is_told: bool,
}

struct Waiter {
    patience: Duration,
    give: oneshot::Sender<Slot>,
}

/// The right to make one attempt after the other. Dropping it lets others have it.
pub(super) struct Slot {
    slots: Arc<Slots>,
    index: usize,
    /// Told to give way.
    turn: Arc<Notify>,
    patience: Duration,
}

impl Slots {
    /// Makes `max` slots, at least one.
    pub(super) fn new(max: usize, slice: Duration) -> Arc<Self> {
        let max = max.max(1);
        let state = State {
            taken: Vec::new(),
            turns: Vec::new(),
            free: Vec::new(),
            patient: 0,
            waiting: VecDeque::new(),
            told: 0,
            look: Instant::now(),
        };
        Arc::new(Self { state: Mutex::new(state), max, patient_max: (max / 2).max(1), slice })
    }

    /// Returns the patience that a lane begins with.
    pub(super) fn slice(&self) -> Duration {
        self.slice
    }

    /// Takes a free slot, if there is one and no lane waits for it.
    pub(super) fn try_take(self: &Arc<Self>, patience: Duration) -> Option<Slot> {
        let mut state = lock(&self.state);
        if !state.waiting.is_empty() {
            return None;
        }
        self.take(&mut state, patience)
    }

    fn take(self: &Arc<Self>, state: &mut State, patience: Duration) -> Option<Slot> {
        let is_patient = patience > self.slice;
        if is_patient && state.patient == self.patient_max {
            return None;
        }
        let index = match state.free.pop() {
            Some(index) => index,
            None if state.taken.len() < self.max => {
                state.taken.push(None);
                state.turns.push(Arc::default());
                state.taken.len() - 1
            }
            None => return None,
        };
        state.patient += usize::from(is_patient);
        state.taken[index] = Some(Taken { until: Instant::now() + patience, is_patient, is_told: false });
        let turn = Arc::clone(&state.turns[index]);
        Some(Slot { slots: Arc::clone(self), index, turn, patience })
    }

    /// Waits for a slot: for a lane that has none. Cancel safe, but for its place in the queue.
    pub(super) async fn wait(self: Arc<Self>, patience: Duration) -> Slot {
        let (give, mut given) = oneshot::channel();
        {
            let mut state = lock(&self.state);
            if state.waiting.is_empty()
                && let Some(slot) = self.take(&mut state, patience)
            {
                return slot;
            }
            state.waiting.push_back(Waiter { patience, give });
        }
        // One that is free may fit no lane that waited before.
        self.hand_out();
        loop {
            self.tell_late();
            tokio::select! {
                biased;
                slot = &mut given => return slot.expect("the sender is dropped only with its queue"),
                () = tokio::time::sleep(self.slice / LOOKS) => {}
            }
        }
    }

    /// Gives free slots to the lanes that wait.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let mut state = lock(&self.state);
            if state.free.is_empty() && state.taken.len() == self.max {
                return;
            }
            state.waiting.retain(|waiter| !waiter.give.is_closed());
            let has_room = state.patient < self.patient_max;
            let fits = |waiter: &Waiter| has_room || waiter.patience <= self.slice;
            let Some(place) = state.waiting.iter().position(fits) else { return };
            let patience = state.waiting[place].patience;
            let Some(slot) = self.take(&mut state, patience) else { return };
            let waiter = state.waiting.remove(place).expect("its place has just been found");
            drop(state);
            // One who has just gone away gives it back here.
            drop(waiter.give.send(slot));
        }
    }

    /// Tells attempts that have lasted too long to give way, one for each lane that waits and could use the slot.
    fn tell_late(&self) {
        let (mut state, now) = (lock(&self.state), Instant::now());
        let state = &mut *state;
        // All that wait look: one of them is enough.
        if now < state.look {
            return;
        }
        state.look = now + self.slice / (2 * LOOKS);
        let (patient, others): (Vec<_>, Vec<_>) =
            state.waiting.iter().partition(|waiter| waiter.patience > self.slice);
        let room = self.patient_max - state.patient;
        let mut wanted = (others.len() + patient.len().min(room)).saturating_sub(state.told);
        // These can only follow another patient one.
        let mut wanted_patient = patient.len().saturating_sub(room);
        let untold = |taken: &Option<Taken>| taken.as_ref().is_some_and(|taken| !taken.is_told);
        let mut order: Vec<_> = (0..state.taken.len()).filter(|index| untold(&state.taken[*index])).collect();
        order.sort_by_key(|index| state.taken[*index].as_ref().map(|taken| taken.until));
        for index in order {
            let Some(taken) = &mut state.taken[index] else { continue };
            if taken.until > now {
                return;
            }
            if wanted > 0 {
                wanted -= 1;
            } else if taken.is_patient && wanted_patient > 0 {
                wanted_patient -= 1;
            } else {
                continue;
            }
            taken.is_told = true;
            state.told += 1;
            state.turns[index].notify_one();
        }
    }

    fn is_told(&self, index: usize) -> bool {
        lock(&self.state).taken[index].as_ref().is_some_and(|taken| taken.is_told)
    }
}

impl Slot {
    /// Tells whether it may be used for another attempt: no lane needs it.
    pub(super) fn may_be_kept(&self) -> bool {
        !self.slots.is_told(self.index)
    }

    /// Returns how long an attempt may last though a lane waits.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Awaits `work`, that of an attempt which began at `begun`; `None` when that has to give way.
    pub(super) async fn unless_needed<T>(&self, begun: Instant, work: impl Future<Output = T>) -> Option<T> {
        let needed = async {
            // What its last owner was told does not count.
            while !self.slots.is_told(self.index) {
                self.turn.notified().await;
            }
            // One of many that are quick is no reason to give up the work of the last.
            tokio::time::sleep_until(begun + self.patience).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = needed => None,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let is_wanted = {
            let mut state = lock(&self.slots.state);
            if let Some(taken) = state.taken[self.index].take() {
                state.patient -= usize::from(taken.is_patient);
                state.told -= usize::from(taken.is_told);
            }
            state.free.push(self.index);
            !state.waiting.is_empty()
        };
        if is_wanted {
            self.slots.hand_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::JoinSet;

    use super::*;

    const TEST_SLICE: Duration = Duration::from_millis(60);

    /// Attempts that hang, and give way when they must.
    #[derive(Default)]
    struct Hanging(JoinSet<()>);

    impl Hanging {
        fn begin(&mut self, slots: &Arc<Slots>, patience: Duration) {
            let (slot, begun) = (slots.try_take(patience).unwrap(), Instant::now());
            self.0.spawn(async move {
                let ended = slot.unless_needed(begun, std::future::pending::<()>()).await;
                assert!(ended.is_none() && begun.elapsed() >= patience);
            });
        }

        /// Counts those that have not given way.
        fn left(&mut self) -> usize {
            while let Some(ended) = self.0.try_join_next() {
                ended.unwrap();
            }
            self.0.len()
        }
    }

    #[test]
    fn there_are_as_many_as_may_be_and_a_dropped_one_is_free_again() {
        let slots = Slots::new(2, SLICE);
        let (first, _second) = (slots.try_take(SLICE).unwrap(), slots.try_take(SLICE).unwrap());
        assert!(slots.try_take(SLICE).is_none());
        drop(first);
        assert!(slots.try_take(SLICE).is_some());
    }

    /// Five hundred hanging targets had all attempts, and nobody else had any until they timed out.
    #[tokio::test]
    async fn a_lane_waits_one_slice_for_those_that_hang_however_many_they_are() {
        let (slots, mut hanging) = (Slots::new(512, TEST_SLICE), Hanging::default());
        (0..512).for_each(|_| hanging.begin(&slots, TEST_SLICE));
        let slot = Arc::clone(&slots).wait(TEST_SLICE).await;
        assert!(slot.may_be_kept());
        tokio::task::yield_now().await;
        assert_eq!(hanging.left(), 511, "only one gave way");
    }

    #[tokio::test]
    async fn those_that_hang_are_left_alone_while_no_lane_waits() {
        let (slots, mut hanging) = (Slots::new(2, TEST_SLICE), Hanging::default());
        hanging.begin(&slots, TEST_SLICE);
        tokio::time::sleep(3 * TEST_SLICE).await;
        assert!(slots.try_take(TEST_SLICE).is_some());
        assert_eq!(hanging.left(), 1);
    }

    #[tokio::test]
    async fn patient_lanes_have_at_most_half_and_their_time() {
        let (slots, mut patient) = (Slots::new(4, TEST_SLICE), Hanging::default());
        let patience = 4 * TEST_SLICE;
        (0..2).for_each(|_| patient.begin(&slots, patience));
        assert!(slots.try_take(patience).is_none(), "half of them is taken");
        let others = (slots.try_take(TEST_SLICE).unwrap(), slots.try_take(TEST_SLICE).unwrap());
        // They have lasted longer, but the lane that waits could not use their slots.
        let third = Arc::clone(&slots).wait(patience).await;
        assert!(others.0.may_be_kept() && others.1.may_be_kept());
        tokio::task::yield_now().await;
        assert_eq!(patient.left(), 1);
        drop(third);
    }

    #[tokio::test]
    async fn an_attempt_that_has_just_begun_is_not_given_up_though_its_slot_is_wanted() {
        let slots = Slots::new(1, TEST_SLICE);
        let slot = slots.try_take(TEST_SLICE).unwrap();
        let waiting = Arc::clone(&slots).wait(TEST_SLICE);
        let quick = async {
            while slot.may_be_kept() {
                tokio::time::sleep(TEST_SLICE / 20).await;
            }
            // Its patience would have to pass first.
            let quick = slot.unless_needed(Instant::now() + SLICE, tokio::task::yield_now()).await;
            assert!(quick.is_some());
            drop(slot);
        };
        tokio::join!(waiting, quick);
    }

    #[tokio::test]
    async fn who_waits_no_more_is_passed_over() {
        let slots = Slots::new(1, SLICE);
        let slot = slots.try_take(SLICE).unwrap();
        let mut gone = Box::pin(Arc::clone(&slots).wait(SLICE));
        let mut waiting = Box::pin(Arc::clone(&slots).wait(SLICE));
        assert!((&mut gone).now_or_never().is_none() && (&mut waiting).now_or_never().is_none());
        drop(gone);
        assert!(slots.try_take(SLICE).is_none(), "a lane waits");
        drop(slot);
        assert!(waiting.now_or_never().is_some());
        assert!(slots.try_take(SLICE).is_some());
    }
}

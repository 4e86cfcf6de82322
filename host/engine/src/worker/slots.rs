//! Slots for attempts: each attempt in flight, of any subscription, has one.
//!
//! A worker without an attempt may use any slot, and waits for one if none is free. Further attempts of a worker leave
//! an eighth of the slots free, and get no slot that a waiting worker could use. Hanging targets must not keep
//! other workers out: when a worker waits, an attempt that has lasted longer than its worker's patience gives way,
//! which puts it off uncounted. The patience of its worker then doubles, so that a slow target gets enough time in the
//! end. Patient workers together have at most half of the slots. So the others wait at most [`SLICE`], as long as no
//! more of them wait than the other half has slots.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// How long an attempt may last while a worker waits, and the patience that a worker begins with.
pub const SLICE: Duration = Duration::from_secs(2);
/// How many times per slice overdue attempts are looked for, while workers wait.
const LOOKS: u32 = 20;
/// One in this many slots is reserved for workers without an attempt.
const RESERVE: usize = 8;

/// The slots.
pub struct Slots {
    state: Mutex<State>,
    max: usize,
    /// How many slots are for workers without an attempt.
    reserve: usize,
    /// The most slots of patient workers.
    patient_max: usize,
    slice: Duration,
    /// The tasks of the stage.
    tasks: TaskTracker,
}

struct State {
    /// For each slot that was ever needed: its use, and its signal.
    taken: Vec<Option<SlotUse>>,
    signals: Vec<Arc<Signal>>,
    /// The free ones among them.
    free: Vec<usize>,
    /// How many slots patient workers have.
    patient: usize,
    /// Workers without a slot, in the order of their requests.
    waiting: VecDeque<Waiter>,
    /// How many of the attempts in slots have been told to give way.
    told: usize,
    /// Whether a task looks for overdue attempts.
    is_watched: bool,
}

struct SlotUse {
    /// It need not give way before this time.
    until: Instant,
    is_patient: bool,
}

/// Tells the attempt in a slot to give way.
#[derive(Default)]
struct Signal {
    has_rung: AtomicBool,
    waker: AtomicWaker,
}

struct Waiter {
    patience: Duration,
    give: oneshot::Sender<Slot>,
}

/// The right to make attempts, one after the other. Dropping it frees the slot for others.
pub(super) struct Slot {
    slots: Arc<Slots>,
    index: usize,
    signal: Arc<Signal>,
    patience: Duration,
}

/// A slot with an attempt in it.
#[derive(Clone, Copy)]
pub struct Occupied<'a> {
    slot: &'a Slot,
    since: Instant,
}

impl Slots {
    /// Makes `max` slots, at least one, for many workers.
    pub(crate) fn new(max: usize, slice: Duration, tasks: TaskTracker) -> Arc<Self> {
        Self::with_reserve(max, max / RESERVE, slice, tasks)
    }

    /// Makes `max` slots, at least one, that a single worker may have all at once while no other waits.
    pub fn unreserved(max: usize, tasks: TaskTracker) -> Arc<Self> {
        Self::with_reserve(max, 0, SLICE, tasks)
    }

    fn with_reserve(max: usize, reserve: usize, slice: Duration, tasks: TaskTracker) -> Arc<Self> {
        let max = max.max(1);
        let state = State {
            taken: Vec::new(),
            signals: Vec::new(),
            free: Vec::new(),
            patient: 0,
            waiting: VecDeque::new(),
            told: 0,
            is_watched: false,
        };
        let patient_max = (max / 2).max(1);
        Arc::new(Self { state: Mutex::new(state), max, reserve, patient_max, slice, tasks })
    }

    /// Returns the patience that a worker begins with.
    pub(super) fn slice(&self) -> Duration {
        self.slice
    }

    /// Takes a free slot for a worker, if there is one and no other worker waits for it. `is_first` tells whether the
    /// worker has no attempt in flight.
    pub(super) fn try_take(self: &Arc<Self>, patience: Duration, is_first: bool) -> Option<Slot> {
        let mut state = self.state.lock();
        if !is_first && state.taken.len() - state.free.len() >= self.max - self.reserve {
            return None;
        }
        if state.waiting.iter().any(|waiter| self.fits(&state, waiter)) {
            return None;
        }
        self.take(&mut state, patience)
    }

    /// Tells whether a waiting worker could use any free slot. A patient one may have to wait for another patient
    /// one's.
    fn fits(&self, state: &State, waiter: &Waiter) -> bool {
        waiter.patience <= self.slice || state.patient < self.patient_max
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
                state.signals.push(Arc::default());
                state.taken.len() - 1
            }
            None => return None,
        };
        state.patient += usize::from(is_patient);
        state.taken[index] = Some(SlotUse { until: Instant::now() + patience, is_patient });
        let signal = Arc::clone(&state.signals[index]);
        // A signal to the slot's previous owner does not count.
        signal.has_rung.store(false, Ordering::Relaxed);
        Some(Slot { slots: Arc::clone(self), index, signal, patience })
    }

    /// Waits for a slot, for a worker that has none. Cancel safe, except that the place in the queue is lost.
    pub(super) async fn wait(self: Arc<Self>, patience: Duration) -> Slot {
        let (give, given) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.waiting.is_empty()
                && let Some(slot) = self.take(&mut state, patience)
            {
                return slot;
            }
            state.waiting.push_back(Waiter { patience, give });
            if !state.is_watched {
                state.is_watched = true;
                self.tasks.spawn(Arc::clone(&self).watch());
            }
        }
        // There may be a free slot that no worker that waited before could use.
        self.hand_out();
        given.await.expect("the sender is dropped only with its queue")
    }

    /// Looks for overdue attempts while workers wait.
    async fn watch(self: Arc<Self>) {
        while self.tell_late() {
            tokio::time::sleep(self.slice / LOOKS).await;
        }
    }

    /// Gives free slots to the workers that wait.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            if state.free.is_empty() && state.taken.len() == self.max {
                return;
            }
            state.waiting.retain(|waiter| !waiter.give.is_closed());
            let Some(place) = state.waiting.iter().position(|waiter| self.fits(&state, waiter)) else {
                return;
            };
            let patience = state.waiting[place].patience;
            let Some(slot) = self.take(&mut state, patience) else { return };
            let waiter = state.waiting.remove(place).expect("its place has just been found");
            drop(state);
            // If the waiter has just been dropped, the send fails and frees the slot again.
            drop(waiter.give.send(slot));
        }
    }

    /// Tells overdue attempts to give way, one for each waiting worker that could use the slot. Returns whether workers
    /// wait.
    fn tell_late(&self) -> bool {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let state = &mut *state;
        state.waiting.retain(|waiter| !waiter.give.is_closed());
        state.is_watched = !state.waiting.is_empty();
        let patient = state.waiting.iter().filter(|waiter| waiter.patience > self.slice).count();
        let room = self.patient_max - state.patient;
        let impatient = state.waiting.len() - patient;
        let mut wanted = (impatient + patient.min(room)).saturating_sub(state.told);
        // These can only replace another patient worker.
        let mut wanted_patient = patient.saturating_sub(room);
        let has_rung = |index: usize| state.signals[index].has_rung.load(Ordering::Relaxed);
        let late = |taken: &SlotUse| taken.until <= now;
        let mut order: Vec<_> = (0..state.taken.len())
            .filter(|index| state.taken[*index].as_ref().is_some_and(late) && !has_rung(*index))
            .collect();
        order.sort_by_key(|index| state.taken[*index].as_ref().map(|taken| taken.until));
        for index in order {
            let is_patient = state.taken[index].as_ref().is_some_and(|taken| taken.is_patient);
            if wanted > 0 {
                wanted -= 1;
            } else if is_patient && wanted_patient > 0 {
                wanted_patient -= 1;
            } else {
                continue;
            }
            state.told += 1;
            state.signals[index].ring();
        }
        state.is_watched
    }
}

impl Signal {
    fn ring(&self) {
        self.has_rung.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.has_rung.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Slot {
    /// Tells whether the slot may be used for another attempt because no worker needs it.
    pub(super) fn may_be_kept(&self) -> bool {
        !self.signal.has_rung.load(Ordering::Relaxed)
    }

    /// Returns how long an attempt may last while a worker waits.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Begins an attempt.
    pub(super) fn occupy(&self) -> Occupied<'_> {
        Occupied { slot: self, since: Instant::now() }
    }
}

impl Occupied<'_> {
    /// Returns how long the attempt has lasted.
    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Awaits `work` of the attempt; `None` when the attempt has to give way.
    pub(crate) async fn unless_needed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let done = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.slot.signal.poll(cx).map(|()| None),
        });
        if let Some(done) = done.await {
            return Some(done);
        }
        // The signal may be due to many quick attempts before this one; this one still gets its full patience.
        let patience = Box::pin(tokio::time::sleep_until(self.since + self.slot.patience));
        tokio::select! {
            biased;
            done = work => Some(done),
            () = patience => None,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let is_wanted = {
            let mut state = self.slots.state.lock();
            if let Some(taken) = state.taken[self.index].take() {
                state.patient -= usize::from(taken.is_patient);
                state.told -= usize::from(self.signal.has_rung.load(Ordering::Relaxed));
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

    /// Attempts that hang until they are told to give way.
    #[derive(Default)]
    struct Hanging(JoinSet<()>);

    impl Hanging {
        fn begin(&mut self, slots: &Arc<Slots>, patience: Duration) {
            let slot = slots.try_take(patience, true).unwrap();
            self.0.spawn(async move {
                let occupied = slot.occupy();
                let ended = occupied.unless_needed(std::future::pending::<()>()).await;
                assert!(ended.is_none() && occupied.elapsed() >= patience);
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
        let slots = Slots::new(2, SLICE, TaskTracker::new());
        let (first, _second) = (slots.try_take(SLICE, true).unwrap(), slots.try_take(SLICE, true).unwrap());
        assert!(slots.try_take(SLICE, true).is_none());
        drop(first);
        assert!(slots.try_take(SLICE, true).is_some());
    }

    /// Five hundred hanging targets held all slots, and no other subscription got one until they timed out.
    #[tokio::test]
    async fn a_worker_waits_one_slice_for_those_that_hang_however_many_they_are() {
        let (slots, mut hanging) = (Slots::new(512, TEST_SLICE, TaskTracker::new()), Hanging::default());
        (0..512).for_each(|_| hanging.begin(&slots, TEST_SLICE));
        let slot = Arc::clone(&slots).wait(TEST_SLICE).await;
        assert!(slot.may_be_kept());
        tokio::task::yield_now().await;
        assert_eq!(hanging.left(), 511, "only one gave way");
    }

    #[tokio::test]
    async fn those_that_hang_are_left_alone_while_no_worker_waits() {
        let (slots, mut hanging) = (Slots::new(2, TEST_SLICE, TaskTracker::new()), Hanging::default());
        hanging.begin(&slots, TEST_SLICE);
        tokio::time::sleep(3 * TEST_SLICE).await;
        assert!(slots.try_take(TEST_SLICE, true).is_some());
        assert_eq!(hanging.left(), 1);
    }

    #[tokio::test]
    async fn patient_workers_have_at_most_half_and_their_time() {
        let (slots, mut patient) = (Slots::new(4, TEST_SLICE, TaskTracker::new()), Hanging::default());
        let patience = 4 * TEST_SLICE;
        (0..2).for_each(|_| patient.begin(&slots, patience));
        assert!(slots.try_take(patience, true).is_none(), "half of them is taken");
        let others = (slots.try_take(TEST_SLICE, true).unwrap(), slots.try_take(TEST_SLICE, true).unwrap());
        // They have lasted longer, but the waiting worker could not use their slots.
        let third = Arc::clone(&slots).wait(patience).await;
        assert!(others.0.may_be_kept() && others.1.may_be_kept());
        tokio::task::yield_now().await;
        assert_eq!(patient.left(), 1);
        drop(third);
    }

    #[tokio::test]
    async fn an_attempt_that_has_just_begun_is_not_given_up_though_its_slot_is_wanted() {
        let slots = Slots::new(1, TEST_SLICE, TaskTracker::new());
        let slot = slots.try_take(TEST_SLICE, true).unwrap();
        let waiting = Arc::clone(&slots).wait(TEST_SLICE);
        let quick = async {
            while slot.may_be_kept() {
                tokio::time::sleep(TEST_SLICE / 20).await;
            }
            // Its patience has not passed yet.
            assert!(slot.occupy().unless_needed(tokio::task::yield_now()).await.is_some());
            drop(slot);
        };
        tokio::join!(waiting, quick);
    }

    /// Eight subscriptions of one user held all slots for seconds, and another user's first attempt waited for them.
    #[test]
    fn further_attempts_leave_an_eighth_to_workers_without_any() {
        let slots = Slots::new(16, SLICE, TaskTracker::new());
        let further: Vec<_> = std::iter::from_fn(|| slots.try_take(SLICE, false)).collect();
        assert_eq!(further.len(), 14);
        let first: Vec<_> = std::iter::from_fn(|| slots.try_take(SLICE, true)).collect();
        assert_eq!(first.len(), 2);
    }

    /// One waiting patient worker limited every other worker to one attempt, though half of the slots were free.
    #[tokio::test]
    async fn a_patient_worker_that_waits_for_another_keeps_no_free_slot_from_the_others() {
        let slots = Slots::new(4, SLICE, TaskTracker::new());
        let patience = 2 * SLICE;
        let _patient = (slots.try_take(patience, true).unwrap(), slots.try_take(patience, true).unwrap());
        let mut third = Box::pin(Arc::clone(&slots).wait(patience));
        assert!((&mut third).now_or_never().is_none());
        assert!(slots.try_take(SLICE, false).is_some());
    }

    #[tokio::test]
    async fn a_worker_that_waits_no_more_is_skipped() {
        let slots = Slots::new(1, SLICE, TaskTracker::new());
        let slot = slots.try_take(SLICE, true).unwrap();
        let mut gone = Box::pin(Arc::clone(&slots).wait(SLICE));
        let mut waiting = Box::pin(Arc::clone(&slots).wait(SLICE));
        assert!((&mut gone).now_or_never().is_none() && (&mut waiting).now_or_never().is_none());
        drop(gone);
        assert!(slots.try_take(SLICE, true).is_none(), "a worker waits");
        drop(slot);
        assert!(waiting.now_or_never().is_some());
        assert!(slots.try_take(SLICE, true).is_some());
    }
}

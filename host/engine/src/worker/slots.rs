//! Slots for attempts: each attempt in flight, of any subscription, has one.
//!
//! A worker without an attempt waits for a slot if none is free for it. Further attempts of a worker leave
//! an eighth of the slots free, and get no slot that a waiting worker could use. Hanging targets must not keep
//! other workers out: when a worker waits, an attempt that has lasted longer than its worker's patience gives way,
//! which puts it off uncounted. The patience of its worker then doubles, so that a slow target gets enough time in the
//! end. Patient workers together have at most half of the slots. So the others wait at most [`SLICE`], as long as no
//! more of them wait than the other half has slots.
//!
//! Users share the slots. A free one goes to the waiting worker whose user has the fewest; an attempt gives way only to a
//! worker whose user has no more than its own; and while there is more than one user, an eighth of all slots, and of those of
//! patient workers, is for users without an attempt. So one user's many subscriptions do not queue before another's first.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
/// One in this many slots is reserved for workers, or users, without an attempt.
const RESERVE: usize = 8;

/// The slots.
pub struct Slots {
    state: Mutex<State>,
    max: usize,
    /// How many slots are for workers, or users, without an attempt.
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
    /// The users that have workers.
    owners: HashMap<Arc<str>, Arc<OwnerUse>>,
    /// How many of the attempts in slots have been told to give way.
    told: usize,
    /// Whether a task looks for overdue attempts.
    is_watched: bool,
}

struct SlotUse {
    /// It need not give way before this time.
    until: Instant,
    is_patient: bool,
    owner: Arc<OwnerUse>,
}

/// What a user has; changed under the lock of the state alone.
#[derive(Default)]
struct OwnerUse {
    slots: AtomicUsize,
    workers: AtomicUsize,
}

impl OwnerUse {
    fn slots(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }
}

/// A worker's user.
pub(super) struct Owner {
    slots: Arc<Slots>,
    name: Arc<str>,
    usage: Arc<OwnerUse>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let is_wanted = {
            let mut state = self.slots.state.lock();
            let is_last = self.usage.workers.fetch_sub(1, Ordering::Relaxed) == 1;
            if is_last {
                state.owners.remove(&self.name);
            }
            is_last && !state.waiting.is_empty()
        };
        if is_wanted {
            // The reserve may be for those that are left.
            self.slots.hand_out();
        }
    }
}

/// Tells the attempt in a slot to give way.
#[derive(Default)]
struct Signal {
    has_rung: AtomicBool,
    waker: AtomicWaker,
}

struct Waiter {
    owner: Arc<OwnerUse>,
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
            owners: HashMap::new(),
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

    /// Returns the user of a worker that begins.
    pub(super) fn owner(self: &Arc<Self>, name: &str) -> Owner {
        let mut state = self.state.lock();
        let name =
            state.owners.get_key_value(name).map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
        let usage = Arc::clone(state.owners.entry(Arc::clone(&name)).or_default());
        usage.workers.fetch_add(1, Ordering::Relaxed);
        Owner { slots: Arc::clone(self), name, usage }
    }

    /// Takes a free slot for a worker, if there is one and no other worker waits for it. `is_first` tells whether the
    /// worker has no attempt in flight.
    pub(super) fn try_take(
        self: &Arc<Self>,
        owner: &Owner,
        patience: Duration,
        is_first: bool,
    ) -> Option<Slot> {
        let mut state = self.state.lock();
        if !is_first && state.used() >= self.max - self.reserve {
            return None;
        }
        if state.waiting.iter().any(|waiter| self.fits(&state, waiter)) {
            return None;
        }
        self.take(&mut state, &owner.usage, patience)
    }

    /// Tells whether a waiting worker could use any free slot. A patient one may have to wait for another patient
    /// one's.
    fn fits(&self, state: &State, waiter: &Waiter) -> bool {
        self.may_have(state, &waiter.owner, waiter.patience)
    }

    /// Tells whether a worker of this user could use any free slot.
    fn may_have(&self, state: &State, owner: &OwnerUse, patience: Duration) -> bool {
        let leaves_reserve = owner.slots() > 0 && state.owners.len() > 1;
        let reserve = |of: usize, all: usize| if leaves_reserve { all - of } else { all };
        (patience <= self.slice || state.patient < reserve(self.patient_max / RESERVE, self.patient_max))
            && state.used() < reserve(self.reserve, self.max)
    }

    fn take(self: &Arc<Self>, state: &mut State, owner: &Arc<OwnerUse>, patience: Duration) -> Option<Slot> {
        if !self.may_have(state, owner, patience) {
            return None;
        }
        let is_patient = patience > self.slice;
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
        owner.slots.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + patience;
        state.taken[index] = Some(SlotUse { until, is_patient, owner: Arc::clone(owner) });
        let signal = Arc::clone(&state.signals[index]);
        // A signal to the slot's previous owner does not count.
        signal.has_rung.store(false, Ordering::Relaxed);
        Some(Slot { slots: Arc::clone(self), index, signal, patience })
    }

    /// Waits for a slot, for a worker that has none. Cancel safe, except that the place in the queue is lost.
    pub(super) fn wait(
        self: &Arc<Self>,
        owner: &Owner,
        patience: Duration,
    ) -> impl Future<Output = Slot> + Send + use<> {
        Arc::clone(self).wait_for(Arc::clone(&owner.usage), patience)
    }

    async fn wait_for(self: Arc<Self>, owner: Arc<OwnerUse>, patience: Duration) -> Slot {
        let (give, given) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.waiting.is_empty()
                && let Some(slot) = self.take(&mut state, &owner, patience)
            {
                return slot;
            }
            state.waiting.push_back(Waiter { owner, patience, give });
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

    /// Gives free slots to the workers that wait: those whose users have the fewest first.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            if state.free.is_empty() && state.taken.len() == self.max {
                return;
            }
            state.waiting.retain(|waiter| !waiter.give.is_closed());
            let fitting = state.waiting.iter().enumerate().filter(|(_, waiter)| self.fits(&state, waiter));
            let Some((place, _)) = fitting.min_by_key(|(_, waiter)| waiter.owner.slots()) else { return };
            let (owner, patience) = (Arc::clone(&state.waiting[place].owner), state.waiting[place].patience);
            let Some(slot) = self.take(&mut state, &owner, patience) else { return };
            let waiter = state.waiting.remove(place).expect("its place has just been found");
            drop(state);
            // If the waiter has just been dropped, the send fails and frees the slot again.
            drop(waiter.give.send(slot));
        }
    }

    /// Tells overdue attempts to give way, one for each waiting worker that could use the slot, those of users with the most
    /// slots first. Returns whether workers wait.
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
        order.sort_by_key(|index| {
            state.taken[*index].as_ref().map(|taken| (Reverse(taken.owner.slots()), taken.until))
        });
        let mut askers: Vec<_> = state.waiting.iter().map(|waiter| waiter.owner.slots()).collect();
        askers.sort_unstable();
        let mut askers = askers.into_iter().skip(state.told);
        for index in order {
            let own = state.taken[index].as_ref().map_or(0, |taken| taken.owner.slots());
            let is_patient = state.taken[index].as_ref().is_some_and(|taken| taken.is_patient);
            if wanted > 0 {
                wanted -= 1;
            } else if is_patient && wanted_patient > 0 {
                wanted_patient -= 1;
            } else {
                continue;
            }
            // An attempt gives way only to a worker whose user has no more slots.
            if askers.next().is_none_or(|asker| asker > own) {
                break;
            }
            state.told += 1;
            state.signals[index].ring();
        }
        state.is_watched
    }
}

impl State {
    fn used(&self) -> usize {
        self.taken.len() - self.free.len()
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
                taken.owner.slots.fetch_sub(1, Ordering::Relaxed);
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

    /// Of the one user that there is.
    fn try_take(slots: &Arc<Slots>, patience: Duration, is_first: bool) -> Option<Slot> {
        slots.try_take(&slots.owner("ann"), patience, is_first)
    }

    fn wait(slots: &Arc<Slots>, patience: Duration) -> impl Future<Output = Slot> + Send + use<> {
        slots.wait(&slots.owner("ann"), patience)
    }

    /// Attempts that hang until they are told to give way.
    #[derive(Default)]
    struct Hanging(JoinSet<()>);

    impl Hanging {
        fn begin(&mut self, slots: &Arc<Slots>, patience: Duration) {
            let slot = try_take(slots, patience, true).unwrap();
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
        let (first, _second) =
            (try_take(&slots, SLICE, true).unwrap(), try_take(&slots, SLICE, true).unwrap());
        assert!(try_take(&slots, SLICE, true).is_none());
        drop(first);
        assert!(try_take(&slots, SLICE, true).is_some());
    }

    /// Five hundred hanging targets held all slots, and no other subscription got one until they timed out.
    #[tokio::test]
    async fn a_worker_waits_one_slice_for_those_that_hang_however_many_they_are() {
        let (slots, mut hanging) = (Slots::new(512, TEST_SLICE, TaskTracker::new()), Hanging::default());
        (0..512).for_each(|_| hanging.begin(&slots, TEST_SLICE));
        let slot = wait(&slots, TEST_SLICE).await;
        assert!(slot.may_be_kept());
        tokio::task::yield_now().await;
        assert_eq!(hanging.left(), 511, "only one gave way");
    }

    #[tokio::test]
    async fn those_that_hang_are_left_alone_while_no_worker_waits() {
        let (slots, mut hanging) = (Slots::new(2, TEST_SLICE, TaskTracker::new()), Hanging::default());
        hanging.begin(&slots, TEST_SLICE);
        tokio::time::sleep(3 * TEST_SLICE).await;
        assert!(try_take(&slots, TEST_SLICE, true).is_some());
        assert_eq!(hanging.left(), 1);
    }

    #[tokio::test]
    async fn patient_workers_have_at_most_half_and_their_time() {
        let (slots, mut patient) = (Slots::new(4, TEST_SLICE, TaskTracker::new()), Hanging::default());
        let patience = 4 * TEST_SLICE;
        (0..2).for_each(|_| patient.begin(&slots, patience));
        assert!(try_take(&slots, patience, true).is_none(), "half of them is taken");
        let others =
            (try_take(&slots, TEST_SLICE, true).unwrap(), try_take(&slots, TEST_SLICE, true).unwrap());
        // They have lasted longer, but the waiting worker could not use their slots.
        let third = wait(&slots, patience).await;
        assert!(others.0.may_be_kept() && others.1.may_be_kept());
        tokio::task::yield_now().await;
        assert_eq!(patient.left(), 1);
        drop(third);
    }

    #[tokio::test]
    async fn an_attempt_that_has_just_begun_is_not_given_up_though_its_slot_is_wanted() {
        let slots = Slots::new(1, TEST_SLICE, TaskTracker::new());
        let slot = try_take(&slots, TEST_SLICE, true).unwrap();
        let waiting = wait(&slots, TEST_SLICE);
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
        let further: Vec<_> = std::iter::from_fn(|| try_take(&slots, SLICE, false)).collect();
        assert_eq!(further.len(), 14);
        let first: Vec<_> = std::iter::from_fn(|| try_take(&slots, SLICE, true)).collect();
        assert_eq!(first.len(), 2);
    }

    /// One waiting patient worker limited every other worker to one attempt, though half of the slots were free.
    #[tokio::test]
    async fn a_patient_worker_that_waits_for_another_keeps_no_free_slot_from_the_others() {
        let slots = Slots::new(4, SLICE, TaskTracker::new());
        let patience = 2 * SLICE;
        let _patient = (try_take(&slots, patience, true).unwrap(), try_take(&slots, patience, true).unwrap());
        let mut third = Box::pin(wait(&slots, patience));
        assert!((&mut third).now_or_never().is_none());
        assert!(try_take(&slots, SLICE, false).is_some());
    }

    #[tokio::test]
    async fn a_worker_that_waits_no_more_is_skipped() {
        let slots = Slots::new(1, SLICE, TaskTracker::new());
        let slot = try_take(&slots, SLICE, true).unwrap();
        let mut gone = Box::pin(wait(&slots, SLICE));
        let mut waiting = Box::pin(wait(&slots, SLICE));
        assert!((&mut gone).now_or_never().is_none() && (&mut waiting).now_or_never().is_none());
        drop(gone);
        assert!(try_take(&slots, SLICE, true).is_none(), "a worker waits");
        drop(slot);
        assert!(waiting.now_or_never().is_some());
        assert!(try_take(&slots, SLICE, true).is_some());
    }

    /// A thousand workers of one user waited in front of another's first.
    #[tokio::test]
    async fn a_user_without_a_slot_comes_before_all_workers_of_one_with_many() {
        let slots = Slots::new(16, SLICE, TaskTracker::new());
        let (ann, bob, eve) = (slots.owner("ann"), slots.owner("bob"), slots.owner("eve"));
        let mut anns: Vec<_> = std::iter::from_fn(|| slots.try_take(&ann, SLICE, true)).collect();
        assert_eq!(anns.len(), 14, "an eighth is for the others");
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(slots.wait(&ann, SLICE))).collect();
        assert!(waiting.iter_mut().all(|waiter| waiter.now_or_never().is_none()));
        let _bobs = slots.try_take(&bob, SLICE, true).expect("at once");
        let _eves = slots.try_take(&eve, SLICE, true).expect("at once");
        let mut bobs = Box::pin(slots.wait(&bob, SLICE));
        assert!((&mut bobs).now_or_never().is_none(), "all are taken");
        drop(anns.drain(..3));
        let _second = (&mut bobs).now_or_never().expect("of those that wait, he has the fewest");
        let got = waiting.iter_mut().filter_map(|waiter| waiter.now_or_never()).count();
        assert_eq!(got, 0, "the rest is the reserve again");
    }

    #[tokio::test]
    async fn one_user_alone_has_all_slots() {
        let slots = Slots::new(16, SLICE, TaskTracker::new());
        let ann = slots.owner("ann");
        let all: Vec<_> = std::iter::from_fn(|| slots.try_take(&ann, SLICE, true)).collect();
        assert_eq!(all.len(), 16);
        drop((slots.owner("bob"), all));
        let again: Vec<_> = std::iter::from_fn(|| slots.try_take(&ann, SLICE, true)).collect();
        assert_eq!(again.len(), 16, "the other has no worker any more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_most_gives_way_first_and_nobody_to_one_who_has_more() {
        let slots = Slots::new(4, SLICE, TaskTracker::new());
        let (ann, bob, eve) = (slots.owner("ann"), slots.owner("bob"), slots.owner("eve"));
        // Bob's has lasted longest.
        let bobs = slots.try_take(&bob, SLICE, true).unwrap();
        tokio::time::advance(SLICE / 2).await;
        let anns: Vec<_> = std::iter::from_fn(|| slots.try_take(&ann, SLICE, true)).collect();
        assert_eq!(anns.len(), 3);
        let more = slots.wait(&ann, SLICE);
        let mut more = Box::pin(more);
        assert!((&mut more).now_or_never().is_none());
        tokio::time::advance(SLICE).await;
        tokio::time::sleep(SLICE).await;
        assert!(bobs.may_be_kept(), "ann has three");
        assert!(anns.iter().any(|slot| !slot.may_be_kept()), "one of her own");
        let mut eves = Box::pin(slots.wait(&eve, SLICE));
        assert!((&mut eves).now_or_never().is_none());
        tokio::time::sleep(SLICE).await;
        assert!(bobs.may_be_kept());
        assert_eq!(anns.iter().filter(|slot| !slot.may_be_kept()).count(), 2);
        drop(anns);
        assert!(eves.now_or_never().is_some() && more.now_or_never().is_some());
    }
}

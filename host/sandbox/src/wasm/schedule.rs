//! Schedules guests on the threads of plugins: the next guest is one of the user that has used the least time.
//!
//! A guest runs until it waits for something or until a tick, and then queues for another turn. Each user's time is
//! counted, and the next turn goes to the user with the least, so that many guests of one user get as much time as one
//! guest of another (start-time fair queueing). A user that returns after a pause starts one tick below the others, so
//! it runs next; it saves up no more credit than that. Its guest does not wait for the tick either: those that run are
//! interrupted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::engine::TICK;

/// With more users than this, those without guests are dropped: they have used at most a few ticks more than others.
const USERS_KEPT: usize = 1024;

/// The shortest time between two interruptions: switching guests costs some microseconds.
const INTERRUPTION_MIN: Duration = Duration::from_micros(250);

/// The order in which guests run. Clones share it.
#[derive(Clone)]
pub(super) struct Schedule(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Makes the guests that run yield.
    interrupt: Box<dyn Fn() + Send + Sync>,
}

struct State {
    /// When guests were last interrupted before their tick.
    interrupted: Option<Instant>,
    /// How many more may run at once.
    free: usize,
    /// How many run.
    running: usize,
    /// The virtual time, in nanoseconds: the largest start time of any turn so far.
    now: u64,
    users: HashMap<Arc<str>, User>,
    /// The guests that were granted a turn and have not been polled since.
    called: HashSet<u64>,
    /// The number of the next guest that queues.
    next: u64,
}

#[derive(Default)]
struct User {
    /// The time that the user has used, in nanoseconds.
    had: u64,
    guests: usize,
    /// How many of them run.
    running: usize,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    number: u64,
    waker: Waker,
}

/// One guest's place in the order.
pub(super) struct Seat {
    schedule: Schedule,
    user: Arc<str>,
    state: SeatState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SeatState {
    /// It does not ask to run.
    Idle,
    /// It queues, with this number.
    Waiting(u64),
    Running,
}

/// The time that a turn is charged in advance, until its length is known.
const TURN_NANOS: u64 = TICK.subsec_nanos() as u64;

/// The least used time of a user that returns after a pause.
fn rested(now: u64) -> u64 {
    now.saturating_sub(TURN_NANOS)
}

impl Schedule {
    /// Makes a schedule that runs so many guests at once; `interrupt` makes those that run yield.
    pub(super) fn new(threads: usize, interrupt: impl Fn() + Send + Sync + 'static) -> Self {
        let (users, called) = (HashMap::new(), HashSet::new());
        let state =
            State { interrupted: None, free: threads.max(1), running: 0, now: 0, users, called, next: 0 };
        Self(Arc::new(Shared { state: Mutex::new(state), interrupt: Box::new(interrupt) }))
    }

    /// Adds a guest of a user.
    pub(super) fn seat(&self, user: &str) -> Seat {
        let user: Arc<str> = Arc::from(user);
        let mut state = self.lock();
        if state.users.len() > USERS_KEPT {
            state.users.retain(|_, user| user.guests > 0);
        }
        state.users.entry(Arc::clone(&user)).or_default().guests += 1;
        drop(state);
        Seat { schedule: self.clone(), user, state: SeatState::Idle }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells whether guests may be interrupted now, and takes note of it.
    fn may_interrupt(&mut self) -> bool {
        let is_over = |last: Instant| last.elapsed() >= INTERRUPTION_MIN;
        let may = self.interrupted.is_none_or(is_over);
        if may {
            self.interrupted = Some(Instant::now());
        }
        may
    }

    /// Charges a user for a turn that begins now.
    fn begin(&mut self, user: &Arc<str>) {
        let Some(known) = self.users.get_mut(user) else { return };
        known.running += 1;
        self.running += 1;
        known.had = known.had.max(rested(self.now));
        self.now = self.now.max(known.had);
        known.had += TURN_NANOS;
    }

    /// Charges a user for a turn's real length, and grants the next turn.
    fn end(&mut self, user: &Arc<str>, nanos: u64) {
        self.running = self.running.saturating_sub(1);
        if let Some(known) = self.users.get_mut(user) {
            known.running = known.running.saturating_sub(1);
            known.had = known.had.saturating_sub(TURN_NANOS).saturating_add(nanos);
        }
        let waiting = self.users.iter().filter_map(|(name, user)| {
            let first = user.waiting.front()?;
            // Users that return after a pause are equal: the one that has queued longest goes first.
            Some(((user.had.max(rested(self.now)), first.number), name))
        });
        let Some((_, user)) = waiting.min_by_key(|(order, _)| *order) else {
            self.free += 1;
            return;
        };
        let user = Arc::clone(user);
        let first = self.users.get_mut(&user).and_then(|user| user.waiting.pop_front());
        if let Some(Waiter { number, waker }) = first {
            self.begin(&user);
            self.called.insert(number);
            waker.wake();
        }
    }
}

impl Seat {
    /// Waits for this guest's turn.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.schedule.lock();
        match self.state {
            SeatState::Running => return Poll::Ready(()),
            SeatState::Waiting(number) => {
                if state.called.remove(&number) {
                    self.state = SeatState::Running;
                    return Poll::Ready(());
                }
                let known = state.users.get_mut(&self.user);
                let own = known.and_then(|user| user.waiting.iter_mut().find(|own| own.number == number));
                if let Some(own) = own {
                    own.waker.clone_from(cx.waker());
                }
                return Poll::Pending;
            }
            SeatState::Idle => {}
        }
        if state.free > 0 {
            state.free -= 1;
            state.begin(&self.user);
            self.state = SeatState::Running;
            return Poll::Ready(());
        }
        let number = state.next;
        state.next += 1;
        let waiting = Waiter { number, waker: cx.waker().clone() };
        let (now, running) = (state.now, state.running);
        let user = state.users.entry(Arc::clone(&self.user)).or_default();
        let is_ahead = user.waiting.is_empty() && user.had.max(rested(now)) < now && user.running < running;
        user.waiting.push_back(waiting);
        self.state = SeatState::Waiting(number);
        if is_ahead && state.may_interrupt() {
            (self.schedule.0.interrupt)();
        }
        Poll::Pending
    }

    /// Ends this guest's turn, in which it ran for `ran`.
    pub(super) fn end_turn(&mut self, ran: Duration) {
        if self.state == SeatState::Running {
            self.state = SeatState::Idle;
            let nanos = u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX);
            self.schedule.lock().end(&self.user, nanos);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.schedule.lock();
        match self.state {
            SeatState::Idle => {}
            SeatState::Running => state.end(&self.user, TURN_NANOS),
            SeatState::Waiting(number) => {
                if state.called.remove(&number) {
                    state.end(&self.user, 0);
                } else if let Some(known) = state.users.get_mut(&self.user) {
                    known.waiting.retain(|waiting| waiting.number != number);
                }
            }
        }
        let now = state.now;
        if let Some(known) = state.users.get_mut(&self.user) {
            known.guests -= 1;
            if known.guests == 0 && known.had <= rested(now) {
                state.users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(100);

    fn ask(seat: &mut Seat) -> bool {
        seat.poll_turn(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// With six users whose guests spin, a seventh user's guest waited for all of them.
    #[test]
    fn the_user_with_the_least_time_runs_next() {
        let schedule = Schedule::new(1, || ());
        let mut spinners: Vec<_> = (0..6).map(|user| schedule.seat(&format!("spinner {user}"))).collect();
        for _ in 0..10 {
            for seat in &mut spinners {
                let is_first = ask(seat);
                if is_first {
                    seat.end_turn(TICK);
                }
            }
        }
        assert!(ask(&mut spinners[0]));
        for seat in &mut spinners[1..] {
            assert!(!ask(seat));
        }
        let mut quick = schedule.seat("quick");
        assert!(!ask(&mut quick));
        spinners[0].end_turn(TICK);
        assert!(ask(&mut quick), "it has had nothing yet");
        quick.end_turn(SHORT);
        assert!(!ask(&mut spinners[0]));
    }

    /// A guest waited for the tick of those that spun.
    #[test]
    fn only_a_user_with_less_time_than_those_that_run_interrupts_them() {
        let interruptions = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&interruptions);
        let schedule = Schedule::new(1, move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let so_far = || interruptions.load(std::sync::atomic::Ordering::Relaxed);
        let (mut one, mut two) = (schedule.seat("spinner"), schedule.seat("spinner"));
        assert!(ask(&mut one) && !ask(&mut two));
        one.end_turn(20 * TICK);
        assert!(ask(&mut two) && !ask(&mut one));
        assert_eq!(so_far(), 0, "they are one user's");
        let mut quick = schedule.seat("quick");
        assert!(!ask(&mut quick));
        assert_eq!(so_far(), 1);
        let mut again = schedule.seat("also quick");
        assert!(!ask(&mut again));
        assert_eq!(so_far(), 1, "it has just been done");
    }

    #[test]
    fn many_guests_of_one_user_get_as_much_as_one_of_another() {
        let schedule = Schedule::new(1, || ());
        let mut seats: Vec<_> = (0..9).map(|_| schedule.seat("many")).collect();
        seats.push(schedule.seat("one"));
        let mut turns = (0, 0);
        let mut is_asking = vec![false; seats.len()];
        for _ in 0..1000 {
            for (place, seat) in seats.iter_mut().enumerate() {
                is_asking[place] = !ask(seat);
            }
            let running = is_asking.iter().position(|is_asking| !is_asking).expect("one runs");
            if running == 9 {
                turns.1 += 1
            } else {
                turns.0 += 1
            }
            seats[running].end_turn(TICK);
        }
        assert!((495..=505).contains(&turns.1), "{turns:?}");
    }

    #[test]
    fn a_guest_that_goes_leaves_its_turn_to_others() {
        let schedule = Schedule::new(1, || ());
        let (mut one, mut two, mut three) = (schedule.seat("a"), schedule.seat("b"), schedule.seat("c"));
        assert!(ask(&mut one) && !ask(&mut two) && !ask(&mut three));
        drop(two);
        drop(one);
        // It has been granted a turn but was not polled since.
        drop(three);
        assert!(ask(&mut schedule.seat("d")));
        let state = schedule.lock();
        assert_eq!((state.free, state.called.len()), (1, 0));
        assert!(state.users.values().all(|user| user.guests == 0 && user.waiting.is_empty()));
    }

    #[test]
    fn no_user_saves_up_time() {
        let schedule = Schedule::new(1, || ());
        let (mut busy, mut rested) = (schedule.seat("busy"), schedule.seat("rested"));
        for _ in 0..100 {
            assert!(ask(&mut busy));
            busy.end_turn(TICK);
        }
        let mut turns = 0;
        for _ in 0..20 {
            if ask(&mut busy) {
                ask(&mut rested);
                busy.end_turn(TICK);
            } else if ask(&mut rested) {
                turns += 1;
                rested.end_turn(TICK);
            }
        }
        assert!((9..=11).contains(&turns), "{turns} of 20");
    }
}

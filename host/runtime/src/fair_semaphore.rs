//! Units that users share, handed out user by user, so that one user cannot keep the others waiting.
//!
//! A user without a permit may use all units. Further permits of the same user come from the first half of the units,
//! which all users share. Waiting users are served in the order of the units that they hold, the fewest first, so one
//! user's queue delays another user by one permit at most.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Units that users share. Its clones are the same.
#[derive(Clone)]
pub struct FairSemaphore(Arc<Mutex<State>>);

struct State {
    units: usize,
    own_max: usize,
    used: usize,
    users: HashMap<Arc<str>, User>,
    /// The waiting users, in the order in which they began to wait.
    order: VecDeque<Arc<str>>,
}

#[derive(Default)]
struct User {
    /// The units that the user holds, and the number of permits they belong to.
    used: usize,
    permits: usize,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    weight: usize,
    tell: oneshot::Sender<FairPermit>,
}

/// A wait for a permit. When it is cancelled, those behind it move up.
struct Wait<'a> {
    of: &'a FairSemaphore,
    told: oneshot::Receiver<FairPermit>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.told.close();
        // A permit that came this very moment goes back by its own drop, which needs the lock.
        drop(self.told.try_recv());
        let mut state = self.of.lock();
        if !state.order.is_empty() {
            state.next(self.of);
        }
    }
}

/// A user's right to some units, until it is dropped.
pub struct FairPermit {
    user: Arc<str>,
    weight: usize,
    /// Nothing once it has been taken back.
    of: Option<FairSemaphore>,
}

impl FairSemaphore {
    /// Makes so many units, of which a user has at most `own_max` permits at once.
    pub fn new(units: usize, own_max: usize) -> Self {
        let (users, order) = (HashMap::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(State { units, own_max, used: 0, users, order })))
    }

    /// Waits for a user's permit, which has `weight` units, or all of them where that is more. Cancel safe: a dropped
    /// future has no permit and waits no more.
    pub async fn take(&self, user: &str, weight: usize) -> FairPermit {
        self.take_among(user, weight, usize::MAX).await.expect("nobody has so many")
    }

    /// Does the same, unless the user has and waits for `most` permits already: then `None` at once.
    pub async fn take_among(&self, user: &str, weight: usize, most: usize) -> Option<FairPermit> {
        let told = {
            let mut state = self.lock();
            if state.permits(user) >= most {
                return None;
            }
            let weight = weight.min(state.units);
            if state.order.is_empty() && state.fits(user, weight) {
                return Some(state.give(self, Arc::from(user), weight));
            }
            let (tell, told) = oneshot::channel();
            state.wait(user, Waiter { weight, tell });
            state.next(self);
            told
        };
        let mut wait = Wait { of: self, told };
        Some((&mut wait.told).await.expect("a waiter goes only with its turn"))
    }

    /// Returns how many permits a user has and waits for, to say so: [`Self::take_among`] decides by it.
    pub fn of(&self, user: &str) -> usize {
        self.lock().permits(user)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns how many permits a user has and waits for.
    fn permits(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, |user| {
            let waiting = user.waiting.iter().filter(|waiter| !waiter.tell.is_closed());
            user.permits + waiting.count()
        })
    }

    fn fits(&self, user: &str, weight: usize) -> bool {
        let free = self.units - self.used;
        let permits = self.users.get(user).map_or(0, |user| user.permits);
        weight <= free && permits < self.own_max && (permits == 0 || self.is_in_first_half(weight))
    }

    /// Tells whether the second half stays free for users without a permit when `more` units are taken.
    fn is_in_first_half(&self, more: usize) -> bool {
        self.used.saturating_add(more) <= self.units / 2
    }

    fn give(&mut self, of: &FairSemaphore, user: Arc<str>, weight: usize) -> FairPermit {
        let known = self.users.entry(Arc::clone(&user)).or_default();
        known.used += weight;
        known.permits += 1;
        self.used += weight;
        FairPermit { user, weight, of: Some(of.clone()) }
    }

    fn take_back(&mut self, user: &Arc<str>, weight: usize) {
        self.used -= weight;
        let Some(known) = self.users.get_mut(user) else { return };
        known.used -= weight;
        known.permits -= 1;
        if known.permits == 0 && known.waiting.is_empty() {
            self.users.remove(user);
        }
    }

    fn wait(&mut self, user: &str, waiter: Waiter) {
        let user: Arc<str> = Arc::from(user);
        let known = self.users.entry(Arc::clone(&user)).or_default();
        if known.waiting.is_empty() {
            self.order.push_back(user);
        }
        known.waiting.push_back(waiter);
    }

    /// Gives permits to waiting users while there are units.
    fn next(&mut self, of: &FairSemaphore) {
        self.forget_gone();
        while let Some(unit) = self.first() {
            let Some(user) = self.order.remove(unit) else { return };
            let Some(known) = self.users.get_mut(&user) else { return };
            let Some(Waiter { weight, tell }) = known.waiting.pop_front() else { return };
            if !known.waiting.is_empty() {
                self.order.push_back(Arc::clone(&user));
            }
            if let Err(mut unwanted) = tell.send(self.give(of, Arc::clone(&user), weight)) {
                // It has gone this very moment. The permit's drop would wait for the lock that is held here.
                unwanted.of = None;
                self.take_back(&user, weight);
            }
        }
    }

    /// Drops the waiters that were cancelled: a heavy one would block the others until its weight was free.
    fn forget_gone(&mut self) {
        let users = &mut self.users;
        self.order.retain(|user| {
            let Some(known) = users.get_mut(user) else { return false };
            known.waiting.retain(|waiter| !waiter.tell.is_closed());
            let (waits, has_turns) = (!known.waiting.is_empty(), known.permits > 0);
            if !waits && !has_turns {
                users.remove(user);
            }
            waits
        });
    }

    /// Returns the position in `order` of the user to serve next, if that user's permit fits now.
    fn first(&self) -> Option<usize> {
        let mut order: Vec<_> = self.order.iter().enumerate().collect();
        order.sort_by_key(|(unit, user)| (self.users.get(*user).map_or(0, |user| user.used), *unit));
        for (unit, user) in order {
            let known = self.users.get(user)?;
            let weight = known.waiting.front()?.weight;
            if self.fits(user, weight) {
                return Some(unit);
            }
            if known.permits == 0 {
                // This user needs more than is free. Serving lighter waiters first would starve it.
                return None;
            }
        }
        None
    }
}

impl FairPermit {
    /// Takes more units, if they are free and this user may have them; a user's only permit may have all that is free.
    pub fn grow(&mut self, more: usize) -> bool {
        let Some(of) = &self.of else { return false };
        let mut state = of.lock();
        let (free, is_in_first_half) = (state.units - state.used, state.is_in_first_half(more));
        let Some(known) = state.users.get_mut(&self.user) else { return false };
        if more > free || (known.permits > 1 && !is_in_first_half) {
            return false;
        }
        known.used += more;
        state.used += more;
        drop(state);
        self.weight += more;
        true
    }

    /// Returns how many units it has.
    pub fn weight(&self) -> usize {
        self.weight
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        let Some(of) = self.of.take() else { return };
        let mut state = of.lock();
        state.take_back(&self.user, self.weight);
        if !state.order.is_empty() {
            state.next(&of);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Each further user took half of what was left: four had all eight units, and a fifth waited for them.
    #[test]
    fn a_user_without_any_turn_finds_one_however_many_the_others_want() {
        let permits = FairSemaphore::new(8, 8);
        let now = |user: &str| permits.take(user, 1).now_or_never();
        let mut held = Vec::new();
        for (user, most) in [("ann", 4), ("bob", 1), ("dan", 1), ("fay", 1)] {
            let own: Vec<_> = (0..8).map_while(|_| now(user)).collect();
            assert_eq!(own.len(), most, "{user}");
            held.extend(own);
        }
        held.push(now("eve").expect("the last place is for one who has none"));
        drop(held.drain(..4));
        assert!(now("bob").is_none(), "four places are taken: the first half");
        drop(held.pop());
        assert!(now("bob").is_some());
        drop(held);
        assert!(permits.lock().users.is_empty() && permits.lock().used == 0);
    }

    #[tokio::test]
    async fn one_users_queue_delays_another_by_one_turn() {
        let permits = FairSemaphore::new(1, 1);
        let first = permits.take("eve", 1).await;
        let mut queue: Vec<_> = ["eve", "eve", "eve", "ann", "bob", "ann"]
            .into_iter()
            .map(|user| (user, Box::pin(permits.take(user, 1))))
            .collect();
        for (_, waiting) in &mut queue {
            assert!(waiting.now_or_never().is_none());
        }
        // A waiter that goes takes no permit with it.
        drop(queue.remove(0));
        let (mut held, mut came) = (Some(first), Vec::new());
        while !queue.is_empty() {
            drop(held.take());
            let mut ready = None;
            for (unit, (user, waiting)) in queue.iter_mut().enumerate() {
                if let Some(permit) = waiting.now_or_never() {
                    assert!(ready.is_none(), "there is one place");
                    ready = Some((unit, *user, permit));
                }
            }
            let (unit, user, permit) = ready.expect("somebody comes");
            drop(queue.remove(unit));
            came.push(user);
            held = Some(permit);
        }
        assert_eq!(came, ["eve", "ann", "bob", "eve", "ann"]);
    }

    #[test]
    fn a_turn_that_was_given_and_never_taken_goes_back() {
        let permits = FairSemaphore::new(1, 1);
        let first = permits.take("ann", 1).now_or_never();
        let mut waiting = Box::pin(permits.take("bob", 1));
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        drop(waiting);
        assert!(permits.take("eve", 1).now_or_never().is_some());
    }

    #[test]
    fn a_heavy_turn_is_not_overtaken_for_ever() {
        let permits = FairSemaphore::new(10, 10);
        let light = permits.take("ann", 5).now_or_never();
        let mut heavy = Box::pin(permits.take("bob", 8));
        assert!((&mut heavy).now_or_never().is_none());
        let mut other = Box::pin(permits.take("eve", 1));
        assert!((&mut other).now_or_never().is_none(), "it would keep the heavy one waiting");
        drop(light);
        assert_eq!((&mut heavy).now_or_never().map(|permit| permit.weight()), Some(8));
        assert!((&mut other).now_or_never().is_some());
    }

    /// Those who came at the same time were each told that there was room for one more.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_of_one_user_wait_than_may_however_they_come() {
        for _ in 0..200 {
            let permits = FairSemaphore::new(1, 1);
            let _held = permits.take("ann", 1).await;
            let mut coming = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let permits = permits.clone();
                coming.spawn(async move { permits.take_among("ann", 1, 4).await.is_none() });
            }
            for _ in 0..5 {
                assert!(coming.join_next().await.unwrap().unwrap(), "it waits for nothing");
            }
            assert_eq!(permits.of("ann"), 4);
        }
    }

    /// A cancelled waiter still blocked the queue: no other user got a permit until its weight was free.
    #[test]
    fn a_heavy_one_that_has_gone_keeps_nobody_waiting() {
        let permits = FairSemaphore::new(10, 10);
        let light = permits.take("ann", 5).now_or_never();
        let mut heavy = Box::pin(permits.take("bob", 8));
        assert!((&mut heavy).now_or_never().is_none());
        assert_eq!(permits.of("bob"), 1);
        drop(heavy);
        assert_eq!(permits.of("bob"), 0);
        assert!(permits.take("eve", 1).now_or_never().is_some());
        drop(light);
        assert!(permits.lock().users.is_empty() && permits.lock().used == 0);
    }

    /// They came only when the next permit was asked for or given back.
    #[test]
    fn those_who_wait_behind_one_that_goes_come_at_once() {
        let permits = FairSemaphore::new(10, 10);
        let light = permits.take("ann", 5).now_or_never();
        let mut heavy = Box::pin(permits.take("bob", 8));
        assert!((&mut heavy).now_or_never().is_none());
        let mut behind = Box::pin(permits.take("eve", 1));
        assert!((&mut behind).now_or_never().is_none());
        drop(heavy);
        assert!((&mut behind).now_or_never().is_some());
        drop((light, behind));
        assert!(permits.lock().users.is_empty() && permits.lock().used == 0);
    }

    #[test]
    fn a_turn_grows_as_long_as_others_can_come() {
        let permits = FairSemaphore::new(100, 10);
        let mut only = permits.take("ann", 10).now_or_never().unwrap();
        assert!(only.grow(80) && !only.grow(11) && only.weight() == 90);
        drop(only);
        let (mut one, two) = (permits.take("ann", 10).now_or_never(), permits.take("ann", 10).now_or_never());
        let one = one.as_mut().unwrap();
        assert!(!one.grow(31) && one.grow(30), "two of one user leave half");
        drop(two);
        assert!(permits.take("bob", 100).now_or_never().is_none());
    }
}

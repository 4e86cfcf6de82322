//! The order in which recoveries, or jobs, take their next steps.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use tokio::time::Instant;

/// What takes turns: a recovery or a job.
pub(crate) trait Scheduled {
    /// Tells those apart that do not replace each other.
    type Key: Copy + Eq + Hash + Send + Sync;

    /// Returns its key.
    fn key(&self) -> Self::Key;

    /// Tells whether it is not over.
    fn is_running(&self) -> bool;
}

/// Running recoveries, or jobs, by the time of their next turn; those of the same time in the order in which they were added.
#[derive(Debug)]
pub(crate) struct Schedule<T: Scheduled> {
    waiting: BTreeMap<(Instant, u64), T>,
    places: HashMap<T::Key, (Instant, u64)>,
    last: u64,
}

impl<T: Scheduled> Default for Schedule<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), places: HashMap::new(), last: 0 }
    }
}

impl<T: Scheduled> Schedule<T> {
    /// Schedules one for this time, in place of the earlier one of its key; one that is over is not scheduled.
    pub(crate) fn put(&mut self, at: Instant, one: T) {
        if let Some(place) = self.places.remove(&one.key()) {
            self.waiting.remove(&place);
        }
        if one.is_running() {
            self.last += 1;
            self.places.insert(one.key(), (at, self.last));
            self.waiting.insert((at, self.last), one);
        }
    }

    /// Returns when the next turn is.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the one whose turn is next.
    pub(crate) fn next(&mut self) -> Option<T> {
        let (_, one) = self.waiting.pop_first()?;
        self.places.remove(&one.key());
        Some(one)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use waypost_domain::recovery::State;
    use waypost_domain::{Recovery, SubscriptionId};
    use waypost_runtime::clock;

    fn recovery(number: u128) -> Recovery {
        let subscription = SubscriptionId::from_uuid(Uuid::from_u128(number));
        Recovery::new(subscription, None, None, number.to_string(), clock::now())
    }

    #[test]
    fn those_who_go_on_take_turns_and_those_who_wait_come_later() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        (1..=3).for_each(|number| schedule.put(now, recovery(number)));
        let mut order = String::new();
        for turn in 1..8 {
            let next = schedule.next().unwrap();
            order.push_str(&next.by);
            let wait = if next.by == "2" { 5 } else { 0 };
            schedule.put(now + Duration::from_secs(turn + wait), next);
        }
        assert_eq!(order, "1231313");
        assert_eq!(schedule.next_at(), Some(now + Duration::from_secs(6)));
    }

    /// A recovery that is cancelled and requested again, over and over, must not accumulate entries.
    #[test]
    fn a_subscription_has_one_turn_and_none_when_its_recovery_is_over() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.put(now + Duration::from_secs(9), recovery(1));
        schedule.put(now, recovery(1));
        assert_eq!((schedule.next_at(), schedule.waiting.len()), (Some(now), 1));
        schedule.put(now, Recovery { state: State::Cancelled { at: clock::now() }, ..recovery(1) });
        assert_eq!((schedule.next_at(), schedule.places.len()), (None, 0));
        schedule.put(now, recovery(1));
        assert!(schedule.next().is_some() && schedule.next().is_none() && schedule.places.is_empty());
    }
}

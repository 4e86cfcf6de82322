//! The order in which recoveries take their next steps.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use waypost_domain::{Recovery, SubscriptionId};

/// Running recoveries by the time of their next turn; those of the same time in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    waiting: BTreeMap<(Instant, u64), Recovery>,
    places: HashMap<SubscriptionId, (Instant, u64)>,
    last: u64,
}

impl Schedule {
    /// Schedules a recovery for this time, in place of its subscription's earlier one; one that is over is not
    /// scheduled.
    pub(super) fn put(&mut self, at: Instant, recovery: Recovery) {
        if let Some(place) = self.places.remove(&recovery.subscription) {
            self.waiting.remove(&place);
        }
        if recovery.is_running() {
            self.last += 1;
            self.places.insert(recovery.subscription, (at, self.last));
            self.waiting.insert((at, self.last), recovery);
        }
    }

    /// Returns when the next turn is.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the recovery whose turn is next.
    pub(super) fn next(&mut self) -> Option<Recovery> {
        let (_, recovery) = self.waiting.pop_first()?;
        self.places.remove(&recovery.subscription);
        Some(recovery)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use waypost_domain::recovery::State;
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

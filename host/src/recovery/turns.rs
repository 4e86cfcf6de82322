//! Whose turn it is.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::domain::Recovery;

/// Running recoveries by the time of their next turn; those of one time in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: BTreeMap<(Instant, u64), Recovery>,
    last: u64,
}

impl Turns {
    /// Adds a recovery whose turn is at this time.
    pub(super) fn put(&mut self, at: Instant, recovery: Recovery) {
        self.last += 1;
        self.waiting.insert((at, self.last), recovery);
    }

    /// Adds recoveries whose turn is at this time.
    pub(super) fn extend(&mut self, recoveries: Vec<Recovery>, at: Instant) {
        recoveries.into_iter().for_each(|recovery| self.put(at, recovery));
    }

    /// Returns when the next turn is.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the recovery whose turn is next.
    pub(super) fn next(&mut self) -> Option<Recovery> {
        self.waiting.pop_first().map(|(_, recovery)| recovery)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::domain::SubscriptionId;

    fn recovery(by: &str) -> Recovery {
        Recovery::new(SubscriptionId::NIL, None, None, by.to_owned(), clock::now())
    }

    #[test]
    fn those_who_go_on_take_turns_and_those_who_wait_come_later() {
        let now = Instant::now();
        let mut turns = Turns::default();
        turns.extend(["a", "b", "c"].map(recovery).to_vec(), now);
        let mut order = String::new();
        for turn in 1..8 {
            let next = turns.next().unwrap();
            order.push_str(&next.by);
            let wait = if next.by == "b" { 5 } else { 0 };
            turns.put(now + Duration::from_secs(turn + wait), next);
        }
        assert_eq!(order, "abcacac");
        assert_eq!(turns.next_at(), Some(now + Duration::from_secs(6)));
    }
}

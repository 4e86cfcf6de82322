//! The times at which idle recipients have a delivery due.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::supervisor::SWEEP;
use waypost_domain::RecipientId;
use waypost_runtime::clock;

/// The times at which recipients without a worker are to be woken, by the wall clock.
#[derive(Default)]
pub(super) struct Timetable {
    times: HashMap<RecipientId, Timestamp>,
    order: BTreeSet<(Timestamp, RecipientId)>,
}

impl Timetable {
    pub(super) fn set(&mut self, recipient: RecipientId, due: Timestamp) {
        self.remove(recipient);
        self.times.insert(recipient, due);
        self.order.insert((due, recipient));
    }

    pub(super) fn remove(&mut self, recipient: RecipientId) {
        if let Some(due) = self.times.remove(&recipient) {
            self.order.remove(&(due, recipient));
        }
    }

    pub(super) fn contains(&self, recipient: RecipientId) -> bool {
        self.times.contains_key(&recipient)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes the recipients that are due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<RecipientId> {
        let mut taken = Vec::new();
        while self.order.first().is_some_and(|(due, _)| *due <= now)
            && let Some((_, recipient)) = self.order.pop_first()
        {
            self.times.remove(&recipient);
            taken.push(recipient);
        }
        taken
    }

    /// Waits until a recipient may be due. The wait is short because the wall clock may jump: a long one could miss its
    /// time. Cancel safe.
    pub(super) async fn wait(&self) {
        let Some((due, _)) = self.order.first() else { return std::future::pending().await };
        let wait = Duration::try_from(due.duration_since(clock::now())).unwrap_or_default();
        tokio::time::sleep(wait.min(SWEEP)).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn what_is_due_is_taken_once_in_its_order_and_a_later_time_replaces_an_earlier_one() {
        let [a, b, c] = [1, 2, 3].map(|number| RecipientId::from_uuid(Uuid::from_u128(number)));
        let mut timetable = Timetable::default();
        for (recipient, due) in [(a, 1), (b, 2), (c, 0), (a, 5)] {
            timetable.set(recipient, at(due));
        }
        timetable.remove(c);
        timetable.set(c, at(3));
        assert!(timetable.take_due(at(1)).is_empty());
        assert_eq!(timetable.take_due(at(4)), [b, c]);
        assert!(timetable.contains(a) && !timetable.contains(b));
        assert_eq!(timetable.take_due(at(5)), [a]);
        assert!(timetable.wait().now_or_never().is_none(), "nothing is in it");
    }
}

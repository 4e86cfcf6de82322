//! Event ids that only ever grow, whatever the clock does.

use jiff::Timestamp;
use uuid::{ContextV7, Uuid};

use crate::domain::EventId;

/// Makes UUIDv7s (RFC 9562 §5.7) above every one made before, also above those of an earlier run.
pub(super) struct Ids {
    context: ContextV7,
    floor_millis: u64,
}

impl Ids {
    /// Begins above `last`, the largest id in the log.
    pub(super) fn above(last: Option<EventId>) -> Self {
        let floor_millis = last.map_or(0, |id| millis(id) + 1);
        Self { context: ContextV7::new(), floor_millis }
    }

    /// Returns the next id, at `now` or as soon after it as keeps the order.
    pub(super) fn next(&mut self, now: Timestamp) -> EventId {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0).max(self.floor_millis);
        let nanos = u32::try_from(millis % 1_000).expect("below 1000") * 1_000_000;
        let timestamp = uuid::Timestamp::from_unix(&self.context, millis / 1_000, nanos);
        EventId::from_uuid(Uuid::new_v7(timestamp))
    }
}

/// Returns the time part of an id, milliseconds since 1970.
fn millis(id: EventId) -> u64 {
    u64::try_from(id.uuid().as_u128() >> 80).expect("48 bits")
}

/// Returns the smallest id that an event received at `time` can have.
pub(super) fn first_at(time: Timestamp) -> EventId {
    let millis = u128::try_from(time.as_millisecond()).unwrap_or(0);
    EventId::from_uuid(Uuid::from_u128(millis << 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_while_the_clock_runs_back() {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let mut ids = Ids::above(None);
        let mut last = ids.next(start);
        for step in 0..5_000i64 {
            let now = Timestamp::from_millisecond(start.as_millisecond() - step % 7).unwrap();
            let next = ids.next(now);
            assert!(next > last, "{next} after {last}");
            last = next;
        }
        let reopened = Ids::above(Some(last)).next(Timestamp::from_second(1_000_000_000).unwrap());
        assert!(reopened > last);
    }
}

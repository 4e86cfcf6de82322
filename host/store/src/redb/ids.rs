//! Event ids that only ever grow, whatever the clock does, and that are a function of what the tables hold.

use jiff::Timestamp;
use uuid::Uuid;

use waypost_domain::EventId;

/// How many bits of an id count the events of one group, and how many of those of its position are below the version.
const PLACE_BITS: u32 = 24;
const LOW_POSITION_BITS: u32 = 62 - PLACE_BITS;
/// How many bits of a position are in an id.
const POSITION_BITS: u32 = 12 + LOW_POSITION_BITS;

/// Makes the ids of one group of writes: UUIDv7s (RFC 9562 §5.7) of the time, the group's position among all groups, and
/// the event's place in it. So each id is above those of the groups before, also where the clock stood still.
#[derive(Debug)]
pub(super) struct Ids {
    millis: u64,
    position: u64,
    place: u32,
    lead_millis: u64,
}

impl Ids {
    /// Begins the ids of the group at `position`, at `now` but not before `floor_millis`, the latest time in an id so
    /// far, in milliseconds since 1970.
    pub(super) fn of_group(position: u64, now: Timestamp, floor_millis: u64) -> Self {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0).max(floor_millis);
        Self { millis, position, place: 0, lead_millis: 0 }
    }

    /// Returns the next id, whose time is not before the receipt of its event, also where the clock was set back since.
    pub(super) fn next(&mut self, received: Timestamp) -> EventId {
        let received = u64::try_from(received.as_millisecond()).unwrap_or(0);
        self.millis = self.millis.max(received);
        self.lead_millis = self.lead_millis.max(self.millis - received);
        if self.place >> PLACE_BITS > 0 {
            // More events than a group has room for: those that follow count as of a later time.
            (self.millis, self.place) = (self.millis + 1, 0);
        }
        let position = u128::from(self.position & ((1 << POSITION_BITS) - 1));
        let (high, low) = (position >> LOW_POSITION_BITS, position & ((1 << LOW_POSITION_BITS) - 1));
        let (version, variant) = (7u128 << 76, 0b10u128 << 62);
        let time = u128::from(self.millis & ((1 << 48) - 1)) << 80;
        let id = time | version | high << 64 | variant | low << PLACE_BITS | u128::from(self.place);
        self.place += 1;
        EventId::from_uuid(Uuid::from_u128(id))
    }

    /// Returns the time in the last id of this group, in milliseconds since 1970; `None` if it has none. (A clock that was
    /// wrong for a while must not set the time of later ids.)
    pub(super) fn millis(&self) -> Option<u64> {
        (self.place > 0).then_some(self.millis)
    }

    /// Returns by how many milliseconds the time in an id of this group is after the receipt of its event, at most.
    pub(super) fn lead_millis(&self) -> u64 {
        self.lead_millis
    }
}

/// Returns the time part of an id, milliseconds since 1970.
pub(super) fn millis(id: EventId) -> u64 {
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
        let (mut last, mut floor) = (EventId::NIL, 0);
        for step in 0..5_000u32 {
            let now = Timestamp::from_millisecond(start.as_millisecond() - i64::from(step % 7)).unwrap();
            let mut ids = Ids::of_group(u64::from(step) * 1_000_003, now, floor);
            for _ in 0..3 {
                let next = ids.next(now);
                assert!(next > last, "{next} after {last}");
                assert_eq!(next.uuid().get_version_num(), 7);
                assert_eq!(next.uuid().get_variant(), uuid::Variant::RFC4122);
                last = next;
            }
            floor = ids.millis().unwrap();
        }
        assert_eq!(millis(last), floor);
    }

    /// An event that was received before the clock was set back had an id from before its receipt: those who asked for the
    /// events since then missed it.
    #[test]
    fn no_id_is_before_its_events_receipt() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let tomorrow = Timestamp::from_second(1_800_086_400).unwrap();
        let mut ids = Ids::of_group(7, now, 0);
        let first = ids.next(tomorrow);
        assert!(first >= first_at(tomorrow));
        assert_eq!(ids.lead_millis(), 0);
        let second = ids.next(now);
        assert!(second > first && ids.millis() == Some(millis(first)));
        assert_eq!(ids.lead_millis(), 86_400_000);
    }

    #[test]
    fn a_group_may_have_any_number_of_events() {
        let mut ids = Ids::of_group(u64::MAX, Timestamp::UNIX_EPOCH, 5);
        ids.place = (1 << PLACE_BITS) - 1;
        let now = Timestamp::UNIX_EPOCH;
        let (last, next) = (ids.next(now), ids.next(now));
        assert!(next > last);
        assert_eq!((millis(last), millis(next), ids.millis()), (5, 6, Some(6)));
        assert_eq!(ids.lead_millis(), 5);
        assert_eq!(Ids::of_group(1, Timestamp::MAX, 5).millis(), None, "no id, no time");
    }
}

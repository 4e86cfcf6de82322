//! Whose work is this node's.
//!
//! All deliveries are divided among [`HashSlot`]s, and each slot belongs to one node at a time. Without a cluster every
//! slot is this node's, always. Those who start work ask [`Share::has`] and [`Share::may_begin`] first, and look for work
//! again when [`Share::changed`] tells of a gain: others may have done anything with it meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::watch;

use waypost_domain::{EventId, RecipientId};

/// How many slots there are.
const COUNT: usize = 256;

/// One of 256 parts of all deliveries. Every node computes the same slot for the same delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashSlot(u8);

/// The time from the gain of a slot to its loss. Another term of the same slot is another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term(u32);

/// How often a share has gained slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gains(u64);

/// Whether new attempts may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// They may.
    Open,
    /// They may not, because another node may have taken the slots already. Those under way go on.
    Closed,
}

/// The slots of this node. Reading it takes no lock.
#[derive(Debug)]
pub struct Share {
    /// How often each slot was gained or lost: odd while it is this node's.
    terms: [AtomicU32; COUNT],
    is_open: AtomicBool,
    changed: watch::Sender<Gains>,
}

impl HashSlot {
    /// The slot whose node does what is to be done once for all nodes.
    pub const FIRST: Self = Self(0);

    /// Returns the slot of a subscription, with all of its deliveries: the last byte of its id.
    pub fn of_subscription(id: impl Into<RecipientId>) -> Self {
        let [.., last] = id.into().into_bytes();
        Self(last)
    }

    /// Returns the slot of the runs for an event: the last byte of the CRC-32 of its id. So the runs of one handler are
    /// spread over all slots.
    pub fn of_run(event: EventId) -> Self {
        let [.., last] = crc32fast::hash(&event.into_bytes()).to_be_bytes();
        Self(last)
    }

    /// Returns all slots.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }
}

/// A share of everything, with an open fence.
impl Default for Share {
    fn default() -> Self {
        let terms = std::array::from_fn(|_| AtomicU32::new(1));
        Self { terms, is_open: AtomicBool::new(true), changed: watch::Sender::default() }
    }
}

impl Share {
    /// Tells whether a slot is this node's.
    pub fn has(&self, slot: HashSlot) -> bool {
        self.term(slot).is_some()
    }

    /// Returns the present term of a slot, if it is this node's. What was read from the store is good for that term only.
    pub fn term(&self, slot: HashSlot) -> Option<Term> {
        let term = self.terms[usize::from(slot.0)].load(Ordering::Relaxed);
        (term % 2 == 1).then_some(Term(term))
    }

    /// Tells whether a new attempt may begin.
    pub fn may_begin(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Sets which slots are this node's. `is_ours` must not wait for anything: it is called under a lock.
    pub fn set(&self, is_ours: impl Fn(HashSlot) -> bool) {
        self.changed.send_if_modified(|gains| {
            let (mut gained, mut lost) = (false, false);
            for slot in HashSlot::all() {
                match (self.has(slot), is_ours(slot)) {
                    (true, true) | (false, false) => continue,
                    (false, true) => gained = true,
                    (true, false) => lost = true,
                }
                self.terms[usize::from(slot.0)].fetch_add(1, Ordering::Relaxed);
            }
            gains.0 += u64::from(gained);
            gained || lost
        });
    }

    /// Opens or closes the fence.
    pub fn fence(&self, fence: Fence) {
        let is_open = fence == Fence::Open;
        self.changed.send_if_modified(|_| self.is_open.swap(is_open, Ordering::Relaxed) != is_open);
    }

    /// Tells of each change of the slots and of the fence from now on. Where the value differs from an earlier one, slots
    /// were gained in between, and the store has to be searched for their work.
    pub fn changed(&self) -> watch::Receiver<Gains> {
        self.changed.subscribe()
    }

    /// Waits until a slot is this node's. Cancel safe.
    pub async fn gained(&self, slot: HashSlot) {
        let waited = self.changed().wait_for(|_| self.has(slot)).await.map(drop);
        waited.expect("the sender is not dropped while it is borrowed");
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;
    use waypost_domain::SubscriptionId;

    fn event(number: u128) -> EventId {
        EventId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn a_subscription_has_the_slot_of_its_ids_last_byte() {
        let id: SubscriptionId = "a5821ada-fd56-4369-bfc6-45487a9b3808".parse().unwrap();
        assert_eq!(HashSlot::of_subscription(id), HashSlot(8));
        assert_eq!(HashSlot::of_subscription(RecipientId::from(id)), HashSlot(8));
        assert_eq!(HashSlot::of_subscription(RecipientId::MAX), HashSlot(255));
    }

    /// Nodes of different versions of Waypost must agree.
    #[test]
    fn the_slot_of_a_run_never_changes() {
        let known: EventId = "019ace1f-0d3a-7000-8000-000000000001".parse().unwrap();
        let slots = [EventId::NIL, EventId::MAX, known].map(HashSlot::of_run);
        assert_eq!(slots, [0x55, 0x1a, 0xf8].map(HashSlot));
    }

    #[test]
    fn runs_for_successive_events_are_spread_over_all_slots() {
        let mut counts = [0; COUNT];
        for number in 0..COUNT as u128 * 16 {
            // Ids as the store makes them: the time, and then a place in the log.
            let id = event(0x019a_ce1f_0d3a_7000_8000_0000_0000_0000 + (number << 12));
            counts[usize::from(HashSlot::of_run(id).0)] += 1;
        }
        assert_eq!(counts, [16; COUNT]);
    }

    #[test]
    fn without_a_cluster_everything_is_this_nodes_and_may_begin() {
        let share = Share::default();
        assert!(HashSlot::all().all(|slot| share.has(slot)) && share.may_begin());
        assert_eq!(HashSlot::all().count(), COUNT);
        assert!(share.gained(HashSlot::FIRST).now_or_never().is_some());
    }

    #[test]
    fn a_change_is_told_once_and_a_gain_is_told_from_a_loss() {
        let share = Share::default();
        let mut changed = share.changed();
        let first = *changed.borrow_and_update();
        share.set(|slot| slot.0 < 100);
        assert!(share.has(HashSlot(99)) && !share.has(HashSlot(100)));
        assert!(changed.has_changed().unwrap());
        assert_eq!(*changed.borrow_and_update(), first, "a loss is no gain");
        share.set(|slot| slot.0 < 100);
        assert!(!changed.has_changed().unwrap(), "nothing is new");
        share.set(|slot| slot.0 >= 100);
        assert!(!share.has(HashSlot(99)) && share.has(HashSlot(100)));
        assert_ne!(*changed.borrow_and_update(), first);
    }

    #[test]
    fn a_slot_that_was_lost_and_gained_is_in_another_term() {
        let share = Share::default();
        let (slot, other) = (HashSlot(7), HashSlot(8));
        let terms = [slot, other].map(|slot| share.term(slot).unwrap());
        share.set(|known| known != slot);
        assert_eq!(share.term(slot), None);
        share.set(|_| true);
        assert_ne!(share.term(slot).unwrap(), terms[0]);
        assert_eq!(share.term(other).unwrap(), terms[1]);
    }

    #[test]
    fn the_fence_is_told_of_and_moves_no_slot() {
        let share = Share::default();
        let mut changed = share.changed();
        let gains = *changed.borrow_and_update();
        for (fence, may_begin) in [(Fence::Closed, false), (Fence::Open, true)] {
            share.fence(fence);
            assert_eq!(share.may_begin(), may_begin);
            assert!(changed.has_changed().unwrap());
            assert_eq!(*changed.borrow_and_update(), gains);
            share.fence(fence);
            assert!(!changed.has_changed().unwrap(), "nothing is new");
        }
        assert!(HashSlot::all().all(|slot| share.has(slot)));
    }

    #[tokio::test]
    async fn who_waits_for_a_slot_goes_on_when_it_is_gained() {
        let share = Share::default();
        share.set(|_| false);
        let mut waiting = Box::pin(share.gained(HashSlot::FIRST));
        assert!((&mut waiting).now_or_never().is_none());
        share.set(|slot| slot != HashSlot::FIRST);
        assert!((&mut waiting).now_or_never().is_none(), "another one is not enough");
        share.set(|_| true);
        waiting.await;
    }
}

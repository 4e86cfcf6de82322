//! The book of a soak: which deliveries of which events are owed. An event leaves it when all have arrived, so that it takes
//! memory only for what is under way.

use std::collections::HashMap;

use super::kinds::{KINDS, Kind, PRODUCERS};

/// One event under way.
struct Open {
    /// The kinds whose target does not have it yet, as bits.
    missing: u32,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sent,
    Accepted,
    /// Its answer was cut off: it is in the log, or not, for all kinds alike.
    Unanswered,
}

/// The sums of a soak.
#[derive(Default)]
pub(super) struct Book {
    open: HashMap<usize, Open>,
    /// The newest event of each producer that an ordered kind has.
    newest: [[Option<usize>; PRODUCERS]; KINDS.len()],
    /// How many events of each producer were accepted, and how many were not answered.
    pub(super) accepted: [u64; PRODUCERS],
    pub(super) unanswered: [u64; PRODUCERS],
    pub(super) refused: u64,
    /// First arrivals at each kind's target.
    pub(super) arrived: [u64; KINDS.len()],
    pub(super) repeated: u64,
    /// Arrivals where no such event should go.
    pub(super) strays: u64,
    /// First arrivals that an older event of the same key came after.
    pub(super) disordered: u64,
}

impl Book {
    pub(super) fn send(&mut self, seq: usize) {
        let missing = owed(seq);
        self.open.insert(seq, Open { missing, stage: Stage::Sent });
    }

    pub(super) fn accept(&mut self, seq: usize) {
        self.accepted[seq % PRODUCERS] += 1;
        self.answer(seq, Stage::Accepted);
    }

    pub(super) fn break_off(&mut self, seq: usize) {
        self.unanswered[seq % PRODUCERS] += 1;
        self.answer(seq, Stage::Unanswered);
    }

    pub(super) fn refuse(&mut self, seq: usize) {
        self.refused += 1;
        self.open.remove(&seq);
    }

    fn answer(&mut self, seq: usize, stage: Stage) {
        if let Some(open) = self.open.get_mut(&seq) {
            open.stage = stage;
            if open.missing == 0 {
                self.open.remove(&seq);
            }
        }
    }

    /// Records that a kind's target has an event.
    pub(super) fn arrive(&mut self, place: usize, seq: usize) {
        if owed(seq) & 1 << place == 0 {
            self.strays += 1;
            return;
        }
        let Some(open) = self.open.get_mut(&seq).filter(|open| open.missing & 1 << place != 0) else {
            self.repeated += 1;
            return;
        };
        open.missing &= !(1 << place);
        if open.missing == 0 && open.stage != Stage::Sent {
            self.open.remove(&seq);
        }
        self.arrived[place] += 1;
        let newest = &mut self.newest[place][seq % PRODUCERS];
        self.disordered += u64::from(KINDS[place].is_ordered && newest.is_some_and(|newest| newest > seq));
        *newest = Some(seq);
    }

    /// Returns how many deliveries are owed: those of accepted events, and of unanswered ones that one kind has.
    pub(super) fn owed(&self) -> u64 {
        let owing = self.open.iter().filter(|(seq, open)| match open.stage {
            Stage::Sent => false,
            Stage::Accepted => true,
            Stage::Unanswered => open.missing != owed(**seq),
        });
        owing.map(|(_, open)| u64::from(open.missing.count_ones())).sum()
    }
}

/// Returns the kinds that an event must reach, as bits.
fn owed(seq: usize) -> u32 {
    let owes = |kind: &Kind| kind.is_owed && kind.of.is_none_or(|producer| producer == seq % PRODUCERS);
    KINDS.iter().enumerate().filter(|(_, kind)| owes(kind)).map(|(place, _)| 1 << place).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive_everywhere(book: &mut Book, seq: usize) {
        (0..KINDS.len())
            .filter(|place| owed(seq) & 1 << place != 0)
            .for_each(|place| book.arrive(place, seq));
    }

    #[test]
    fn what_has_arrived_everywhere_is_not_owed_and_takes_no_memory() {
        let mut book = Book::default();
        for seq in 0..PRODUCERS {
            book.send(seq);
            book.accept(seq);
            assert_eq!(book.owed(), u64::from(owed(seq).count_ones()));
            arrive_everywhere(&mut book, seq);
            assert_eq!(book.owed(), 0);
        }
        arrive_everywhere(&mut book, 0);
        assert!(book.open.is_empty());
        assert_eq!((book.repeated, book.strays), (u64::from(owed(0).count_ones()), 0));
    }

    #[test]
    fn an_unanswered_event_is_owed_to_all_once_one_has_it() {
        let mut book = Book::default();
        book.send(0);
        book.break_off(0);
        assert_eq!(book.owed(), 0);
        book.arrive(0, 0);
        assert_eq!(book.owed(), u64::from(owed(0).count_ones()) - 1);
    }

    #[test]
    fn an_ordered_kind_may_repeat_and_not_go_back() {
        let place = KINDS.iter().position(|kind| kind.is_ordered && kind.of.is_none()).unwrap();
        let mut book = Book::default();
        for number in [0, 2, 1] {
            book.send(number * PRODUCERS);
        }
        for number in [0, 1, 0] {
            book.arrive(place, number * PRODUCERS);
        }
        assert_eq!((book.disordered, book.repeated), (0, 1));
        book.arrive(place, 2 * PRODUCERS);
        assert_eq!(book.disordered, 0);
        book.send(3 * PRODUCERS);
        book.send(4 * PRODUCERS);
        book.arrive(place, 4 * PRODUCERS);
        book.arrive(place, 3 * PRODUCERS);
        assert_eq!(book.disordered, 1);
    }
}

//! The book of a soak: which deliveries of which events are owed. An event leaves it when all have arrived, so that it takes
//! memory only for what is under way.

use std::collections::{BTreeSet, HashMap};

use super::kinds::{KINDS, Kind, PRODUCERS};

/// One event under way.
struct Open {
    /// The kinds whose target does not have it yet, as bits.
    missing: u32,
    /// A hash of the `webhook-id` that each target has met it with.
    webhooks: [u32; KINDS.len()],
    stage: Stage,
}

/// One arrival.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) seq: usize,
    /// A hash of its `webhook-id`.
    pub(super) webhook: u32,
    /// The number that the plugin's state had got by the event, where the plugin sends that.
    pub(super) number: Option<u64>,
}

/// The numbers that a plugin with state gave its events: 1, 2, 3 and so on, if it counted each event once.
#[derive(Default)]
struct Numbers {
    /// Up to here, all have come.
    to: u64,
    ahead: BTreeSet<u64>,
    /// How many events had the number of another.
    twice: u64,
}

impl Numbers {
    fn take(&mut self, number: u64) {
        if number <= self.to || !self.ahead.insert(number) {
            self.twice += 1;
        }
        while self.ahead.remove(&(self.to + 1)) {
            self.to += 1;
        }
    }
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
    /// Repeats of what is under way that had another `webhook-id` than the first.
    pub(super) renamed: u64,
    /// Arrivals whose data are not those of the event.
    pub(super) altered: u64,
    numbers: Numbers,
    /// Arrivals where no such event should go.
    pub(super) strays: u64,
    /// First arrivals that an older event of the same key came after.
    pub(super) disordered: u64,
}

impl Book {
    pub(super) fn send(&mut self, seq: usize) {
        let missing = owed(seq);
        self.open.insert(seq, Open { missing, webhooks: [0; KINDS.len()], stage: Stage::Sent });
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
    pub(super) fn arrive(&mut self, place: usize, Arrival { seq, webhook, number }: Arrival) {
        if owed(seq) & 1 << place == 0 {
            self.strays += 1;
            return;
        }
        let mut open = self.open.get_mut(&seq);
        let Some(open) = open.as_mut().filter(|open| open.missing & 1 << place != 0) else {
            self.repeated += 1;
            self.renamed += u64::from(open.is_some_and(|open| open.webhooks[place] != webhook));
            return;
        };
        number.into_iter().for_each(|number| self.numbers.take(number));
        open.webhooks[place] = webhook;
        open.missing &= !(1 << place);
        if open.missing == 0 && open.stage != Stage::Sent {
            self.open.remove(&seq);
        }
        self.arrived[place] += 1;
        let newest = &mut self.newest[place][seq % PRODUCERS];
        self.disordered += u64::from(KINDS[place].is_ordered && newest.is_some_and(|newest| newest > seq));
        *newest = Some(seq);
    }

    /// Returns by how many events, or more, a plugin's state counted wrongly: those that had the number of another, and numbers
    /// that none had.
    pub(super) fn miscounted(&self) -> u64 {
        let most = self.numbers.ahead.last().copied().unwrap_or(self.numbers.to);
        self.numbers.twice + (most - self.numbers.to) - self.numbers.ahead.len() as u64
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

    fn arrive(book: &mut Book, place: usize, seq: usize) {
        book.arrive(place, Arrival { seq, webhook: 7, number: None });
    }

    #[test]
    fn a_repeat_has_the_same_webhook_id() {
        let mut book = Book::default();
        book.send(0);
        for webhook in [7, 7, 8] {
            book.arrive(0, Arrival { seq: 0, webhook, number: None });
        }
        assert_eq!((book.repeated, book.renamed), (2, 1));
    }

    #[test]
    fn a_plugin_counts_each_event_once() {
        let count = |numbers: &[u64]| {
            let mut book = Book::default();
            for (seq, number) in numbers.iter().enumerate() {
                book.send(seq * PRODUCERS);
                book.arrive(0, Arrival { seq: seq * PRODUCERS, webhook: 7, number: Some(*number) });
            }
            book.miscounted()
        };
        assert_eq!(count(&[1, 3, 2, 4]), 0);
        assert_eq!(count(&[1, 2, 2]), 1);
        assert_eq!(count(&[1, 3, 5]), 2);
    }

    fn arrive_everywhere(book: &mut Book, seq: usize) {
        (0..KINDS.len())
            .filter(|place| owed(seq) & 1 << place != 0)
            .for_each(|place| arrive(book, place, seq));
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
        arrive(&mut book, 0, 0);
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
            arrive(&mut book, place, number * PRODUCERS);
        }
        assert_eq!((book.disordered, book.repeated), (0, 1));
        arrive(&mut book, place, 2 * PRODUCERS);
        assert_eq!(book.disordered, 0);
        book.send(3 * PRODUCERS);
        book.send(4 * PRODUCERS);
        arrive(&mut book, place, 4 * PRODUCERS);
        arrive(&mut book, place, 3 * PRODUCERS);
        assert_eq!(book.disordered, 1);
    }
}

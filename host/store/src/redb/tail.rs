//! The newest first attempts, by recipient: a worker that has caught up reads what was just accepted without a
//! transaction and without a blocking thread.
//!
//! The tail of a recipient begins with its first read. From then on it holds where every first attempt stands that is
//! newer than the tail's **floor**; the events themselves are in [`Recent`]. A read from the floor or from after it is
//! answered here, an earlier one by the tables.
//!
//! The floor moves to the end of each page, whether the page came from here or from the tables. So nothing is here that a
//! page has returned, and only what a page has returned is attempted and settled: it is the floor, not the set of
//! attempts in flight, that keeps settled deliveries out. A worker that starts again reads from the beginning, which is
//! below the floor: it reads the tables until it has caught up.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::deliveries::first_attempt;
use super::recent::Recent;
use super::record::{self, Batch};
use crate::{ReadyPage, ReadyQuery};
use waypost_domain::{EventId, RecipientId};

/// The most deliveries in one tail. A recipient that is further behind, or that no worker reads, has no tail.
const TAIL_MAX: usize = 64;
/// The most deliveries in all tails: 2 MiB.
const TAILS_MAX: usize = 64 * 1024;
/// How much room an empty tail keeps, in deliveries.
const EMPTY_ROOM: usize = 4;

/// A new row of the table of first attempts.
pub(super) struct NewRow {
    pub(super) recipient: RecipientId,
    pub(super) batch: u128,
    pub(super) places: Vec<u32>,
}

/// The tails of all recipients that have been read and are not far behind.
#[derive(Default)]
pub(super) struct Tails(Mutex<State>);

#[derive(Default)]
struct State {
    tails: HashMap<RecipientId, Tail>,
    /// How many deliveries are in them.
    count: usize,
    /// The newest batch that was added: a transaction that begins now sees it and all before.
    newest: u128,
}

struct Tail {
    /// Every first attempt of a later batch is in `rows`, and none of an earlier one.
    floor: u128,
    /// Batch and place in it, oldest first.
    rows: VecDeque<(u128, u32)>,
}

impl Tails {
    /// Ends all tails, and sets the newest batch of the file. Called before the first read, and when the file may have lost
    /// its last transactions.
    pub(super) fn begin_after(&self, last: Option<EventId>) {
        let newest = last.map_or(0, |last| last.uuid().as_u128());
        *self.lock() = State { newest, ..State::default() };
    }

    /// Begins the tail of a recipient, if it has none, and returns the newest batch. Called before a transaction that
    /// reads the recipient's first attempts, which sees all that the new tail will not hold.
    pub(super) fn open(&self, recipient: RecipientId) -> EventId {
        let mut state = self.lock();
        let floor = state.newest;
        state.tails.entry(recipient).or_insert_with(|| Tail { floor, rows: VecDeque::new() });
        record::event_id(floor)
    }

    /// Answers a query, apart from its further attempts; `None` if the tables must be read.
    pub(super) fn read(&self, query: &ReadyQuery, recent: &Recent) -> Option<ReadyPage> {
        let mut state = self.lock();
        let tail = state.tails.get(&query.recipient)?;
        let after = query.after.uuid().as_u128();
        if after < tail.floor {
            return None;
        }
        let (mut first_attempts, mut read_to) = (Vec::new(), query.after);
        let mut last: Option<(u128, Arc<Batch>)> = None;
        for (key, index) in tail.rows.iter().skip_while(|(key, _)| *key <= after) {
            let batch = match last.take().filter(|(last, _)| last == key) {
                Some((_, batch)) => batch,
                None if first_attempts.len() >= query.first_attempts => break,
                // A batch that has changed, or that had to make room, is in the tables.
                None => recent.get(*key)?,
            };
            first_attempts.push(first_attempt(&batch, *key, *index)?);
            read_to = record::event_id(*key);
            last = Some((*key, batch));
        }
        state.pass(query.recipient, read_to);
        Some(ReadyPage { first_attempts, read_to, due: Vec::new(), next_due: None })
    }

    /// Notes how far the tables have been read for a recipient.
    pub(super) fn pass(&self, recipient: RecipientId, read_to: EventId) {
        self.lock().pass(recipient, read_to);
    }

    /// Adds the rows of a commit, batch by batch.
    pub(super) fn add(&self, rows: Vec<NewRow>) {
        let mut state = self.lock();
        for row in rows {
            state.newest = row.batch;
            state.add(&row);
        }
    }

    /// Ends the tail of a recipient that has lost pending first attempts otherwise than by the ends of attempts.
    pub(super) fn end(&self, recipient: RecipientId) {
        self.lock().end(recipient);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, row: &NewRow) {
        let Entry::Occupied(mut tail) = self.tails.entry(row.recipient) else { return };
        let Tail { floor, rows } = tail.get_mut();
        // A transaction may have read the row between its commit and this call.
        if row.batch <= *floor {
            return;
        }
        if rows.len() + row.places.len() > TAIL_MAX {
            self.count -= rows.len();
            tail.remove();
            return;
        }
        rows.extend(row.places.iter().map(|index| (row.batch, *index)));
        self.count += row.places.len();
        if self.count > TAILS_MAX {
            (self.tails, self.count) = (HashMap::new(), 0);
        }
    }

    fn pass(&mut self, recipient: RecipientId, read_to: EventId) {
        let Some(Tail { floor, rows }) = self.tails.get_mut(&recipient) else { return };
        *floor = read_to.uuid().as_u128().max(*floor);
        while rows.pop_front_if(|(batch, _)| *batch <= *floor).is_some() {
            self.count -= 1;
        }
        if rows.is_empty() {
            rows.shrink_to(EMPTY_ROOM);
        }
    }

    fn end(&mut self, recipient: RecipientId) {
        if let Some(ended) = self.tails.remove(&recipient) {
            self.count -= ended.rows.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LoggedEvent;
    use waypost_domain::Event;
    use waypost_domain::event::{SpecVersion, Wire};
    use waypost_runtime::clock;

    const FIRST: RecipientId = RecipientId::MAX;
    const SECOND: RecipientId = RecipientId::NIL;

    #[derive(Default)]
    struct Memory {
        tails: Tails,
        recent: Recent,
    }

    impl Memory {
        fn open(&self, recipients: &[RecipientId]) {
            for recipient in recipients {
                self.tails.open(*recipient);
            }
        }

        /// Adds a batch with the first `places` of its events for each of these recipients.
        fn add(&self, key: u128, recipients: &[RecipientId], places: u32) {
            let wire = Wire::Structured { content_type: None, body: vec![b' '].into() };
            let event = Event::from_parts(SpecVersion::V1_0, "1".into(), "/s".into(), "t".into(), wire);
            let (received, sender) = (clock::now(), String::new());
            let logged =
                LoggedEvent { id: record::event_id(key), event, received, sender, matched: Vec::new() };
            let events = vec![Some(Arc::new(logged)); 80];
            self.recent.put(key, Arc::new(Batch { events, damaged: Vec::new() }));
            let row = |recipient: &RecipientId| NewRow {
                recipient: *recipient,
                batch: key,
                places: (0..places).collect(),
            };
            self.tails.add(recipients.iter().map(row).collect());
        }

        /// Reads at least `page` deliveries after a batch; returns their batches, or `None` if the tables have them.
        fn read(&self, recipient: RecipientId, after: u128, page: usize) -> Option<Vec<u128>> {
            let (after, now) = (record::event_id(after), clock::now());
            let query = ReadyQuery { recipient, after, first_attempts: page, now, due: 0 };
            let page = self.tails.read(&query, &self.recent)?;
            let batches: Vec<_> =
                page.first_attempts.iter().map(|pending| pending.position.batch.uuid().as_u128()).collect();
            let last = batches.last().map_or(after, |last| record::event_id(*last));
            assert_eq!(page.read_to, last);
            Some(batches)
        }
    }

    #[test]
    fn a_tail_begins_with_the_first_read_and_has_what_comes_after_it() {
        let memory = Memory::default();
        memory.tails.begin_after(Some(record::event_id(5)));
        memory.add(6, &[FIRST], 1);
        assert_eq!(memory.read(FIRST, 6, 9), None, "it was never read");
        assert_eq!(memory.tails.open(FIRST), record::event_id(6));
        memory.add(7, &[SECOND], 1);
        memory.add(8, &[FIRST, SECOND], 2);
        assert_eq!(memory.read(FIRST, 5, 9), None, "the tables have batch 6");
        assert_eq!(memory.read(FIRST, 6, 9), Some(vec![8, 8]));
        assert_eq!(memory.read(FIRST, 8, 9), Some(vec![]));
        assert_eq!(memory.read(SECOND, 8, 9), None);
    }

    #[test]
    fn pages_are_whole_batches_and_nothing_comes_twice() {
        let memory = Memory::default();
        memory.tails.open(FIRST);
        (1..=4).for_each(|key| memory.add(key, &[FIRST], 2));
        assert_eq!(memory.read(FIRST, 0, 3), Some(vec![1, 1, 2, 2]));
        assert_eq!(memory.read(FIRST, 0, 3), None, "a page has had them: they may be settled");
        assert_eq!(memory.read(FIRST, 2, 0), Some(vec![]), "as many as asked for");
        assert_eq!(memory.read(FIRST, 2, 1), Some(vec![3, 3]));
        assert_eq!(memory.read(FIRST, 3, 1), Some(vec![4, 4]));
        assert_eq!(memory.tails.lock().count, 0);
    }

    /// A worker that starts again after a panic would attempt what the one before it has settled.
    #[test]
    fn what_the_tables_have_returned_is_here_no_more() {
        let memory = Memory::default();
        memory.tails.open(FIRST);
        memory.add(1, &[FIRST], 1);
        memory.add(2, &[FIRST], 1);
        memory.tails.pass(FIRST, record::event_id(1));
        assert_eq!(memory.read(FIRST, 0, 9), None);
        assert_eq!(memory.read(FIRST, 1, 9), Some(vec![2]));
        // A transaction has read a row that is committed, but not added yet.
        memory.tails.pass(FIRST, record::event_id(3));
        memory.add(3, &[FIRST], 1);
        memory.add(4, &[FIRST], 1);
        assert_eq!(memory.read(FIRST, 2, 9), None);
        assert_eq!(memory.read(FIRST, 3, 9), Some(vec![4]));
    }

    #[test]
    fn a_reader_far_behind_has_no_tail_until_it_reads_again() {
        let memory = Memory::default();
        memory.open(&[FIRST, SECOND]);
        memory.add(1, &[FIRST], 60);
        memory.add(2, &[FIRST, SECOND], 5);
        assert_eq!(memory.read(FIRST, 0, 9), None);
        assert_eq!(memory.read(SECOND, 0, 9), Some(vec![2; 5]));
        memory.add(3, &[FIRST], 1);
        assert_eq!(memory.read(FIRST, 2, 9), None);
        memory.tails.open(FIRST);
        memory.add(4, &[FIRST], 64);
        assert_eq!(memory.read(FIRST, 2, 9), None, "the tables have batch 3");
        assert_eq!(memory.read(FIRST, 3, 9), Some(vec![4; 64]));
    }

    #[test]
    fn a_batch_that_has_changed_is_read_from_the_tables() {
        let memory = Memory::default();
        memory.tails.open(FIRST);
        (1..=3).for_each(|key| memory.add(key, &[FIRST], 1));
        memory.recent.drop_batch(2);
        assert_eq!(memory.read(FIRST, 0, 1), Some(vec![1]));
        assert_eq!(memory.read(FIRST, 1, 1), None);
        memory.tails.pass(FIRST, record::event_id(2));
        assert_eq!(memory.read(FIRST, 2, 1), Some(vec![3]));
    }

    #[test]
    fn a_recipient_that_has_lost_deliveries_has_no_tail() {
        let memory = Memory::default();
        memory.open(&[FIRST, SECOND]);
        memory.add(1, &[FIRST, SECOND], 3);
        memory.tails.end(FIRST);
        assert_eq!(memory.read(FIRST, 0, 9), None);
        assert_eq!(memory.read(SECOND, 0, 9), Some(vec![1; 3]));
        assert_eq!(memory.tails.lock().count, 0);
    }

    #[test]
    fn all_tails_together_are_bounded() {
        let memory = Memory::default();
        let recipients: Vec<_> = (0..=1024).map(record::recipient_id).collect();
        memory.open(&recipients);
        memory.add(1, &recipients[..1024], 64);
        assert_eq!(memory.tails.lock().count, TAILS_MAX);
        assert_eq!(memory.read(recipients[0], 0, 1), Some(vec![1; 64]));
        memory.add(2, &[recipients[0], recipients[1024]], 64);
        let state = memory.tails.lock();
        assert!(state.tails.is_empty() && state.count == 0);
    }
}

//! How many deliveries each recipient has in each state.
//!
//! A commit changes the numbers of many recipients. Their rows are far apart, so it appends its changes as one row, and
//! each [`FOLD_EVERY`]th group folds all changes into the rows of the recipients. Readers add what is not folded yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use redb::ReadableTable;

use super::{COUNT_CHANGES, COUNTS, DeliveryTables};
use crate::redb::damage::Marks;
use crate::redb::handle::Fault;
use crate::redb::migrate::TELL_EVERY;
use crate::redb::read::Reader;
use crate::redb::record::{self, Error, Waiting, decode_ended};
use crate::{DeliveryCounts, Position, StoredState};
use waypost_domain::RecipientId;

/// How many groups append their changes before these are folded.
pub(crate) const FOLD_EVERY: u64 = 64;

type Change = [i64; StoredState::ALL.len()];

/// By how much a transaction changes the numbers of deliveries.
#[derive(Default)]
pub(super) struct CountChanges {
    changes: BTreeMap<u128, Change>,
    /// Recipients one of whose records was damaged: their deliveries are counted again.
    recount: BTreeSet<u128>,
}

impl CountChanges {
    pub(super) fn add(&mut self, recipient: u128, state: StoredState, change: i64) {
        self.changes.entry(recipient).or_default()[state as usize] += change;
    }

    pub(super) fn add_many(&mut self, recipient: u128, state: StoredState, deliveries: usize) {
        self.add(recipient, state, i64::try_from(deliveries).expect("a batch has at most 256 events"));
    }

    pub(super) fn remove_many(&mut self, recipient: u128, state: StoredState, deliveries: usize) {
        self.add(recipient, state, -i64::try_from(deliveries).expect("a batch has at most 256 events"));
    }

    /// Counts the deliveries of a recipient again: one of them was in a state that cannot be read.
    pub(super) fn recount(&mut self, recipient: u128) {
        self.recount.insert(recipient);
    }

    /// Writes the changes of the group at `position`, after all rows of its deliveries.
    pub(super) fn write(
        mut self,
        tables: &mut DeliveryTables<'_>,
        marks: &Marks,
        position: Position,
    ) -> Result<(), Fault> {
        if position.0.is_multiple_of(FOLD_EVERY) || !self.recount.is_empty() {
            return self.fold(tables, marks);
        }
        self.changes.retain(|_, change| change.iter().any(|more| *more != 0));
        if !self.changes.is_empty() {
            tables.count_changes.insert(position.0, encode_changes(&self.changes).as_slice())?;
        }
        Ok(())
    }

    /// Adds all changes to the rows of their recipients.
    pub(super) fn fold(mut self, tables: &mut DeliveryTables<'_>, marks: &Marks) -> Result<(), Fault> {
        let mut is_complete = true;
        while let Some((position, row)) = tables.count_changes.pop_first()? {
            match marks.pass("count_changes", position.value(), decode_changes(row.value())) {
                Some(changes) => {
                    for (recipient, change) in changes {
                        add(self.changes.entry(recipient).or_default(), &change);
                    }
                }
                None => is_complete = false,
            }
        }
        // Whose changes were in a row that cannot be read is unknown.
        if !is_complete {
            tables.counts.retain(|_, _| false)?;
            return put_recounted(tables, |_| true);
        }
        for (recipient, change) in self.changes {
            let row = tables.counts.get(recipient)?.map(|row| decode_counts(row.value())).transpose();
            match marks.pass("counts", recipient, row) {
                Some(known) => put(tables, recipient, &changed(known.unwrap_or_default(), &change))?,
                None => drop(self.recount.insert(recipient)),
            }
        }
        for recipient in &self.recount {
            tables.counts.remove(recipient)?;
        }
        if self.recount.is_empty() {
            return Ok(());
        }
        put_recounted(tables, |recipient| self.recount.contains(&recipient))
    }
}

fn add(sum: &mut Change, change: &Change) {
    for (sum, more) in sum.iter_mut().zip(change) {
        *sum += more;
    }
}

fn changed(mut counts: DeliveryCounts, change: &Change) -> DeliveryCounts {
    for (count, more) in counts.0.iter_mut().zip(change) {
        *count = count.saturating_add_signed(*more);
    }
    counts
}

fn put(tables: &mut DeliveryTables<'_>, recipient: u128, counts: &DeliveryCounts) -> Result<(), Fault> {
    if counts.total() == 0 {
        tables.counts.remove(recipient)?;
    } else {
        tables.counts.insert(recipient, encode_counts(counts).as_slice())?;
    }
    Ok(())
}

/// Lists what waits by state, and counts everything from its rows: for a file of a version that had neither.
pub(crate) fn index(tables: &mut DeliveryTables<'_>) -> Result<(), Fault> {
    let (mut told, mut rows) = (Instant::now(), 0_u64);
    for row in tables.waiting.iter()? {
        let (key, row) = row?;
        let (recipient, event) = key.value();
        // A row that cannot be read is in no state: it becomes a dead letter when it is met.
        if let Ok(waiting) = Waiting::decode(row.value()) {
            tables.waiting_by_state.insert((recipient, waiting.why.state() as u8, event), ())?;
        }
        rows += 1;
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            tracing::info!(rows, "listing what waits by state");
        }
    }
    tables.count_changes.retain(|_, _| false)?;
    tables.counts.retain(|_, _| false)?;
    put_recounted(tables, |_| true)
}

/// Counts the deliveries of these recipients from their rows, all of them: that takes long, and happens after damage and in a
/// migration alone.
/// Those in a row that cannot be read do not count.
fn put_recounted(tables: &mut DeliveryTables<'_>, is_meant: impl Fn(u128) -> bool) -> Result<(), Fault> {
    let mut all = BTreeMap::<u128, DeliveryCounts>::new();
    for row in tables.fresh.iter()? {
        let (key, row) = row?;
        let recipient = key.value().0;
        if is_meant(recipient) {
            let places = record::decode_places(row.value()).unwrap_or_default().len();
            all.entry(recipient).or_default().0[StoredState::Pending as usize] += places as u64;
        }
    }
    for row in tables.waiting.iter()? {
        let (key, row) = row?;
        let recipient = key.value().0;
        if is_meant(recipient)
            && let Ok(waiting) = Waiting::decode(row.value())
        {
            all.entry(recipient).or_default().0[waiting.why.state() as usize] += 1;
        }
    }
    for row in tables.ended.iter()? {
        let (key, row) = row?;
        let recipient = key.value().1;
        if is_meant(recipient) {
            for ended in decode_ended(row.value()).unwrap_or_default() {
                all.entry(recipient).or_default().0[ended.state as usize] += 1;
            }
        }
    }
    all.iter().try_for_each(|(recipient, counts)| put(tables, *recipient, counts))
}

/// See [`crate::Store::counts`].
pub(crate) fn counts(reader: &Reader, recipient: RecipientId) -> Result<DeliveryCounts, Fault> {
    let recipient = recipient.uuid().as_u128();
    reader.handle.read(|txn| {
        let row = txn.open_table(COUNTS)?.get(recipient)?;
        let row = row.map(|row| decode_counts(row.value())).transpose();
        let folded = row.map_err(Fault::damaged("counts"))?.unwrap_or_default();
        let mut sum = Change::default();
        for row in txn.open_table(COUNT_CHANGES)?.iter()? {
            let read = decode_changes(row?.1.value()).map_err(Fault::damaged("count_changes"))?;
            read.iter().filter(|(of, _)| *of == recipient).for_each(|(_, change)| add(&mut sum, change));
        }
        Ok(changed(folded, &sum))
    })
}

/// Writes the numbers of a recipient's deliveries.
fn encode_counts(counts: &DeliveryCounts) -> Vec<u8> {
    record::versioned(&counts.0)
}

/// Reads the numbers of a recipient's deliveries.
fn decode_counts(row: &[u8]) -> Result<DeliveryCounts, Error> {
    Ok(DeliveryCounts(record::read(record::body(row)?)?))
}

fn encode_changes(changes: &BTreeMap<u128, Change>) -> Vec<u8> {
    record::versioned(changes)
}

fn decode_changes(row: &[u8]) -> Result<Vec<(u128, Change)>, Error> {
    record::read(record::body(row)?)
}

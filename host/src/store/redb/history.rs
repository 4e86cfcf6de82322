//! Rows of history: what happened to the deliveries of a batch.

use std::collections::{BTreeMap, HashMap};

use redb::ReadableTable;

use super::damage::{self, Marks};
use super::handle::Fault;
use super::pieces;
use super::record::{self, HistoryRecord};
use super::schema::Tables;
use crate::domain::Entry;
use crate::store::FailedFilter;

/// The most bytes of records in one row, roughly: it bounds what reading a story holds at once.
const ROW_BYTES_FULL: usize = 256 * 1024;
/// The largest entry that does not force its row into pieces.
const ENTRY_BYTES_SMALL: usize = 2 * 1024;

/// New entries of one commit, gathered by batch, so that each batch costs one row.
#[derive(Default)]
pub(super) struct Ledger(BTreeMap<u128, Vec<HistoryRecord>>);

impl Ledger {
    /// Adds an entry.
    pub(super) fn add(&mut self, batch: u128, record: HistoryRecord) {
        self.0.entry(batch).or_default().push(record);
    }

    /// Writes all entries behind those that the batches have.
    pub(super) fn write(self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        for (batch, records) in self.0 {
            let last = tables.history.range((batch, 0)..=(batch, u64::MAX))?.next_back().transpose()?;
            let next = last.map_or(0, |(key, _)| key.value().1 + 1);
            for (sequence, row) in (next..).zip(rows(&records)) {
                let record = record::encode_history(row);
                let row = pieces::write(&mut tables.pieces, &record, inline_max(row), None)?;
                tables.history.insert((batch, sequence), &*row)?;
            }
        }
        Ok(())
    }
}

/// Returns how large the row of these records may be before it is split into pieces. Rows of many small records fill
/// their pages well enough, and are written often.
fn inline_max(records: &[HistoryRecord]) -> usize {
    let is_large = |record: &HistoryRecord| size(&record.entry) > ENTRY_BYTES_SMALL;
    if records.iter().any(is_large) { pieces::INLINE_MAX } else { 2 * ROW_BYTES_FULL }
}

/// Removes the history of a batch.
pub(super) fn remove(tables: &mut Tables<'_>, batch: u128) -> Result<(), Fault> {
    let whole = (batch, 0)..=(batch, u64::MAX);
    for row in tables.history.range(whole.clone())? {
        pieces::remove(&mut tables.pieces, row?.1.value())?;
    }
    tables.history.retain_in(whole, |_, _| false)?;
    Ok(())
}

/// Reads the records of a row.
pub(super) fn read(
    pieces: &impl ReadableTable<(u64, u32), &'static [u8]>,
    row: &[u8],
) -> Result<Vec<HistoryRecord>, Fault> {
    record::decode_history(&pieces::read(pieces, row)?).map_err(Fault::damaged("history"))
}

fn rows(records: &[HistoryRecord]) -> impl Iterator<Item = &[HistoryRecord]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let full = rest.iter().position(|record| {
            bytes += size(&record.entry);
            bytes >= ROW_BYTES_FULL
        });
        let (row, left) = rest.split_at(full.map_or(rest.len(), |place| place + 1));
        rest = left;
        (!row.is_empty()).then_some(row)
    })
}

fn size(entry: &Entry) -> usize {
    match entry {
        Entry::Attempt(attempt) => {
            64 + [&attempt.policy, &attempt.target]
                .into_iter()
                .flatten()
                .map(|answer| answer.body.len())
                .sum::<usize>()
        }
        Entry::Redelivery { .. } | Entry::Dropped { .. } | Entry::Recovered { .. } => 64,
        Entry::FilterFailed { reason, .. } | Entry::Held { reason, .. } => 64 + reason.len(),
        Entry::Plugin(run) => 256 + run.size(),
        Entry::Run(run) => 256 + run.size(),
    }
}

/// Reads the histories of a batch's deliveries, by (place in the batch, subscription). Entries that are not `wanted`
/// are not kept in memory, because plugins may have logged much. Rows that cannot be read are skipped and marked.
pub(super) fn of_batch(
    table: &impl ReadableTable<(u128, u64), &'static [u8]>,
    pieces: &impl ReadableTable<(u64, u32), &'static [u8]>,
    batch: u128,
    marks: &Marks,
    mut wanted: impl FnMut(&HistoryRecord) -> bool,
) -> Result<Histories, Fault> {
    let mut found = Histories { entries: HashMap::new(), is_whole: true };
    for row in table.range((batch, 0)..=(batch, u64::MAX))? {
        let (key, row) = row?;
        let records = marks.pass("history", key.value(), damage::apart(read(pieces, row.value()))?);
        found.is_whole &= records.is_some();
        for record in records.into_iter().flatten().filter(|record| wanted(record)) {
            found.entries.entry((record.index, record.recipient)).or_default().push(record.entry);
        }
    }
    Ok(found)
}

/// The histories of a batch's deliveries.
pub(super) struct Histories {
    /// By place in the batch and subscription.
    pub(super) entries: HashMap<(u32, u128), Vec<Entry>>,
    /// Whether all of it could be read.
    pub(super) is_whole: bool,
}

/// Moves the failures of filters out of the histories of a batch, so that these are of deliveries alone; returns the
/// failures by place in the batch, in the order of their subscriptions.
pub(super) fn take_failed(
    histories: &mut HashMap<(u32, u128), Vec<Entry>>,
) -> HashMap<u32, Vec<FailedFilter>> {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for ((index, recipient), entries) in histories {
        entries.retain(|entry| match entry {
            Entry::FilterFailed { at, reason } => {
                let recipient = record::recipient_id(*recipient);
                let failed = FailedFilter { recipient, at: *at, reason: reason.clone() };
                all.entry(*index).or_default().push(failed);
                false
            }
            Entry::Attempt(_)
            | Entry::Redelivery { .. }
            | Entry::Dropped { .. }
            | Entry::Recovered { .. }
            | Entry::Held { .. }
            | Entry::Plugin(_)
            | Entry::Run(_) => true,
        });
    }
    all.values_mut().for_each(|failed| failed.sort_by_key(|failed| failed.recipient));
    all
}

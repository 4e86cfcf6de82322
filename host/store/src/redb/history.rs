//! What happened to the deliveries of a batch: a log that nothing is decided by, and how events are shown with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition};

use super::damage::{self, Marks};
use super::deliveries::{DeliveryKey, Stands};
use super::handle::Fault;
use super::ids;
use super::log::{BATCHES, batch_of};
use super::pieces::{self, PIECES, PiecesTable};
use super::read::{Reader, readable};
use super::record::{self, Batch, HistoryRecord};
use super::usage::signed;
use crate::{EventHistory, FailedFilter, LoggedEvent, Range};
use waypost_domain::{Entry, EventId, RecipientId};

/// (Batch, sequence number) → history of the deliveries of its events. Each commit appends what it adds.
pub(super) const HISTORY: TableDefinition<'_, (u128, u64), &[u8]> = TableDefinition::new("history");

/// The handle of a write transaction on [`HISTORY`].
pub(super) type HistoryTable<'txn> = Table<'txn, (u128, u64), &'static [u8]>;

/// The most bytes of records in one row, roughly: it bounds what reading a history holds at once.
const ROW_BYTES_FULL: usize = 256 * 1024;
/// The largest entry that does not force its row into pieces.
const ENTRY_BYTES_SMALL: usize = 2 * 1024;

/// The history, as a group of writes adds to it. New entries are gathered by batch, so that each batch costs one row.
pub(super) struct History<'a, 'txn> {
    table: &'a mut HistoryTable<'txn>,
    marks: &'a Marks,
    new: BTreeMap<u128, Vec<HistoryRecord>>,
    /// By how many bytes the history has grown.
    pub(super) grown: i64,
}

impl<'a, 'txn> History<'a, 'txn> {
    pub(super) fn new(table: &'a mut HistoryTable<'txn>, marks: &'a Marks) -> Self {
        Self { table, marks, new: BTreeMap::new(), grown: 0 }
    }

    /// Adds an entry of a delivery.
    pub(super) fn add(&mut self, key: DeliveryKey, entry: Entry) {
        let DeliveryKey { recipient, batch, index, .. } = key;
        self.add_record(batch, HistoryRecord { index, recipient, entry });
    }

    /// Adds an entry.
    pub(super) fn add_record(&mut self, batch: u128, record: HistoryRecord) {
        self.new.entry(batch).or_default().push(record);
    }

    /// Writes what was added behind what the batches have: the last step of an operation.
    pub(super) fn write(&mut self, pieces: &mut PiecesTable<'_>) -> Result<(), Fault> {
        for (batch, records) in std::mem::take(&mut self.new) {
            let last = self.table.range((batch, 0)..=(batch, u64::MAX))?.next_back().transpose()?;
            let next = last.map_or(0, |(key, _)| key.value().1 + 1);
            for (sequence, row) in (next..).zip(rows(&records)) {
                let record = record::encode_history(row);
                let row = pieces::write(pieces, &record, inline_max(row), None)?;
                self.grown += signed(record.len() as u64);
                self.table.insert((batch, sequence), &*row)?;
            }
        }
        Ok(())
    }

    /// Passes each record of a batch that can be read.
    pub(super) fn walk(
        &self,
        pieces: &PiecesTable<'_>,
        batch: u128,
        mut each: impl FnMut(&HistoryRecord),
    ) -> Result<(), Fault> {
        of_batch(self.table, pieces, batch, self.marks, |record| {
            each(record);
            false
        })?;
        Ok(())
    }

    /// Removes the history of a batch; `removed` gets each of its records that can be read.
    pub(super) fn remove(
        &mut self,
        pieces: &mut PiecesTable<'_>,
        batch: u128,
        removed: impl FnMut(&HistoryRecord),
    ) -> Result<(), Fault> {
        self.walk(pieces, batch, removed)?;
        let whole = (batch, 0)..=(batch, u64::MAX);
        for row in self.table.range(whole.clone())? {
            let row = row?.1;
            pieces::remove(pieces, row.value())?;
            self.grown -= signed(pieces::bytes(row.value()));
        }
        self.table.retain_in(whole, |_, _| false)?;
        Ok(())
    }
}

/// Returns how large the row of these records may be before it is split into pieces. Rows of many small records fill
/// their pages well enough, and are written often.
fn inline_max(records: &[HistoryRecord]) -> usize {
    let is_large = |record: &HistoryRecord| size(&record.entry) > ENTRY_BYTES_SMALL;
    if records.iter().any(is_large) { pieces::INLINE_MAX } else { 2 * ROW_BYTES_FULL }
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

/// The histories of a batch's deliveries, by place in the batch and recipient.
pub(super) type Histories = HashMap<(u32, u128), Vec<Entry>>;

/// Reads the histories of a batch's deliveries. Entries that are not `wanted` are not kept in memory, because plugins may
/// have logged much. Rows that cannot be read are skipped and marked.
pub(super) fn of_batch(
    table: &impl ReadableTable<(u128, u64), &'static [u8]>,
    pieces: &impl ReadableTable<(u64, u32), &'static [u8]>,
    batch: u128,
    marks: &Marks,
    mut wanted: impl FnMut(&HistoryRecord) -> bool,
) -> Result<Histories, Fault> {
    let mut found = Histories::new();
    for row in table.range((batch, 0)..=(batch, u64::MAX))? {
        let (key, row) = row?;
        let records = marks.pass("history", key.value(), damage::apart(read(pieces, row.value()))?);
        for record in records.into_iter().flatten().filter(|record| wanted(record)) {
            found.entry((record.index, record.recipient)).or_default().push(record.entry);
        }
    }
    Ok(found)
}

/// Moves the failures of filters out of the histories of a batch, so that these are of deliveries alone; returns the
/// failures by place in the batch, in the order of their subscriptions.
fn take_failed(histories: &mut Histories) -> HashMap<u32, Vec<FailedFilter>> {
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

/// See [`crate::Store::history`].
pub(super) fn of_event(reader: &Reader, id: EventId) -> Result<Option<EventHistory>, Fault> {
    reader.handle.read(|txn| {
        let Some(key) = batch_of(&txn.open_table(BATCHES)?, id.uuid().as_u128())? else { return Ok(None) };
        let batch = reader.batch(txn, key)?;
        let found = of_events(reader, txn, (key, &batch), 1, None, |logged| logged.id == id)?;
        match found.into_iter().next() {
            // The requested event may be one of the damaged ones.
            None if !batch.damaged.is_empty() => {
                Err(Fault::Damaged { table: "batches", reason: record::Error::Checksum })
            }
            found => Ok(found),
        }
    })
}

/// See [`crate::Store::histories`].
pub(super) fn of_range(reader: &Reader, range: Range) -> Result<Vec<EventHistory>, Fault> {
    let below = range.before.unwrap_or(EventId::MAX).uuid().as_u128();
    let wanted = |logged: &LoggedEvent| {
        logged.id.uuid().as_u128() < below
            && range.since.is_none_or(|since| logged.received >= since)
            && range.until.is_none_or(|until| logged.received < until)
    };
    // The id of an event is never older than its receipt, but may be a little newer.
    let lowest = range.since.map_or(0, |since| ids::first_at(since).uuid().as_u128());
    let mut found = Vec::new();
    let mut upper = below;
    // One transaction for each batch: a long listing does not hold back the reuse of pages.
    while found.len() < range.limit {
        let more = reader.handle.read(|txn| {
            let batches = txn.open_table(BATCHES)?;
            let Some(row) = batches.range(..upper)?.next_back().transpose()? else { return Ok(false) };
            upper = row.0.value();
            let Some(batch) = reader.readable_batch(txn, upper)? else { return Ok(upper > lowest) };
            let newest = of_events(reader, txn, (upper, &batch), range.limit - found.len(), None, wanted);
            found.extend(readable(newest)?.into_iter().flat_map(|newest| newest.into_iter().rev()));
            Ok(upper > lowest)
        })?;
        if !more {
            break;
        }
    }
    Ok(found)
}

/// See [`crate::Store::deliveries_of`] and [`crate::Store::histories_of`].
pub(super) fn of_these(
    reader: &Reader,
    only: Option<RecipientId>,
    events: &[EventId],
) -> Result<Vec<EventHistory>, Fault> {
    let mut by_batch: BTreeMap<u128, HashSet<EventId>> = BTreeMap::new();
    reader.handle.read(|txn| {
        let batches = txn.open_table(BATCHES)?;
        for event in events {
            if let Some(batch) = batch_of(&batches, event.uuid().as_u128())? {
                by_batch.entry(batch).or_default().insert(*event);
            }
        }
        Ok(())
    })?;
    let mut found = Vec::with_capacity(events.len());
    for (batch, events) in by_batch {
        let of_batch = reader.handle.read(|txn| {
            let is_meant = |logged: &LoggedEvent| events.contains(&logged.id);
            let wanted = reader.wanted(txn, batch, |_, id| events.contains(&record::event_id(id)))?;
            of_events(reader, txn, (batch, &wanted), usize::MAX, only, is_meant)
        });
        found.extend(readable(of_batch)?.into_iter().flatten());
    }
    Ok(found)
}

/// Reads the newest events of a batch, `most` of them, with the deliveries to `only` this recipient or to all.
fn of_events(
    reader: &Reader,
    txn: &ReadTransaction,
    (key, batch): (u128, &Batch),
    most: usize,
    only: Option<RecipientId>,
    wanted: impl Fn(&LoggedEvent) -> bool,
) -> Result<Vec<EventHistory>, Fault> {
    let places = (0u32..).zip(batch.iter()).filter_map(|(index, logged)| Some((index, logged.as_ref()?)));
    let places: Vec<_> = places.filter(|(_, logged)| wanted(logged)).collect();
    let places = &places[places.len().saturating_sub(most)..];
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let indexes: HashSet<u32> = places.iter().map(|(index, _)| *index).collect();
    let only_key = only.map(|only| only.uuid().as_u128());
    let is_wanted = |record: &HistoryRecord| {
        indexes.contains(&record.index) && only_key.is_none_or(|only| only == record.recipient)
    };
    let (history, pieces) = (txn.open_table(HISTORY)?, txn.open_table(PIECES)?);
    let mut histories = of_batch(&history, &pieces, key, &reader.marks, is_wanted)?;
    let mut failed = take_failed(&mut histories);
    let mut stands = Stands::open(txn, &reader.marks)?;
    let found = places.iter().map(|(index, logged)| {
        let deliveries = stands.deliveries((key, *index), logged, only, |recipient| {
            histories.remove(&(*index, recipient.uuid().as_u128())).unwrap_or_default()
        })?;
        let failed = failed.remove(index).unwrap_or_default();
        Ok(EventHistory { event: Arc::clone(logged), deliveries, failed })
    });
    found.collect()
}

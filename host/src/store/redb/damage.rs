//! Records that cannot be read: they are marked and skipped, and deliveries that depend on one become dead letters, so
//! that everything else goes on.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use redb::ReadableTable;

use super::apply::{Apply, Effects};
use super::handle::Fault;
use super::history::{self, Ledger};
use super::ids::Ids;
use super::read::Reader;
use super::record::{self, Batch, HistoryRecord, RetryRecord};
use super::schema::{Tables, batch_of};
use super::usage::Usage;
use crate::domain::{Attempt, Entry, Outcome, RecipientId};

/// The most records that are remembered, so that each is logged once.
const MARKS_MAX: usize = 10_000;
/// How many rows of each kind one transaction of [`bury_stranded`] handles.
const STRANDED_AT_ONCE: usize = 256;

/// The damaged records that were met since the start. A cheap handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(Arc<Mutex<BTreeSet<String>>>);

impl Marks {
    /// Returns the record; marks it if it cannot be read.
    pub(super) fn pass<T>(
        &self,
        table: &'static str,
        key: impl Debug,
        read: Result<T, record::Error>,
    ) -> Option<T> {
        read.map_err(|reason| self.mark(table, key, &reason)).ok()
    }

    /// Marks a damaged record, and logs it the first time.
    pub(super) fn mark(&self, table: &'static str, key: impl Debug, reason: &record::Error) {
        let name = format!("{table} {key:?}");
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() < MARKS_MAX && marks.insert(name) {
            tracing::error!(table, ?key, %reason, "a record is damaged: it is passed over");
        }
    }

    /// Returns how many there were.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Separates a record that cannot be read from a store that cannot be read.
pub(super) fn apart<T>(read: Result<T, Fault>) -> Result<Result<T, record::Error>, Fault> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Damaged { reason, .. }) => Ok(Err(reason)),
        Err(fault @ (Fault::Redb(_) | Fault::Closed(_))) => Err(fault),
    }
}

/// Makes dead letters of all pending deliveries of subscriptions whose own records cannot be read: no worker would ever
/// read them. Called before the writer starts. Blocks.
pub(super) fn bury_stranded(reader: &Reader, usage: &Usage, at: Timestamp) -> Result<(), Fault> {
    for id in reader.stranded()? {
        tracing::error!(subscription = %id, "its record cannot be read: what it is owed becomes dead letters");
        let mut more = true;
        while more {
            more = reader.handle.write(|txn| {
                let mut tables = Tables::open(txn)?;
                let (mut ids, reached) = (Ids::above(None), HashMap::new());
                let mut apply = Apply {
                    tables: &mut tables,
                    ids: &mut ids,
                    dedup_window: Duration::ZERO,
                    now: at,
                    reached: &reached,
                    usage,
                    marks: &reader.marks,
                    effects: Effects::default(),
                };
                apply.bury_all(id, STRANDED_AT_ONCE, at)
            })?;
        }
    }
    Ok(())
}

/// A row of a pending delivery that cannot be loaded: it, or the record that it refers to, is damaged or gone.
#[derive(Clone, Copy, Debug)]
pub(super) enum DeadRow {
    /// First attempts of events in this batch.
    Fresh { batch: u128 },
    /// A further attempt.
    Due { due: i64, event: u128 },
}

/// Which deliveries of a row of first attempts become dead letters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BuryScope {
    /// Those that cannot be loaded.
    Unreadable,
    /// All.
    All,
}

impl Apply<'_, '_> {
    /// Makes dead letters of the deliveries in these rows of a subscription that cannot be loaded, and leaves the
    /// others.
    pub(super) fn bury(&mut self, id: RecipientId, rows: &[DeadRow], at: Timestamp) -> Result<(), Fault> {
        let recipient = id.uuid().as_u128();
        let mut ledger = Ledger::default();
        for row in rows {
            match *row {
                DeadRow::Fresh { batch } => {
                    self.bury_fresh(recipient, batch, BuryScope::Unreadable, at, &mut ledger)?;
                }
                DeadRow::Due { due, event } => self.bury_due(recipient, due, event, at, &mut ledger)?,
            }
        }
        ledger.write(self.tables)
    }

    /// Makes dead letters of the pending deliveries of a recipient, at most `limit` rows of each kind; returns whether
    /// there may be more.
    fn bury_all(&mut self, id: RecipientId, limit: usize, at: Timestamp) -> Result<bool, Fault> {
        let recipient = id.uuid().as_u128();
        let rows = self.tables.fresh.range((recipient, 0)..=(recipient, u128::MAX))?.take(limit);
        let fresh = rows.map(|row| Ok(row?.0.value().1)).collect::<Result<Vec<_>, redb::StorageError>>()?;
        let whole = (recipient, i64::MIN, 0)..=(recipient, i64::MAX, u128::MAX);
        let rows = self.tables.retries.range(whole)?.take(limit);
        let due = rows.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, redb::StorageError>>()?;
        let mut ledger = Ledger::default();
        for batch in &fresh {
            self.bury_fresh(recipient, *batch, BuryScope::All, at, &mut ledger)?;
        }
        for (_, due, event) in &due {
            self.bury_due(recipient, *due, *event, at, &mut ledger)?;
        }
        ledger.write(self.tables)?;
        Ok(fresh.len() == limit || due.len() == limit)
    }

    /// Makes dead letters of deliveries of a row of first attempts, and removes them from it; if the row itself cannot
    /// be read, of all of them.
    pub(super) fn bury_fresh(
        &mut self,
        recipient: u128,
        key: u128,
        doomed: BuryScope,
        at: Timestamp,
        ledger: &mut Ledger,
    ) -> Result<(), Fault> {
        let batch = self.batch_if_whole(key)?;
        let Some(row) = self.tables.fresh.get((recipient, key))?.map(|row| row.value().to_vec()) else {
            return Ok(());
        };
        let (places, is_row_damaged) = match record::decode_places(&row) {
            Ok(places) => (places, false),
            Err(_) => (self.untried(recipient, key, batch.as_ref())?, true),
        };
        let mut left = Vec::new();
        for index in places {
            match batch.as_ref().map(|batch| state_of(batch, index)) {
                Ok(EventState::Event) if !is_row_damaged && doomed == BuryScope::Unreadable => {
                    left.push(index)
                }
                Ok(EventState::Event | EventState::Damaged) | Err(()) => {
                    ledger.add(key, dead(index, recipient, 1, at));
                }
                Ok(EventState::Nothing) => {}
            }
        }
        if left.is_empty() {
            self.tables.fresh.remove((recipient, key))?;
        } else {
            self.tables.fresh.insert((recipient, key), record::encode_places(&left).as_slice())?;
        }
        Ok(())
    }

    fn bury_due(
        &mut self,
        recipient: u128,
        due: i64,
        event: u128,
        at: Timestamp,
        ledger: &mut Ledger,
    ) -> Result<(), Fault> {
        let Some(row) = self.tables.retries.get((recipient, due, event))?.map(|row| row.value().to_vec())
        else {
            return Ok(());
        };
        let retry = RetryRecord::decode(&row).and_then(|retry| Ok((retry, retry.progress()?)));
        let found = match retry {
            Ok((retry, progress)) => Some((retry.batch, retry.index, progress.failed.saturating_add(1))),
            // Its key still tells which event it is.
            Err(_) => self.find(event)?.map(|(key, index)| (key, index, 1)),
        };
        if let Some((key, index, number)) = found
            && !matches!(
                self.batch_if_whole(key)?.map(|batch| state_of(&batch, index)),
                Ok(EventState::Nothing)
            )
        {
            ledger.add(key, dead(index, recipient, number, at));
        }
        self.tables.retries.remove((recipient, due, event))?;
        Ok(())
    }

    /// Reads a batch; `Err(())` for one that cannot be read.
    fn batch_if_whole(&self, key: u128) -> Result<Result<Batch, ()>, Fault> {
        Ok(apart(self.batch(key))?.map_err(|_| ()))
    }

    /// Finds the place of an event in the log.
    fn find(&self, event: u128) -> Result<Option<(u128, u32)>, Fault> {
        let Some(key) = batch_of(&self.tables.batches, event)? else { return Ok(None) };
        let Ok(batch) = self.batch_if_whole(key)? else { return Ok(None) };
        let place = batch
            .iter()
            .position(|logged| logged.as_ref().is_some_and(|logged| logged.id.uuid().as_u128() == event));
        Ok(place.map(|place| (key, u32::try_from(place).expect("a batch has at most 256 events"))))
    }

    /// Returns the places of a batch whose first attempt a subscription has pending: the content of its row of first
    /// attempts, reconstructed from the rest of the log.
    fn untried(&self, recipient: u128, key: u128, batch: Result<&Batch, &()>) -> Result<Vec<u32>, Fault> {
        let Ok(batch) = batch else { return Ok(Vec::new()) };
        let is_own = |record: &HistoryRecord| record.recipient == recipient;
        let histories =
            history::of_batch(&self.tables.history, &self.tables.pieces, key, self.marks, is_own)?;
        let id = record::recipient_id(recipient);
        let places = (0u32..).zip(batch.iter()).filter(|(index, logged)| {
            let is_owed = logged.as_ref().is_some_and(|logged| logged.matched.contains(&id));
            let has_state = |entries: &Vec<Entry>| entries.iter().any(|entry| !entry.is_run());
            is_owed && !histories.entries.get(&(*index, recipient)).is_some_and(has_state)
        });
        Ok(places.map(|(index, _)| index).collect())
    }
}

/// What is in a place of a batch.
enum EventState {
    Event,
    Damaged,
    /// It was purged, or was never there.
    Nothing,
}

fn state_of(batch: &Batch, index: u32) -> EventState {
    let event = usize::try_from(index).ok().and_then(|index| batch.get(index)?.as_ref());
    match event {
        Some(_) => EventState::Event,
        None if batch.damaged.contains(&index) => EventState::Damaged,
        None => EventState::Nothing,
    }
}

/// Makes the entry of a delivery that cannot be loaded.
fn dead(index: u32, recipient: u128, number: u32, at: Timestamp) -> HistoryRecord {
    let reason = "record damaged: what it needs cannot be read from the disk".to_owned();
    let outcome = Outcome::Dead { reason };
    let attempt = Attempt { number, at, took: Duration::ZERO, policy: None, target: None, outcome };
    HistoryRecord { index, recipient, entry: Entry::Attempt(attempt) }
}

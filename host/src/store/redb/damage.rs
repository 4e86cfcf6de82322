//! Records that cannot be read: they are marked and skipped, and deliveries that depend on one become dead letters, so
//! that everything else goes on.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use redb::ReadableTable;

use super::apply::{Apply, PendingRows};
use super::deliveries::{DeliveryKey, Stand};
use super::handle::Fault;
use super::history::Ledger;
use super::machine::Machine;
use super::read::Reader;
use super::record::{self, Batch, HistoryRecord, Waiting};
use super::schema::Tables;
use crate::domain::{Attempt, Entry, Outcome, RecipientId};
use crate::store::StoredState;

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
pub(super) fn bury_stranded(reader: &Reader, machine: &mut Machine, at: Timestamp) -> Result<(), Fault> {
    for id in reader.stranded()? {
        tracing::error!(subscription = %id, "its record cannot be read: what it is owed becomes dead letters");
        let mut more = true;
        while more {
            let mut effects = reader.handle.write(|txn| {
                let mut tables = Tables::open(txn)?;
                let mut apply = machine.begin(&mut tables, at)?;
                more = apply.bury_all(id, STRANDED_AT_ONCE, at)?;
                apply.finish()
            })?;
            machine.remember(&mut effects);
        }
    }
    Ok(())
}

/// A row of a pending delivery that cannot be loaded: it, or the record that it refers to, is damaged or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeadRow {
    /// First attempts of events in this batch.
    Fresh { batch: u128 },
    /// A further attempt.
    Due { due: i64, event: u128 },
}

/// Which deliveries of a row of first attempts become dead letters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BuryScope {
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
                    self.bury_first(recipient, batch, BuryScope::Unreadable, at, &mut ledger)?;
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
        let PendingRows { batches, due } = self.pending_rows(recipient, limit)?;
        let mut ledger = Ledger::default();
        for batch in &batches {
            self.bury_first(recipient, *batch, BuryScope::All, at, &mut ledger)?;
        }
        for (due, event) in &due {
            self.bury_due(recipient, *due, *event, at, &mut ledger)?;
        }
        ledger.write(self.tables)?;
        Ok(batches.len() == limit || due.len() == limit)
    }

    /// Handles the unreadable rows of one delivery, and returns where it stands then.
    pub(super) fn bury_unreadable(
        &mut self,
        key: DeliveryKey,
        reason: &record::Error,
        at: Timestamp,
        ledger: &mut Ledger,
    ) -> Result<Option<Stand>, Fault> {
        let DeliveryKey { recipient, event, batch, .. } = key;
        if apart(self.first_row((recipient, batch)).map(drop))?.is_err() {
            self.marks.mark("fresh", (recipient, batch), reason);
            self.bury_first(recipient, batch, BuryScope::Unreadable, at, ledger)?;
        } else {
            self.marks.mark("waiting", (recipient, event), reason);
            // Its time is not known: the row that is left of it is removed when it is met.
            self.tables.waiting.remove((recipient, event))?;
            self.rows.counts.recount(recipient);
        }
        self.stand(key)
    }

    /// Makes dead letters of deliveries of a row of first attempts, and removes them from it; if the row itself cannot
    /// be read, of all of them.
    fn bury_first(
        &mut self,
        recipient: u128,
        batch: u128,
        scope: BuryScope,
        at: Timestamp,
        ledger: &mut Ledger,
    ) -> Result<(), Fault> {
        let row = (recipient, batch);
        let events = apart(self.batch(batch))?.map_err(drop);
        let (places, is_row_damaged) = match apart(self.first_row(row).map(|places| places.clone()))? {
            Ok(places) => (places, false),
            Err(_) => {
                self.replace_first(row, Vec::new());
                (self.untried(recipient, batch, events.as_ref())?, true)
            }
        };
        let mut left = Vec::new();
        for index in places {
            let event = events.as_ref().ok().and_then(|events| events.event_at(index));
            let key = DeliveryKey {
                recipient,
                event: event.map_or(0, |logged| logged.id.uuid().as_u128()),
                batch,
                index,
            };
            match events.as_ref().map(|events| event_state(events, index)) {
                Ok(EventState::Event) if !is_row_damaged && scope == BuryScope::Unreadable => {
                    left.push(index)
                }
                Ok(EventState::Event | EventState::Damaged) | Err(()) => {
                    ledger.add(batch, dead(index, recipient, 1, at));
                    self.end(key, StoredState::Dead, false)?;
                }
                Ok(EventState::Nothing) => {}
            }
        }
        self.replace_first(row, left);
        Ok(())
    }

    /// Makes a dead letter of a delivery that waits and cannot be loaded. A time that is not its own is removed.
    fn bury_due(
        &mut self,
        recipient: u128,
        due: i64,
        event: u128,
        at: Timestamp,
        ledger: &mut Ledger,
    ) -> Result<(), Fault> {
        self.tables.due.remove((recipient, due, event))?;
        let row = self.tables.waiting.get((recipient, event))?.map(|row| Waiting::decode(row.value()));
        let (place, number, was_allowed) = match row {
            Some(Ok(waiting)) if waiting.due.as_microsecond() != due => return Ok(()),
            Some(Ok(waiting)) => {
                let number = waiting.progress.failed.saturating_add(1);
                self.count_waited(recipient, &waiting.why);
                (Some((waiting.batch, waiting.index)), number, waiting.origin.was_allowed)
            }
            // Its key still tells which event it is.
            Some(Err(_)) | None => {
                self.rows.counts.recount(recipient);
                (self.place_of(event)?, 1, false)
            }
        };
        self.tables.waiting.remove((recipient, event))?;
        let Some((batch, index)) = place else { return Ok(()) };
        let key = DeliveryKey { recipient, event, batch, index };
        let is_gone = |events: Batch| matches!(event_state(&events, index), EventState::Nothing);
        if apart(self.batch(batch))?.is_ok_and(is_gone)
            || apart(self.stand(key))?.is_ok_and(|at| at.is_some())
        {
            return Ok(());
        }
        ledger.add(batch, dead(index, recipient, number, at));
        self.end(key, StoredState::Dead, was_allowed)
    }

    /// Removes a time that leads to no delivery that waits until then, and what is left of one that cannot be read.
    pub(super) fn remove_stale(&mut self, due: (u128, i64, u128)) -> Result<(), Fault> {
        self.tables.due.remove(due)?;
        let row = (due.0, due.2);
        let is_damaged =
            self.tables.waiting.get(row)?.is_some_and(|row| Waiting::decode(row.value()).is_err());
        if is_damaged {
            self.tables.waiting.remove(row)?;
            self.rows.counts.recount(due.0);
        }
        Ok(())
    }

    /// Finds the place of an event in the log, unless its batch cannot be read.
    fn place_of(&self, event: u128) -> Result<Option<(u128, u32)>, Fault> {
        let found = apart(self.find_event(event))?.ok().flatten();
        Ok(found.map(|(batch, index, _)| (batch, index)))
    }

    /// Returns the places of a batch whose first attempt a subscription has pending, found from its other rows: those
    /// that it matched and that stand nowhere else.
    fn untried(
        &mut self,
        recipient: u128,
        batch: u128,
        events: Result<&Batch, &()>,
    ) -> Result<Vec<u32>, Fault> {
        let Ok(events) = events else { return Ok(Vec::new()) };
        let id = record::recipient_id(recipient);
        let mut untried = Vec::new();
        for (index, logged) in (0u32..).zip(events.iter()) {
            let Some(logged) = logged.as_ref().filter(|logged| logged.matched.contains(&id)) else {
                continue;
            };
            let key = DeliveryKey { recipient, event: logged.id.uuid().as_u128(), batch, index };
            if apart(self.stand(key))?.is_ok_and(|stand| stand.is_none()) {
                untried.push(index);
            }
        }
        Ok(untried)
    }
}

/// What is in a place of a batch.
enum EventState {
    Event,
    Damaged,
    /// It was purged, or was never there.
    Nothing,
}

fn event_state(events: &Batch, index: u32) -> EventState {
    match events.event_at(index) {
        Some(_) => EventState::Event,
        None if events.damaged.contains(&index) => EventState::Damaged,
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

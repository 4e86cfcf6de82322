//! What leaves the tables of deliveries with its event or its recipient, and what is done about rows that cannot be read.

use redb::{ReadableTable, StorageError};

use super::{Deliveries, DeliveryKey, minute_of};
use crate::redb::damage;
use crate::redb::handle::Fault;
use crate::redb::record::{Error, FINAL, Waiting, final_code};

/// Rows of pending deliveries.
pub(crate) struct PendingRows {
    /// Batches with first attempts.
    pub(crate) batches: Vec<u128>,
    /// The times (microseconds since 1970) and events of those that wait.
    pub(crate) due: Vec<(i64, u128)>,
}

/// What a time led to that was removed.
pub(crate) enum DueRow {
    /// A delivery that waited until then, and is removed with it.
    Waiting(Waiting),
    /// One that waits until another time, and stays.
    Other,
    /// Nothing that can be read, and nothing is left of it.
    Unreadable,
}

impl Deliveries<'_, '_> {
    /// Returns the first pending rows of a recipient, at most `limit` of each kind.
    pub(crate) fn pending_rows(&mut self, recipient: u128, limit: usize) -> Result<PendingRows, Fault> {
        self.write_rows()?;
        let rows = self.tables.fresh.range((recipient, 0)..=(recipient, u128::MAX))?.take(limit);
        let batches = rows.map(|row| Ok(row?.0.value().1)).collect::<Result<_, StorageError>>()?;
        let whole = (recipient, i64::MIN, 0)..=(recipient, i64::MAX, u128::MAX);
        let rows = self.tables.due.range(whole)?.take(limit);
        let due = rows.map(|row| {
            let (_, due, event) = row?.0.value();
            Ok((due, event))
        });
        Ok(PendingRows { batches, due: due.collect::<Result<_, StorageError>>()? })
    }

    /// Returns the recipients with ended deliveries of a batch.
    pub(crate) fn recipients_of(&self, batch: u128) -> Result<Vec<u128>, StorageError> {
        let rows = self.tables.ended.range((batch, 0)..=(batch, u128::MAX))?;
        rows.map(|row| Ok(row?.0.value().1)).collect()
    }

    /// Removes a time, and the delivery that waits until then; marks one that cannot be read.
    pub(crate) fn remove_due(&mut self, (recipient, due, event): (u128, i64, u128)) -> Result<DueRow, Fault> {
        self.tables.due.remove((recipient, due, event))?;
        let row = self.tables.waiting.get((recipient, event))?;
        let read = row.map(|row| Waiting::decode(row.value())).transpose();
        let (found, state) = match self.marks.pass("waiting", (recipient, event), read).flatten() {
            Some(waiting) if waiting.due.as_microsecond() != due => return Ok(DueRow::Other),
            Some(waiting) => {
                let state = waiting.why.state();
                self.rows.counts.add(recipient, state, -1);
                (DueRow::Waiting(waiting), Some(state))
            }
            None => {
                self.rows.counts.recount(recipient);
                (DueRow::Unreadable, None)
            }
        };
        self.remove_waiting_row(recipient, event, state)?;
        Ok(found)
    }

    /// Marks the row of a delivery that cannot be read, and removes it if it is one that waits: then this returns `true`. Its
    /// time is not known: what is left of it is removed when it is met.
    pub(crate) fn remove_unreadable(&mut self, key: DeliveryKey, reason: &Error) -> Result<bool, Fault> {
        let is_first = damage::apart(self.first_row(key.row()).map(drop))?.is_err();
        if is_first {
            self.marks.mark("fresh", key.row(), reason);
        } else {
            self.marks.mark("waiting", (key.recipient, key.event), reason);
            self.remove_waiting_row(key.recipient, key.event, None)?;
            self.rows.counts.recount(key.recipient);
        }
        Ok(!is_first)
    }

    /// Returns the places of a row of first attempts; removes and marks one that cannot be read.
    pub(crate) fn readable_first(&mut self, row: (u128, u128)) -> Result<Option<Vec<u32>>, Fault> {
        let places = damage::apart(self.first_row(row).map(|places| places.clone()))?;
        let places = self.marks.pass("fresh", row, places);
        if places.is_none() {
            self.replace_first(row, Vec::new())?;
        }
        Ok(places)
    }

    /// Adds a delivery of an event that its recipient did not match.
    pub(crate) fn add(&mut self, key: DeliveryKey) -> Result<(), StorageError> {
        self.tables.added.insert((key.batch, key.index, key.recipient), ()).map(drop)
    }

    /// Removes a delivery that stands nowhere from those that were added to an event's.
    pub(crate) fn remove_added(&mut self, key: DeliveryKey) -> Result<(), StorageError> {
        self.tables.added.remove((key.batch, key.index, key.recipient)).map(drop)
    }

    /// Removes the rows of a recipient about a batch that cannot be read and leaves the log.
    pub(crate) fn remove_batch_rows(&mut self, recipient: u128, batch: u128) -> Result<(), Fault> {
        self.replace_first((recipient, batch), Vec::new())?;
        for ended in std::mem::take(self.ended_row((batch, recipient))?) {
            self.rows.counts.add(recipient, ended.state, -1);
        }
        for state in FINAL.map(final_code) {
            let whole = (recipient, state, batch, 0)..=(recipient, state, batch, u32::MAX);
            self.tables.ended_by_state.retain_in(whole, |_, _| false)?;
        }
        Ok(())
    }

    /// Forgets the minutes of recipients whose events have left the log, of which `oldest` is the oldest batch now.
    pub(crate) fn forget_minutes(
        &mut self,
        recipients: impl IntoIterator<Item = u128>,
        oldest: Option<u128>,
    ) -> Result<(), Fault> {
        let oldest = oldest.map_or(u64::MAX, minute_of);
        for recipient in recipients {
            self.tables.ended_minutes.retain_in((recipient, 0)..(recipient, oldest), |_, _| false)?;
        }
        Ok(())
    }

    /// Removes all rows of a recipient that is forgotten. Its events have left the log.
    pub(crate) fn forget(&mut self, recipient: u128) -> Result<(), Fault> {
        self.write_rows()?;
        std::mem::take(&mut self.rows.counts).fold(self.tables, self.marks)?;
        self.tables.ended_minutes.retain_in((recipient, 0)..=(recipient, u64::MAX), |_, _| false)?;
        let whole = (recipient, 0, 0, 0)..=(recipient, u8::MAX, u128::MAX, u32::MAX);
        self.tables.ended_by_state.retain_in(whole, |_, _| false)?;
        let waiting = (recipient, 0, 0)..=(recipient, u8::MAX, u128::MAX);
        self.tables.waiting_by_state.retain_in(waiting, |_, ()| false)?;
        self.tables.counts.remove(recipient)?;
        Ok(())
    }
}

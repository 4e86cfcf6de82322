//! Where each delivery stands, and how it gets from one state to the next.
//!
//! A delivery is in one of three tables: in a row of first attempts ([`FRESH`](super::schema::FRESH)), among those that
//! wait ([`WAITING`](super::schema::WAITING), with [`DUE`](super::schema::DUE) in the order of their times), or among the
//! ended ones ([`ENDED`](super::schema::ENDED)). First attempts and ends are packed: one row holds a recipient's
//! deliveries of a batch. Each commit reads such a row once and writes it once; the numbers of deliveries by state are
//! written with it.

use std::collections::{BTreeMap, btree_map};

use jiff::Timestamp;
use redb::{ReadableTable, StorageError};

use super::apply::Apply;
use super::counts::CountChanges;
use super::damage;
use super::handle::Fault;
use super::ids::millis;
use super::record::{self, Error, Origin, Waiting, Why};
use crate::domain::RecipientId;
use crate::store::{Progress, StoredState};

/// Which delivery, and where its event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryKey {
    pub(super) recipient: u128,
    pub(super) event: u128,
    pub(super) batch: u128,
    pub(super) index: u32,
}

impl DeliveryKey {
    fn row(self) -> (u128, u128) {
        (self.recipient, self.batch)
    }

    fn ended_row(self) -> (u128, u128) {
        (self.batch, self.recipient)
    }
}

/// Where a delivery stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stand {
    /// It waits for its first attempt.
    First,
    /// It waits for another attempt.
    Waiting(Waiting),
    /// It is over.
    Ended(Ended),
}

impl Stand {
    /// Tells whether it is over.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Ended(_))
    }

    /// Returns what stays with the delivery.
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::First => Origin::default(),
            Self::Waiting(waiting) => waiting.origin,
            Self::Ended(ended) => Origin { asked: None, was_allowed: ended.was_allowed },
        }
    }
}

/// The end of a delivery, in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The event's place in the batch.
    pub(super) index: u32,
    /// A final state.
    pub(super) state: StoredState,
    /// Whether policy has ever let its user see the event.
    pub(super) was_allowed: bool,
}

/// The bit of [`Ended::was_allowed`] beside the state.
const ALLOWED_BIT: u8 = 0x80;
/// The final states, by their numbers in a row.
const FINAL: [StoredState; 4] =
    [StoredState::Delivered, StoredState::Denied, StoredState::Skipped, StoredState::Dead];

/// Writes a row of ended deliveries.
pub(super) fn encode_ended(row: &[Ended]) -> Vec<u8> {
    let packed: Vec<(u32, u8)> = row.iter().map(|ended| (ended.index, code(ended))).collect();
    record::versioned(|buffer| postcard::to_extend(&packed, buffer))
}

fn code(ended: &Ended) -> u8 {
    let state = final_code(ended.state);
    if ended.was_allowed { state | ALLOWED_BIT } else { state }
}

/// Returns the number of a final state in keys and rows.
pub(super) fn final_code(state: StoredState) -> u8 {
    (state as u8).saturating_sub(StoredState::Delivered as u8)
}

/// Reads a row of ended deliveries.
pub(super) fn decode_ended(row: &[u8]) -> Result<Vec<Ended>, Error> {
    let packed: Vec<(u32, u8)> = record::read(record::body(row)?)?;
    let ended = |(index, code): (u32, u8)| {
        let state = FINAL.get(usize::from(code & !ALLOWED_BIT)).ok_or(Error::Value("an unknown state"))?;
        Ok(Ended { index, state: *state, was_allowed: code & ALLOWED_BIT != 0 })
    };
    packed.into_iter().map(ended).collect()
}

/// The packed rows that a transaction has changed, and by how much the numbers of deliveries change.
#[derive(Default)]
pub(super) struct Rows {
    first: BTreeMap<(u128, u128), Vec<u32>>,
    ended: BTreeMap<(u128, u128), Vec<Ended>>,
    pub(super) counts: CountChanges,
}

impl Apply<'_, '_> {
    /// Adds the first attempts of a new batch.
    pub(super) fn add_first(&mut self, recipient: RecipientId, batch: u128, places: Vec<u32>) {
        let recipient = recipient.uuid().as_u128();
        self.rows.first.insert((recipient, batch), places);
    }

    /// Replaces a row of first attempts whose deliveries were sorted out one by one.
    pub(super) fn replace_first(&mut self, row: (u128, u128), places: Vec<u32>) {
        self.rows.first.insert(row, places);
        self.effects.pruned.insert(record::recipient_id(row.0));
    }

    /// Notes that a delivery no longer waits for this.
    pub(super) fn count_waited(&mut self, recipient: u128, why: &Why) {
        self.rows.counts.add(recipient, why.state(), -1);
    }

    /// Returns a row of first attempts; one that is not there has no places.
    pub(super) fn first_row(&mut self, row: (u128, u128)) -> Result<&mut Vec<u32>, Fault> {
        Ok(match self.rows.first.entry(row) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => {
                let places = self.tables.fresh.get(row)?.map(|row| record::decode_places(row.value()));
                new.insert(places.transpose().map_err(Fault::damaged("fresh"))?.unwrap_or_default())
            }
        })
    }

    /// Returns a row of ended deliveries. One that cannot be read is marked, and starts over empty.
    fn ended_row(&mut self, row: (u128, u128)) -> Result<&mut Vec<Ended>, Fault> {
        Ok(match self.rows.ended.entry(row) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => {
                let read = self.tables.ended.get(row)?.map(|row| decode_ended(row.value())).transpose();
                if read.is_err() {
                    self.rows.counts.recount(row.1);
                }
                let ended = self.marks.pass("ended", row, read);
                new.insert(ended.flatten().unwrap_or_default())
            }
        })
    }

    fn waiting(&self, key: DeliveryKey) -> Result<Option<Waiting>, Fault> {
        let row = self.tables.waiting.get((key.recipient, key.event))?;
        row.map(|row| Waiting::decode(row.value())).transpose().map_err(Fault::damaged("waiting"))
    }

    /// Returns where a delivery stands; `None` if there is no such delivery.
    pub(super) fn stand(&mut self, key: DeliveryKey) -> Result<Option<Stand>, Fault> {
        if self.first_row(key.row())?.contains(&key.index) {
            return Ok(Some(Stand::First));
        }
        if let Some(waiting) = self.waiting(key)? {
            return Ok(Some(Stand::Waiting(waiting)));
        }
        let ended = self.ended_row(key.ended_row())?.iter().find(|ended| ended.index == key.index);
        Ok(ended.copied().map(Stand::Ended))
    }

    /// Tells whether a delivery is pending at this position: for its first attempt, or due at this time.
    pub(super) fn is_pending(&mut self, key: DeliveryKey, due: Option<Timestamp>) -> Result<bool, Fault> {
        Ok(match due {
            None => self.first_row(key.row())?.contains(&key.index),
            Some(due) => self.waiting(key)?.is_some_and(|waiting| waiting.due == due),
        })
    }

    /// Removes a pending delivery from its position, and returns how it stood there; `None` if it is not there any more.
    pub(super) fn take(&mut self, key: DeliveryKey, due: Option<Timestamp>) -> Result<Option<Stand>, Fault> {
        let Some(due) = due else {
            let places = self.first_row(key.row())?;
            let Some(at) = places.iter().position(|place| *place == key.index) else { return Ok(None) };
            places.remove(at);
            return Ok(Some(Stand::First));
        };
        match damage::apart(self.waiting(key))? {
            Ok(Some(waiting)) if waiting.due == due => {
                self.remove_waiting(key, due)?;
                self.rows.counts.add(key.recipient, waiting.why.state(), -1);
                Ok(Some(Stand::Waiting(waiting)))
            }
            Ok(_) => Ok(None),
            // Its key says that it is there.
            Err(reason) => {
                self.marks.mark("waiting", (key.recipient, key.event), &reason);
                self.rows.counts.recount(key.recipient);
                self.remove_waiting(key, due)?;
                Ok(Some(Stand::First))
            }
        }
    }

    /// Removes the rows of a delivery that waits until `due`. Its number is the caller's business.
    pub(super) fn remove_waiting(&mut self, key: DeliveryKey, due: Timestamp) -> Result<(), StorageError> {
        self.tables.waiting.remove((key.recipient, key.event))?;
        self.tables.due.remove((key.recipient, due.as_microsecond(), key.event))?;
        Ok(())
    }

    /// Removes a delivery from wherever it stands, and returns how it stood.
    pub(super) fn leave(&mut self, key: DeliveryKey) -> Result<Option<Stand>, Fault> {
        let stand = self.stand(key)?;
        match &stand {
            None => {}
            Some(Stand::First) => {
                self.take(key, None)?;
                self.effects.pruned.insert(record::recipient_id(key.recipient));
            }
            Some(Stand::Waiting(waiting)) => drop(self.take(key, Some(waiting.due))?),
            Some(Stand::Ended(ended)) => {
                self.ended_row(key.ended_row())?.retain(|known| known.index != key.index);
                self.rows.counts.add(key.recipient, ended.state, -1);
                self.tables.ended_by_state.remove(state_key(key, ended.state))?;
            }
        }
        Ok(stand)
    }

    /// Lets a delivery wait. It must not stand anywhere.
    pub(super) fn wait(&mut self, key: DeliveryKey, waiting: &Waiting) -> Result<(), StorageError> {
        self.tables.waiting.insert((key.recipient, key.event), waiting.encode().as_slice())?;
        self.tables.due.insert((key.recipient, waiting.due.as_microsecond(), key.event), ())?;
        self.rows.counts.add(key.recipient, waiting.why.state(), 1);
        Ok(())
    }

    /// Lets a delivery wait that was redelivered or recovered at this time.
    pub(super) fn wait_asked(
        &mut self,
        key: DeliveryKey,
        at: Timestamp,
        was_allowed: bool,
    ) -> Result<(), StorageError> {
        let origin = Origin { asked: Some(at), was_allowed };
        let progress = Progress::default();
        let (batch, index) = (key.batch, key.index);
        self.wait(key, &Waiting { batch, index, due: at, why: Why::Asked, progress, origin })
    }

    /// Ends a delivery. It must not stand anywhere.
    pub(super) fn end(
        &mut self,
        key: DeliveryKey,
        state: StoredState,
        was_allowed: bool,
    ) -> Result<(), Fault> {
        let row = self.ended_row(key.ended_row())?;
        let at = row.partition_point(|known| known.index < key.index);
        row.insert(at, Ended { index: key.index, state, was_allowed });
        self.rows.counts.add(key.recipient, state, 1);
        let minute = (key.recipient, minute_of(key.batch));
        if self.ended_minutes.get(&minute.0) != Some(&minute.1) && self.effects.ended_minutes.insert(minute) {
            self.tables.ended_minutes.insert(minute, ())?;
        }
        if state != StoredState::Delivered {
            self.tables.ended_by_state.insert(state_key(key, state), key.event)?;
        }
        Ok(())
    }

    /// Returns the recipients to whom a redelivery or a recovery added a delivery of an event that they did not match.
    pub(super) fn added(&self, batch: u128, index: u32) -> Result<Vec<u128>, StorageError> {
        added(&self.tables.added, batch, index)
    }

    /// Writes the changed rows: before rows are walked, and as a last step of a transaction.
    pub(super) fn write_rows(&mut self) -> Result<(), Fault> {
        for (row, places) in std::mem::take(&mut self.rows.first) {
            if !places.is_empty() {
                self.tables.fresh.insert(row, record::encode_places(&places).as_slice())?;
            } else {
                self.tables.fresh.remove(row)?;
            }
        }
        for (row, ended) in std::mem::take(&mut self.rows.ended) {
            if !ended.is_empty() {
                self.tables.ended.insert(row, encode_ended(&ended).as_slice())?;
            } else {
                self.tables.ended.remove(row)?;
            }
        }
        Ok(())
    }

    /// Removes the rows of a recipient about a batch that cannot be read and leaves the log.
    pub(super) fn remove_batch_rows(&mut self, recipient: u128, batch: u128) -> Result<(), Fault> {
        self.replace_first((recipient, batch), Vec::new());
        for ended in std::mem::take(self.ended_row((batch, recipient))?) {
            self.rows.counts.add(recipient, ended.state, -1);
        }
        for state in FINAL.map(final_code) {
            let whole = (recipient, state, batch, 0)..=(recipient, state, batch, u32::MAX);
            self.tables.ended_by_state.retain_in(whole, |_, _| false)?;
        }
        Ok(())
    }

    /// Forgets the minutes of recipients whose events have left the log.
    pub(super) fn forget_minutes(&mut self, recipients: impl IntoIterator<Item = u128>) -> Result<(), Fault> {
        let oldest = self.tables.batches.first()?.map_or(u64::MAX, |(batch, _)| minute_of(batch.value()));
        for recipient in recipients {
            self.tables.ended_minutes.retain_in((recipient, 0)..(recipient, oldest), |_, _| false)?;
        }
        Ok(())
    }

    /// Removes all rows of a recipient that is forgotten. Its events have left the log.
    pub(super) fn forget_deliveries(&mut self, recipient: u128) -> Result<(), Fault> {
        self.write_rows()?;
        std::mem::take(&mut self.rows.counts).fold(self.tables, self.marks)?;
        self.tables.ended_minutes.retain_in((recipient, 0)..=(recipient, u64::MAX), |_, _| false)?;
        let whole = (recipient, 0, 0, 0)..=(recipient, u8::MAX, u128::MAX, u32::MAX);
        self.tables.ended_by_state.retain_in(whole, |_, _| false)?;
        self.tables.counts.remove(recipient)?;
        Ok(())
    }
}

/// Returns the minute since 1970 in which a batch begins.
pub(super) fn minute_of(batch: u128) -> u64 {
    millis(record::event_id(batch)) / 60_000
}

/// Returns the first key that a batch of a minute can have.
pub(super) fn first_of_minute(minute: u64) -> u128 {
    u128::from(minute * 60_000) << 80
}

/// Returns the key of an ended delivery among those of its state.
fn state_key(key: DeliveryKey, state: StoredState) -> (u128, u8, u128, u32) {
    (key.recipient, final_code(state), key.batch, key.index)
}

/// Reads the recipients that were added to an event's.
pub(super) fn added(
    table: &impl ReadableTable<(u128, u32, u128), ()>,
    batch: u128,
    index: u32,
) -> Result<Vec<u128>, StorageError> {
    let rows = table.range((batch, index, 0)..=(batch, index, u128::MAX))?;
    rows.map(|row| Ok(row?.0.value().2)).collect()
}

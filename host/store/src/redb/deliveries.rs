//! Where each delivery stands, and how it gets from one state to the next.
//!
//! A delivery is in one of three tables: in a row of first attempts ([`FRESH`]), among those that wait ([`WAITING`], with
//! [`DUE`] in the order of their times), or among the ended ones ([`ENDED`]). First attempts and ends are packed: one row
//! holds a recipient's deliveries of a batch. Each commit reads such a row once and writes it once; the numbers of
//! deliveries by state are written with it.

mod counts;
mod list;
mod ordered;
mod ready;
mod remove;
mod walk;

use std::collections::{BTreeMap, HashMap, HashSet, btree_map};

use jiff::Timestamp;
use redb::{ReadableTable, StorageError};

use super::damage::{self, Marks};
use super::handle::Fault;
use super::ids::millis;
use super::record::{self, Ended, Origin, Waiting, Why, decode_ended, encode_ended, final_code};
use super::schema::tables;
use crate::{Position, Progress, QueuePosition, StoredState};
use counts::CountChanges;
use waypost_domain::{EventId, RecipientId};

#[cfg(test)]
pub(super) use counts::FOLD_EVERY;
pub(super) use counts::{counts, index};
pub(super) use list::{Stands, list};
pub(super) use ordered::in_order;
pub(super) use ready::{backlog, backlog_until, first_attempt, ready, recipients_with_backlog};
pub(super) use remove::{DueRow, PendingRows};
pub(super) use walk::{WalkedDelivery, in_state};

tables! {
    /// The tables of deliveries.
    DeliveryTables {
        /// (Recipient, batch) → places in the batch, 4 bytes each, of events whose first attempt has not ended.
        FRESH as fresh = "fresh": (u128, u128) => &'static [u8];
        /// (Recipient, event) → a delivery that waits for another attempt: when, why, and how far it has come
        /// ([`Waiting`]).
        WAITING as waiting = "waiting": (u128, u128) => &'static [u8];
        /// (Recipient, due in microseconds since 1970, event) → nothing. The order of [`WAITING`].
        DUE as due = "due": (u128, i64, u128) => ();
        /// (Recipient, [`StoredState`] of what waits, event) → nothing. The rows of [`WAITING`] by state.
        WAITING_BY_STATE as waiting_by_state = "waiting_by_state": (u128, u8, u128) => ();
        /// (Batch, recipient) → the deliveries of the batch that are over, each with its state ([`Ended`]). In the order of
        /// time, since a commit ends deliveries of many recipients and few batches. Removed with the events.
        ENDED as ended = "ended": (u128, u128) => &'static [u8];
        /// (Recipient, minute since 1970) → nothing. The minutes with batches of which [`ENDED`] has a row of the recipient.
        ENDED_MINUTES as ended_minutes = "ended_minutes": (u128, u64) => ();
        /// (Recipient, final state, batch, place in the batch) → event. The deliveries that are over without being
        /// delivered, by state.
        ENDED_BY_STATE as ended_by_state = "ended_by_state": (u128, u8, u128, u32) => u128;
        /// Recipient → how many deliveries it has in each state (`counts`). Written when changes are folded.
        COUNTS as counts = "counts": u128 => &'static [u8];
        /// Position of a group → by how much it changes [`COUNTS`], until that is folded.
        COUNT_CHANGES as count_changes = "count_changes": u64 => &'static [u8];
        /// (Batch, place in the batch, recipient) → nothing. Deliveries that a redelivery or a recovery added to an event
        /// that the recipient did not match.
        ADDED as added = "added": (u128, u32, u128) => ();
    }
}

/// Which delivery, and where its event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryKey {
    pub(super) recipient: u128,
    pub(super) event: u128,
    pub(super) batch: u128,
    pub(super) index: u32,
}

impl DeliveryKey {
    /// Returns which delivery stands at a position.
    pub(super) fn at(recipient: RecipientId, event: EventId, position: QueuePosition) -> Self {
        Self {
            recipient: recipient.uuid().as_u128(),
            event: event.uuid().as_u128(),
            batch: position.batch.uuid().as_u128(),
            index: position.index,
        }
    }

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

/// The states in which a delivery waits for an attempt at a time of its own.
const WAITING_STATES: [StoredState; 3] = [StoredState::Pending, StoredState::Retrying, StoredState::Held];

/// The packed rows that a transaction has changed, and by how much the numbers of deliveries change.
#[derive(Default)]
pub(super) struct Rows {
    first: BTreeMap<(u128, u128), Vec<u32>>,
    ended: BTreeMap<(u128, u128), Vec<Ended>>,
    counts: CountChanges,
}

/// Deliveries, as a group of writes changes them.
pub(super) struct Deliveries<'a, 'txn> {
    tables: &'a mut DeliveryTables<'txn>,
    marks: &'a Marks,
    /// The last minute that was written for each recipient before this group.
    known_minutes: &'a HashMap<u128, u64>,
    rows: Rows,
    /// Recipients that have lost pending first attempts otherwise than by the ends of attempts.
    pub(super) pruned: HashSet<RecipientId>,
    /// Recipients and minutes that were written among those with ended deliveries.
    pub(super) ended_minutes: HashSet<(u128, u64)>,
}

impl<'a, 'txn> Deliveries<'a, 'txn> {
    pub(super) fn new(
        tables: &'a mut DeliveryTables<'txn>,
        marks: &'a Marks,
        known_minutes: &'a HashMap<u128, u64>,
    ) -> Self {
        let (pruned, ended_minutes) = (HashSet::new(), HashSet::new());
        Self { tables, marks, known_minutes, rows: Rows::default(), pruned, ended_minutes }
    }

    /// Adds the first attempts of a new batch.
    pub(super) fn add_first(&mut self, recipient: RecipientId, batch: u128, places: Vec<u32>) {
        let recipient = recipient.uuid().as_u128();
        self.rows.counts.add_many(recipient, StoredState::Pending, places.len());
        self.rows.first.insert((recipient, batch), places);
    }

    /// Replaces a row of first attempts whose deliveries were sorted out one by one.
    pub(super) fn replace_first(&mut self, row: (u128, u128), places: Vec<u32>) -> Result<(), Fault> {
        match damage::apart(self.first_row(row).map(|before| before.len()))? {
            Ok(before) => {
                self.rows.counts.add_many(row.0, StoredState::Pending, places.len());
                self.rows.counts.remove_many(row.0, StoredState::Pending, before);
            }
            Err(_) => self.rows.counts.recount(row.0),
        }
        self.rows.first.insert(row, places);
        self.pruned.insert(record::recipient_id(row.0));
        Ok(())
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
            self.rows.counts.add(key.recipient, StoredState::Pending, -1);
            return Ok(Some(Stand::First));
        };
        match damage::apart(self.waiting(key))? {
            Ok(Some(waiting)) if waiting.due == due => {
                self.remove_waiting(key, due, Some(waiting.why.state()))?;
                self.rows.counts.add(key.recipient, waiting.why.state(), -1);
                Ok(Some(Stand::Waiting(waiting)))
            }
            Ok(_) => Ok(None),
            // Its key says that it is there.
            Err(reason) => {
                self.marks.mark("waiting", (key.recipient, key.event), &reason);
                self.rows.counts.recount(key.recipient);
                self.remove_waiting(key, due, None)?;
                Ok(Some(Stand::First))
            }
        }
    }

    /// Removes the rows of a delivery that waits until `due`, in a state that may be unreadable. Its number is the caller's
    /// business.
    fn remove_waiting(
        &mut self,
        key: DeliveryKey,
        due: Timestamp,
        state: Option<StoredState>,
    ) -> Result<(), StorageError> {
        self.tables.due.remove((key.recipient, due.as_microsecond(), key.event))?;
        self.remove_waiting_row(key.recipient, key.event, state)
    }

    /// Removes the row of a delivery that waits, and its place among those in its state.
    fn remove_waiting_row(
        &mut self,
        recipient: u128,
        event: u128,
        state: Option<StoredState>,
    ) -> Result<(), StorageError> {
        self.tables.waiting.remove((recipient, event))?;
        for of in WAITING_STATES.into_iter().filter(|of| state.is_none_or(|state| state == *of)) {
            self.tables.waiting_by_state.remove((recipient, of as u8, event))?;
        }
        Ok(())
    }

    /// Removes a delivery from wherever it stands, and returns how it stood.
    pub(super) fn leave(&mut self, key: DeliveryKey) -> Result<Option<Stand>, Fault> {
        let stand = self.stand(key)?;
        match &stand {
            None => {}
            Some(Stand::First) => {
                self.take(key, None)?;
                self.pruned.insert(record::recipient_id(key.recipient));
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
        self.tables.waiting_by_state.insert((key.recipient, waiting.why.state() as u8, key.event), ())?;
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
        if self.known_minutes.get(&minute.0) != Some(&minute.1) && self.ended_minutes.insert(minute) {
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

    /// Writes everything that is gathered, for the group at `position`: its last step.
    pub(super) fn write(&mut self, position: Position) -> Result<(), Fault> {
        self.write_rows()?;
        std::mem::take(&mut self.rows.counts).write(self.tables, self.marks, position)
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

//! Reading deliveries: of one event, and of one recipient by state.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::Timestamp;
use redb::{ReadOnlyTable, ReadTransaction};

use super::{
    ADDED, DeliveryKey, ENDED, ENDED_BY_STATE, ENDED_MINUTES, FRESH, Stand, WAITING, WAITING_BY_STATE, added,
    first_of_minute, minute_of,
};
use crate::redb::damage::Marks;
use crate::redb::handle::Fault;
use crate::redb::log::{BATCHES, batch_of, ids_received, ids_received_surely};
use crate::redb::read::Reader;
use crate::redb::record::{
    self, Batch, Ended, Waiting, Why, decode_ended, event_id, final_code, recipient_id,
};
use crate::redb::schema::META;
use crate::{DeliveriesQuery, Delivery, ListedDelivery, LoggedEvent, StoredState};
use waypost_domain::{Entry, Outcome, RecipientId, State};

/// The state of a delivery whose records cannot be read.
const UNREADABLE: &str = "record damaged: where the delivery stands cannot be read from the disk";

/// See [`crate::Store::deliveries`].
pub(crate) fn list(reader: &Reader, query: DeliveriesQuery) -> Result<Vec<ListedDelivery>, Fault> {
    reader.handle.read(|txn| {
        if range(txn, query)?.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = match query.state {
            Some(StoredState::Retrying | StoredState::Held) => waiting(reader, txn, query)?,
            Some(StoredState::Delivered) => ended(reader, txn, query)?,
            Some(StoredState::Denied | StoredState::Skipped | StoredState::Dead) => {
                by_state(reader, txn, query)?
            }
            Some(StoredState::Pending) => [first(reader, txn, query)?, waiting(reader, txn, query)?].concat(),
            None => [first(reader, txn, query)?, waiting(reader, txn, query)?, ended(reader, txn, query)?]
                .concat(),
        };
        // Each kind has its newest ones.
        found.sort_unstable_by_key(|listed| std::cmp::Reverse(listed.event));
        found.truncate(query.limit);
        Ok(found)
    })
}

/// Lists first attempts.
fn first(
    reader: &Reader,
    txn: &ReadTransaction,
    query: DeliveriesQuery,
) -> Result<Vec<ListedDelivery>, Fault> {
    let (table, mut found) = (txn.open_table(FRESH)?, Vec::new());
    let (from, to) = batches(txn, query)?.into_inner();
    let recipient = query.recipient.uuid().as_u128();
    for row in table.range((recipient, from)..=(recipient, to))?.rev() {
        let (key, places) = row?;
        let read = record::decode_places(places.value());
        let places = reader.marks.pass("fresh", key.value(), read).unwrap_or_default();
        list_batch(reader, txn, query, key.value().1, &places, &mut found)?;
        if found.len() >= query.limit {
            break;
        }
    }
    Ok(found)
}

/// Lists ended deliveries in the query's state, or in any: in each minute that has some, batch by batch.
fn ended(
    reader: &Reader,
    txn: &ReadTransaction,
    query: DeliveriesQuery,
) -> Result<Vec<ListedDelivery>, Fault> {
    let (minutes, table) = (txn.open_table(ENDED_MINUTES)?, txn.open_table(ENDED)?);
    let (oldest, last) = batches(txn, query)?.into_inner();
    let recipient = query.recipient.uuid().as_u128();
    let mut found = Vec::new();
    for row in minutes.range((recipient, minute_of(oldest))..=(recipient, minute_of(last)))?.rev() {
        let (_, minute) = row?.0.value();
        let (first, mut at) =
            (first_of_minute(minute).max(oldest), last.min(first_of_minute(minute + 1) - 1));
        // The next row at or before this one's is either the recipient's, or tells the next batch to look at.
        while at >= first && found.len() < query.limit {
            let Some(row) = table.range((first, 0)..=(at, recipient))?.next_back().transpose()? else {
                break;
            };
            let (batch, of) = row.0.value();
            if of != recipient {
                at = if batch < at { batch } else { batch.saturating_sub(1) };
                continue;
            }
            let ended =
                reader.marks.pass("ended", (batch, of), decode_ended(row.1.value())).unwrap_or_default();
            let meant = ended.iter().filter(|ended| query.state.is_none_or(|state| ended.state == state));
            let places: Vec<_> = meant.map(|ended| ended.index).collect();
            list_batch(reader, txn, query, batch, &places, &mut found)?;
            at = batch.saturating_sub(1);
        }
        if found.len() >= query.limit {
            break;
        }
    }
    Ok(found)
}

/// Lists deliveries that wait in the query's state, or in any.
fn waiting(
    reader: &Reader,
    txn: &ReadTransaction,
    query: DeliveriesQuery,
) -> Result<Vec<ListedDelivery>, Fault> {
    let recipient = query.recipient.uuid().as_u128();
    let (rows, mut receipts) = (txn.open_table(WAITING)?, Receipts::new(reader, txn, query)?);
    let mut found = Vec::new();
    let mut list = |event: u128, row: &[u8]| {
        let known = reader.marks.pass("waiting", (recipient, event), Waiting::decode(row));
        if let Some(known) = known
            && receipts.has(known.batch, event)?
        {
            found.push(ListedDelivery { event: event_id(event), due: Some(known.due) });
        }
        Ok::<_, Fault>(found.len() < query.limit)
    };
    let (first, last) = range(txn, query)?.into_inner();
    if let Some(state) = query.state.map(|state| state as u8) {
        let table = txn.open_table(WAITING_BY_STATE)?;
        for row in table.range((recipient, state, first)..=(recipient, state, last))?.rev() {
            let (_, _, event) = row?.0.value();
            if let Some(row) = rows.get((recipient, event))?
                && !list(event, row.value())?
            {
                break;
            }
        }
        return Ok(found);
    }
    for row in rows.range((recipient, first)..=(recipient, last))?.rev() {
        let (key, row) = row?;
        if !list(key.value().1, row.value())? {
            break;
        }
    }
    Ok(found)
}

/// Returns the ids that the query's events may have.
fn range(txn: &ReadTransaction, query: DeliveriesQuery) -> Result<RangeInclusive<u128>, Fault> {
    let last = query.before.map_or(u128::MAX, |before| before.uuid().as_u128().saturating_sub(1));
    let received = ids_received(&txn.open_table(META)?, query.since, query.until)?;
    Ok(*received.start()..=last.min(*received.end()))
}

/// Looks up when events were received, where their ids do not tell enough. A batch of several events in a row is read once.
struct Receipts<'a> {
    reader: &'a Reader,
    txn: &'a ReadTransaction,
    query: DeliveriesQuery,
    /// The ids of events that were received within the query's times for certain.
    sure: RangeInclusive<u128>,
    last: Option<(u128, Arc<Batch>)>,
}

impl<'a> Receipts<'a> {
    fn new(reader: &'a Reader, txn: &'a ReadTransaction, query: DeliveriesQuery) -> Result<Self, Fault> {
        let sure = ids_received_surely(&txn.open_table(META)?, query.since, query.until)?;
        Ok(Self { reader, txn, query, sure, last: None })
    }

    /// Tells whether the query asks for an event of this batch. One that cannot be read is received at no time.
    fn has(&mut self, batch: u128, event: u128) -> Result<bool, Fault> {
        if self.sure.contains(&event) {
            return Ok(true);
        }
        let events = match self.last.take().filter(|(key, _)| *key == batch) {
            Some((_, events)) => events,
            None => self.reader.readable_batch(self.txn, batch)?.unwrap_or_default(),
        };
        let found = events.iter().flatten().find(|logged| logged.id.uuid().as_u128() == event);
        let is_meant = found.is_some_and(|logged| self.query.has_received(logged.received));
        self.last = Some((batch, events));
        Ok(is_meant)
    }
}

/// Adds the events in these places of a batch, newest first.
fn list_batch(
    reader: &Reader,
    txn: &ReadTransaction,
    query: DeliveriesQuery,
    batch: u128,
    places: &[u32],
    found: &mut Vec<ListedDelivery>,
) -> Result<(), Fault> {
    if places.is_empty() {
        return Ok(());
    }
    let events = reader.wanted(txn, batch, |place, _| places.contains(&place))?;
    let events = places.iter().rev().filter_map(|place| events.event_at(*place));
    let events = events.filter(|logged| {
        query.before.is_none_or(|before| logged.id < before) && query.has_received(logged.received)
    });
    found.extend(events.map(|logged| ListedDelivery { event: logged.id, due: None }));
    Ok(())
}

/// Returns the batches that may have the query's events.
fn batches(txn: &ReadTransaction, query: DeliveriesQuery) -> Result<RangeInclusive<u128>, Fault> {
    let ((first, last), table) = (range(txn, query)?.into_inner(), txn.open_table(BATCHES)?);
    Ok(batch_of(&table, first)?.unwrap_or(0)..=batch_of(&table, last)?.unwrap_or(0))
}

/// Lists deliveries that are over without being delivered.
fn by_state(
    reader: &Reader,
    txn: &ReadTransaction,
    query: DeliveriesQuery,
) -> Result<Vec<ListedDelivery>, Fault> {
    let Some(state) = query.state.map(final_code) else { return Ok(Vec::new()) };
    let (first, last) = batches(txn, query)?.into_inner();
    let recipient = query.recipient.uuid().as_u128();
    let (table, mut receipts) = (txn.open_table(ENDED_BY_STATE)?, Receipts::new(reader, txn, query)?);
    let mut found = Vec::new();
    for row in table.range((recipient, state, first, 0)..=(recipient, state, last, u32::MAX))?.rev() {
        if found.len() >= query.limit {
            break;
        }
        let (key, event) = row?;
        let (batch, event) = (key.value().2, event.value());
        if query.before.is_none_or(|before| event_id(event) < before) && receipts.has(batch, event)? {
            let event = event_id(event);
            found.push(ListedDelivery { event, due: None });
        }
    }
    Ok(found)
}

/// Reads where deliveries stand. Rows of several deliveries are read once.
pub(crate) struct Stands<'a> {
    fresh: ReadOnlyTable<(u128, u128), &'static [u8]>,
    waiting: ReadOnlyTable<(u128, u128), &'static [u8]>,
    ended: ReadOnlyTable<(u128, u128), &'static [u8]>,
    added: ReadOnlyTable<(u128, u32, u128), ()>,
    first_rows: HashMap<(u128, u128), Vec<u32>>,
    ended_rows: HashMap<(u128, u128), Vec<Ended>>,
    marks: &'a Marks,
}

impl<'a> Stands<'a> {
    pub(crate) fn open(txn: &ReadTransaction, marks: &'a Marks) -> Result<Self, Fault> {
        Ok(Self {
            fresh: txn.open_table(FRESH)?,
            waiting: txn.open_table(WAITING)?,
            ended: txn.open_table(ENDED)?,
            added: txn.open_table(ADDED)?,
            first_rows: HashMap::new(),
            ended_rows: HashMap::new(),
            marks,
        })
    }

    /// Returns an event's deliveries, to `only` this recipient or to all; `take_history` returns their histories.
    pub(crate) fn deliveries(
        &mut self,
        (batch, index): (u128, u32),
        logged: &LoggedEvent,
        only: Option<RecipientId>,
        mut take_history: impl FnMut(RecipientId) -> Vec<Entry>,
    ) -> Result<Vec<Delivery>, Fault> {
        let added = added(&self.added, batch, index)?;
        let recipients = logged.matched.iter().copied().chain(added.into_iter().map(recipient_id));
        let recipients = recipients.filter(|recipient| only.is_none_or(|only| only == *recipient));
        let event = logged.id.uuid().as_u128();
        let mut deliveries = Vec::new();
        for recipient in recipients {
            let key = DeliveryKey { recipient: recipient.uuid().as_u128(), event, batch, index };
            let stand = self.stand(key)?;
            let was_allowed = stand.as_ref().is_some_and(|stand| stand.origin().was_allowed);
            let history = take_history(recipient);
            let state = state(stand, &history, logged.received);
            deliveries.push(Delivery { recipient, state, was_allowed, history });
        }
        Ok(deliveries)
    }

    /// Returns where a delivery stands; `None` if it cannot be read.
    fn stand(&mut self, key: DeliveryKey) -> Result<Option<Stand>, Fault> {
        let (row, marks) = ((key.recipient, key.batch), self.marks);
        if let Slot::Vacant(new) = self.ended_rows.entry(row) {
            let read = self
                .ended
                .get((key.batch, key.recipient))?
                .map(|found| decode_ended(found.value()))
                .transpose();
            new.insert(marks.pass("ended", row, read).flatten().unwrap_or_default());
        }
        if let Some(ended) = self.ended_rows[&row].iter().find(|ended| ended.index == key.index) {
            return Ok(Some(Stand::Ended(*ended)));
        }
        if let Slot::Vacant(new) = self.first_rows.entry(row) {
            let read = self.fresh.get(row)?.map(|found| record::decode_places(found.value())).transpose();
            new.insert(marks.pass("fresh", row, read).flatten().unwrap_or_default());
        }
        if self.first_rows[&row].contains(&key.index) {
            return Ok(Some(Stand::First));
        }
        let waiting = self.waiting.get((key.recipient, key.event))?;
        let read = waiting.map(|found| Waiting::decode(found.value())).transpose();
        Ok(marks.pass("waiting", (key.recipient, key.event), read).flatten().map(Stand::Waiting))
    }
}

/// Returns the state as the domain has it; its texts and the time of an end are the history's.
fn state(stand: Option<Stand>, history: &[Entry], received: Timestamp) -> State {
    // An attempt that was in flight when the delivery ended otherwise is history behind its end.
    let at = |state| {
        ends_in(state, history).and_then(attempt_at).or_else(|| last_attempt(history)).unwrap_or(received)
    };
    let reason = |state| ends_in(state, history).and_then(reason_of).unwrap_or_else(|| last_reason(history));
    match stand {
        Some(Stand::First) => State::Pending,
        Some(Stand::Waiting(Waiting { due, why, progress, .. })) => match why {
            Why::Asked => State::Pending,
            Why::Failed { reason } => State::Retrying { due, reason },
            Why::Held { by, reason } => State::Held { by, since: progress.held.unwrap_or(due), due, reason },
        },
        Some(Stand::Ended(ended)) => match ended.state {
            StoredState::Delivered => State::Delivered { at: at(ended.state) },
            StoredState::Denied => State::Denied { at: at(ended.state) },
            StoredState::Skipped => State::Skipped { reason: reason(ended.state) },
            StoredState::Dead | StoredState::Pending | StoredState::Retrying | StoredState::Held => {
                State::Dead { reason: reason(ended.state) }
            }
        },
        None => State::Dead { reason: UNREADABLE.to_owned() },
    }
}

/// Returns the newest entry that ends a delivery in this state.
fn ends_in(state: StoredState, history: &[Entry]) -> Option<&Entry> {
    history.iter().rev().find(|entry| match entry {
        Entry::Dropped { .. } => state == StoredState::Skipped,
        Entry::Attempt(attempt) => match attempt.outcome {
            Outcome::Delivered => state == StoredState::Delivered,
            Outcome::Denied => state == StoredState::Denied,
            Outcome::Skipped { .. } => state == StoredState::Skipped,
            Outcome::Dead { .. } => state == StoredState::Dead,
            Outcome::Retry { .. } => false,
        },
        Entry::Redelivery { .. }
        | Entry::FilterFailed { .. }
        | Entry::Held { .. }
        | Entry::Recovered { .. }
        | Entry::Plugin(_)
        | Entry::Run(_) => false,
    })
}

fn attempt_at(entry: &Entry) -> Option<Timestamp> {
    match entry {
        Entry::Attempt(attempt) => Some(attempt.at),
        Entry::Redelivery { .. }
        | Entry::Dropped { .. }
        | Entry::FilterFailed { .. }
        | Entry::Held { .. }
        | Entry::Recovered { .. }
        | Entry::Plugin(_)
        | Entry::Run(_) => None,
    }
}

fn last_attempt(history: &[Entry]) -> Option<Timestamp> {
    history.iter().rev().find_map(attempt_at)
}

/// Returns why an entry ends a delivery, or lets it be tried again.
fn reason_of(entry: &Entry) -> Option<String> {
    match entry {
        Entry::Dropped { reason, .. } => Some(reason.clone()),
        Entry::Attempt(attempt) => match &attempt.outcome {
            Outcome::Skipped { reason } | Outcome::Dead { reason } | Outcome::Retry { reason, .. } => {
                Some(reason.clone())
            }
            Outcome::Delivered | Outcome::Denied => None,
        },
        Entry::Redelivery { .. }
        | Entry::FilterFailed { .. }
        | Entry::Held { .. }
        | Entry::Recovered { .. }
        | Entry::Plugin(_)
        | Entry::Run(_) => None,
    }
}

/// Returns the last reason of all, for a delivery whose end cannot be read.
fn last_reason(history: &[Entry]) -> String {
    let reason = history.iter().rev().find_map(reason_of);
    reason.unwrap_or_else(|| "record damaged: its history cannot be read from the disk".to_owned())
}

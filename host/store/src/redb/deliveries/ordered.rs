//! Pending deliveries as a worker reads them that keeps them in the order of acceptance: first and further attempts as
//! one list, by event, whether a further one is due or not.
//!
//! While a recovery of the recipient runs, nothing behind its position is in the list: it may still add older events.

use std::sync::Arc;

use redb::ReadTransaction;

use super::ready::pending_delivery;
use super::{DUE, ENDED_BY_STATE, FRESH, WAITING};
use crate::redb::damage::DeadRow;
use crate::redb::handle::Fault;
use crate::redb::log::{self, BATCHES};
use crate::redb::plugin_data::RenderedRows;
use crate::redb::read::Reader;
use crate::redb::record::{self, Batch, Waiting, final_code};
use crate::redb::registry::RECOVERIES;
use crate::{
    LetterPlace, LoggedEvent, OrderedPage, OrderedQuery, PageEnd, PendingDelivery, Progress, QueuePosition,
    StoredState,
};
use waypost_domain::EventId;

/// The most bytes that a page holds before it ends, of the batches that its events keep in memory.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Where a row stands, and how far its delivery has come.
type Row = (QueuePosition, Progress);

/// See [`crate::Store::in_order`]; returns with it the rows that cannot be delivered.
pub(crate) fn in_order(reader: &Reader, query: &OrderedQuery) -> Result<(OrderedPage, Vec<DeadRow>), Fault> {
    // Before the transaction, which then sees all that the tail will not hold.
    let newest = reader.tails.open(query.recipient);
    reader.handle.read(|txn| {
        let mut page = Page::open(reader, txn, query)?;
        let mut asked = Vec::new();
        for event in &query.events {
            let row = page.row_of(event.uuid().as_u128())?;
            asked.extend(row.map(|row| page.pending(event.uuid().as_u128(), row)).transpose()?.flatten());
        }
        let barrier = page.barrier()?;
        let (following, read_to, end) = page.following(barrier, newest)?;
        let ((dead_letters, more_dead_letters), is_recovering) = (page.dead_letters()?, barrier.is_some());
        let page_read =
            OrderedPage { asked, following, read_to, end, is_recovering, dead_letters, more_dead_letters };
        Ok((page_read, page.dead))
    })
}

/// A page that is being read.
struct Page<'a> {
    reader: &'a Reader,
    txn: &'a ReadTransaction,
    query: &'a OrderedQuery,
    recipient: u128,
    rendered: RenderedRows,
    /// The batch that was read last: neighbours are often of one.
    last: Option<(u128, Arc<Batch>)>,
    /// How many bytes the batches have that were read.
    bytes: usize,
    dead: Vec<DeadRow>,
}

impl<'a> Page<'a> {
    fn open(reader: &'a Reader, txn: &'a ReadTransaction, query: &'a OrderedQuery) -> Result<Self, Fault> {
        let (rendered, recipient) =
            (RenderedRows::open(txn, query.recipient)?, query.recipient.uuid().as_u128());
        Ok(Self { reader, txn, query, recipient, rendered, last: None, bytes: 0, dead: Vec::new() })
    }

    /// Returns where an event's delivery is pending, if it is.
    fn row_of(&mut self, event: u128) -> Result<Option<Row>, Fault> {
        if let Some(row) = self.txn.open_table(WAITING)?.get((self.recipient, event))? {
            return self.waiting(event, row.value());
        }
        let Some(key) = log::batch_of(&self.txn.open_table(BATCHES)?, event)? else { return Ok(None) };
        let Some(batch) = self.batch(key)? else { return Ok(None) };
        let is_meant = |(_, logged): &(u32, &Option<Arc<LoggedEvent>>)| {
            logged.as_ref().is_some_and(|logged| logged.id.uuid().as_u128() == event)
        };
        let Some((index, _)) = (0u32..).zip(batch.iter()).find(is_meant) else { return Ok(None) };
        let row = self.txn.open_table(FRESH)?.get((self.recipient, key))?;
        let places = row.map(|row| record::decode_places(row.value())).and_then(Result::ok);
        let is_fresh = places.is_some_and(|places| places.contains(&index));
        Ok(is_fresh.then(|| first_row(key, index)))
    }

    /// Reads a row of a delivery that waits; one that cannot be read is noted.
    fn waiting(&mut self, event: u128, row: &[u8]) -> Result<Option<Row>, Fault> {
        let read = self.reader.marks.pass("waiting", (self.recipient, event), Waiting::decode(row));
        let Some(Waiting { batch, index, due, progress, .. }) = read else {
            self.note_unreadable(event)?;
            return Ok(None);
        };
        Ok(Some((QueuePosition { batch: record::event_id(batch), index, due: Some(due) }, progress)))
    }

    /// Notes a row that cannot be read, by when it is due: only the order of times tells that.
    fn note_unreadable(&mut self, event: u128) -> Result<(), Fault> {
        let all = (self.recipient, i64::MIN, 0)..=(self.recipient, i64::MAX, u128::MAX);
        for row in self.txn.open_table(DUE)?.range(all)? {
            let (_, due, of) = row?.0.value();
            if of == event {
                self.dead.push(DeadRow::Due { due, event });
                break;
            }
        }
        Ok(())
    }

    fn batch(&mut self, key: u128) -> Result<Option<Arc<Batch>>, Fault> {
        if self.last.as_ref().is_none_or(|(known, _)| *known != key) {
            self.last = self.reader.readable_batch(self.txn, key)?.map(|batch| (key, batch));
            let events = self.last.iter().flat_map(|(_, batch)| batch.iter().flatten());
            self.bytes += events.map(|logged| logged.event.size()).sum::<usize>();
        }
        Ok(self.last.as_ref().map(|(_, batch)| Arc::clone(batch)))
    }

    /// Makes the pending delivery of a row; one whose event is damaged or gone is noted.
    fn pending(&mut self, event: u128, (position, progress): Row) -> Result<Option<PendingDelivery>, Fault> {
        let key = position.batch.uuid().as_u128();
        let batch = self.batch(key)?;
        let pending = batch.as_ref().and_then(|batch| pending_delivery(batch, position, progress));
        let Some(pending) = pending else {
            self.dead.push(match position.due {
                Some(due) => DeadRow::Due { due: due.as_microsecond(), event },
                None => DeadRow::Fresh { batch: key },
            });
            return Ok(None);
        };
        Ok(Some(PendingDelivery { rendered: self.rendered.has(pending.event.id)?, ..pending }))
    }

    /// Returns the event behind which older ones may still be added.
    fn barrier(&self) -> Result<Option<u128>, Fault> {
        let row = self.txn.open_table(RECOVERIES)?.get(self.recipient)?;
        let read = row.map(|row| record::decode_recovery(row.value()));
        let recovery = read.and_then(|read| self.reader.marks.pass("recoveries", self.recipient, read));
        let running = recovery.filter(waypost_domain::Recovery::is_running);
        Ok(running.map(|recovery| recovery.position.map_or(0, |mark| mark.event.uuid().as_u128())))
    }

    /// Reads what follows after the query's event: both tables as one list.
    fn following(
        &mut self,
        barrier: Option<u128>,
        newest: EventId,
    ) -> Result<(Vec<PendingDelivery>, EventId, PageEnd), Fault> {
        let (after, rows) = (self.query.after, self.query.rows);
        if rows == 0 {
            return Ok((Vec::new(), after, PageEnd::More));
        }
        let (from, last) = (after.uuid().as_u128().saturating_add(1), barrier.unwrap_or(u128::MAX));
        let mut listed = Vec::new();
        if from <= last {
            self.first_attempts(from, &mut listed)?;
            self.further_attempts(from, &mut listed)?;
            listed.sort_unstable_by_key(|(event, _)| *event);
            listed.retain(|(event, _)| *event <= last);
        }
        let is_all = listed.len() < rows && self.dead.is_empty();
        let (mut following, mut read_to) = (Vec::new(), after);
        self.bytes = 0;
        for (event, row) in listed.into_iter().take(rows) {
            if self.bytes >= PAGE_BYTES {
                return Ok((following, read_to, PageEnd::More));
            }
            read_to = record::event_id(event);
            following.extend(self.pending(event, row)?);
        }
        Ok(match barrier {
            _ if !is_all => (following, read_to, PageEnd::More),
            Some(_) => (following, read_to, PageEnd::Recovery),
            None => (following, read_to.max(newest), PageEnd::Newest),
        })
    }

    /// Lists first attempts from an event on: whole batches until there are as many as the query asks for.
    fn first_attempts(&mut self, from: u128, listed: &mut Vec<(u128, Row)>) -> Result<(), Fault> {
        let first = log::batch_of(&self.txn.open_table(BATCHES)?, from)?.unwrap_or(from);
        let enough = listed.len() + self.query.rows;
        for row in self.txn.open_table(FRESH)?.range((self.recipient, first)..=(self.recipient, u128::MAX))? {
            let (row, places) = row?;
            let key = row.value().1;
            let places = self.reader.marks.pass("fresh", row.value(), record::decode_places(places.value()));
            let (Some(places), Some(batch)) = (places, self.batch(key)?) else {
                self.dead.push(DeadRow::Fresh { batch: key });
                break;
            };
            for index in places {
                match batch.event_at(index).map(|event| event.id.uuid().as_u128()) {
                    Some(event) if event >= from => listed.push((event, first_row(key, index))),
                    Some(_) => {}
                    None => self.dead.push(DeadRow::Fresh { batch: key }),
                }
            }
            if listed.len() >= enough {
                break;
            }
        }
        Ok(())
    }

    /// Lists further attempts from an event on: as many as the query asks for.
    fn further_attempts(&mut self, from: u128, listed: &mut Vec<(u128, Row)>) -> Result<(), Fault> {
        let waiting = self.txn.open_table(WAITING)?;
        for row in waiting.range((self.recipient, from)..=(self.recipient, u128::MAX))?.take(self.query.rows)
        {
            let (key, row) = row?;
            let event = key.value().1;
            listed.extend(self.waiting(event, row.value())?.map(|row| (event, row)));
        }
        Ok(())
    }

    /// Reads the events of the oldest dead letters, and says where to go on if there may be more.
    fn dead_letters(&mut self) -> Result<(Vec<Arc<LoggedEvent>>, Option<LetterPlace>), Fault> {
        let (recipient, code) = (self.recipient, final_code(StoredState::Dead));
        let after = self.query.dead_letters_after.map(|(batch, index)| (batch.uuid().as_u128(), index));
        let (batch, index) = after.unwrap_or_default();
        let (mut events, mut last) = (Vec::new(), None);
        self.bytes = 0;
        let rows = (recipient, code, batch, index)..=(recipient, code, u128::MAX, u32::MAX);
        for row in self.txn.open_table(ENDED_BY_STATE)?.range(rows)? {
            let (_, _, batch, index) = row?.0.value();
            if after == Some((batch, index)) {
                continue;
            }
            if events.len() >= self.query.dead_letters || self.bytes >= PAGE_BYTES {
                return Ok((events, last));
            }
            last = Some((record::event_id(batch), index));
            let batch = self.batch(batch)?;
            events.extend(batch.and_then(|batch| batch.event_at(index).map(Arc::clone)));
        }
        Ok((events, None))
    }
}

/// Returns where a delivery stands that waits for its first attempt.
fn first_row(batch: u128, index: u32) -> Row {
    (QueuePosition { batch: record::event_id(batch), index, due: None }, Progress::default())
}

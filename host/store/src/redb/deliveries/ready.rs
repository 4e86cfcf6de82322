//! Pending deliveries as workers read them: first attempts, oldest first, and further attempts, most overdue first.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use redb::ReadTransaction;

use super::{DUE, FRESH, WAITING};
use crate::redb::damage::DeadRow;
use crate::redb::handle::Fault;
use crate::redb::plugin_data::RenderedRows;
use crate::redb::read::Reader;
use crate::redb::record::{self, Batch, Waiting};
use crate::{Backlog, PendingDelivery, Progress, QueuePosition, ReadyPage, ReadyQuery};
use waypost_domain::{EventId, RecipientId};

/// The most undeliverable rows that one page reports.
const DEAD_ROWS_MAX: usize = 256;

/// See [`crate::Store::ready`]; returns with it the rows that cannot be delivered.
pub(crate) fn ready(reader: &Reader, query: ReadyQuery) -> Result<(ReadyPage, Vec<DeadRow>), Fault> {
    let newest = reader.tails.open(query.recipient);
    reader.handle.read(|txn| {
        let (mut dead, mut first_attempts, mut read_to) = (Vec::new(), Vec::new(), query.after);
        if query.first_attempts > 0 {
            first_attempts = first(reader, txn, query, &mut dead)?;
            read_to = first_attempts.last().map_or(read_to, |last| last.position.batch);
            if first_attempts.len() < query.first_attempts && dead.is_empty() {
                read_to = read_to.max(newest);
            }
        }
        let (due, next_due) = match query.due {
            0 => (Vec::new(), None),
            _ => due(reader, txn, query, &mut dead)?,
        };
        Ok((ReadyPage { first_attempts, read_to, due, next_due }, dead))
    })
}

fn first(
    reader: &Reader,
    txn: &ReadTransaction,
    query: ReadyQuery,
    dead: &mut Vec<DeadRow>,
) -> Result<Vec<PendingDelivery>, Fault> {
    let (fresh, rendered) = (txn.open_table(FRESH)?, RenderedRows::open(txn, query.recipient)?);
    let recipient = query.recipient.uuid().as_u128();
    let first = query.after.uuid().as_u128().saturating_add(1);
    let mut pending = Vec::new();
    for row in fresh.range((recipient, first)..=(recipient, u128::MAX))? {
        let (row, places) = row?;
        let key = row.value().1;
        let places = reader.marks.pass("fresh", row.value(), record::decode_places(places.value()));
        let (Some(places), Some(batch)) = (places, reader.readable_batch(txn, key)?) else {
            dead.push(DeadRow::Fresh { batch: key });
            if dead.len() >= DEAD_ROWS_MAX {
                break;
            }
            continue;
        };
        let mut is_whole = true;
        for index in places {
            match first_attempt(&batch, key, index) {
                Some(fresh) => {
                    pending.push(PendingDelivery { rendered: rendered.has(fresh.event.id)?, ..fresh })
                }
                None => is_whole = false,
            }
        }
        if !is_whole {
            dead.push(DeadRow::Fresh { batch: key });
        }
        if pending.len() >= query.first_attempts {
            break;
        }
    }
    Ok(pending)
}

fn due(
    reader: &Reader,
    txn: &ReadTransaction,
    query: ReadyQuery,
    dead: &mut Vec<DeadRow>,
) -> Result<(Vec<PendingDelivery>, Option<Timestamp>), Fault> {
    let (table, rendered) = (txn.open_table(DUE)?, RenderedRows::open(txn, query.recipient)?);
    let waiting = txn.open_table(WAITING)?;
    let recipient = query.recipient.uuid().as_u128();
    let mut pending = Vec::new();
    // Rows that became due together are often of one batch, which is then read once and shared.
    let mut last: Option<(u128, Arc<Batch>)> = None;
    for row in table.range((recipient, i64::MIN, 0)..=(recipient, i64::MAX, u128::MAX))? {
        let (_, micros, event) = row?.0.value();
        let due = record::timestamp(micros);
        if let Ok(due) = &due
            && (*due > query.now || pending.len() >= query.due || dead.len() >= DEAD_ROWS_MAX)
        {
            return Ok((pending, Some(*due)));
        }
        let row = waiting.get((recipient, event))?;
        let read = row.map(|row| Waiting::decode(row.value())).transpose();
        let known = reader.marks.pass("waiting", (recipient, event), read).flatten();
        let Some(known) = known.filter(|known| known.due.as_microsecond() == micros) else {
            dead.push(DeadRow::Due { due: micros, event });
            continue;
        };
        let batch = match last.take().filter(|(key, _)| *key == known.batch) {
            Some((_, batch)) => Some(batch),
            None => reader.readable_batch(txn, known.batch)?,
        };
        let Waiting { due, progress, index, .. } = known;
        let position = QueuePosition { batch: record::event_id(known.batch), index, due: Some(due) };
        match batch.as_ref().and_then(|batch| pending_delivery(batch, position, progress)) {
            Some(due) => pending.push(PendingDelivery { rendered: rendered.has(due.event.id)?, ..due }),
            None => dead.push(DeadRow::Due { due: micros, event }),
        }
        last = batch.map(|batch| (known.batch, batch));
    }
    Ok((pending, None))
}

/// Makes the pending delivery of an event in a batch that was never attempted.
pub(crate) fn first_attempt(batch: &Batch, key: u128, index: u32) -> Option<PendingDelivery> {
    let position = QueuePosition { batch: record::event_id(key), index, due: None };
    pending_delivery(batch, position, Progress::default())
}

/// Makes the pending delivery of a row; `None` if its event is damaged or gone.
pub(super) fn pending_delivery(
    batch: &Batch,
    position: QueuePosition,
    progress: Progress,
) -> Option<PendingDelivery> {
    let event = batch.event_at(position.index)?;
    Some(PendingDelivery { event: Arc::clone(event), position, progress, rendered: false })
}

/// See [`crate::Store::recipients_with_backlog`].
pub(crate) fn recipients_with_backlog(reader: &Reader) -> Result<Vec<RecipientId>, Fault> {
    reader.handle.read(|txn| {
        let (fresh, due) = (txn.open_table(FRESH)?, txn.open_table(DUE)?);
        let mut recipients = BTreeSet::new();
        // Seeks from one recipient to the next, however long its queue is.
        let mut from = Some(0u128);
        while let Some(first) = from {
            let row = fresh.range((first, 0)..)?.next().transpose()?;
            let recipient = row.map(|row| row.0.value().0);
            recipients.extend(recipient);
            from = recipient.and_then(|recipient| recipient.checked_add(1));
        }
        from = Some(0);
        while let Some(first) = from {
            let row = due.range((first, i64::MIN, 0)..)?.next().transpose()?;
            let recipient = row.map(|row| row.0.value().0);
            recipients.extend(recipient);
            from = recipient.and_then(|recipient| recipient.checked_add(1));
        }
        Ok(recipients.into_iter().map(record::recipient_id).collect())
    })
}

/// See [`crate::Store::backlog_until`].
pub(crate) fn backlog_until(
    reader: &Reader,
    recipient: RecipientId,
    until: EventId,
    now: Timestamp,
    limit: usize,
) -> Result<Backlog, Fault> {
    reader.handle.read(|txn| {
        let (waiting, recipient) = (txn.open_table(WAITING)?, recipient.uuid().as_u128());
        let mut backlog = Backlog::default();
        for row in waiting.range((recipient, 0)..=(recipient, until.uuid().as_u128()))?.take(limit) {
            let (key, row) = row?;
            let known = reader.marks.pass("waiting", key.value(), Waiting::decode(row.value()));
            backlog.all += 1;
            backlog.due += usize::from(known.is_some_and(|known| known.due <= now));
        }
        Ok(backlog)
    })
}

/// See [`crate::Store::backlog`].
pub(crate) fn backlog(
    reader: &Reader,
    recipient: RecipientId,
    now: Timestamp,
    limit: usize,
) -> Result<Backlog, Fault> {
    reader.handle.read(|txn| {
        let due = txn.open_table(DUE)?;
        let recipient = recipient.uuid().as_u128();
        let whole = (recipient, i64::MIN, 0)..=(recipient, i64::MAX, u128::MAX);
        let mut backlog = Backlog::default();
        for row in due.range(whole)?.take(limit) {
            let (_, due, _) = row?.0.value();
            backlog.all += 1;
            backlog.due += usize::from(due <= now.as_microsecond());
        }
        Ok(backlog)
    })
}

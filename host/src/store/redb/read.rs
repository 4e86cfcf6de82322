//! The store's queries: short read transactions, never held longer than one answer takes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTable};

use super::damage::{DeadRow, Marks};
use super::delivery_list::Stands;
use super::group::Settings;
use super::handle::{Fault, Handle};
use super::history;
use super::ids;
use super::recent::Recent;
use super::record::{self, Batch, HistoryRecord, Waiting};
use super::rendered::RenderedRows;
use super::schema::{
    BATCHES, DEDUP_WINDOW_KEY, DUE, FRESH, HISTORY, META, PIECES, POSITION_KEY, REACHED, SUBSCRIPTIONS,
    USER_BYTES_KEY, WAITING, batch_of,
};
use super::tail::Tails;
use crate::domain::{EventId, RecipientId, SubscriptionId};
use crate::store::{
    EventHistory, LoggedEvent, PendingDelivery, Position, Progress, QueuePosition, Range, ReadyPage,
    ReadyQuery, StoredSubscription,
};

/// The most undeliverable rows that one page reports.
const DEAD_ROWS_MAX: usize = 256;

/// The reading side of the file.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) handle: Arc<Handle>,
    pub(super) recent: Arc<Recent>,
    pub(super) tails: Arc<Tails>,
    pub(super) marks: Marks,
}

impl Reader {
    /// See [`crate::store::Store::story`].
    pub(super) fn story(&self, id: EventId) -> Result<Option<EventHistory>, Fault> {
        self.handle.read(|txn| {
            let Some(key) = batch_of(&txn.open_table(BATCHES)?, id.uuid().as_u128())? else {
                return Ok(None);
            };
            let (stories, is_whole) = self.stories_of_batch(txn, key, 1, None, |logged| logged.id == id)?;
            match stories.into_iter().next() {
                // The requested event may be one of the damaged ones.
                None if !is_whole => {
                    Err(Fault::Damaged { table: "batches", reason: record::Error::Checksum })
                }
                story => Ok(story),
            }
        })
    }

    /// See [`crate::store::Store::stories`].
    pub(super) fn stories(&self, range: Range) -> Result<Vec<EventHistory>, Fault> {
        let below = range.before.unwrap_or(EventId::MAX).uuid().as_u128();
        let wanted = |logged: &LoggedEvent| {
            logged.id.uuid().as_u128() < below
                && range.since.is_none_or(|since| logged.received >= since)
                && range.until.is_none_or(|until| logged.received < until)
        };
        // The id of an event is never older than its receipt, but may be a little newer.
        let lowest = range.since.map_or(0, |since| ids::first_at(since).uuid().as_u128());
        let mut stories = Vec::new();
        let mut upper = below;
        // One transaction for each batch: a long listing does not hold back the reuse of pages.
        while stories.len() < range.limit {
            let more = self.handle.read(|txn| {
                let batches = txn.open_table(BATCHES)?;
                let Some(row) = batches.range(..upper)?.next_back().transpose()? else { return Ok(false) };
                upper = row.0.value();
                let newest =
                    match self.stories_of_batch(txn, upper, range.limit - stories.len(), None, wanted) {
                        Ok((newest, _)) => newest,
                        // The damaged row is marked; the other events can be shown.
                        Err(Fault::Damaged { .. }) => Vec::new(),
                        Err(fault @ (Fault::Redb(_) | Fault::Closed(_))) => return Err(fault),
                    };
                stories.extend(newest.into_iter().rev());
                Ok(upper > lowest)
            })?;
            if !more {
                break;
            }
        }
        Ok(stories)
    }

    /// See [`crate::store::Store::deliveries_of`].
    pub(super) fn deliveries_of(
        &self,
        recipient: RecipientId,
        events: &[EventId],
    ) -> Result<Vec<EventHistory>, Fault> {
        let mut by_batch: BTreeMap<u128, HashSet<EventId>> = BTreeMap::new();
        self.handle.read(|txn| {
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
            let of_batch = self.handle.read(|txn| {
                let is_meant = |logged: &LoggedEvent| events.contains(&logged.id);
                self.stories_of_batch(txn, batch, usize::MAX, Some(recipient), is_meant)
            });
            match of_batch {
                Ok((stories, _)) => found.extend(stories),
                // The damaged row is marked; the other events can be shown.
                Err(Fault::Damaged { .. }) => {}
                Err(fault @ (Fault::Redb(_) | Fault::Closed(_))) => return Err(fault),
            }
        }
        Ok(found)
    }

    /// Reads the newest stories of a batch, `most` of them, with the deliveries to `only` this recipient or to all, and
    /// tells whether all of its events can be read.
    fn stories_of_batch(
        &self,
        txn: &ReadTransaction,
        key: u128,
        most: usize,
        only: Option<RecipientId>,
        wanted: impl Fn(&LoggedEvent) -> bool,
    ) -> Result<(Vec<EventHistory>, bool), Fault> {
        let batch = self.batch(txn, key)?;
        let is_whole = batch.damaged.is_empty();
        let places = (0u32..).zip(batch.iter()).filter_map(|(index, logged)| Some((index, logged.as_ref()?)));
        let places: Vec<_> = places.filter(|(_, logged)| wanted(logged)).collect();
        let places = &places[places.len().saturating_sub(most)..];
        if places.is_empty() {
            return Ok((Vec::new(), is_whole));
        }
        let indexes: HashSet<u32> = places.iter().map(|(index, _)| *index).collect();
        let only_key = only.map(|only| only.uuid().as_u128());
        let is_wanted = |record: &HistoryRecord| {
            indexes.contains(&record.index) && only_key.is_none_or(|only| only == record.recipient)
        };
        let (history, pieces) = (txn.open_table(HISTORY)?, txn.open_table(PIECES)?);
        let mut histories = history::of_batch(&history, &pieces, key, &self.marks, is_wanted)?.entries;
        let mut failed = history::take_failed(&mut histories);
        let mut stands = Stands::open(txn, &self.marks)?;
        let stories = places.iter().map(|(index, logged)| {
            let deliveries = stands.deliveries((key, *index), logged, only, |recipient| {
                histories.remove(&(*index, recipient.uuid().as_u128())).unwrap_or_default()
            })?;
            let failed = failed.remove(index).unwrap_or_default();
            Ok(EventHistory { event: Arc::clone(logged), deliveries, failed })
        });
        Ok((stories.collect::<Result<_, Fault>>()?, is_whole))
    }

    pub(super) fn batch(&self, txn: &ReadTransaction, key: u128) -> Result<Arc<Batch>, Fault> {
        if let Some(batch) = self.recent.get(key) {
            return Ok(batch);
        }
        let batches = txn.open_table(BATCHES)?;
        let Some(row) = batches.get(key)? else { return Ok(Arc::default()) };
        let record = bytes::Bytes::copy_from_slice(row.value());
        match record::decode_batch(&record) {
            Ok(batch) => {
                for index in &batch.damaged {
                    self.marks.mark("batches", (key, index), &record::Error::Checksum);
                }
                Ok(Arc::new(batch))
            }
            Err(reason) => {
                self.marks.mark("batches", key, &reason);
                Err(Fault::Damaged { table: "batches", reason })
            }
        }
    }

    /// Answers [`crate::store::Store::ready`] from memory, if that is enough.
    pub(super) fn ready_in_memory(&self, query: &ReadyQuery) -> Option<ReadyPage> {
        if query.due > 0 {
            return None;
        }
        self.tails.read(query, &self.recent)
    }

    /// See [`crate::store::Store::ready`]; returns with it the rows that cannot be delivered.
    pub(super) fn ready(&self, query: ReadyQuery) -> Result<(ReadyPage, Vec<DeadRow>), Fault> {
        let newest = self.tails.open(query.recipient);
        self.handle.read(|txn| {
            let (mut dead, mut first_attempts, mut read_to) = (Vec::new(), Vec::new(), query.after);
            if query.first_attempts > 0 {
                first_attempts = self.first_attempts(txn, query, &mut dead)?;
                read_to = first_attempts.last().map_or(read_to, |last| last.position.batch);
                if first_attempts.len() < query.first_attempts && dead.is_empty() {
                    read_to = read_to.max(newest);
                }
            }
            let (due, next_due) = match query.due {
                0 => (Vec::new(), None),
                _ => self.due(txn, query, &mut dead)?,
            };
            Ok((ReadyPage { first_attempts, read_to, due, next_due }, dead))
        })
    }

    /// Reads a batch that a row leads to; `None` for one that cannot be read.
    pub(super) fn batch_of_row(&self, txn: &ReadTransaction, key: u128) -> Result<Option<Arc<Batch>>, Fault> {
        match self.batch(txn, key) {
            Ok(batch) => Ok(Some(batch)),
            Err(Fault::Damaged { .. }) => Ok(None),
            Err(fault @ (Fault::Redb(_) | Fault::Closed(_))) => Err(fault),
        }
    }

    fn first_attempts(
        &self,
        txn: &ReadTransaction,
        query: ReadyQuery,
        dead: &mut Vec<DeadRow>,
    ) -> Result<Vec<PendingDelivery>, Fault> {
        let (fresh, rendered) = (txn.open_table(FRESH)?, RenderedRows::open(txn, query.recipient)?);
        let subscription = query.recipient.uuid().as_u128();
        let first = query.after.uuid().as_u128().saturating_add(1);
        let mut pending = Vec::new();
        for row in fresh.range((subscription, first)..=(subscription, u128::MAX))? {
            let (row, places) = row?;
            let key = row.value().1;
            let places = self.marks.pass("fresh", row.value(), record::decode_places(places.value()));
            let (Some(places), Some(batch)) = (places, self.batch_of_row(txn, key)?) else {
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
        &self,
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
            let known = self.marks.pass("waiting", (recipient, event), read).flatten();
            let Some(known) = known.filter(|known| known.due.as_microsecond() == micros) else {
                dead.push(DeadRow::Due { due: micros, event });
                continue;
            };
            let batch = match last.take().filter(|(key, _)| *key == known.batch) {
                Some((_, batch)) => Some(batch),
                None => self.batch_of_row(txn, known.batch)?,
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

    /// See [`crate::store::Store::recipients_with_backlog`].
    pub(super) fn recipients_with_backlog(&self) -> Result<Vec<RecipientId>, Fault> {
        self.handle.read(|txn| {
            let (fresh, due) = (txn.open_table(FRESH)?, txn.open_table(DUE)?);
            let mut recipients = std::collections::BTreeSet::new();
            let mut from = 0u128;
            // Seeks from one recipient to the next, however long its queue is.
            while let Some(row) = fresh.range((from, 0)..)?.next().transpose()? {
                let subscription = row.0.value().0;
                recipients.insert(subscription);
                let Some(next) = subscription.checked_add(1) else { break };
                from = next;
            }
            from = 0;
            while let Some(row) = due.range((from, i64::MIN, 0)..)?.next().transpose()? {
                let subscription = row.0.value().0;
                recipients.insert(subscription);
                let Some(next) = subscription.checked_add(1) else { break };
                from = next;
            }
            Ok(recipients.into_iter().map(record::recipient_id).collect())
        })
    }

    /// See [`crate::store::Store::subscriptions`].
    pub(super) fn subscriptions(&self) -> Result<(Position, Vec<StoredSubscription>), Fault> {
        self.handle.read(|txn| {
            let position = txn.open_table(META)?.get(POSITION_KEY)?.map_or(0, |position| position.value());
            let mut subscriptions = Vec::new();
            for row in txn.open_table(SUBSCRIPTIONS)?.iter()? {
                let (key, record) = row?;
                let read = record::decode_subscription(record.value());
                subscriptions.extend(self.marks.pass("subscriptions", key.value(), read));
            }
            Ok((Position(position), subscriptions))
        })
    }

    /// Returns the position of the last group.
    pub(super) fn position(&self) -> Result<Position, Fault> {
        self.handle.read(|txn| {
            let position = txn.open_table(META)?.get(POSITION_KEY)?.map_or(0, |position| position.value());
            Ok(Position(position))
        })
    }

    /// Returns the settings that the last writer had.
    pub(super) fn settings(&self) -> Result<Option<Settings>, Fault> {
        self.handle.read(|txn| {
            let meta = txn.open_table(META)?;
            let number = |key: &str| Ok::<_, Fault>(meta.get(key)?.map(|number| number.value()));
            let (dedup_window_ms, user_bytes_max) = (number(DEDUP_WINDOW_KEY)?, number(USER_BYTES_KEY)?);
            Ok(dedup_window_ms
                .zip(user_bytes_max)
                .map(|(dedup_window_ms, user_bytes_max)| Settings { dedup_window_ms, user_bytes_max }))
        })
    }

    /// Returns the subscriptions with pending deliveries whose own records cannot be read.
    pub(super) fn stranded(&self) -> Result<Vec<RecipientId>, Fault> {
        let recipients = self.recipients_with_backlog()?;
        self.handle.read(|txn| {
            let table = txn.open_table(SUBSCRIPTIONS)?;
            let mut stranded = Vec::new();
            for id in recipients {
                let key = id.uuid().as_u128();
                // A recipient without a row here is a handler.
                let Some(record) = table.get(key)? else { continue };
                let read = record::decode_subscription(record.value());
                if self.marks.pass("subscriptions", key, read).is_none() {
                    stranded.push(id);
                }
            }
            Ok(stranded)
        })
    }

    /// See [`crate::store::Store::reached`].
    pub(super) fn reached(&self) -> Result<Vec<(SubscriptionId, Timestamp)>, Fault> {
        self.handle.read(|txn| {
            let table = txn.open_table(REACHED)?;
            let mut reached = Vec::new();
            for row in table.iter()? {
                let (key, at) = row?;
                let at = self.marks.pass("reached", key.value(), record::timestamp(at.value()));
                reached.extend(at.map(|at| (record::recipient_id(key.value()).subscription_id(), at)));
            }
            Ok(reached)
        })
    }

    /// Returns the newest batch.
    pub(super) fn last_batch(&self) -> Result<Option<EventId>, Fault> {
        self.handle.read(|txn| {
            let batches = txn.open_table(BATCHES)?;
            Ok(batches.last()?.map(|(key, _)| record::event_id(key.value())))
        })
    }
}

/// Makes the pending delivery of an event in a batch that was never attempted.
pub(super) fn first_attempt(batch: &Batch, key: u128, index: u32) -> Option<PendingDelivery> {
    pending_delivery(
        batch,
        QueuePosition { batch: record::event_id(key), index, due: None },
        Progress::default(),
    )
}

/// Makes the pending delivery of a row; `None` if its event is damaged or gone.
fn pending_delivery(batch: &Batch, position: QueuePosition, progress: Progress) -> Option<PendingDelivery> {
    let event = batch.event_at(position.index)?;
    Some(PendingDelivery { event: Arc::clone(event), position, progress, rendered: false })
}

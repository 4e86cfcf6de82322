//! What the store is asked: short read transactions, never held longer than one answer takes.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTable};

use super::handle::{Fault, Handle};
use super::history;
use super::ids;
use super::prepared::PreparedRows;
use super::recent::Recent;
use super::record::{self, Batch, HistoryRecord, RetryRecord};
use super::schema::{BATCHES, FRESH, HISTORY, PIECES, REACHED, RETRIES, SUBSCRIPTIONS, batch_of};
use crate::domain::{EventId, Subscription, SubscriptionId};
use crate::store::{Ask, Logged, Owed, Place, Progress, Range, Story, Waiting};

/// The reading side of the file.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) handle: Arc<Handle>,
    pub(super) recent: Arc<Recent>,
}

impl Reader {
    /// See [`crate::store::Store::story`].
    pub(super) fn story(&self, id: EventId) -> Result<Option<Story>, Fault> {
        self.handle.read(|txn| {
            let Some(key) = batch_of(&txn.open_table(BATCHES)?, id.uuid().as_u128())? else {
                return Ok(None);
            };
            let stories = self.stories_of_batch(txn, key, 1, |logged| logged.id == id)?;
            Ok(stories.into_iter().next())
        })
    }

    /// See [`crate::store::Store::stories`].
    pub(super) fn stories(&self, range: Range) -> Result<Vec<Story>, Fault> {
        let below = range.before.unwrap_or(EventId::MAX).uuid().as_u128();
        let wanted = |logged: &Logged| {
            logged.id.uuid().as_u128() < below
                && range.since.is_none_or(|since| logged.received >= since)
                && range.until.is_none_or(|until| logged.received < until)
        };
        // An event is received a little before it gets its id, never after.
        let lowest = range.since.map_or(0, |since| ids::first_at(since).uuid().as_u128());
        let mut stories = Vec::new();
        let mut upper = below;
        // One transaction for each batch: a long listing does not hold back the reuse of pages.
        while stories.len() < range.limit {
            let more = self.handle.read(|txn| {
                let batches = txn.open_table(BATCHES)?;
                let Some(row) = batches.range(..upper)?.next_back().transpose()? else { return Ok(false) };
                upper = row.0.value();
                let newest = self.stories_of_batch(txn, upper, range.limit - stories.len(), wanted)?;
                stories.extend(newest.into_iter().rev());
                Ok(upper > lowest)
            })?;
            if !more {
                break;
            }
        }
        Ok(stories)
    }

    /// Reads the newest stories of a batch, `most` of them.
    fn stories_of_batch(
        &self,
        txn: &ReadTransaction,
        key: u128,
        most: usize,
        wanted: impl Fn(&Logged) -> bool,
    ) -> Result<Vec<Story>, Fault> {
        let batch = self.batch(txn, key)?;
        let places = (0u32..).zip(batch.iter()).filter_map(|(index, logged)| Some((index, logged.as_ref()?)));
        let places: Vec<_> = places.filter(|(_, logged)| wanted(logged)).collect();
        let places = &places[places.len().saturating_sub(most)..];
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let indexes: HashSet<u32> = places.iter().map(|(index, _)| *index).collect();
        let is_wanted = |record: &HistoryRecord| indexes.contains(&record.index);
        let (history, pieces) = (txn.open_table(HISTORY)?, txn.open_table(PIECES)?);
        let mut histories = history::of_batch(&history, &pieces, key, is_wanted)?;
        let mut failed = history::take_failed(&mut histories);
        let stories = places.iter().map(|(index, logged)| {
            let deliveries = logged.matched.iter().map(|subscription| {
                let entries = histories.remove(&(*index, subscription.uuid().as_u128()));
                (*subscription, entries.unwrap_or_default())
            });
            let deliveries = deliveries.collect();
            let failed = failed.remove(index).unwrap_or_default();
            Story { event: Arc::clone(logged), deliveries, failed }
        });
        Ok(stories.collect())
    }

    pub(super) fn batch(&self, txn: &ReadTransaction, key: u128) -> Result<Arc<Batch>, Fault> {
        if let Some(batch) = self.recent.get(key) {
            return Ok(batch);
        }
        let batches = txn.open_table(BATCHES)?;
        let Some(row) = batches.get(key)? else { return Ok(Arc::default()) };
        let record = bytes::Bytes::copy_from_slice(row.value());
        Ok(Arc::new(record::decode_batch(record).map_err(Fault::damaged("batches"))?))
    }

    /// See [`crate::store::Store::owed`].
    pub(super) fn owed(&self, ask: Ask) -> Result<Waiting, Fault> {
        self.handle.read(|txn| {
            let fresh = if ask.fresh == 0 { Vec::new() } else { self.fresh(txn, ask)? };
            let (due, next_due) = self.due(txn, ask)?;
            Ok(Waiting { fresh, due, next_due })
        })
    }

    fn fresh(&self, txn: &ReadTransaction, ask: Ask) -> Result<Vec<Owed>, Fault> {
        let (fresh, prepared) = (txn.open_table(FRESH)?, PreparedRows::open(txn, ask.subscription)?);
        let subscription = ask.subscription.uuid().as_u128();
        let first = ask.after.uuid().as_u128().saturating_add(1);
        let mut owed = Vec::new();
        for row in fresh.range((subscription, first)..=(subscription, u128::MAX))? {
            let (row, places) = row?;
            let key = row.value().1;
            let batch = self.batch(txn, key)?;
            for index in record::decode_places(places.value()).map_err(Fault::damaged("fresh"))? {
                if let Some(fresh) = owe_fresh(&batch, key, index) {
                    owed.push(Owed { prepared: prepared.has(fresh.event.id)?, ..fresh });
                }
            }
            if owed.len() >= ask.fresh {
                break;
            }
        }
        Ok(owed)
    }

    fn due(&self, txn: &ReadTransaction, ask: Ask) -> Result<(Vec<Owed>, Option<Timestamp>), Fault> {
        let (retries, prepared) = (txn.open_table(RETRIES)?, PreparedRows::open(txn, ask.subscription)?);
        let subscription = ask.subscription.uuid().as_u128();
        let mut owed = Vec::new();
        // Rows that became due together are often of one batch, which is then read and held once.
        let mut last: Option<(u128, Arc<Batch>)> = None;
        for row in retries.range((subscription, i64::MIN, 0)..=(subscription, i64::MAX, u128::MAX))? {
            let (row, retry) = row?;
            let due = record::timestamp(row.value().1).map_err(Fault::damaged("retries"))?;
            if due > ask.now || owed.len() >= ask.due {
                return Ok((owed, Some(due)));
            }
            let retry = RetryRecord::decode(retry.value()).map_err(Fault::damaged("retries"))?;
            let batch = match last.take().filter(|(key, _)| *key == retry.batch) {
                Some((_, batch)) => batch,
                None => self.batch(txn, retry.batch)?,
            };
            let place = Place { batch: record::event_id(retry.batch), index: retry.index, due: Some(due) };
            if let Some(due) = owe(&batch, place, retry.progress().map_err(Fault::damaged("retries"))?) {
                owed.push(Owed { prepared: prepared.has(due.event.id)?, ..due });
            }
            last = Some((retry.batch, batch));
        }
        Ok((owed, None))
    }

    /// See [`crate::store::Store::creditors`].
    pub(super) fn creditors(&self) -> Result<Vec<SubscriptionId>, Fault> {
        self.handle.read(|txn| {
            let (fresh, retries) = (txn.open_table(FRESH)?, txn.open_table(RETRIES)?);
            let mut creditors = std::collections::BTreeSet::new();
            let mut from = 0u128;
            // Leaps from one subscription to the next, however much each is owed.
            while let Some(row) = fresh.range((from, 0)..)?.next().transpose()? {
                let subscription = row.0.value().0;
                creditors.insert(subscription);
                let Some(next) = subscription.checked_add(1) else { break };
                from = next;
            }
            from = 0;
            while let Some(row) = retries.range((from, i64::MIN, 0)..)?.next().transpose()? {
                let subscription = row.0.value().0;
                creditors.insert(subscription);
                let Some(next) = subscription.checked_add(1) else { break };
                from = next;
            }
            Ok(creditors.into_iter().map(record::subscription_id).collect())
        })
    }

    /// See [`crate::store::Store::subscriptions`].
    pub(super) fn subscriptions(&self) -> Result<Vec<Arc<Subscription>>, Fault> {
        self.handle.read(|txn| {
            let table = txn.open_table(SUBSCRIPTIONS)?;
            let rows = table.iter()?.map(|row| {
                let (_, record) = row?;
                let subscription = record::decode_subscription(record.value());
                subscription.map(Arc::new).map_err(Fault::damaged("subscriptions"))
            });
            rows.collect()
        })
    }

    /// See [`crate::store::Store::reached`].
    pub(super) fn reached(&self) -> Result<Vec<(SubscriptionId, Timestamp)>, Fault> {
        self.handle.read(|txn| {
            let table = txn.open_table(REACHED)?;
            let rows = table.iter()?.map(|row| {
                let (key, at) = row?;
                let at = record::timestamp(at.value()).map_err(Fault::damaged("reached"))?;
                Ok((record::subscription_id(key.value()), at))
            });
            rows.collect()
        })
    }

    /// Returns the newest event's id.
    pub(super) fn last_event(&self) -> Result<Option<EventId>, Fault> {
        self.handle.read(|txn| {
            let batches = txn.open_table(BATCHES)?;
            let Some((key, _)) = batches.last()? else { return Ok(None) };
            let key = key.value();
            let last = self.batch(txn, key)?.iter().flatten().map(|logged| logged.id).max();
            Ok(Some(last.unwrap_or(record::event_id(key))))
        })
    }
}

/// Makes the first attempt that is owed for an event in a batch.
pub(super) fn owe_fresh(batch: &Batch, key: u128, index: u32) -> Option<Owed> {
    owe(batch, Place { batch: record::event_id(key), index, due: None }, Progress::default())
}

/// Makes what is owed of a row; a row whose event has gone owes nothing.
fn owe(batch: &Batch, place: Place, progress: Progress) -> Option<Owed> {
    let event = batch.get(usize::try_from(place.index).ok()?)?.as_ref()?;
    Some(Owed { event: Arc::clone(event), place, progress, prepared: false })
}

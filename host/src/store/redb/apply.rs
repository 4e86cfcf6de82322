//! The effect of each operation on the tables, inside one transaction. It does nothing but change the tables.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use redb::ReadableTable;

use super::damage::{self, BuryScope, Marks};
use super::fresh::{self, FreshRows};
use super::handle::Fault;
use super::history::{self, Ledger};
use super::ids::Ids;
use super::queue::{End, Redelivery};
use super::read::first_attempt;
use super::record::{self, Batch, HistoryRecord, RetryRecord};
use super::schema::{PROBE_KEY, Tables, batch_of};
use super::text::Text;
use super::usage::{self, Changes, Kind, Usage};
use crate::domain::{Entry, EventId, Outcome, RecipientId, State, SubscriptionId};
use crate::store::{Arrival, LoggedEvent, Progress, QueuePosition, Release, Settlement, Wake};

/// The most events in one batch, and the bytes at which a batch is full.
const BATCH_EVENTS_MAX: usize = 256;
const BATCH_BYTES_FULL: usize = 1024 * 1024;
/// The most new deliveries of one commit that a wake carries; recipients with more read the store.
const TOLD_MAX: usize = 8 * 1024;
/// How far the stored time of a target's last success may lag behind.
const REACHED_LAG: Duration = Duration::from_secs(1);

/// The changes to publish to the rest of the store after the commit.
#[derive(Default)]
pub(super) struct Effects {
    /// New batches.
    pub(super) batches: Vec<(u128, Batch)>,
    /// Batches that have changed on disk.
    pub(super) changed: Vec<u128>,
    /// Subscriptions with new work.
    pub(super) woken: HashMap<RecipientId, Wake>,
    /// When targets were reached, for those times that were written.
    pub(super) reached: HashMap<SubscriptionId, Timestamp>,
    /// How many new deliveries there are.
    pub(super) told: usize,
    /// Subscriptions that were removed.
    pub(super) forgotten: Vec<SubscriptionId>,
    /// What is kept for users.
    pub(super) usage: Changes,
}

/// One transaction's work.
pub(super) struct Apply<'a, 'txn> {
    pub(super) tables: &'a mut Tables<'txn>,
    pub(super) ids: &'a mut Ids,
    pub(super) dedup_window: Duration,
    pub(super) now: Timestamp,
    pub(super) reached: &'a HashMap<SubscriptionId, Timestamp>,
    pub(super) usage: &'a Usage,
    pub(super) marks: &'a Marks,
    pub(super) effects: Effects,
}

impl Apply<'_, '_> {
    /// Logs the events of all accepts of the group, in batches, with their deliveries and failures.
    pub(super) fn accept<'e>(
        &mut self,
        accepts: impl Iterator<Item = &'e [Arrival]>,
    ) -> Result<Vec<Vec<EventId>>, Fault> {
        let mut answers = Vec::new();
        let (mut batch, mut failed, mut bytes) = (Vec::new(), Vec::new(), 0);
        for arrivals in accepts {
            let mut ids = Vec::with_capacity(arrivals.len());
            for arrival in arrivals {
                let id = self.ids.next(self.now);
                if let Some(first) = self.seen_before(arrival, id)? {
                    ids.push(first);
                    continue;
                }
                ids.push(id);
                bytes += arrival.size();
                let index = u32::try_from(batch.len()).expect("a batch has at most 256 events");
                failed.extend(failures(arrival, index));
                batch.push(LoggedEvent {
                    id,
                    event: arrival.event.clone(),
                    received: arrival.received,
                    sender: arrival.sender.clone(),
                    matched: arrival.matched.clone(),
                });
                if batch.len() == BATCH_EVENTS_MAX || bytes >= BATCH_BYTES_FULL {
                    self.log(&std::mem::take(&mut batch), std::mem::take(&mut failed))?;
                    bytes = 0;
                }
            }
            answers.push(ids);
        }
        if !batch.is_empty() {
            self.log(&batch, failed)?;
        }
        Ok(answers)
    }

    fn log(&mut self, batch: &[LoggedEvent], failed: Vec<HistoryRecord>) -> Result<(), Fault> {
        let key = batch[0].id.uuid().as_u128();
        let mut ledger = Ledger::default();
        failed.into_iter().for_each(|record| ledger.add(key, record));
        ledger.write(self.tables)?;
        let record = record::encode_batch(batch.iter().map(Some), &[]);
        self.tables.batches.insert(key, record.as_slice())?;
        let mut pending: BTreeMap<RecipientId, Vec<u32>> = BTreeMap::new();
        for (place, logged) in (0..).zip(batch) {
            for recipient in &logged.matched {
                pending.entry(*recipient).or_default().push(place);
            }
        }
        // The bodies of the copy in memory share this buffer, so that no receive buffer is kept alive.
        let copy = record::decode_new_batch(&record.into()).map_err(Fault::damaged("batches"))?;
        for (recipient, places) in pending {
            let row = (recipient.uuid().as_u128(), key);
            self.tables.fresh.insert(row, record::encode_places(&places).as_slice())?;
            self.effects.told += places.len();
            let read = self.effects.told > TOLD_MAX;
            let told = if read { &[] } else { places.as_slice() };
            let fresh: Vec<_> = told.iter().filter_map(|index| first_attempt(&copy, key, *index)).collect();
            let wake = Wake { count: places.len() as u64, first_attempts: fresh, read };
            self.effects.woken.entry(recipient).or_default().merge(wake);
        }
        self.effects.batches.push((key, copy));
        Ok(())
    }

    /// Returns the event that this one repeats within the dedup window, or remembers this one as `id`.
    fn seen_before(&mut self, arrival: &Arrival, id: EventId) -> Result<Option<EventId>, Fault> {
        if self.dedup_window.is_zero() {
            return Ok(None);
        }
        let key = format!("{}\0{}", arrival.event.source(), arrival.event.id());
        let oldest = self.now.checked_sub(self.dedup_window).unwrap_or(Timestamp::MIN);
        let oldest = super::ids::first_at(oldest).uuid().as_u128();
        // Each new entry removes up to two expired ones, so that the table needs no other cleanup.
        for _ in 0..2 {
            let first = self.tables.seen_order.first()?.map(|(at, key)| (at.value(), key.value().to_owned()));
            let Some((at, expired)) = first.filter(|(at, _)| *at < oldest) else { break };
            self.tables.seen_order.remove(at)?;
            if expired == Text::DAMAGED {
                self.marks.mark("seen_order", at, &record::Error::Text);
                continue;
            }
            if self.tables.seen.get(expired.as_str())?.is_some_and(|first| first.value() == at) {
                self.tables.seen.remove(expired.as_str())?;
            }
        }
        if let Some(first) = self.tables.seen.get(key.as_str())?.map(|first| first.value())
            && first >= oldest
        {
            return Ok(Some(record::event_id(first)));
        }
        self.tables.seen.insert(key.as_str(), id.uuid().as_u128())?;
        self.tables.seen_order.insert(id.uuid().as_u128(), key.as_str())?;
        Ok(None)
    }

    /// Settles deliveries whose attempts have ended.
    pub(super) fn settle<'e>(&mut self, all: impl Iterator<Item = &'e End>) -> Result<(), Fault> {
        let (mut ledger, mut late) = (Ledger::default(), Vec::new());
        let (mut rows, mut held) = (FreshRows::default(), BTreeMap::<_, Vec<_>>::new());
        for end in all {
            let settlement = match end {
                End::Settled(settlement) => settlement,
                End::Released(release) => {
                    if let Some(record) = self.release(release, &mut rows)? {
                        held.entry(release.position.batch.uuid().as_u128()).or_default().push(record);
                    }
                    continue;
                }
            };
            let recipient = settlement.recipient.uuid().as_u128();
            let (batch, index) = (settlement.position.batch.uuid().as_u128(), settlement.position.index);
            if settlement.attempt.outcome == Outcome::Delivered {
                self.remember_reached(settlement.recipient.subscription_id(), settlement.attempt.at)?;
            }
            let waited =
                self.take_row(&mut rows, settlement.recipient, settlement.event, settlement.position)?;
            let entries = self.entries_of(settlement)?;
            let records = entries.into_iter().map(|entry| HistoryRecord { index, recipient, entry });
            if !waited {
                late.extend(records.map(|record| (batch, record)));
                continue;
            }
            for record in records {
                self.count(recipient, Kind::Story, usage::of_entry(&record.entry))?;
                ledger.add(batch, record);
            }
            if settlement.rendered && is_settled(&settlement.attempt.outcome) {
                self.discard_rendered((recipient, settlement.event.uuid().as_u128()))?;
            }
            if let Outcome::Retry { due, .. } = &settlement.attempt.outcome {
                self.enqueue(
                    settlement.recipient,
                    settlement.event,
                    *due,
                    batch,
                    index,
                    settlement.progress,
                )?;
            }
        }
        rows.write(&mut self.tables.fresh)?;
        ledger.write(self.tables)?;
        for (batch, record) in late {
            let (recipient, bytes) = (record.recipient, usage::of_entry(&record.entry));
            if history::insert_late(self.tables, batch, record)? {
                self.count(recipient, Kind::Story, bytes)?;
            }
        }
        for (batch, records) in held {
            history::hold(self.tables, batch, records)?;
        }
        Ok(())
    }

    /// Removes the row of a pending delivery; returns whether it was there.
    fn take_row(
        &mut self,
        rows: &mut FreshRows,
        recipient: RecipientId,
        event: EventId,
        position: QueuePosition,
    ) -> Result<bool, Fault> {
        let recipient = recipient.uuid().as_u128();
        match position.due {
            None => {
                rows.take(&self.tables.fresh, (recipient, position.batch.uuid().as_u128()), position.index)
            }
            Some(due) => {
                let row = (recipient, due.as_microsecond(), event.uuid().as_u128());
                Ok(self.tables.retries.remove(row)?.is_some())
            }
        }
    }

    /// Puts a delivery off; returns the entry for its history, or `None` if its row is gone.
    fn release(&mut self, release: &Release, rows: &mut FreshRows) -> Result<Option<HistoryRecord>, Fault> {
        let Release { recipient, event, position, progress, by, reason, since, due } = release;
        if !self.take_row(rows, *recipient, *event, *position)? {
            return Ok(None);
        }
        let (batch, index) = (position.batch.uuid().as_u128(), position.index);
        let progress = Progress { held: Some(*since), ..*progress };
        self.enqueue(*recipient, *event, *due, batch, index, progress)?;
        let entry = Entry::Held { since: *since, by: *by, reason: reason.clone(), due: *due };
        Ok(Some(HistoryRecord { index, recipient: recipient.uuid().as_u128(), entry }))
    }

    /// Returns the attempt as the story keeps it: shortened if its user has no more room.
    fn entries_of(&mut self, settlement: &Settlement) -> Result<Vec<Entry>, Fault> {
        let recipient = settlement.recipient.uuid().as_u128();
        let mut entries = Vec::with_capacity(2);
        entries.extend(settlement.plugin.clone().map(Entry::Plugin));
        entries.extend(settlement.run.clone().map(Entry::Run));
        entries.push(Entry::Attempt(settlement.attempt.clone()));
        self.fit(recipient, &mut entries)?;
        Ok(entries)
    }

    /// Enqueues a delivery at `due`, in the due index: a worker that runs has passed the batch's place among first attempts.
    pub(super) fn enqueue(
        &mut self,
        recipient: RecipientId,
        event: EventId,
        due: Timestamp,
        batch: u128,
        index: u32,
        progress: Progress,
    ) -> Result<(), Fault> {
        let row = (recipient.uuid().as_u128(), due.as_microsecond(), event.uuid().as_u128());
        let record = RetryRecord::new(batch, index, progress).encode();
        self.tables.retries.insert(row, record.as_slice())?;
        Ok(())
    }

    /// Tells whether the delivery is still pending its first attempt.
    pub(super) fn is_fresh(&self, recipient: u128, batch: u128, index: u32) -> Result<bool, Fault> {
        Ok(fresh::places(&self.tables.fresh, (recipient, batch))?.contains(&index))
    }

    fn remember_reached(&mut self, recipient: SubscriptionId, at: Timestamp) -> Result<(), Fault> {
        let known = self.effects.reached.get(&recipient).or_else(|| self.reached.get(&recipient));
        if known.is_none_or(|known| at.duration_since(*known).unsigned_abs() >= REACHED_LAG) {
            self.effects.reached.insert(recipient, at);
            self.tables.reached.insert(recipient.uuid().as_u128(), at.as_microsecond())?;
        }
        Ok(())
    }

    /// Enqueues an event again; `false` when it is not in the log.
    pub(super) fn redeliver(&mut self, request: &Redelivery) -> Result<bool, Fault> {
        let event = request.event.uuid().as_u128();
        let Some(key) = batch_of(&self.tables.batches, event)? else { return Ok(false) };
        let mut batch = self.batch(key)?;
        let Some(place) =
            batch.iter().position(|logged| logged.as_ref().is_some_and(|logged| logged.id == request.event))
        else {
            return Ok(false);
        };
        let index = u32::try_from(place).expect("a batch has at most 256 events");
        let mut logged = LoggedEvent::clone(batch[place].as_ref().expect("the place has just been found"));
        let is_meant = |record: &HistoryRecord| record.index == index;
        let histories =
            history::of_batch(&self.tables.history, &self.tables.pieces, key, self.marks, is_meant)?;
        let mut ledger = Ledger::default();
        let mut asked = HashSet::new();
        for id in request.recipients.iter().filter(|id| asked.insert(**id)) {
            let recipient = id.uuid().as_u128();
            let entries = histories.entries.get(&(index, recipient)).map_or(&[][..], Vec::as_slice);
            let known = logged.matched.contains(id);
            match (known, waiting_since(entries)) {
                (true, QueueRow::Fresh) => match damage::apart(self.is_fresh(recipient, key, index))? {
                    // It is still waiting for its first attempt.
                    Ok(true) => continue,
                    Ok(false) => {}
                    // The row must be handled here: a disabled subscription has no worker that would ever read it.
                    Err(reason) => {
                        self.marks.mark("fresh", (recipient, key), &reason);
                        self.bury_fresh(recipient, key, BuryScope::Unreadable, request.at, &mut ledger)?;
                    }
                },
                (true, QueueRow::Due(due)) => {
                    self.tables.retries.remove((recipient, due.as_microsecond(), event))?;
                }
                (true, QueueRow::Not) => {}
                (false, _) => logged.matched.push(*id),
            }
            let entry = Entry::Redelivery { at: request.at, by: request.by.clone() };
            ledger.add(key, HistoryRecord { index, recipient, entry });
            self.discard_rendered_by_other_plugin(*id, request.event)?;
            self.enqueue(*id, request.event, request.at, key, index, Progress::default())?;
            self.effects.woken.entry(*id).or_default().merge(Wake { count: 1, ..Wake::read() });
        }
        ledger.write(self.tables)?;
        if batch[place].as_ref().is_some_and(|before| before.matched.len() < logged.matched.len()) {
            batch[place] = Some(logged.into());
            self.replace_batch(key, &batch)?;
        }
        Ok(true)
    }

    /// Reads a batch.
    pub(super) fn batch(&self, key: u128) -> Result<Batch, Fault> {
        let Some(row) = self.tables.batches.get(key)? else { return Ok(Batch::default()) };
        let read = record::decode_batch(&bytes::Bytes::copy_from_slice(row.value()));
        read.map_err(|reason| {
            self.marks.mark("batches", key, &reason);
            Fault::Damaged { table: "batches", reason }
        })
    }

    /// Writes a changed batch, or removes an empty one.
    pub(super) fn replace_batch(&mut self, key: u128, batch: &Batch) -> Result<(), Fault> {
        if batch.damaged.is_empty() && batch.iter().all(Option::is_none) {
            self.tables.batches.remove(key)?;
        } else {
            let record = record::encode_batch(batch.iter().map(Option::as_deref), &batch.damaged);
            self.tables.batches.insert(key, record.as_slice())?;
        }
        self.effects.changed.push(key);
        Ok(())
    }

    /// Cancels pending deliveries, at most `limit` rows of each kind, and removes the plugin's state; returns whether
    /// there may be more.
    pub(super) fn cancel_pending(
        &mut self,
        id: SubscriptionId,
        limit: usize,
        at: Timestamp,
    ) -> Result<bool, Fault> {
        let recipient = id.uuid().as_u128();
        let mut ledger = Ledger::default();
        let mut drop_delivery = |batch, index| {
            let entry = Entry::Dropped { at, reason: "the subscription was deleted".to_owned() };
            ledger.add(batch, HistoryRecord { index, recipient, entry });
        };
        let mut fresh = Vec::new();
        for row in self.tables.fresh.range((recipient, 0)..=(recipient, u128::MAX))?.take(limit) {
            let (key, places) = row?;
            let (_, batch) = key.value();
            // A row that cannot be read does not tell which deliveries it held.
            let places = self.marks.pass("fresh", key.value(), record::decode_places(places.value()));
            places.into_iter().flatten().for_each(|index| drop_delivery(batch, index));
            fresh.push(key.value());
        }
        let mut retries = Vec::new();
        let whole = (recipient, i64::MIN, 0)..=(recipient, i64::MAX, u128::MAX);
        for row in self.tables.retries.range(whole)?.take(limit) {
            let (key, value) = row?;
            if let Some(retry) = self.marks.pass("retries", key.value(), RetryRecord::decode(value.value())) {
                drop_delivery(retry.batch, retry.index);
            }
            retries.push(key.value());
        }
        let rendered = self.discard_all_rendered(id.into(), limit)?;
        self.forget_state(id)?;
        let more = fresh.len() == limit || retries.len() == limit || rendered == limit;
        for key in fresh {
            self.tables.fresh.remove(key)?;
        }
        for key in retries {
            self.tables.retries.remove(key)?;
        }
        ledger.write(self.tables)?;
        Ok(more)
    }

    /// Writes a count, to test the disk.
    pub(super) fn probe(&mut self) -> Result<(), Fault> {
        let count = self.tables.meta.get(PROBE_KEY)?.map_or(0, |count| count.value());
        self.tables.meta.insert(PROBE_KEY, count.wrapping_add(1))?;
        Ok(())
    }
}

/// Makes the records of the filters that gave no answer about an event.
fn failures(arrival: &Arrival, index: u32) -> impl Iterator<Item = HistoryRecord> {
    arrival.failed.iter().map(move |(recipient, reason)| {
        let entry = Entry::FilterFailed { at: arrival.received, reason: reason.clone() };
        HistoryRecord { index, recipient: recipient.uuid().as_u128(), entry }
    })
}

/// Tells whether nothing can be sent after this, even when the delivery is redelivered.
fn is_settled(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } => true,
        Outcome::Retry { .. } | Outcome::Dead { .. } => false,
    }
}

/// Where a delivery's row is.
pub(super) enum QueueRow {
    /// In the fresh table, if anywhere.
    Fresh,
    /// In the due index.
    Due(Timestamp),
    /// Nowhere: it is over.
    Not,
}

pub(super) fn waiting_since(entries: &[Entry]) -> QueueRow {
    let last = entries.iter().rfind(|entry| !entry.is_run());
    match (last, State::after(entries)) {
        (None, _) => QueueRow::Fresh,
        (Some(Entry::Redelivery { at, .. } | Entry::Recovered { at, .. }), _) => QueueRow::Due(*at),
        (_, State::Retrying { due, .. }) => QueueRow::Due(due),
        _ => QueueRow::Not,
    }
}

//! The effect of each operation on the tables, inside one transaction. It does nothing but change the tables.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use redb::ReadableTable;

use super::damage::{self, Marks};
use super::deliveries::{DeliveryKey, Rows, Stand};
use super::group::{End, Redelivery, Settings};
use super::handle::Fault;
use super::history::Ledger;
use super::ids::Ids;
use super::record::{self, Batch, HistoryRecord, Waiting, Why};
use super::schema::{Tables, batch_of};
use super::tail::NewRow;
use super::text::Text;
use super::usage::{self, Changes, Kind, Usage};
use crate::domain::{Entry, EventId, Outcome, RecipientId, SubscriptionId};
use crate::store::{
    Accepted, Arrival, LoggedEvent, Position, Progress, QueuePosition, Release, Settlement, StoredState,
    StoredSubscription, Wake,
};

/// The most events in one batch, and the bytes at which a batch is full.
const BATCH_EVENTS_MAX: usize = 256;
const BATCH_BYTES_FULL: usize = 1024 * 1024;
/// How far the stored time of a target's last success may lag behind.
const REACHED_LAG: Duration = Duration::from_secs(1);

/// The changes to publish to the rest of the store after the commit.
#[derive(Default)]
pub(super) struct Effects {
    /// New batches.
    pub(super) batches: Vec<(u128, Batch)>,
    /// Batches that have changed on disk.
    pub(super) changed: Vec<u128>,
    /// New rows of first attempts, batch by batch.
    pub(super) new_rows: Vec<NewRow>,
    /// Recipients that have lost pending first attempts otherwise than by the ends of attempts.
    pub(super) pruned: HashSet<RecipientId>,
    /// Recipients with new work.
    pub(super) woken: HashMap<RecipientId, Wake>,
    /// When targets were reached, for those times that were written.
    pub(super) reached: HashMap<SubscriptionId, Timestamp>,
    /// Subscriptions that were removed.
    pub(super) forgotten: Vec<SubscriptionId>,
    /// Subscriptions that were created or replaced, in order.
    pub(super) put: Vec<StoredSubscription>,
    pub(super) settings: Option<Settings>,
    pub(super) position: Position,
    /// What is kept for users.
    pub(super) usage: Changes,
    /// Recipients and minutes that were written among those with ended deliveries.
    pub(super) ended_minutes: HashSet<(u128, u64)>,
}

/// One transaction's work.
pub(super) struct Apply<'a, 'txn> {
    pub(super) tables: &'a mut Tables<'txn>,
    pub(super) ids: Ids,
    /// This group.
    pub(super) position: Position,
    /// The newest change that events are matched with, as it was before this group.
    pub(super) matching: Position,
    pub(super) dedup_window: Duration,
    pub(super) now: Timestamp,
    pub(super) reached: &'a HashMap<SubscriptionId, Timestamp>,
    pub(super) usage: &'a Usage,
    pub(super) marks: &'a Marks,
    pub(super) ended_minutes: &'a HashMap<u128, u64>,
    pub(super) rows: Rows,
    pub(super) effects: Effects,
}

impl Apply<'_, '_> {
    /// Logs the events of all accepts of the group, in batches, with their deliveries and failures.
    pub(super) fn accept<'e>(
        &mut self,
        accepts: impl Iterator<Item = (&'e [Arrival], Position)>,
    ) -> Result<Vec<Accepted>, Fault> {
        let mut answers = Vec::new();
        let (mut batch, mut failed, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (arrivals, matched_at) in accepts {
            if matched_at < self.matching {
                answers.push(Accepted::Stale(self.matching, arrivals.to_vec()));
                continue;
            }
            let mut ids = Vec::with_capacity(arrivals.len());
            for arrival in arrivals {
                let id = self.ids.next();
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
            answers.push(Accepted::Logged(ids));
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
            self.effects.woken.entry(recipient).or_default().merge(Wake::accepted(places.len() as u64));
            self.effects.new_rows.push(NewRow { recipient, batch: key, places: places.clone() });
            self.add_first(recipient, key, places);
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
        let mut ledger = Ledger::default();
        for end in all {
            match end {
                End::Settled(settlement) => self.settle_one(settlement, &mut ledger)?,
                End::Released(release) => self.release(release, &mut ledger)?,
            }
        }
        ledger.write(self.tables)
    }

    fn settle_one(&mut self, settlement: &Settlement, ledger: &mut Ledger) -> Result<(), Fault> {
        let Settlement { attempt, progress, .. } = settlement;
        let key = key_of(settlement.recipient, settlement.event, settlement.position);
        if attempt.outcome == Outcome::Delivered {
            self.remember_reached(settlement.recipient.subscription_id(), attempt.at)?;
        }
        let stand = self.take(key, settlement.position.due)?;
        // An attempt whose delivery was redelivered or cancelled meanwhile is history and changes nothing. If the event
        // has left the log, not even that.
        if stand.is_none() && damage::apart(self.stand(key))?.is_ok_and(|stand| stand.is_none()) {
            return Ok(());
        }
        for entry in self.entries_of(settlement)? {
            self.count(key.recipient, Kind::Story, usage::of_entry(&entry))?;
            ledger.add(key.batch, HistoryRecord { index: key.index, recipient: key.recipient, entry });
        }
        let Some(stand) = stand else { return Ok(()) };
        if settlement.rendered && is_settled(&attempt.outcome) {
            self.discard_rendered((key.recipient, key.event))?;
        }
        let mut origin = stand.origin();
        origin.was_allowed |= progress.allowed;
        let state = match &attempt.outcome {
            Outcome::Delivered => StoredState::Delivered,
            Outcome::Denied => StoredState::Denied,
            Outcome::Skipped { .. } => StoredState::Skipped,
            Outcome::Dead { .. } => StoredState::Dead,
            Outcome::Retry { reason, due } => {
                let why = Why::Failed { reason: reason.clone() };
                let (batch, index, progress) = (key.batch, key.index, *progress);
                return Ok(self.wait(key, &Waiting { batch, index, due: *due, why, progress, origin })?);
            }
        };
        self.end(key, state, origin.was_allowed)
    }

    /// Puts a delivery off, if it still stands where it stood. Its history tells of the first hold in a row only.
    fn release(&mut self, release: &Release, ledger: &mut Ledger) -> Result<(), Fault> {
        let Release { recipient, event, position, progress, by, reason, since, due } = release;
        let key = key_of(*recipient, *event, *position);
        let Some(stand) = self.take(key, position.due)? else { return Ok(()) };
        let is_same = |waiting: &Waiting| matches!(&waiting.why, Why::Held { by: known, .. } if known == by);
        if !matches!(&stand, Stand::Waiting(waiting) if is_same(waiting)) {
            let entry = Entry::Held { since: *since, by: *by, reason: reason.clone(), due: *due };
            ledger.add(key.batch, HistoryRecord { index: key.index, recipient: key.recipient, entry });
        }
        let progress = Progress { held: Some(*since), ..*progress };
        let mut origin = stand.origin();
        origin.was_allowed |= progress.allowed;
        let (why, due) = (Why::Held { by: *by, reason: reason.clone() }, *due);
        let (batch, index) = (key.batch, key.index);
        Ok(self.wait(key, &Waiting { batch, index, due, why, progress, origin })?)
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
        let Some((batch, index, logged)) = self.find_event(event)? else { return Ok(false) };
        let (mut ledger, mut asked) = (Ledger::default(), HashSet::new());
        for id in request.recipients.iter().filter(|id| asked.insert(**id)) {
            let key = DeliveryKey { recipient: id.uuid().as_u128(), event, batch, index };
            let stand = match damage::apart(self.stand(key))? {
                Ok(stand) => stand,
                // The row must be handled here: a disabled subscription has no worker that would ever read it.
                Err(reason) => self.bury_unreadable(key, &reason, request.at, &mut ledger)?,
            };
            match &stand {
                // It is still waiting for its first attempt.
                Some(Stand::First) => continue,
                Some(Stand::Waiting(_) | Stand::Ended(_)) => drop(self.leave(key)?),
                None if logged.matched.contains(id) => {}
                None => drop(self.tables.added.insert((batch, index, key.recipient), ())?),
            }
            let entry = Entry::Redelivery { at: request.at, by: request.by.clone() };
            ledger.add(batch, HistoryRecord { index, recipient: key.recipient, entry });
            self.discard_rendered_by_other_plugin(*id, request.event)?;
            self.wait_asked(key, request.at, stand.is_some_and(|stand| stand.origin().was_allowed))?;
            self.effects.woken.entry(*id).or_default().merge(Wake { count: 1, ..Wake::read() });
        }
        ledger.write(self.tables)?;
        Ok(true)
    }

    /// Returns an event with its place in the log.
    pub(super) fn find_event(&self, event: u128) -> Result<Option<(u128, u32, Arc<LoggedEvent>)>, Fault> {
        let Some(key) = batch_of(&self.tables.batches, event)? else { return Ok(None) };
        let batch = self.batch(key)?;
        let found = (0u32..)
            .zip(batch.iter().map(Option::as_ref))
            .find(|(_, logged)| logged.is_some_and(|logged| logged.id.uuid().as_u128() == event));
        Ok(found.and_then(|(index, logged)| Some((key, index, Arc::clone(logged?)))))
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
        let PendingRows { batches, due: waiting } = self.pending_rows(recipient, limit)?;
        let mut ledger = Ledger::default();
        for batch in &batches {
            let places = damage::apart(self.first_row((recipient, *batch)).map(|places| places.clone()))?;
            // A row that cannot be read does not tell which deliveries it held.
            let Some(places) = self.marks.pass("fresh", (recipient, batch), places) else {
                self.replace_first((recipient, *batch), Vec::new());
                continue;
            };
            let events = damage::apart(self.batch(*batch))?.unwrap_or_default();
            for index in places {
                let event = events.event_at(index).map_or(0, |logged| logged.id.uuid().as_u128());
                self.cancel(DeliveryKey { recipient, event, batch: *batch, index }, None, at, &mut ledger)?;
            }
        }
        for (due, event) in &waiting {
            let row = self.tables.waiting.get((recipient, *event))?.map(|row| Waiting::decode(row.value()));
            match self.marks.pass("waiting", (recipient, event), row.transpose()).flatten() {
                Some(known) if known.due.as_microsecond() == *due => {
                    let key =
                        DeliveryKey { recipient, event: *event, batch: known.batch, index: known.index };
                    self.cancel(key, Some(known.due), at, &mut ledger)?;
                }
                Some(_) | None => self.remove_stale((recipient, *due, *event))?,
            }
        }
        let rendered = self.discard_all_rendered(id.into(), limit)?;
        self.forget_state(id)?;
        ledger.write(self.tables)?;
        Ok(batches.len() == limit || waiting.len() == limit || rendered == limit)
    }

    fn cancel(
        &mut self,
        key: DeliveryKey,
        due: Option<Timestamp>,
        at: Timestamp,
        ledger: &mut Ledger,
    ) -> Result<(), Fault> {
        let Some(stand) = self.take(key, due)? else { return Ok(()) };
        self.effects.pruned.insert(record::recipient_id(key.recipient));
        let entry = Entry::Dropped { at, reason: "the subscription was deleted".to_owned() };
        ledger.add(key.batch, HistoryRecord { index: key.index, recipient: key.recipient, entry });
        self.end(key, StoredState::Skipped, stand.origin().was_allowed)
    }

    /// Returns the first pending rows of a recipient, at most `limit` of each kind.
    pub(super) fn pending_rows(&mut self, recipient: u128, limit: usize) -> Result<PendingRows, Fault> {
        self.write_rows()?;
        let rows = self.tables.fresh.range((recipient, 0)..=(recipient, u128::MAX))?.take(limit);
        let batches = rows.map(|row| Ok(row?.0.value().1)).collect::<Result<_, redb::StorageError>>()?;
        let whole = (recipient, i64::MIN, 0)..=(recipient, i64::MAX, u128::MAX);
        let rows = self.tables.due.range(whole)?.take(limit);
        let due = rows.map(|row| {
            let (_, due, event) = row?.0.value();
            Ok((due, event))
        });
        Ok(PendingRows { batches, due: due.collect::<Result<_, redb::StorageError>>()? })
    }
}

/// Rows of pending deliveries.
pub(super) struct PendingRows {
    /// Batches with first attempts.
    pub(super) batches: Vec<u128>,
    /// The times (microseconds since 1970) and events of those that wait.
    pub(super) due: Vec<(i64, u128)>,
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

/// Returns which delivery stands at a position.
pub(super) fn key_of(recipient: RecipientId, event: EventId, position: QueuePosition) -> DeliveryKey {
    DeliveryKey {
        recipient: recipient.uuid().as_u128(),
        event: event.uuid().as_u128(),
        batch: position.batch.uuid().as_u128(),
        index: position.index,
    }
}

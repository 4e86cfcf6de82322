//! The log: events in batches, oldest first, and which of them came before within the dedup window.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use redb::{ReadableTable, StorageError, Table};

use super::damage::{self, Marks};
use super::handle::Fault;
use super::ids;
use super::pieces::{self, INLINE_MAX};
use super::read::Reader;
use super::record::{self, Batch};
use super::schema::{LEAD_KEY, META, MILLIS_KEY, tables};
use super::text::Text;
use super::usage::signed;
use crate::{Arrival, Forward, LoggedEvent};
use waypost_domain::EventId;
use waypost_domain::recovery::Mark;

tables! {
    /// The tables of the log.
    LogTables {
        /// First event id of a batch → the events of the batch. Written by accept; again only when one of them is purged.
        BATCHES as batches = "batches": u128 => &'static [u8];
        /// The records of batches that are larger than a page, in [`pieces`].
        BATCH_PIECES as pieces = "batch_pieces": (u64, u32) => &'static [u8];
        /// `source`, a NUL, and the producer's `id` → the event first logged with them. Only with a dedup window.
        SEEN as seen = "seen": Text => u128;
        /// Event → its key in [`SEEN`], so that the oldest are dropped first.
        SEEN_ORDER as seen_order = "seen_order": u128 => Text;
        /// The key that a producer gave with the event, and its place among those of the request → the event first logged
        /// with them. Only with a dedup window.
        SEEN_KEYS as seen_keys = "seen_keys": Text => u128;
        /// Event → its key in [`SEEN_KEYS`], likewise.
        SEEN_KEYS_ORDER as seen_keys_order = "seen_keys_order": u128 => Text;
    }
}

/// One of the two ways in which events are known again.
struct Seen<'a, 'txn> {
    first: &'a mut Table<'txn, Text, u128>,
    order: &'a mut Table<'txn, u128, Text>,
    /// The name of `order`.
    name: &'static str,
}

impl Seen<'_, '_> {
    /// Removes up to two entries of events before `oldest`: each new entry does so, and the tables need no other cleanup.
    fn make_room(&mut self, oldest: u128, marks: &Marks) -> Result<(), Fault> {
        for _ in 0..2 {
            let first = self.order.first()?.map(|(at, key)| (at.value(), key.value().to_owned()));
            let Some((at, expired)) = first.filter(|(at, _)| *at < oldest) else { break };
            self.order.remove(at)?;
            if expired == Text::DAMAGED {
                marks.mark(self.name, at, &record::Error::Text);
                continue;
            }
            if self.first.get(expired.as_str())?.is_some_and(|first| first.value() == at) {
                self.first.remove(expired.as_str())?;
            }
        }
        Ok(())
    }

    fn find(&self, key: &str) -> Result<Option<u128>, StorageError> {
        Ok(self.first.get(key)?.map(|first| first.value()))
    }

    fn remember(&mut self, key: &str, id: EventId) -> Result<(), StorageError> {
        self.first.insert(key, id.uuid().as_u128())?;
        self.order.insert(id.uuid().as_u128(), key)?;
        Ok(())
    }
}

impl<'txn> LogTables<'txn> {
    /// Returns what events are known again by: their source and id, and the keys of their producers.
    fn seen(&mut self) -> (Seen<'_, 'txn>, Seen<'_, 'txn>) {
        let Self { seen, seen_order, seen_keys, seen_keys_order, .. } = self;
        (
            Seen { first: seen, order: seen_order, name: "seen_order" },
            Seen { first: seen_keys, order: seen_keys_order, name: "seen_keys_order" },
        )
    }
}

/// The time within which an event may repeat another.
#[derive(Clone, Copy)]
pub(super) struct DedupWindow {
    /// The earliest receipt of the first one.
    pub(super) oldest: Timestamp,
    /// How far ids are after the receipts of their events, where a clock was set back; see [`LEAD_KEY`].
    pub(super) lead: SignedDuration,
}

/// How far an event's id may be after the time of its receipt, unless [`LEAD_KEY`] says more: an accept may wait for the disk.
/// In files of earlier versions, it may be as far before it.
pub(super) const SLACK: SignedDuration = SignedDuration::from_mins(10);

/// The log, as a group of writes changes it.
pub(super) struct Log<'a, 'txn> {
    tables: &'a mut LogTables<'txn>,
    marks: &'a Marks,
    /// New batches.
    pub(super) new: Vec<(u128, Batch)>,
    /// Batches that have changed on disk.
    pub(super) changed: Vec<u128>,
    /// By how many bytes the batches have grown.
    pub(super) grown: i64,
}

impl<'a, 'txn> Log<'a, 'txn> {
    pub(super) fn new(tables: &'a mut LogTables<'txn>, marks: &'a Marks) -> Self {
        Self { tables, marks, new: Vec::new(), changed: Vec::new(), grown: 0 }
    }

    /// Appends a batch.
    pub(super) fn append(&mut self, key: u128, batch: &[LoggedEvent]) -> Result<(), Fault> {
        let record = record::encode_batch(batch.iter().map(Some), &[]);
        self.write(key, &record, None)?;
        // The bodies of the copy in memory share this buffer, so that no receive buffer is kept alive.
        let copy = record::decode_new_batch(&record.into()).map_err(Fault::damaged("batches"))?;
        self.new.push((key, copy));
        Ok(())
    }

    /// Returns the event that this one repeats, if that was received within the window; or remembers this one as `id`.
    /// A `key` that its producer gave counts before its source and id.
    pub(super) fn repeated(
        &mut self,
        arrival: &Arrival,
        key: Option<&str>,
        id: EventId,
        window: DedupWindow,
    ) -> Result<Option<EventId>, Fault> {
        let oldest = ids::first_at(window.oldest).uuid().as_u128();
        let source_and_id = format!("{}\0{}", arrival.event.source(), arrival.event.id());
        let (mut events, mut keys) = self.tables.seen();
        events.make_room(oldest, self.marks)?;
        keys.make_room(oldest, self.marks)?;
        let found = [key.map(|key| keys.find(key)).transpose()?.flatten(), events.find(&source_and_id)?];
        for first in found.into_iter().flatten().filter(|first| *first >= oldest) {
            if self.is_within(first, window)? {
                return Ok(Some(record::event_id(first)));
            }
        }
        let (mut events, mut keys) = self.tables.seen();
        if let Some(key) = key {
            keys.remember(key, id)?;
        }
        events.remember(&source_and_id, id)?;
        Ok(None)
    }

    /// Tells whether an event whose id is within the window was received within it, too. One that is not there any more is
    /// judged by its id.
    fn is_within(&self, event: u128, DedupWindow { oldest, lead }: DedupWindow) -> Result<bool, Fault> {
        let certain = oldest.checked_add(lead).unwrap_or(Timestamp::MAX);
        if event >= ids::first_at(certain).uuid().as_u128() {
            return Ok(true);
        }
        let found = damage::apart(self.find(event))?.ok().flatten();
        Ok(found.is_none_or(|(_, _, logged)| logged.received >= oldest))
    }

    /// Reads a batch; one that is not there has no events.
    pub(super) fn batch(&self, key: u128) -> Result<Batch, Fault> {
        let Some(row) = self.tables.batches.get(key)? else { return Ok(Batch::default()) };
        let record = damage::apart(pieces::read(&self.tables.pieces, row.value()))?;
        let read = record.and_then(|record| record::decode_batch(&Bytes::from(record.into_owned())));
        read.map_err(|reason| {
            self.marks.mark("batches", key, &reason);
            Fault::Damaged { table: "batches", reason }
        })
    }

    /// Writes the record of a batch, whose row is `before` now.
    fn write(&mut self, key: u128, record: &[u8], before: Option<&[u8]>) -> Result<(), Fault> {
        let row = pieces::write(&mut self.tables.pieces, record, INLINE_MAX, before)?;
        self.tables.batches.insert(key, &*row)?;
        self.grown += signed(record.len() as u64) - before.map_or(0, |before| signed(pieces::bytes(before)));
        Ok(())
    }

    fn row(&self, key: u128) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.tables.batches.get(key)?.map(|row| row.value().to_vec()))
    }

    /// Returns the key of the batch that holds an event, if any does.
    pub(super) fn batch_of(&self, event: u128) -> Result<Option<u128>, StorageError> {
        batch_of(&self.tables.batches, event)
    }

    /// Returns an event with its place in the log.
    pub(super) fn find(&self, event: u128) -> Result<Option<(u128, u32, Arc<LoggedEvent>)>, Fault> {
        let Some(key) = self.batch_of(event)? else { return Ok(None) };
        let batch = self.batch(key)?;
        let found = (0u32..)
            .zip(batch.iter().map(Option::as_ref))
            .find(|(_, logged)| logged.is_some_and(|logged| logged.id.uuid().as_u128() == event));
        Ok(found.and_then(|(index, logged)| Some((key, index, Arc::clone(logged?)))))
    }

    /// Returns the keys of the first batches from this one on.
    pub(super) fn keys(&self, from: u128, limit: usize) -> Result<Vec<u128>, StorageError> {
        self.tables.batches.range(from..)?.take(limit).map(|row| Ok(row?.0.value())).collect()
    }

    /// Returns the key of the oldest batch.
    pub(super) fn oldest(&self) -> Result<Option<u128>, StorageError> {
        Ok(self.tables.batches.first()?.map(|(key, _)| key.value()))
    }

    /// Returns the newest event, including those of this commit.
    pub(super) fn newest(&self) -> Result<Option<Mark>, Fault> {
        for row in self.tables.batches.iter()?.rev() {
            let key = row?.0.value();
            // The walk of a recovery skips a batch that cannot be read, too.
            let Ok(batch) = damage::apart(self.batch(key))? else { continue };
            let mark = |logged: &Arc<LoggedEvent>| Mark { event: logged.id, received: logged.received };
            let newest = batch.iter().flatten().map(mark).max_by_key(|mark| mark.event);
            if newest.is_some() {
                return Ok(newest);
            }
        }
        Ok(None)
    }

    /// Writes a changed batch, or removes an empty one.
    pub(super) fn replace(&mut self, key: u128, batch: &Batch) -> Result<(), Fault> {
        if batch.is_purged() {
            return self.remove(key);
        }
        let record = record::encode_batch(batch.iter().map(Option::as_deref), &batch.damaged);
        let before = self.row(key)?;
        self.write(key, &record, before.as_deref())?;
        self.changed.push(key);
        Ok(())
    }

    /// Removes a batch.
    pub(super) fn remove(&mut self, key: u128) -> Result<(), Fault> {
        if let Some(row) = self.row(key)? {
            pieces::remove(&mut self.tables.pieces, &row)?;
            self.grown -= signed(pieces::bytes(&row));
        }
        self.tables.batches.remove(key)?;
        self.changed.push(key);
        Ok(())
    }
}

/// Reads a batch; `None` where there is none that can be read.
pub(super) fn read_batch(tables: &LogTables<'_>, key: u128) -> Result<Option<Batch>, Fault> {
    let Some(row) = tables.batches.get(key)? else { return Ok(None) };
    let record = damage::apart(pieces::read(&tables.pieces, row.value()))?.ok();
    Ok(record.and_then(|record| record::decode_batch(&Bytes::from(record.into_owned())).ok()))
}

/// Returns the key of the batch that holds `event`, if any does.
pub(super) fn batch_of(
    batches: &impl ReadableTable<u128, &'static [u8]>,
    event: u128,
) -> Result<Option<u128>, StorageError> {
    Ok(batches.range(..=event)?.next_back().transpose()?.map(|(key, _)| key.value()))
}

/// Returns the newest batch.
pub(super) fn last_batch(reader: &Reader) -> Result<Option<EventId>, Fault> {
    reader.handle.read(|txn| {
        let batches = txn.open_table(BATCHES)?;
        Ok(batches.last()?.map(|(key, _)| record::event_id(key.value())))
    })
}

/// Returns how far ids may be after the receipts of their events. They are of whole milliseconds: the smallest id of the last
/// one is not the last id of it.
pub(super) fn lead(meta: &impl ReadableTable<Text, u64>) -> Result<SignedDuration, StorageError> {
    let millis = meta.get(LEAD_KEY)?.map_or(0, |millis| millis.value());
    Ok(SignedDuration::from_millis(i64::try_from(millis).unwrap_or(i64::MAX).saturating_add(1)))
}

/// Returns the ids that events may have which were received within these times.
pub(super) fn ids_received(
    meta: &impl ReadableTable<Text, u64>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<RangeInclusive<u128>, StorageError> {
    let first = since.map_or(0, |since| id_at(since, -SLACK));
    let last = until.map(|until| Ok::<_, StorageError>(id_at(until, lead(meta)?.max(SLACK)))).transpose()?;
    Ok(first..=last.unwrap_or(u128::MAX))
}

/// Returns the ids of which each is of an event that was received within these times.
pub(super) fn ids_received_surely(
    meta: &impl ReadableTable<Text, u64>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<RangeInclusive<u128>, StorageError> {
    let first = since.map(|since| Ok::<_, StorageError>(id_at(since, lead(meta)?.max(SLACK)))).transpose()?;
    let last = until.map_or(u128::MAX, |until| id_at(until, -SLACK).saturating_sub(1));
    Ok(first.unwrap_or(0)..=last)
}

/// Returns the smallest id of a time that is by this much later than `time`.
fn id_at(time: Timestamp, by: SignedDuration) -> u128 {
    ids::first_at(time.checked_add(by).unwrap_or(time)).uuid().as_u128()
}

/// Returns the time in the newest id: the latest time that this node has seen, if it has logged anything.
pub(super) fn newest_time(reader: &Reader) -> Result<Option<Timestamp>, Fault> {
    reader.handle.read(|txn| {
        let millis =
            txn.open_table(META)?.get(MILLIS_KEY)?.and_then(|millis| i64::try_from(millis.value()).ok());
        Ok(millis.and_then(|millis| Timestamp::from_millisecond(millis).ok()))
    })
}

/// See [`crate::Store::forward`].
pub(super) fn forward(reader: &Reader, forward: Forward) -> Result<Vec<Arc<LoggedEvent>>, Fault> {
    let id = |event: EventId| event.uuid().as_u128();
    let first = forward.after.map_or(0, |after| id(after).saturating_add(1));
    let first = first.max(forward.since.map_or(0, |since| id_at(since, -SLACK)));
    let last = match forward.until {
        None => id(forward.last),
        Some(until) => {
            let lead = reader.handle.read(|txn| Ok(lead(&txn.open_table(META)?)?))?;
            id(forward.last).min(id_at(until, lead.max(SLACK)))
        }
    };
    // The range may start inside the first batch.
    let begun = reader.handle.read(|txn| Ok(batch_of(&txn.open_table(BATCHES)?, first)?))?;
    let (mut found, mut bytes, mut from) = (Vec::new(), 0, begun.unwrap_or(first));
    // One transaction for each batch: a long walk does not hold back the reuse of pages.
    while from <= last && found.len() < forward.events {
        let more = reader.handle.read(|txn| {
            let Some(row) = txn.open_table(BATCHES)?.range(from..=last)?.next().transpose()? else {
                return Ok(false);
            };
            from = row.0.value();
            // The walk goes on after a batch that is damaged.
            let batch = reader.readable_batch(txn, from)?.unwrap_or_default();
            from = from.saturating_add(1);
            let wanted = batch.iter().flatten().filter(|logged| (first..=last).contains(&id(logged.id)));
            let wanted: Vec<_> = wanted.collect();
            // A batch is split only if it is too large alone: each part rewrites the whole batch.
            if !found.is_empty() && found.len() + wanted.len() > forward.events {
                return Ok(false);
            }
            for logged in wanted.into_iter().take(forward.events) {
                bytes += logged.event.size();
                if bytes > forward.bytes && !found.is_empty() {
                    return Ok(false);
                }
                found.push(Arc::clone(logged));
            }
            Ok(true)
        })?;
        if !more {
            break;
        }
    }
    Ok(found)
}

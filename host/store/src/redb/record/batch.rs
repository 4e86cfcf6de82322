//! A batch: the events of one commit, in one record.
//!
//! It has a checksum for each event, so that a damaged event leaves the others readable.

use std::sync::Arc;

use bytes::Bytes;

use super::event::LoggedRecord;
use super::form::Form as _;
use super::{Error, SUM_BYTES, SUMMED, append, body, read, without_sum};
use crate::LoggedEvent;

/// The events of one commit. A purged event leaves an empty place, so that the others keep theirs.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Option<Arc<LoggedEvent>>>,
    /// The places whose events cannot be read, and are empty here.
    pub(crate) damaged: Vec<u32>,
}

impl Batch {
    /// Returns the event in a place, if there is one that can be read.
    pub(crate) fn event_at(&self, index: u32) -> Option<&Arc<LoggedEvent>> {
        self.events.get(usize::try_from(index).ok()?)?.as_ref()
    }

    /// Tells whether nothing is left of it.
    pub(crate) fn is_purged(&self) -> bool {
        self.damaged.is_empty() && self.events.iter().all(Option::is_none)
    }
}

impl std::ops::Deref for Batch {
    type Target = Vec<Option<Arc<LoggedEvent>>>;

    fn deref(&self) -> &Self::Target {
        &self.events
    }
}

impl std::ops::DerefMut for Batch {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.events
    }
}

/// The length that marks a damaged event.
const DAMAGED: u32 = u32::MAX;
/// What a batch has for each event before the first: its length (0 for a purged one) and its checksum.
const LISTED: usize = 4 + SUM_BYTES;

/// Writes a batch: the version, how many events there are, the list of their lengths and checksums, the checksum of all
/// that, and the events.
pub(crate) fn encode_batch<'a>(
    events: impl Iterator<Item = Option<&'a LoggedEvent>>,
    damaged: &[u32],
) -> Vec<u8> {
    let events: Vec<_> = events.collect();
    let list = 5 + LISTED * events.len();
    let size: usize = events.iter().flatten().map(|logged| logged.event.size() + 256).sum();
    let mut buffer = Vec::with_capacity(list + SUM_BYTES + size);
    buffer.resize(list + SUM_BYTES, 0);
    buffer[0] = SUMMED;
    buffer[1..5].copy_from_slice(&length(events.len()));
    for (place, logged) in (0u32..).zip(&events) {
        let (length, sum) = match logged {
            Some(logged) => {
                let begin = buffer.len();
                append(&LoggedRecord::of(logged), &mut buffer);
                (length(buffer.len() - begin), crc32fast::hash(&buffer[begin..]))
            }
            None if damaged.contains(&place) => (DAMAGED.to_le_bytes(), 0),
            None => ([0; 4], 0),
        };
        let at = 5 + LISTED * usize::try_from(place).expect("a batch has at most 256 events");
        buffer[at..at + 4].copy_from_slice(&length);
        buffer[at + 4..at + LISTED].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = crc32fast::hash(&buffer[..list]);
    buffer[list..list + SUM_BYTES].copy_from_slice(&sum.to_le_bytes());
    buffer
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a commit has a few MiB").to_le_bytes()
}

/// Reads a batch; the bodies share the record's buffer. A damaged event is no error: its place is among the damaged
/// ones.
pub(crate) fn decode_batch(shared: &Bytes) -> Result<Batch, Error> {
    match shared.split_first() {
        Some((&SUMMED, _)) => decode_listed(shared, |_, _| true, |bytes, sum| checked(bytes, sum, shared)),
        _ => {
            let records: Vec<Option<LoggedRecord<'_>>> = read(body(shared)?)?;
            let events = records
                .into_iter()
                .map(|record| record.map(|record| record.read(shared).map(Arc::new)).transpose());
            Ok(Batch { events: events.collect::<Result<_, _>>()?, damaged: Vec::new() })
        }
    }
}

/// Reads the events of a batch that `is_wanted` by place and id; the places of the others are empty. Only what is wanted is
/// checked and copied, so that one event of a large batch is read fast.
pub(crate) fn decode_wanted(record: &[u8], is_wanted: impl Fn(u32, u128) -> bool) -> Result<Batch, Error> {
    if record.first() != Some(&SUMMED) {
        let mut batch = decode_batch(&Bytes::copy_from_slice(record))?;
        for (place, event) in (0u32..).zip(&mut batch.events) {
            event.take_if(|logged| !is_wanted(place, logged.id.uuid().as_u128()));
        }
        return Ok(batch);
    }
    // A damaged id is the id of no event that anybody asks for.
    let id = |bytes: &[u8]| postcard::take_from_bytes(bytes).map_or(0, |(id, _)| id);
    decode_listed(
        record,
        |place, bytes| is_wanted(place, id(bytes)),
        |bytes, sum| {
            let copy = Bytes::copy_from_slice(bytes);
            checked(&copy, sum, &copy)
        },
    )
}

/// Reads a batch that has just been written, whose checksums are known to match.
pub(crate) fn decode_new_batch(shared: &Bytes) -> Result<Batch, Error> {
    decode_listed(shared, |_, _| true, |bytes, _| parsed(bytes, shared))
}

/// Reads an event whose checksum matches.
fn checked(bytes: &[u8], sum: u32, shared: &Bytes) -> Option<LoggedEvent> {
    if crc32fast::hash(bytes) == sum { parsed(bytes, shared) } else { None }
}

fn parsed(bytes: &[u8], shared: &Bytes) -> Option<LoggedEvent> {
    read::<LoggedRecord<'_>>(bytes).ok()?.read(shared).ok()
}

fn decode_listed(
    record: &[u8],
    is_wanted: impl Fn(u32, &[u8]) -> bool,
    parse: impl Fn(&[u8], u32) -> Option<LoggedEvent>,
) -> Result<Batch, Error> {
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let count = record.get(1..5).map(number).and_then(|count| usize::try_from(count).ok());
    let end = count.and_then(|count| count.checked_mul(LISTED)?.checked_add(5 + SUM_BYTES));
    let (list, mut rest) = end.and_then(|end| record.split_at_checked(end)).ok_or(Error::Checksum)?;
    let list = &without_sum(list)?[5..];
    let mut batch = Batch { events: Vec::with_capacity(list.len() / LISTED), damaged: Vec::new() };
    for (place, listed) in (0u32..).zip(list.chunks_exact(LISTED)) {
        let (length, sum) = (number(listed), number(&listed[4..]));
        let mut event = None;
        if length == DAMAGED {
            batch.damaged.push(place);
        } else if length > 0 {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let (bytes, after) = rest.split_at_checked(length).ok_or(Error::Value("an event is cut off"))?;
            rest = after;
            if is_wanted(place, bytes) {
                event = parse(bytes, sum).map(Arc::new);
                if event.is_none() {
                    batch.damaged.push(place);
                }
            }
        }
        batch.events.push(event);
    }
    if rest.is_empty() { Ok(batch) } else { Err(Error::Value("there are bytes behind its end")) }
}

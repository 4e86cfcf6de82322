//! The format of records on disk: one version byte, then postcard (subscriptions, recoveries and modules: JSON), and at
//! the end a checksum of both, which detects damaged bytes.
//!
//! A new format gets a new version byte. Old formats, which have no checksum, stay readable; the tests at the end check
//! that. A batch has a checksum for each event, so that a damaged event leaves the others readable.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::event::{SpecVersion, Wire};
use crate::domain::{Entry, Event, EventId, RecipientId, Recovery, Subscription};
use crate::store::{LoggedEvent, Progress};

/// The version of records without a checksum.
const VERSION: u8 = 1;
/// The version of records whose last bytes are a checksum of those before them.
pub(super) const SEALED: u8 = 4;
/// How long a checksum is: CRC-32 (ISO-HDLC), little-endian.
const SEAL: usize = 4;

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("it has version {0}, which this waypost does not know")]
    Version(u8),
    #[error("it is empty")]
    Empty,
    #[error("{0}")]
    Postcard(#[from] postcard::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Value(&'static str),
    #[error("its checksum does not fit")]
    Checksum,
    #[error("it is not UTF-8")]
    Text,
}

pub(super) fn versioned(body: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, postcard::Error>) -> Vec<u8> {
    seal(body(vec![SEALED]).expect("records have no maps of unknown length and no failing serializers"))
}

/// Appends the checksum to a record.
pub(super) fn seal(mut record: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&record);
    record.extend_from_slice(&sum.to_le_bytes());
    record
}

/// Returns the part of a record that its checksum covers.
fn unseal(record: &[u8]) -> Result<&[u8], Error> {
    let (record, sum) = record.split_last_chunk::<SEAL>().ok_or(Error::Checksum)?;
    if crc32fast::hash(record) == u32::from_le_bytes(*sum) { Ok(record) } else { Err(Error::Checksum) }
}

/// Reads the postcard of a record, all of it.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    let (value, rest) = postcard::take_from_bytes(body)?;
    // An older version byte in front of a checksum means that the version byte is damaged.
    if rest.is_empty() { Ok(value) } else { Err(Error::Value("there are bytes behind its end")) }
}

/// Returns what follows the version byte, up to the checksum if it has one.
pub(super) fn body(record: &[u8]) -> Result<&[u8], Error> {
    match record.split_first() {
        Some((&VERSION, body)) => Ok(body),
        Some((&SEALED, _)) => Ok(&unseal(record)?[1..]),
        Some((&version, _)) => Err(Error::Version(version)),
        None => Err(Error::Empty),
    }
}

/// An event in a batch; its ids and text stay borrowed from the record.
#[derive(Serialize, Deserialize)]
struct LoggedRecord<'a> {
    id: u128,
    received: i64,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    matched: Vec<u128>,
    #[serde(borrow)]
    event: EventRecord<'a>,
}

/// An event alone.
#[derive(Serialize, Deserialize)]
pub(super) struct EventRecord<'a> {
    spec_version: u8,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    ty: Cow<'a, str>,
    #[serde(borrow)]
    content_type: Option<Cow<'a, str>>,
    /// `None` for a structured event.
    attributes: Option<Vec<(String, String)>>,
    #[serde(borrow, with = "serde_bytes")]
    body: &'a [u8],
}

/// The events of one commit. A purged event leaves an empty place, so that the others keep theirs.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Option<Arc<LoggedEvent>>>,
    /// The places whose events cannot be read, and are empty here.
    pub(super) damaged: Vec<u32>,
}

impl Batch {
    /// Returns the event in a place, if there is one that can be read.
    pub(super) fn event_at(&self, index: u32) -> Option<&Arc<LoggedEvent>> {
        self.events.get(usize::try_from(index).ok()?)?.as_ref()
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
const LISTED: usize = 4 + SEAL;

/// Writes a batch: the version, how many events there are, the list of their lengths and checksums, the checksum of all
/// that, and the events.
pub(super) fn encode_batch<'a>(
    events: impl Iterator<Item = Option<&'a LoggedEvent>>,
    damaged: &[u32],
) -> Vec<u8> {
    let events: Vec<_> = events.collect();
    let list = 5 + LISTED * events.len();
    let size: usize = events.iter().flatten().map(|logged| logged.event.size() + 256).sum();
    let mut buffer = Vec::with_capacity(list + SEAL + size);
    buffer.resize(list + SEAL, 0);
    buffer[0] = SEALED;
    buffer[1..5].copy_from_slice(&length(events.len()));
    for (place, logged) in (0u32..).zip(&events) {
        let (length, sum) = match logged {
            Some(logged) => {
                let begin = buffer.len();
                buffer = postcard::to_extend(&logged_record(logged), buffer)
                    .expect("records have no maps of unknown length and no failing serializers");
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
    buffer[list..list + SEAL].copy_from_slice(&sum.to_le_bytes());
    buffer
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a commit has a few MiB").to_le_bytes()
}

fn logged_record(logged: &LoggedEvent) -> LoggedRecord<'_> {
    LoggedRecord {
        id: logged.id.uuid().as_u128(),
        received: logged.received.as_microsecond(),
        sender: Cow::Borrowed(&logged.sender),
        matched: logged.matched.iter().map(|id| id.uuid().as_u128()).collect(),
        event: event_record(&logged.event),
    }
}

/// Makes the record of an event.
pub(super) fn event_record(event: &Event) -> EventRecord<'_> {
    let (content_type, attributes, body) = match event.wire() {
        Wire::Structured { content_type, body } => (content_type, None, body),
        Wire::Binary { attributes, content_type, data } => (content_type, Some(attributes.clone()), data),
    };
    EventRecord {
        spec_version: match event.spec_version() {
            SpecVersion::V0_1 => 1,
            SpecVersion::V0_2 => 2,
            SpecVersion::V0_3 => 3,
            SpecVersion::V1_0 => 10,
        },
        event_id: Cow::Borrowed(event.id()),
        source: Cow::Borrowed(event.source()),
        ty: Cow::Borrowed(event.ty()),
        content_type: content_type.as_deref().map(Cow::Borrowed),
        attributes,
        body,
    }
}

/// Reads a batch; the bodies share the record's buffer. A damaged event is no error: its place is among the damaged
/// ones.
pub(super) fn decode_batch(shared: &Bytes) -> Result<Batch, Error> {
    match shared.split_first() {
        Some((&SEALED, _)) => decode_listed(shared, |event, sum| crc32fast::hash(event) == sum),
        _ => {
            let records: Vec<Option<LoggedRecord<'_>>> = read(body(shared)?)?;
            let events =
                records.into_iter().map(|record| record.map(|record| logged(shared, record)).transpose());
            Ok(Batch { events: events.collect::<Result<_, _>>()?, damaged: Vec::new() })
        }
    }
}

/// Reads a batch that has just been written, whose checksums are known to match.
pub(super) fn decode_new_batch(shared: &Bytes) -> Result<Batch, Error> {
    decode_listed(shared, |_, _| true)
}

fn decode_listed(shared: &Bytes, fits: impl Fn(&[u8], u32) -> bool) -> Result<Batch, Error> {
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let count = shared.get(1..5).map(number).and_then(|count| usize::try_from(count).ok());
    let end = count.and_then(|count| count.checked_mul(LISTED)?.checked_add(5 + SEAL));
    let (list, mut rest) = end.and_then(|end| shared.split_at_checked(end)).ok_or(Error::Checksum)?;
    let list = &unseal(list)?[5..];
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
            event = Some(bytes)
                .filter(|bytes| fits(bytes, sum))
                .and_then(|bytes| read(bytes).and_then(|record| logged(shared, record)).ok());
            if event.is_none() {
                batch.damaged.push(place);
            }
        }
        batch.events.push(event);
    }
    if rest.is_empty() { Ok(batch) } else { Err(Error::Value("there are bytes behind its end")) }
}

fn logged(shared: &Bytes, record: LoggedRecord<'_>) -> Result<Arc<LoggedEvent>, Error> {
    Ok(Arc::new(LoggedEvent {
        id: EventId::from_uuid(uuid::Uuid::from_u128(record.id)),
        event: read_event(shared, record.event)?,
        received: timestamp(record.received)?,
        sender: record.sender.into_owned(),
        matched: record.matched.into_iter().map(recipient_id).collect(),
    }))
}

/// Reads an event; its body shares the record's buffer.
pub(super) fn read_event(shared: &Bytes, record: EventRecord<'_>) -> Result<Event, Error> {
    let body = shared.slice_ref(record.body);
    let content_type = record.content_type.map(Cow::into_owned);
    let wire = match record.attributes {
        None => Wire::Structured { content_type, body },
        Some(attributes) => Wire::Binary { attributes, content_type, data: body },
    };
    let spec_version = match record.spec_version {
        1 => SpecVersion::V0_1,
        2 => SpecVersion::V0_2,
        3 => SpecVersion::V0_3,
        10 => SpecVersion::V1_0,
        _ => return Err(Error::Value("an unknown CloudEvents version")),
    };
    Ok(Event {
        spec_version,
        id: record.event_id.into_owned(),
        source: record.source.into_owned(),
        ty: record.ty.into_owned(),
        wire,
    })
}

/// Reads a key's or a record's microseconds since 1970.
pub(super) fn timestamp(micros: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(micros).map_err(|_| Error::Value("a time out of range"))
}

/// Reads a key's recipient.
pub(super) fn recipient_id(key: u128) -> RecipientId {
    RecipientId::from_uuid(uuid::Uuid::from_u128(key))
}

/// Reads a key's event.
pub(super) fn event_id(key: u128) -> EventId {
    EventId::from_uuid(uuid::Uuid::from_u128(key))
}

/// One entry of one delivery, in a row of its batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HistoryRecord {
    /// The event's place in the batch.
    pub(super) index: u32,
    /// The recipient.
    pub(super) recipient: u128,
    /// What happened.
    pub(super) entry: Entry,
}

/// Writes a row of history.
pub(super) fn encode_history(records: &[HistoryRecord]) -> Vec<u8> {
    versioned(|buffer| postcard::to_extend(records, buffer))
}

/// Reads a row of history.
pub(super) fn decode_history(record: &[u8]) -> Result<Vec<HistoryRecord>, Error> {
    read(body(record)?)
}

/// The value of a row that waits for its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RetryRecord {
    /// The batch of the event.
    pub(super) batch: u128,
    /// The event's place in the batch.
    pub(super) index: u32,
    failed: u32,
    first_attempt: Option<i64>,
    allowed: bool,
    /// What version 2 adds.
    #[serde(skip)]
    plugin: PluginProgress,
    /// What records with a checksum add: since when it is held.
    #[serde(skip)]
    held: Option<i64>,
}

/// How far the plugin of a delivery has come: what follows in a record of version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PluginProgress {
    passed: bool,
    sent: u64,
}

const VERSION_2: u8 = 2;

impl RetryRecord {
    /// Makes the record of a delivery that has come this far.
    #[cfg(test)]
    pub(super) fn new(batch: u128, index: u32, progress: Progress) -> Self {
        let first_attempt = progress.first_attempt.map(Timestamp::as_microsecond);
        let Progress { failed, allowed, passed, sent, held, first_attempt: _ } = progress;
        let held = held.map(Timestamp::as_microsecond);
        Self { batch, index, failed, first_attempt, allowed, plugin: PluginProgress { passed, sent }, held }
    }

    /// Returns how far the delivery has come.
    pub(super) fn progress(&self) -> Result<Progress, Error> {
        let first_attempt = self.first_attempt.map(timestamp).transpose()?;
        let PluginProgress { passed, sent } = self.plugin;
        let held = self.held.map(timestamp).transpose()?;
        Ok(Progress { failed: self.failed, first_attempt, allowed: self.allowed, passed, sent, held })
    }

    /// Writes the record.
    #[cfg(test)]
    pub(super) fn encode(&self) -> Vec<u8> {
        versioned(|buffer| postcard::to_extend(&(self, self.plugin, self.held), buffer))
    }

    /// Reads the record.
    pub(super) fn decode(record: &[u8]) -> Result<Self, Error> {
        match record.split_first() {
            Some((&SEALED, _)) => {
                let (this, plugin, held): (Self, _, _) = read(body(record)?)?;
                Ok(Self { plugin, held, ..this })
            }
            Some((&VERSION_2, body)) => {
                let (this, plugin): (Self, _) = read(body)?;
                Ok(Self { plugin, ..this })
            }
            _ => read(body(record)?),
        }
    }
}

/// Writes places in a batch, 4 bytes each, little-endian.
pub(super) fn encode_places(places: &[u32]) -> Vec<u8> {
    let mut record = Vec::with_capacity(1 + 4 * places.len() + SEAL);
    record.push(SEALED);
    record.extend(places.iter().flat_map(|place| place.to_le_bytes()));
    seal(record)
}

/// Reads places in a batch. Old rows are places alone: those with a checksum have a byte more than that.
pub(super) fn decode_places(record: &[u8]) -> Result<Vec<u32>, Error> {
    let record = if record.len().is_multiple_of(4) { record } else { &unseal(record)?[1..] };
    let (places, rest) = record.as_chunks();
    if !rest.is_empty() {
        return Err(Error::Value("a place is cut off"));
    }
    Ok(places.iter().map(|place| u32::from_le_bytes(*place)).collect())
}

/// Writes a subscription.
pub(super) fn encode_subscription(subscription: &Subscription) -> Vec<u8> {
    let mut buffer = vec![SEALED];
    serde_json::to_writer(&mut buffer, subscription).expect("a subscription has only string keys");
    seal(buffer)
}

/// Reads a subscription.
pub(super) fn decode_subscription(record: &[u8]) -> Result<Subscription, Error> {
    Ok(serde_json::from_slice(body(record)?)?)
}

/// Writes a recovery.
pub(super) fn encode_recovery(recovery: &Recovery) -> Vec<u8> {
    let mut buffer = vec![SEALED];
    serde_json::to_writer(&mut buffer, recovery).expect("a recovery has only string keys");
    seal(buffer)
}

/// Reads a recovery.
pub(super) fn decode_recovery(record: &[u8]) -> Result<Recovery, Error> {
    Ok(serde_json::from_slice(body(record)?)?)
}

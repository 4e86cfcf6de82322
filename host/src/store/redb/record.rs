//! How records look on disk: one version byte, then postcard (subscriptions and recoveries: JSON).
//!
//! A new form gets a new version byte; the old ones stay readable, which the tests at the end hold.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::event::{SpecVersion, Wire};
use crate::domain::{Entry, Event, EventId, Recovery, Subscription, SubscriptionId};
use crate::store::{Logged, Progress};

pub(super) const VERSION: u8 = 1;

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
}

pub(super) fn versioned(body: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, postcard::Error>) -> Vec<u8> {
    body(vec![VERSION]).expect("records have no maps of unknown length and no failing serializers")
}

/// Returns what follows the version byte.
pub(super) fn body(record: &[u8]) -> Result<&[u8], Error> {
    match record.split_first() {
        Some((&VERSION, body)) => Ok(body),
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

/// The events of one commit; a purged one leaves its place empty, so that the others keep theirs.
pub(super) type Batch = Vec<Option<Arc<Logged>>>;

/// Writes a batch.
pub(super) fn encode_batch<'a>(events: impl Iterator<Item = Option<&'a Logged>>) -> Vec<u8> {
    let records: Vec<_> = events.map(|logged| logged.map(logged_record)).collect();
    let size: usize = records.iter().flatten().map(|record| record.event.body.len() + 256).sum();
    versioned(|mut buffer| {
        buffer.reserve(size);
        postcard::to_extend(&records, buffer)
    })
}

fn logged_record(logged: &Logged) -> LoggedRecord<'_> {
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

/// Reads a batch; the bodies share the record's buffer.
pub(super) fn decode_batch(shared: Bytes) -> Result<Batch, Error> {
    let records: Vec<Option<LoggedRecord<'_>>> = postcard::from_bytes(body(&shared)?)?;
    records.into_iter().map(|record| record.map(|record| logged(&shared, record)).transpose()).collect()
}

fn logged(shared: &Bytes, record: LoggedRecord<'_>) -> Result<Arc<Logged>, Error> {
    Ok(Arc::new(Logged {
        id: EventId::from_uuid(uuid::Uuid::from_u128(record.id)),
        event: read_event(shared, record.event)?,
        received: timestamp(record.received)?,
        sender: record.sender.into_owned(),
        matched: record.matched.into_iter().map(subscription_id).collect(),
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

/// Reads a key's subscription.
pub(super) fn subscription_id(key: u128) -> SubscriptionId {
    SubscriptionId::from_uuid(uuid::Uuid::from_u128(key))
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
    /// The subscription.
    pub(super) subscription: u128,
    /// What happened.
    pub(super) entry: Entry,
}

/// Writes a row of history.
pub(super) fn encode_history(records: &[HistoryRecord]) -> Vec<u8> {
    versioned(|buffer| postcard::to_extend(records, buffer))
}

/// Reads a row of history.
pub(super) fn decode_history(record: &[u8]) -> Result<Vec<HistoryRecord>, Error> {
    Ok(postcard::from_bytes(body(record)?)?)
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
    /// What version 2 adds; a delivery without a plugin needs nothing of it, and keeps the shorter version.
    #[serde(skip)]
    plugin: PluginProgress,
    /// What version 3 adds: since when it is held.
    #[serde(skip)]
    held: Option<i64>,
}

/// How far the plugin of a delivery has come: the end of a record of version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PluginProgress {
    passed: bool,
    sent: u64,
}

const VERSION_2: u8 = 2;
const VERSION_3: u8 = 3;

impl RetryRecord {
    /// Makes the record of a delivery that has come this far.
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
    pub(super) fn encode(&self) -> Vec<u8> {
        if self.held.is_some() {
            let record = postcard::to_extend(&(self, self.plugin, self.held), vec![VERSION_3]);
            return record.expect("numbers and flags have no failing serializers");
        }
        if self.plugin == PluginProgress::default() {
            return versioned(|buffer| postcard::to_extend(self, buffer));
        }
        let record = postcard::to_extend(&(self, self.plugin), vec![VERSION_2]);
        record.expect("numbers and flags have no failing serializers")
    }

    /// Reads the record.
    pub(super) fn decode(record: &[u8]) -> Result<Self, Error> {
        if let Some((&VERSION_3, body)) = record.split_first() {
            let (this, plugin, held): (Self, _, _) = postcard::from_bytes(body)?;
            return Ok(Self { plugin, held, ..this });
        }
        if let Some((&VERSION_2, body)) = record.split_first() {
            let (this, plugin): (Self, _) = postcard::from_bytes(body)?;
            return Ok(Self { plugin, ..this });
        }
        Ok(postcard::from_bytes(body(record)?)?)
    }
}

/// Writes places in a batch, 4 bytes each, little-endian.
pub(super) fn encode_places(places: &[u32]) -> Vec<u8> {
    places.iter().flat_map(|place| place.to_le_bytes()).collect()
}

/// Reads places in a batch.
pub(super) fn decode_places(record: &[u8]) -> Result<Vec<u32>, Error> {
    let (places, rest) = record.as_chunks();
    if !rest.is_empty() {
        return Err(Error::Value("a place is cut off"));
    }
    Ok(places.iter().map(|place| u32::from_le_bytes(*place)).collect())
}

/// Writes a subscription.
pub(super) fn encode_subscription(subscription: &Subscription) -> Vec<u8> {
    let mut buffer = vec![VERSION];
    serde_json::to_writer(&mut buffer, subscription).expect("a subscription has only string keys");
    buffer
}

/// Reads a subscription.
pub(super) fn decode_subscription(record: &[u8]) -> Result<Subscription, Error> {
    Ok(serde_json::from_slice(body(record)?)?)
}

/// Writes a recovery.
pub(super) fn encode_recovery(recovery: &Recovery) -> Vec<u8> {
    let mut buffer = vec![VERSION];
    serde_json::to_writer(&mut buffer, recovery).expect("a recovery has only string keys");
    buffer
}

/// Reads a recovery.
pub(super) fn decode_recovery(record: &[u8]) -> Result<Recovery, Error> {
    Ok(serde_json::from_slice(body(record)?)?)
}

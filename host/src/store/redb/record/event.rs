//! The record of an event, alone or in a batch.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Error, recipient_id, timestamp};
use crate::domain::event::{SpecVersion, Wire};
use crate::domain::{Event, EventId};
use crate::store::LoggedEvent;

/// An event in a batch; its ids and text stay borrowed from the record.
#[derive(Serialize, Deserialize)]
pub(super) struct LoggedRecord<'a> {
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
    attributes: Option<Cow<'a, [(String, String)]>>,
    #[serde(borrow, with = "serde_bytes")]
    body: &'a [u8],
}

/// Makes the record of an event in a batch.
pub(super) fn logged_record(logged: &LoggedEvent) -> LoggedRecord<'_> {
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
        Wire::Binary { attributes, content_type, data } => (content_type, Some(attributes.into()), data),
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

/// Reads an event in a batch; its body shares the record's buffer.
pub(super) fn logged(shared: &Bytes, record: LoggedRecord<'_>) -> Result<Arc<LoggedEvent>, Error> {
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
        Some(attributes) => Wire::Binary { attributes: attributes.into_owned(), content_type, data: body },
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

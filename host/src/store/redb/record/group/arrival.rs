//! The record of an event on its way into the log.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{IdRecord, List, TimeRecord, read_ids};
use crate::domain::RecipientId;
use crate::store::Arrival;
use crate::store::redb::record::Error;
use crate::store::redb::record::event::{EventRecord, event_record, read_event};

/// An event on its way into the log.
#[derive(Serialize, Deserialize)]
pub(super) struct ArrivalRecord<'a> {
    received: TimeRecord,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    matched: List<'a, RecipientId, IdRecord>,
    #[serde(borrow)]
    failed: List<'a, (RecipientId, String), FailedRecord<'a>>,
    #[serde(borrow)]
    event: EventRecord<'a>,
}

/// A recipient whose filter gave no answer.
#[derive(Serialize, Deserialize)]
struct FailedRecord<'a> {
    recipient: IdRecord,
    #[serde(borrow)]
    reason: Cow<'a, str>,
}

impl<'a> From<&'a Arrival> for ArrivalRecord<'a> {
    fn from(arrival: &'a Arrival) -> Self {
        let Arrival { event, received, sender, matched, failed } = arrival;
        Self {
            received: (*received).into(),
            sender: sender.into(),
            matched: List::Borrowed(matched),
            failed: List::Borrowed(failed),
            event: event_record(event),
        }
    }
}

/// Reads an event on its way; its body shares the record's buffer.
pub(super) fn read_arrival(shared: &Bytes, record: ArrivalRecord<'_>) -> Result<Arrival, Error> {
    let ArrivalRecord { received, sender, matched, failed, event } = record;
    Ok(Arrival {
        event: read_event(shared, event)?,
        received: received.try_into()?,
        sender: sender.into_owned(),
        matched: read_ids(matched)?,
        failed: failed.read(|failed| Ok(failed.into()))?,
    })
}

impl<'a> From<&'a (RecipientId, String)> for FailedRecord<'a> {
    fn from((recipient, reason): &'a (RecipientId, String)) -> Self {
        Self { recipient: recipient.into(), reason: reason.into() }
    }
}

impl From<FailedRecord<'_>> for (RecipientId, String) {
    fn from(record: FailedRecord<'_>) -> Self {
        let FailedRecord { recipient, reason } = record;
        (recipient.into(), reason.into_owned())
    }
}

//! The record of an event, alone or in a batch.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Error;
use super::form::{Form, record};
use crate::LoggedEvent;
use waypost_domain::Event;
use waypost_domain::event::{SpecVersion, Wire};

record! {
    /// An event in a batch.
    pub(super) struct LoggedRecord<'a> of LoggedEvent {
        id: u128,
        received: i64,
        sender: Cow<'a, str>,
        matched: Vec<u128>,
        #[serde(borrow)]
        event: EventRecord<'a>,
    }
}

/// An event alone.
#[derive(Serialize, Deserialize)]
pub(super) struct EventRecord<'a> {
    spec_version: u8,
    event_id: Cow<'a, str>,
    source: Cow<'a, str>,
    ty: Cow<'a, str>,
    content_type: Option<Cow<'a, str>>,
    /// `None` for a structured event.
    attributes: Option<Cow<'a, [(String, String)]>>,
    #[serde(borrow, with = "serde_bytes")]
    body: &'a [u8],
}

impl<'a> Form<'a, Event> for EventRecord<'a> {
    fn of(event: &'a Event) -> Self {
        let (content_type, attributes, body) = match event.wire() {
            Wire::Structured { content_type, body } => (content_type, None, body),
            Wire::Binary { attributes, content_type, data } => (content_type, Some(attributes.into()), data),
        };
        Self {
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

    fn read(self, shared: &Bytes) -> Result<Event, Error> {
        let body = shared.slice_ref(self.body);
        let content_type = self.content_type.map(Cow::into_owned);
        let wire = match self.attributes {
            None => Wire::Structured { content_type, body },
            Some(attributes) => {
                Wire::Binary { attributes: attributes.into_owned(), content_type, data: body }
            }
        };
        let spec_version = match self.spec_version {
            1 => SpecVersion::V0_1,
            2 => SpecVersion::V0_2,
            3 => SpecVersion::V0_3,
            10 => SpecVersion::V1_0,
            _ => return Err(Error::Value("an unknown CloudEvents version")),
        };
        let (id, source, ty) = (self.event_id.into_owned(), self.source.into_owned(), self.ty.into_owned());
        Ok(Event::from_parts(spec_version, id, source, ty, wire))
    }
}

//! Between an event and the records that a guest sees and makes.

use std::borrow::Cow;

use bytes::Bytes;

use super::bindings::exports::waypost::plugin::transform;
use super::bindings::waypost::plugin::types::{EventParam, PayloadParam, PayloadResult};
use crate::domain::Event;
use crate::domain::event::{Canonical, Payload};
use crate::domain::plugin::Output;

/// Makes what a transform returned into outputs.
///
/// # Errors
/// Says what no output may be.
pub(super) fn outputs(made: Vec<transform::Output>, of: &Event) -> Result<Vec<Output>, String> {
    made.into_iter().map(|output| one(output, of)).collect()
}

fn one(output: transform::Output, _of: &Event) -> Result<Output, String> {
    match output {
        transform::Output::Event(event) => {
            let data = event.data.map(|data| match data {
                PayloadResult::Json(text) => Payload::Json(Cow::Owned(text)),
                PayloadResult::Text(text) => Payload::Text(Cow::Owned(text)),
                PayloadResult::Binary(bytes) => Payload::Binary(Cow::Owned(bytes)),
            });
            let canonical = Canonical {
                id: event.id,
                source: event.source,
                ty: event.type_,
                subject: event.subject,
                time: event.time,
                content_type: event.data_content_type,
                schema: event.data_schema,
                extensions: event.extensions,
                data,
            };
            Event::from_canonical(&canonical).map(Output::Event).map_err(|error| error.message)
        }
        transform::Output::Raw(raw) => Ok(Output::Raw {
            content_type: raw.content_type,
            headers: raw.headers,
            body: match raw.body {
                PayloadResult::Json(text) | PayloadResult::Text(text) => Bytes::from(text),
                PayloadResult::Binary(bytes) => Bytes::from(bytes),
            },
        }),
    }
}

/// Shows an event to a guest.
pub(super) fn seen<'a>(event: &'a Canonical<'a>, extensions: &'a [(&'a str, &'a str)]) -> EventParam<'a> {
    EventParam {
        id: &event.id,
        source: &event.source,
        type_: &event.ty,
        subject: event.subject.as_deref(),
        time: event.time.as_deref(),
        data_content_type: event.content_type.as_deref(),
        data_schema: event.schema.as_deref(),
        extensions,
        data: event.data.as_ref().map(|data| match data {
            Payload::Json(text) => PayloadParam::Json(text),
            Payload::Text(text) => PayloadParam::Text(text),
            Payload::Binary(bytes) => PayloadParam::Binary(bytes),
        }),
    }
}

//! Converts between events and the records that a guest sees and makes.

use std::borrow::Cow;

use bytes::Bytes;

use super::bindings::exports::waypost::plugin::transform;
use super::bindings::waypost::plugin::types::{self, EventParam, PayloadParam, PayloadResult};
use super::limits::{Limits, size};
use super::{headers, text};
use waypost_domain::event::{Canonical, Payload};
use waypost_domain::plugin::{Failure, OUTPUTS_MAX, Output};
use waypost_domain::{Event, json};
use waypost_net::Guard;

/// Checks what a transform returned, and turns it into outputs.
///
/// # Errors
/// Names the limit that they exceed, or the output that cannot be sent and what is wrong with it.
pub(super) fn outputs(
    made: Vec<transform::Output>,
    of: &Event,
    limits: &Limits,
    guard: &Guard,
) -> Result<Vec<Output>, Failure> {
    if made.len() > OUTPUTS_MAX {
        let found = made.len();
        return Err(Failure::Limit(format!("limit of {OUTPUTS_MAX} outputs: the transform made {found}")));
    }
    let bytes: usize = made.iter().map(body_bytes).sum();
    if bytes > limits.output_bytes {
        let limit = size(limits.output_bytes);
        return Err(Failure::Limit(format!("output limit of {limit}: the transform made {bytes} bytes")));
    }
    let count = made.len();
    let number = |i: usize| match count {
        1 => "its output".to_owned(),
        _ => format!("output {} of {count}", i + 1),
    };
    let checked = made.into_iter().enumerate().map(|(i, output)| {
        one(output, of, guard).map_err(|reason| {
            let reason = text::clean(&reason, REASON_BYTES_MAX);
            Failure::Trap(format!("{} cannot be sent: {reason}", number(i)))
        })
    });
    checked.collect()
}

/// The longest text about an output.
const REASON_BYTES_MAX: usize = 512;

fn body_bytes(output: &transform::Output) -> usize {
    let payload = match output {
        transform::Output::Event(event) => event.data.as_ref(),
        transform::Output::Raw(raw) => Some(&raw.body),
    };
    match payload {
        None => 0,
        Some(PayloadResult::Json(text) | PayloadResult::Text(text)) => text.len(),
        Some(PayloadResult::Binary(bytes)) => bytes.len(),
    }
}

fn one(output: transform::Output, of: &Event, guard: &Guard) -> Result<Output, String> {
    match output {
        transform::Output::Event(event) => {
            canonical(event).to_event(of).map(Output::Event).map_err(|error| error.message)
        }
        transform::Output::Raw(raw) => {
            headers::check_content_type(&raw.content_type)?;
            headers::check(&raw.headers, guard)?;
            let body = match raw.body {
                PayloadResult::Json(text) => {
                    let is_json = json::read::<serde::de::IgnoredAny>(text.as_bytes());
                    is_json.map_err(|error| match error {
                        json::Error::TooDeep(error) => format!("its body is JSON {error}"),
                        json::Error::Syntax(error) => {
                            format!("its body is declared to be JSON, but is not: {error}")
                        }
                    })?;
                    Bytes::from(text)
                }
                PayloadResult::Text(text) => Bytes::from(text),
                PayloadResult::Binary(bytes) => Bytes::from(bytes),
            };
            Ok(Output::Raw { content_type: raw.content_type, headers: raw.headers, body })
        }
    }
}

/// Converts a guest's event, unchanged.
fn canonical(event: types::EventResult) -> Canonical<'static> {
    Canonical {
        id: event.id,
        source: event.source,
        ty: event.type_,
        subject: event.subject,
        time: event.time,
        content_type: event.data_content_type,
        schema: event.data_schema,
        extensions: event.extensions,
        data: event.data.map(|data| match data {
            PayloadResult::Json(text) => Payload::Json(Cow::Owned(text)),
            PayloadResult::Text(text) => Payload::Text(Cow::Owned(text)),
            PayloadResult::Binary(bytes) => Payload::Binary(Cow::Owned(bytes)),
        }),
    }
}

/// Converts an event for a guest.
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

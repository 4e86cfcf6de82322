//! The records of rendered payloads and of plugin state.

use std::borrow::Cow;

use bytes::Bytes;

use super::event::EventRecord;
use super::form::{Form as _, record};
use super::{Error, body, read, versioned};
use waypost_domain::plugin::{Output, PluginResult, RenderedPayload, StateValue};

record! {
    /// A rendered payload.
    pub(super) struct RenderedRecord<'a> of RenderedPayload {
        digest: Cow<'a, str>,
        config: Cow<'a, str>,
        #[serde(borrow)]
        result: ResultRecord<'a>,
    }
}

record! {
    /// What a plugin made of a delivery.
    enum ResultRecord<'a> of PluginResult {
        Event,
        #[serde(borrow)]
        Outputs(Vec<OutputRecord<'a>>),
        Denied { reason: Cow<'a, str> },
        Skipped { reason: Cow<'a, str> },
    }
}

record! {
    /// Something to be sent.
    enum OutputRecord<'a> of Output {
        #[serde(borrow)]
        Event(EventRecord<'a>),
        Raw {
            content_type: Cow<'a, str>,
            headers: Cow<'a, [(String, String)]>,
            #[serde(borrow, with = "serde_bytes")]
            body: &'a [u8],
        },
    }
}

record! {
    /// A value of a plugin's state.
    pub(super) struct StateRecord<'a> of StateValue {
        expires: Option<i64>,
        #[serde(borrow, with = "serde_bytes")]
        bytes: &'a [u8],
    }
}

/// Writes a rendered payload.
pub(crate) fn encode_rendered(rendered: &RenderedPayload) -> Vec<u8> {
    versioned(&RenderedRecord::of(rendered))
}

/// Reads a rendered payload; the bodies share the record's buffer.
pub(crate) fn decode_rendered(shared: &Bytes) -> Result<RenderedPayload, Error> {
    read::<RenderedRecord<'_>>(body(shared)?)?.read(shared)
}

/// Writes a value of a plugin's state.
pub(crate) fn encode_state(value: &StateValue) -> Vec<u8> {
    versioned(&StateRecord::of(value))
}

/// Reads a value of a plugin's state.
pub(crate) fn decode_state(record: &[u8]) -> Result<StateValue, Error> {
    read::<StateRecord<'_>>(body(record)?)?.read(&Bytes::new())
}

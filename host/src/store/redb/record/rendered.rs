//! The records of rendered payloads and of plugin state.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::DigestRecord;
use super::event::{EventRecord, event_record, read_event};
use super::{Error, body, read, timestamp, versioned};
use crate::domain::plugin::{Output, PluginResult, RenderedPayload, StateValue};

/// A rendered payload.
#[derive(Serialize, Deserialize)]
pub(super) struct RenderedRecord<'a> {
    #[serde(borrow)]
    digest: DigestRecord<'a>,
    #[serde(borrow)]
    config: DigestRecord<'a>,
    #[serde(borrow)]
    result: ResultRecord<'a>,
}

/// What a plugin made of a delivery.
#[derive(Serialize, Deserialize)]
enum ResultRecord<'a> {
    Event,
    #[serde(borrow)]
    Outputs(Vec<OutputRecord<'a>>),
    #[serde(borrow)]
    Denied(Cow<'a, str>),
    #[serde(borrow)]
    Skipped(Cow<'a, str>),
}

/// Something to be sent.
#[derive(Serialize, Deserialize)]
enum OutputRecord<'a> {
    #[serde(borrow)]
    Event(EventRecord<'a>),
    Raw {
        #[serde(borrow)]
        content_type: Cow<'a, str>,
        headers: Cow<'a, [(String, String)]>,
        #[serde(borrow, with = "serde_bytes")]
        body: &'a [u8],
    },
}

/// A value of a plugin's state.
#[derive(Serialize, Deserialize)]
pub(super) struct StateRecord<'a> {
    expires: Option<i64>,
    #[serde(borrow, with = "serde_bytes")]
    bytes: &'a [u8],
}

/// Writes a rendered payload.
pub(in crate::store::redb) fn encode_rendered(rendered: &RenderedPayload) -> Vec<u8> {
    versioned(|buffer| postcard::to_extend(&RenderedRecord::from(rendered), buffer))
}

/// Reads a rendered payload; the bodies share the record's buffer.
pub(in crate::store::redb) fn decode_rendered(shared: &Bytes) -> Result<RenderedPayload, Error> {
    read_rendered(shared, read(body(shared)?)?)
}

/// Writes a value of a plugin's state.
pub(in crate::store::redb) fn encode_state(value: &StateValue) -> Vec<u8> {
    versioned(|buffer| postcard::to_extend(&StateRecord::from(value), buffer))
}

/// Reads a value of a plugin's state.
pub(in crate::store::redb) fn decode_state(record: &[u8]) -> Result<StateValue, Error> {
    read::<StateRecord<'_>>(body(record)?)?.try_into()
}

impl<'a> From<&'a RenderedPayload> for RenderedRecord<'a> {
    fn from(rendered: &'a RenderedPayload) -> Self {
        let RenderedPayload { digest, config, result } = rendered;
        Self { digest: (*digest).into(), config: (*config).into(), result: result.into() }
    }
}

/// Reads a rendered payload; the bodies share the record's buffer.
pub(super) fn read_rendered(shared: &Bytes, record: RenderedRecord<'_>) -> Result<RenderedPayload, Error> {
    let RenderedRecord { digest, config, result } = record;
    let result = match result {
        ResultRecord::Event => PluginResult::Event,
        ResultRecord::Outputs(outputs) => PluginResult::Outputs(
            outputs.into_iter().map(|record| output(shared, record)).collect::<Result<_, _>>()?,
        ),
        ResultRecord::Denied(reason) => PluginResult::Denied { reason: reason.into_owned() },
        ResultRecord::Skipped(reason) => PluginResult::Skipped { reason: reason.into_owned() },
    };
    Ok(RenderedPayload { digest: digest.try_into()?, config: config.try_into()?, result })
}

fn output(shared: &Bytes, record: OutputRecord<'_>) -> Result<Output, Error> {
    Ok(match record {
        OutputRecord::Event(event) => Output::Event(read_event(shared, event)?),
        OutputRecord::Raw { content_type, headers, body } => Output::Raw {
            content_type: content_type.into_owned(),
            headers: headers.into_owned(),
            body: shared.slice_ref(body),
        },
    })
}

impl<'a> From<&'a PluginResult> for ResultRecord<'a> {
    fn from(result: &'a PluginResult) -> Self {
        match result {
            PluginResult::Event => Self::Event,
            PluginResult::Outputs(outputs) => Self::Outputs(outputs.iter().map(OutputRecord::from).collect()),
            PluginResult::Denied { reason } => Self::Denied(reason.into()),
            PluginResult::Skipped { reason } => Self::Skipped(reason.into()),
        }
    }
}

impl<'a> From<&'a Output> for OutputRecord<'a> {
    fn from(output: &'a Output) -> Self {
        match output {
            Output::Event(event) => Self::Event(event_record(event)),
            Output::Raw { content_type, headers, body } => {
                Self::Raw { content_type: content_type.into(), headers: headers.into(), body }
            }
        }
    }
}

impl<'a> From<&'a StateValue> for StateRecord<'a> {
    fn from(value: &'a StateValue) -> Self {
        let StateValue { bytes, expires } = value;
        Self { expires: expires.map(Timestamp::as_microsecond), bytes }
    }
}

impl TryFrom<StateRecord<'_>> for StateValue {
    type Error = Error;

    fn try_from(record: StateRecord<'_>) -> Result<Self, Error> {
        let StateRecord { expires, bytes } = record;
        Ok(Self { bytes: bytes.to_vec(), expires: expires.map(timestamp).transpose()? })
    }
}

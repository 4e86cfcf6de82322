//! The record of a rendered payload with everything that becomes durable with it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::end::PositionRecord;
use super::{IdRecord, List};
use crate::domain::plugin::{StateChange, StateValue};
use crate::store::Rendering;
use crate::store::redb::record::Error;
use crate::store::redb::record::plugin_run::PluginRunRecord;
use crate::store::redb::record::rendered::{RenderedRecord, StateRecord, read_rendered};

/// A rendered payload, with the run that made it.
#[derive(Serialize, Deserialize)]
pub(super) struct RenderingRecord<'a> {
    recipient: IdRecord,
    event: IdRecord,
    position: PositionRecord,
    #[serde(borrow)]
    run: PluginRunRecord<'a>,
    #[serde(borrow)]
    payload: RenderedRecord<'a>,
    #[serde(borrow)]
    state: List<'a, StateChange, ChangeRecord<'a>>,
}

/// A change of a plugin's state.
#[derive(Serialize, Deserialize)]
struct ChangeRecord<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<StateRecord<'a>>,
}

impl<'a> From<&'a Rendering> for RenderingRecord<'a> {
    fn from(rendering: &'a Rendering) -> Self {
        let Rendering { recipient, event, position, run, payload, state } = rendering;
        Self {
            recipient: recipient.into(),
            event: event.into(),
            position: (*position).into(),
            run: (&**run).into(),
            payload: payload.into(),
            state: List::Borrowed(state),
        }
    }
}

/// Reads a rendering; the bodies share the record's buffer.
pub(super) fn read_rendering(shared: &Bytes, record: RenderingRecord<'_>) -> Result<Rendering, Error> {
    let RenderingRecord { recipient, event, position, run, payload, state } = record;
    Ok(Rendering {
        recipient: recipient.into(),
        event: event.into(),
        position: position.try_into()?,
        run: Box::new(run.try_into()?),
        payload: read_rendered(shared, payload)?,
        state: state.read(StateChange::try_from)?,
    })
}

impl<'a> From<&'a StateChange> for ChangeRecord<'a> {
    fn from(change: &'a StateChange) -> Self {
        let StateChange { key, value } = change;
        Self { key: key.into(), value: value.as_ref().map(StateRecord::from) }
    }
}

impl TryFrom<ChangeRecord<'_>> for StateChange {
    type Error = Error;

    fn try_from(record: ChangeRecord<'_>) -> Result<Self, Error> {
        let ChangeRecord { key, value } = record;
        Ok(Self { key: key.into_owned(), value: value.map(StateValue::try_from).transpose()? })
    }
}

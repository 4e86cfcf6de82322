//! The record of a rendered payload with everything that becomes durable with it.

use std::borrow::Cow;

use super::end::PositionRecord;
use crate::Rendering;
use crate::redb::record::form::{List, record};
use crate::redb::record::plugin_run::PluginRunRecord;
use crate::redb::record::rendered::{RenderedRecord, StateRecord};
use waypost_domain::plugin::StateChange;

record! {
    /// A rendered payload, with the run that made it.
    pub(super) struct RenderingRecord<'a> of Rendering {
        recipient: u128,
        event: u128,
        position: PositionRecord,
        run: PluginRunRecord<'a>,
        #[serde(borrow)]
        payload: RenderedRecord<'a>,
        #[serde(borrow)]
        state: List<'a, StateChange, ChangeRecord<'a>>,
    }
}

record! {
    /// A change of a plugin's state.
    struct ChangeRecord<'a> of StateChange {
        key: Cow<'a, str>,
        #[serde(borrow)]
        value: Option<StateRecord<'a>>,
    }
}

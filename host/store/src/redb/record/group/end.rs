//! The records of the ends of attempts. Every delivery writes one.

use std::borrow::Cow;

use crate::redb::group::End;
use crate::redb::record::entry::{AttemptRecord, HolderRecord};
use crate::redb::record::form::{Nanos, record};
use crate::redb::record::handler_run::HandlerRunRecord;
use crate::redb::record::plugin_run::PluginRunRecord;
use crate::redb::record::waiting::ProgressRecord;
use crate::{QueuePosition, Release, Settlement};

record! {
    /// How an attempt ended.
    #[expect(
        clippy::large_enum_variant,
        reason = "one at a time is made; a box would be an allocation for each delivery"
    )]
    pub(super) enum EndRecord<'a> of End {
        Settled(SettlementRecord<'a>),
        Released(ReleaseRecord<'a>),
    }
}

record! {
    /// The settlement of a delivery.
    pub(super) struct SettlementRecord<'a> of Settlement {
        recipient: u128,
        event: u128,
        position: PositionRecord,
        plugin: Option<PluginRunRecord<'a>>,
        run: Option<HandlerRunRecord<'a>>,
        attempt: AttemptRecord<'a>,
        progress: ProgressRecord,
        rendered: bool,
    }
}

record! {
    /// A delivery that is put off.
    pub(super) struct ReleaseRecord<'a> of Release {
        recipient: u128,
        event: u128,
        position: PositionRecord,
        progress: ProgressRecord,
        by: HolderRecord,
        reason: Cow<'a, str>,
        since: Nanos,
        due: Nanos,
    }
}

record! {
    /// Where the row of a pending delivery stands.
    pub(super) struct PositionRecord of QueuePosition {
        batch: u128,
        index: u32,
        due: Option<Nanos>,
    }
}

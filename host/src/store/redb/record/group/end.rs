//! The records of the ends of attempts. Every delivery writes one.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{IdRecord, TimeRecord};
use crate::domain::HandlerRun;
use crate::domain::plugin::PluginRun;
use crate::store::redb::group::End;
use crate::store::redb::record::Error;
use crate::store::redb::record::entry::{AttemptRecord, HolderRecord};
use crate::store::redb::record::handler_run::HandlerRunRecord;
use crate::store::redb::record::plugin_run::PluginRunRecord;
use crate::store::redb::record::waiting::ProgressRecord;
use crate::store::{QueuePosition, Release, Settlement};

/// How an attempt ended.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time is made; a box would be an allocation for each delivery"
)]
#[derive(Serialize, Deserialize)]
pub(super) enum EndRecord<'a> {
    #[serde(borrow)]
    Settled(SettlementRecord<'a>),
    #[serde(borrow)]
    Released(ReleaseRecord<'a>),
}

/// The settlement of a delivery.
#[derive(Serialize, Deserialize)]
pub(super) struct SettlementRecord<'a> {
    recipient: IdRecord,
    event: IdRecord,
    position: PositionRecord,
    #[serde(borrow)]
    plugin: Option<PluginRunRecord<'a>>,
    #[serde(borrow)]
    run: Option<HandlerRunRecord<'a>>,
    #[serde(borrow)]
    attempt: AttemptRecord<'a>,
    progress: ProgressRecord,
    rendered: bool,
}

/// A delivery that is put off.
#[derive(Serialize, Deserialize)]
pub(super) struct ReleaseRecord<'a> {
    recipient: IdRecord,
    event: IdRecord,
    position: PositionRecord,
    progress: ProgressRecord,
    by: HolderRecord,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    since: TimeRecord,
    due: TimeRecord,
}

/// Where the row of a pending delivery stands.
#[derive(Serialize, Deserialize)]
pub(super) struct PositionRecord {
    batch: IdRecord,
    index: u32,
    due: Option<TimeRecord>,
}

impl<'a> From<&'a End> for EndRecord<'a> {
    fn from(end: &'a End) -> Self {
        match end {
            End::Settled(settlement) => Self::Settled(settlement.into()),
            End::Released(release) => Self::Released(release.into()),
        }
    }
}

impl TryFrom<EndRecord<'_>> for End {
    type Error = Error;

    fn try_from(record: EndRecord<'_>) -> Result<Self, Error> {
        Ok(match record {
            EndRecord::Settled(settlement) => Self::Settled(settlement.try_into()?),
            EndRecord::Released(release) => Self::Released(release.try_into()?),
        })
    }
}

impl<'a> From<&'a Settlement> for SettlementRecord<'a> {
    fn from(settlement: &'a Settlement) -> Self {
        let Settlement { recipient, event, position, plugin, run, attempt, progress, rendered } = settlement;
        Self {
            recipient: recipient.into(),
            event: event.into(),
            position: (*position).into(),
            plugin: plugin.as_deref().map(PluginRunRecord::from),
            run: run.as_deref().map(HandlerRunRecord::from),
            attempt: attempt.into(),
            progress: (*progress).into(),
            rendered: *rendered,
        }
    }
}

impl TryFrom<SettlementRecord<'_>> for Settlement {
    type Error = Error;

    fn try_from(record: SettlementRecord<'_>) -> Result<Self, Error> {
        let SettlementRecord { recipient, event, position, plugin, run, attempt, progress, rendered } =
            record;
        Ok(Self {
            recipient: recipient.into(),
            event: event.into(),
            position: position.try_into()?,
            plugin: plugin.map(PluginRun::try_from).transpose()?.map(Box::new),
            run: run.map(HandlerRun::try_from).transpose()?.map(Box::new),
            attempt: attempt.try_into()?,
            progress: progress.try_into()?,
            rendered,
        })
    }
}

impl<'a> From<&'a Release> for ReleaseRecord<'a> {
    fn from(release: &'a Release) -> Self {
        let Release { recipient, event, position, progress, by, reason, since, due } = release;
        Self {
            recipient: recipient.into(),
            event: event.into(),
            position: (*position).into(),
            progress: (*progress).into(),
            by: (*by).into(),
            reason: reason.into(),
            since: (*since).into(),
            due: (*due).into(),
        }
    }
}

impl TryFrom<ReleaseRecord<'_>> for Release {
    type Error = Error;

    fn try_from(record: ReleaseRecord<'_>) -> Result<Self, Error> {
        let ReleaseRecord { recipient, event, position, progress, by, reason, since, due } = record;
        Ok(Self {
            recipient: recipient.into(),
            event: event.into(),
            position: position.try_into()?,
            progress: progress.try_into()?,
            by: by.into(),
            reason: reason.into_owned(),
            since: since.try_into()?,
            due: due.try_into()?,
        })
    }
}

impl From<QueuePosition> for PositionRecord {
    fn from(position: QueuePosition) -> Self {
        let QueuePosition { batch, index, due } = position;
        Self { batch: (&batch).into(), index, due: due.map(TimeRecord::from) }
    }
}

impl TryFrom<PositionRecord> for QueuePosition {
    type Error = Error;

    fn try_from(record: PositionRecord) -> Result<Self, Error> {
        let PositionRecord { batch, index, due } = record;
        Ok(Self { batch: batch.into(), index, due: due.map(TryInto::try_into).transpose()? })
    }
}

//! The record of a request to advance a recovery.
//!
//! Its marks and states are not those of [`super::super::recovery`]: members may be added to JSON, but not to postcard.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{IdRecord, List, TimeRecord, read_ids};
use crate::domain::EventId;
use crate::domain::recovery::{Mark, ScanProgress, State};
use crate::store::Step;
use crate::store::redb::record::Error;
use crate::store::redb::recover::Recover;

/// A request to advance a recovery.
#[derive(Serialize, Deserialize)]
pub(super) struct RecoverRecord<'a> {
    subscription: IdRecord,
    asked: TimeRecord,
    #[serde(borrow)]
    step: StepRecord<'a>,
    at: TimeRecord,
}

/// The next step of a recovery.
#[derive(Serialize, Deserialize)]
enum StepRecord<'a> {
    Begin,
    Advance {
        first: Option<MarkRecord>,
        last: MarkRecord,
        events: u64,
        failed: u64,
        #[serde(borrow)]
        matched: List<'a, EventId, IdRecord>,
    },
    #[serde(borrow)]
    End(StateRecord<'a>),
}

/// An event as a place in the log.
#[derive(Serialize, Deserialize)]
struct MarkRecord {
    event: IdRecord,
    received: TimeRecord,
}

/// The state of a recovery.
#[derive(Serialize, Deserialize)]
enum StateRecord<'a> {
    Running,
    Done {
        at: TimeRecord,
    },
    Cancelled {
        at: TimeRecord,
    },
    Failed {
        at: TimeRecord,
        #[serde(borrow)]
        reason: Cow<'a, str>,
    },
}

impl<'a> From<&'a Recover> for RecoverRecord<'a> {
    fn from(recover: &'a Recover) -> Self {
        let Recover { subscription, asked, step, at } = recover;
        Self {
            subscription: subscription.into(),
            asked: (*asked).into(),
            step: step.into(),
            at: (*at).into(),
        }
    }
}

impl TryFrom<RecoverRecord<'_>> for Recover {
    type Error = Error;

    fn try_from(record: RecoverRecord<'_>) -> Result<Self, Error> {
        let RecoverRecord { subscription, asked, step, at } = record;
        Ok(Self {
            subscription: subscription.into(),
            asked: asked.try_into()?,
            step: step.try_into()?,
            at: at.try_into()?,
        })
    }
}

impl<'a> From<&'a Step> for StepRecord<'a> {
    fn from(step: &'a Step) -> Self {
        match step {
            Step::Begin => Self::Begin,
            Step::Advance(ScanProgress { first, last, events, failed, matched }) => Self::Advance {
                first: first.map(MarkRecord::from),
                last: (*last).into(),
                events: *events,
                failed: *failed,
                matched: List::Borrowed(matched),
            },
            Step::End(state) => Self::End(state.into()),
        }
    }
}

impl TryFrom<StepRecord<'_>> for Step {
    type Error = Error;

    fn try_from(record: StepRecord<'_>) -> Result<Self, Error> {
        Ok(match record {
            StepRecord::Begin => Self::Begin,
            StepRecord::Advance { first, last, events, failed, matched } => Self::Advance(ScanProgress {
                first: first.map(Mark::try_from).transpose()?,
                last: last.try_into()?,
                events,
                failed,
                matched: read_ids(matched)?,
            }),
            StepRecord::End(state) => Self::End(state.try_into()?),
        })
    }
}

impl From<Mark> for MarkRecord {
    fn from(mark: Mark) -> Self {
        let Mark { event, received } = mark;
        Self { event: (&event).into(), received: received.into() }
    }
}

impl TryFrom<MarkRecord> for Mark {
    type Error = Error;

    fn try_from(record: MarkRecord) -> Result<Self, Error> {
        let MarkRecord { event, received } = record;
        Ok(Self { event: event.into(), received: received.try_into()? })
    }
}

impl<'a> From<&'a State> for StateRecord<'a> {
    fn from(state: &'a State) -> Self {
        match state {
            State::Running => Self::Running,
            State::Done { at } => Self::Done { at: (*at).into() },
            State::Cancelled { at } => Self::Cancelled { at: (*at).into() },
            State::Failed { at, reason } => Self::Failed { at: (*at).into(), reason: reason.into() },
        }
    }
}

impl TryFrom<StateRecord<'_>> for State {
    type Error = Error;

    fn try_from(record: StateRecord<'_>) -> Result<Self, Error> {
        Ok(match record {
            StateRecord::Running => Self::Running,
            StateRecord::Done { at } => Self::Done { at: at.try_into()? },
            StateRecord::Cancelled { at } => Self::Cancelled { at: at.try_into()? },
            StateRecord::Failed { at, reason } => {
                Self::Failed { at: at.try_into()?, reason: reason.into_owned() }
            }
        })
    }
}

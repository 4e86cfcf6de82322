//! The record of a request to advance a recovery.
//!
//! Its marks and states are not those of [`super::super::recovery`]: members may be added to JSON, but not to postcard.

use std::borrow::Cow;

use crate::Step;
use crate::redb::group::Recover;
use crate::redb::record::form::{List, Nanos, record};
use waypost_domain::EventId;
use waypost_domain::recovery::{Mark, ScanProgress, State};

record! {
    /// A request to advance a recovery.
    pub(crate) struct RecoverRecord<'a> of Recover {
        subscription: u128,
        asked: Nanos,
        step: StepRecord<'a>,
        at: Nanos,
    }
}

record! {
    /// The next step of a recovery.
    enum StepRecord<'a> of Step {
        Begin,
        Advance(ScanRecord<'a>),
        End(StateRecord<'a>),
    }
}

record! {
    /// What a scan has found.
    struct ScanRecord<'a> of ScanProgress {
        first: Option<MarkRecord>,
        last: MarkRecord,
        events: u64,
        failed: u64,
        matched: List<'a, EventId, u128>,
    }
}

record! {
    /// An event as a place in the log.
    struct MarkRecord of Mark {
        event: u128,
        received: Nanos,
    }
}

record! {
    /// The state of a recovery or a job.
    pub(super) enum StateRecord<'a> of State {
        Running,
        Done { at: Nanos },
        Cancelled { at: Nanos },
        Failed { at: Nanos, reason: Cow<'a, str> },
    }
}

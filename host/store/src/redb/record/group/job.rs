//! The record of a request to advance a job.

use super::recover::StateRecord;
use crate::JobStep;
use crate::redb::group::AdvanceJob;
use crate::redb::record::form::{Nanos, record};
use crate::redb::record::job::KindRecord;

record! {
    /// A request to advance a job.
    pub(crate) struct AdvanceJobRecord<'a> of AdvanceJob {
        subscription: u128,
        kind: KindRecord,
        asked: Nanos,
        #[serde(borrow)]
        step: JobStepRecord<'a>,
        at: Nanos,
    }
}

record! {
    /// The next step of a job.
    enum JobStepRecord<'a> of JobStep {
        Advance { rows: u32 },
        #[serde(borrow)]
        End(StateRecord<'a>),
    }
}

//! The record of a job, as JSON, and that of a request to advance one.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::form::{Form as _, record};
use super::recovery::StateRecord;
use super::{Error, body, json};
use waypost_domain::job::{Job, Kind, Scope, Work};

record! {
    /// A job.
    struct JobRecord<'a> of Job {
        subscription: Uuid,
        work: WorkRecord<'a>,
        of: ScopeRecord,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        asked: Timestamp,
        by: Cow<'a, str>,
        total: Option<u64>,
        end: Option<Uuid>,
        position: Option<Uuid>,
        looked_at: u64,
        changed: u64,
        state: StateRecord<'a>,
    }
}

record! {
    /// What a job does.
    enum WorkRecord<'a> of Work {
        Redeliver,
        Discard { reason: Cow<'a, str> },
    }
}

record! {
    /// The state of the deliveries that a job is about.
    enum ScopeRecord of Scope {
        Dead,
        Skipped,
        Denied,
        Pending,
        Retrying,
        Held,
    }
}

record! {
    /// A kind of jobs.
    pub(super) enum KindRecord of Kind {
        Redeliver,
        Discard,
    }
}

/// Writes a job.
pub(crate) fn encode_job(job: &Job) -> Vec<u8> {
    json(&JobRecord::of(job))
}

/// Reads a job.
pub(crate) fn decode_job(record: &[u8]) -> Result<Job, Error> {
    serde_json::from_slice::<JobRecord<'_>>(body(record)?)?.read(&Bytes::new())
}

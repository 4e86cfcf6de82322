//! The record of a handler's run, in an entry of the history.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, timestamp};
use crate::domain::handler::{
    Exit, FetchSummary, HandlerRun, ProgramEnd, RunStart, StreamTail, UploadSummary,
};

/// What a handler did for an event.
#[derive(Serialize, Deserialize)]
pub(super) struct HandlerRunRecord<'a> {
    #[serde(borrow)]
    handler: Cow<'a, str>,
    start: RunStartRecord,
    fetched: Option<FetchSummaryRecord>,
    #[serde(borrow)]
    program: Option<ProgramEndRecord<'a>>,
    #[serde(borrow)]
    uploads: Vec<UploadSummaryRecord<'a>>,
}

/// What a run began with; times are microseconds since 1970.
#[derive(Serialize, Deserialize)]
enum RunStartRecord {
    Fresh,
    Again { interrupted: i64 },
    Upload { ran: i64 },
}

/// What was fetched.
#[derive(Serialize, Deserialize)]
struct FetchSummaryRecord {
    files: u64,
    bytes: u64,
    took: Duration,
}

/// How a program ended.
#[derive(Serialize, Deserialize)]
struct ProgramEndRecord<'a> {
    #[serde(borrow)]
    exit: ExitRecord<'a>,
    took: Duration,
    #[serde(borrow)]
    stdout: StreamTailRecord<'a>,
    #[serde(borrow)]
    stderr: StreamTailRecord<'a>,
}

/// Why a program does not run any more.
#[derive(Serialize, Deserialize)]
enum ExitRecord<'a> {
    Code(i32),
    Signal(i32),
    #[serde(borrow)]
    Limit(Cow<'a, str>),
    #[serde(borrow)]
    Failed(Cow<'a, str>),
}

/// What a program wrote to one of its streams.
#[derive(Serialize, Deserialize)]
struct StreamTailRecord<'a> {
    #[serde(borrow)]
    tail: Cow<'a, str>,
    bytes: u64,
    kept: u64,
}

/// One output that was uploaded.
#[derive(Serialize, Deserialize)]
struct UploadSummaryRecord<'a> {
    #[serde(borrow)]
    output: Cow<'a, str>,
    files: u64,
    bytes: u64,
    #[serde(borrow)]
    place: Cow<'a, str>,
}

impl<'a> From<&'a HandlerRun> for HandlerRunRecord<'a> {
    fn from(run: &'a HandlerRun) -> Self {
        let HandlerRun { handler, start, fetched, program, uploads } = run;
        Self {
            handler: handler.into(),
            start: start.into(),
            fetched: fetched.map(FetchSummaryRecord::from),
            program: program.as_ref().map(ProgramEndRecord::from),
            uploads: uploads.iter().map(UploadSummaryRecord::from).collect(),
        }
    }
}

impl TryFrom<HandlerRunRecord<'_>> for HandlerRun {
    type Error = Error;

    fn try_from(record: HandlerRunRecord<'_>) -> Result<Self, Error> {
        let HandlerRunRecord { handler, start, fetched, program, uploads } = record;
        Ok(Self {
            handler: handler.into_owned(),
            start: start.try_into()?,
            fetched: fetched.map(FetchSummary::from),
            program: program.map(ProgramEnd::from),
            uploads: uploads.into_iter().map(UploadSummary::from).collect(),
        })
    }
}

impl From<&RunStart> for RunStartRecord {
    fn from(start: &RunStart) -> Self {
        match start {
            RunStart::Fresh => Self::Fresh,
            RunStart::Again { interrupted } => Self::Again { interrupted: interrupted.as_microsecond() },
            RunStart::Upload { ran } => Self::Upload { ran: ran.as_microsecond() },
        }
    }
}

impl TryFrom<RunStartRecord> for RunStart {
    type Error = Error;

    fn try_from(record: RunStartRecord) -> Result<Self, Error> {
        Ok(match record {
            RunStartRecord::Fresh => Self::Fresh,
            RunStartRecord::Again { interrupted } => Self::Again { interrupted: timestamp(interrupted)? },
            RunStartRecord::Upload { ran } => Self::Upload { ran: timestamp(ran)? },
        })
    }
}

impl From<FetchSummary> for FetchSummaryRecord {
    fn from(summary: FetchSummary) -> Self {
        let FetchSummary { files, bytes, took } = summary;
        Self { files, bytes, took }
    }
}

impl From<FetchSummaryRecord> for FetchSummary {
    fn from(record: FetchSummaryRecord) -> Self {
        let FetchSummaryRecord { files, bytes, took } = record;
        Self { files, bytes, took }
    }
}

impl<'a> From<&'a ProgramEnd> for ProgramEndRecord<'a> {
    fn from(end: &'a ProgramEnd) -> Self {
        let ProgramEnd { exit, took, stdout, stderr } = end;
        Self { exit: exit.into(), took: *took, stdout: stdout.into(), stderr: stderr.into() }
    }
}

impl From<ProgramEndRecord<'_>> for ProgramEnd {
    fn from(record: ProgramEndRecord<'_>) -> Self {
        let ProgramEndRecord { exit, took, stdout, stderr } = record;
        Self { exit: exit.into(), took, stdout: stdout.into(), stderr: stderr.into() }
    }
}

impl<'a> From<&'a Exit> for ExitRecord<'a> {
    fn from(exit: &'a Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Code(*code),
            Exit::Signal(signal) => Self::Signal(*signal),
            Exit::Limit(limit) => Self::Limit(limit.into()),
            Exit::Failed(reason) => Self::Failed(reason.into()),
        }
    }
}

impl From<ExitRecord<'_>> for Exit {
    fn from(record: ExitRecord<'_>) -> Self {
        match record {
            ExitRecord::Code(code) => Self::Code(code),
            ExitRecord::Signal(signal) => Self::Signal(signal),
            ExitRecord::Limit(limit) => Self::Limit(limit.into_owned()),
            ExitRecord::Failed(reason) => Self::Failed(reason.into_owned()),
        }
    }
}

impl<'a> From<&'a StreamTail> for StreamTailRecord<'a> {
    fn from(stream: &'a StreamTail) -> Self {
        let StreamTail { tail, bytes, kept } = stream;
        Self { tail: tail.into(), bytes: *bytes, kept: *kept }
    }
}

impl From<StreamTailRecord<'_>> for StreamTail {
    fn from(record: StreamTailRecord<'_>) -> Self {
        let StreamTailRecord { tail, bytes, kept } = record;
        Self { tail: tail.into_owned(), bytes, kept }
    }
}

impl<'a> From<&'a UploadSummary> for UploadSummaryRecord<'a> {
    fn from(upload: &'a UploadSummary) -> Self {
        let UploadSummary { output, files, bytes, place } = upload;
        Self { output: output.into(), files: *files, bytes: *bytes, place: place.into() }
    }
}

impl From<UploadSummaryRecord<'_>> for UploadSummary {
    fn from(record: UploadSummaryRecord<'_>) -> Self {
        let UploadSummaryRecord { output, files, bytes, place } = record;
        Self { output: output.into_owned(), files, bytes, place: place.into_owned() }
    }
}

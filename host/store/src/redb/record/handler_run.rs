//! The record of a handler's run, in an entry of the history.

use std::borrow::Cow;
use std::time::Duration;

use super::form::record;
use waypost_domain::handler::{
    Exit, FetchSummary, HandlerRun, ProgramEnd, RunStart, StreamTail, UploadSummary,
};

record! {
    /// What a handler did for an event.
    pub(super) struct HandlerRunRecord<'a> of HandlerRun {
        handler: Cow<'a, str>,
        start: RunStartRecord,
        fetched: Option<FetchSummaryRecord>,
        program: Option<ProgramEndRecord<'a>>,
        uploads: Vec<UploadSummaryRecord<'a>>,
    }
}

record! {
    /// What a run began with; times are microseconds since 1970.
    enum RunStartRecord of RunStart {
        Fresh,
        Again { interrupted: i64 },
        Upload { ran: i64 },
    }
}

record! {
    /// What was fetched.
    struct FetchSummaryRecord of FetchSummary {
        files: u64,
        bytes: u64,
        took: Duration,
    }
}

record! {
    /// How a program ended.
    struct ProgramEndRecord<'a> of ProgramEnd {
        exit: ExitRecord<'a>,
        took: Duration,
        stdout: StreamTailRecord<'a>,
        stderr: StreamTailRecord<'a>,
    }
}

record! {
    /// Why a program does not run any more.
    enum ExitRecord<'a> of Exit {
        Code(i32),
        Signal(i32),
        Limit(Cow<'a, str>),
        Failed(Cow<'a, str>),
    }
}

record! {
    /// What a program wrote to one of its streams.
    struct StreamTailRecord<'a> of StreamTail {
        tail: Cow<'a, str>,
        bytes: u64,
        kept: u64,
    }
}

record! {
    /// One output that was uploaded.
    struct UploadSummaryRecord<'a> of UploadSummary {
        output: Cow<'a, str>,
        files: u64,
        bytes: u64,
        place: Cow<'a, str>,
    }
}

//! What handlers run, as REST shows it: in an event's story, in `/get`, and as Dispatcher-K8s's `/scriptlog`.

use waypost_api::v1;
use waypost_domain::HandlerRun;
use waypost_domain::handler::{Exit, ProgramEnd, RunStart, StreamTail};
use waypost_handlers::Progress;

use super::words::{self, millis};

/// Shows how far a run has come.
pub(super) fn show_progress(progress: &Progress) -> v1::Progress {
    v1::Progress {
        phase: words::phase(progress.phase),
        since: progress.since.into(),
        files_done: progress.files_done,
        files: progress.files,
        bytes_done: progress.bytes_done,
        bytes: progress.bytes,
    }
}

/// Shows what a handler did in an attempt.
pub(super) fn show_run(run: &HandlerRun) -> v1::HandlerRun {
    let fresh = v1::Start { from: v1::StartFrom::Fresh, interrupted: None, ran: None };
    let start = match &run.start {
        RunStart::Fresh => fresh,
        RunStart::Again { interrupted } => v1::Start { interrupted: Some((*interrupted).into()), ..fresh },
        RunStart::Upload { ran } => {
            v1::Start { from: v1::StartFrom::Upload, ran: Some((*ran).into()), ..fresh }
        }
    };
    let fetched = run.fetched.map(|fetched| v1::FetchSummary {
        files: fetched.files,
        bytes: fetched.bytes,
        took_ms: millis(fetched.took),
    });
    let uploads = run.uploads.iter().map(|upload| v1::Upload {
        output: upload.output.clone(),
        files: upload.files,
        bytes: upload.bytes,
        place: upload.place.clone(),
    });
    v1::HandlerRun {
        handler: run.handler.clone(),
        start,
        fetched,
        program: run.program.as_ref().map(show_program),
        uploads: uploads.collect(),
    }
}

fn show_program(program: &ProgramEnd) -> v1::Program {
    v1::Program {
        exit: program.exit.to_string(),
        exit_code: exit_code(&program.exit),
        took_ms: millis(program.took),
        stdout: show_stream(&program.stdout),
        stderr: show_stream(&program.stderr),
    }
}

fn show_stream(stream: &StreamTail) -> v1::Stream {
    v1::Stream { tail: stream.tail.clone(), bytes: stream.bytes, kept: stream.kept }
}

/// Returns a program's exit code: negative for a signal, as in Python's `subprocess`; `None` if a limit ended
/// it or it failed.
pub(super) fn exit_code(exit: &Exit) -> Option<i32> {
    match exit {
        Exit::Code(code) => Some(*code),
        Exit::Signal(signal) => Some(-signal),
        Exit::Limit(_) | Exit::Failed(_) => None,
    }
}

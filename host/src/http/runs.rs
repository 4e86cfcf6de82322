//! What handlers run, as JSON: in an event's story, in `/get`, and as Dispatcher-K8s's `/scriptlog`.

use serde_json::{Value, json};

use waypost_domain::handler::{Exit, HandlerRun, ProgramEnd, RunStart, StreamTail};
use waypost_handlers::Progress;
use waypost_runtime::clock;

/// Shows how far a run has come.
pub(super) fn show_progress(progress: &Progress) -> Value {
    json!({
        "phase": progress.phase.name(),
        "since": clock::text(progress.since),
        "files_done": progress.files_done,
        "files": progress.files,
        "bytes_done": progress.bytes_done,
        "bytes": progress.bytes,
    })
}

/// Shows what a handler did in an attempt.
pub(super) fn show_run(run: &HandlerRun) -> Value {
    let start = match &run.start {
        RunStart::Fresh => json!({"from": "fresh"}),
        RunStart::Again { interrupted } => {
            json!({"from": "fresh", "interrupted": clock::text(*interrupted)})
        }
        RunStart::Upload { ran } => json!({"from": "upload", "ran": clock::text(*ran)}),
    };
    let fetched = run.fetched.map(
        |fetched| json!({"files": fetched.files, "bytes": fetched.bytes, "took_ms": millis(fetched.took)}),
    );
    let uploads = run.uploads.iter().map(|upload| {
        json!({
            "output": upload.output,
            "files": upload.files,
            "bytes": upload.bytes,
            "place": upload.place,
        })
    });
    json!({
        "handler": run.handler,
        "start": start,
        "fetched": fetched,
        "program": run.program.as_ref().map(show_program),
        "uploads": uploads.collect::<Vec<_>>(),
    })
}

fn show_program(program: &ProgramEnd) -> Value {
    json!({
        "exit": program.exit.to_string(),
        "exit_code": exit_code(&program.exit),
        "took_ms": millis(program.took),
        "stdout": show_stream(&program.stdout),
        "stderr": show_stream(&program.stderr),
    })
}

fn show_stream(stream: &StreamTail) -> Value {
    json!({"tail": stream.tail, "bytes": stream.bytes, "kept": stream.kept})
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

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

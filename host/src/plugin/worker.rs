//! What the child process does: it takes its limits, then reads what others have written.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::thread;

use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};
use serde::Deserialize;
use serde_json::Value;

use super::configuration::{self, Problem};
use super::engine;
use super::text;

/// What a child process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A component to machine code.
    Compile,
    /// A JSON Schema, and a value that it is laid over.
    Check,
}

/// What a child process may use, besides the time that its parent gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The most address space, in bytes.
    pub memory_bytes: u64,
    /// The most seconds of processor time.
    pub cpu_seconds: u64,
}

/// The exit code of a task that failed and said why on stderr.
pub(super) const FAILED: u8 = 1;
/// The longest that is said about a failure.
pub(super) const TEXT_BYTES_MAX: usize = 1000;

/// What a `waypost compile` does: it limits itself, reads a length of 8 bytes (little-endian) and as many bytes of
/// input from stdin, and writes the result to stdout. It ends when stdin does: then nobody waits for it any more.
pub fn compile_main(task: Task, allowance: Allowance) -> ExitCode {
    let done = limit(allowance).map_err(|error| format!("failed to set limits: {error}"));
    let done = done.and_then(|()| input()).and_then(|input| match task {
        Task::Compile => compile(&input),
        Task::Check => check(&input),
    });
    let written = match &done {
        Ok(output) => std::io::stdout().lock().write_all(output),
        Err(reason) => std::io::stderr().lock().write_all(text::clean(reason, TEXT_BYTES_MAX).as_bytes()),
    };
    match (done, written) {
        (Ok(_), Ok(())) => ExitCode::SUCCESS,
        (Ok(_), Err(_)) | (Err(_), _) => ExitCode::from(FAILED),
    }
}

fn limit(allowance: Allowance) -> Result<(), rustix::io::Errno> {
    let limits = [
        (Resource::As, allowance.memory_bytes),
        (Resource::Cpu, allowance.cpu_seconds),
        // It leaves no files, not even one with what it looked like when it crashed.
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    setpriority_process(None, 19)
}

/// Reads the input, and watches from then on whether the parent is still there.
fn input() -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("failed to read the input: {error}");
    let mut stdin = std::io::stdin().lock();
    let mut length = [0; 8];
    stdin.read_exact(&mut length).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    let mut input = Vec::new();
    let read = stdin.by_ref().take(length).read_to_end(&mut input).map_err(failed)?;
    if read as u64 != length {
        return Err("the input broke off".to_owned());
    }
    drop(stdin);
    let watch = || {
        drop(std::io::stdin().lock().read(&mut [0]));
        std::process::exit(i32::from(FAILED));
    };
    thread::Builder::new().spawn(watch).map_err(|error| format!("failed to start a thread: {error}"))?;
    Ok(input)
}

/// Makes machine code of a component.
pub(super) fn compile(wasm: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |error: wasmtime::Error| text::of(&error);
    engine::compiler().map_err(failed)?.precompile_component(wasm).map_err(failed)
}

/// What [`Task::Check`] reads.
#[derive(Deserialize)]
struct Question {
    schema: Value,
    /// Absent when the schema itself is the question.
    config: Option<Value>,
}

fn check(input: &[u8]) -> Result<Vec<u8>, String> {
    let question: Question = serde_json::from_slice(input).map_err(|error| error.to_string())?;
    let problems: Vec<Problem> = configuration::problems(&question.schema, question.config.as_ref())?;
    serde_json::to_vec(&problems).map_err(|error| error.to_string())
}

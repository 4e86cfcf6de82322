//! The child process: it limits itself, and then reads untrusted input.
//!
//! When the machine runs out of memory, the system kills the child before the service, and no data is lost.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::thread;

use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};
use serde::Deserialize;
use serde_json::Value;
use wasmtime::component::Component;

use super::configuration::{self};
use super::problem::Problem;
use super::{engine, structure, text};
use waypost_runtime::process;

/// What a child process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Compile a component to machine code.
    Compile,
    /// Load machine code that a child has made, and return how many bytes of memory it takes.
    Load,
    /// Check a JSON Schema, and validate a value against it.
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
/// The exit code of a task that ended at a limit, and named it on stderr.
pub(super) const LIMITED: u8 = 3;
/// The longest text about a failure, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 1000;

/// Why a task has no result.
#[derive(Debug)]
pub(super) enum Fault {
    /// Its input is wrong, or something is wrong with this process.
    Failed(String),
    /// Its input exceeds a limit; the limit's name and value.
    Limit(String),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// The main function of `waypost compile`. It limits itself, reads a length of 8 bytes (little-endian) and as many
/// bytes of input from stdin, and writes the result to stdout. It exits when stdin ends, since that means that the
/// parent has gone.
pub fn compile_main(task: Task, allowance: Allowance) -> ExitCode {
    let done = limit(allowance).map_err(|error| Fault::Failed(format!("failed to set limits: {error}")));
    let done = done.and_then(|()| Ok(input()?)).and_then(|input| match task {
        Task::Compile => compile(&input),
        Task::Load => load(&input),
        Task::Check => Ok(check(&input)?),
    });
    let say = |reason: &str| {
        let said = std::io::stderr().lock().write_all(text::clean(reason, TEXT_BYTES_MAX).as_bytes());
        drop(said);
    };
    match done {
        Ok(output) => match std::io::stdout().lock().write_all(&output) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(FAILED),
        },
        Err(Fault::Failed(reason)) => {
            say(&reason);
            ExitCode::from(FAILED)
        }
        Err(Fault::Limit(limit)) => {
            say(&limit);
            ExitCode::from(LIMITED)
        }
    }
}

fn limit(allowance: Allowance) -> Result<(), rustix::io::Errno> {
    process::end_before_others(process::FIRST);
    process::gain_no_privileges()?;
    let limits = [
        (Resource::As, allowance.memory_bytes),
        (Resource::Cpu, allowance.cpu_seconds),
        // The child writes no files, not even a core dump.
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    setpriority_process(None, 19)
}

/// Reads the input, and then starts to watch whether the parent is still there.
fn input() -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("failed to read the input: {error}");
    let mut stdin = std::io::stdin().lock();
    let mut length = [0; 8];
    stdin.read_exact(&mut length).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    let mut input = Vec::new();
    let read = stdin.by_ref().take(length).read_to_end(&mut input).map_err(failed)?;
    if read as u64 != length {
        return Err("the input is truncated".to_owned());
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
pub(super) fn compile(wasm: &[u8]) -> Result<Vec<u8>, Fault> {
    structure::check(wasm).map_err(Fault::Limit)?;
    let failed = |error: wasmtime::Error| text::of(&error);
    Ok(engine::compiler().map_err(failed)?.precompile_component(wasm).map_err(failed)?)
}

/// Loads machine code, and returns how many bytes of memory that takes, little-endian.
fn load(code: &[u8]) -> Result<Vec<u8>, Fault> {
    let failed = |error: wasmtime::Error| text::of(&error);
    let engine = engine::compiler().map_err(failed)?;
    let before = own_bytes();
    #[expect(unsafe_code, reason = "the service hands over what its compiling child has just made")]
    // SAFETY: only the service has this process's stdin, and `compile` made these bytes.
    let loaded = unsafe { Component::deserialize(&engine, code) };
    // Dropped only after memory has been measured again.
    let _loaded = loaded.map_err(failed)?;
    Ok(own_bytes().saturating_sub(before).to_le_bytes().into())
}

/// Returns how many bytes of memory are this process's alone; 0 where the system does not say.
fn own_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix("kB"));
    kilobytes.and_then(|count| count.trim().parse().ok()).map_or(0, |count: u64| count.saturating_mul(1024))
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

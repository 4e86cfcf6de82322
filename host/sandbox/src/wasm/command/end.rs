//! Explains to a program's author how it ended.

use std::sync::PoisonError;

use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::HANDLES_MAX;
use super::state::CommandState;
use crate::limits::size;
use crate::program::CommandLimits;
use crate::text;
use crate::wasm::engine::STACK_BYTES;
use waypost_domain::handler::Exit;

/// What ended a program.
pub(super) enum Ending {
    /// It returned from `wasi:cli/run`, or an error ended it.
    Itself(wasmtime::Result<Result<(), ()>>),
    /// Its time was over.
    Late,
    /// The run was cancelled.
    Cancelled,
}

/// The longest text of wasmtime's that goes into an exit.
const TEXT_BYTES_MAX: usize = 512;
/// How Rust's names of functions begin in a module.
const MANGLED: [&str; 2] = ["_R", "_ZN"];

/// Names a program's exit. `state` is the state in which the run left it.
pub(super) fn exit(ending: Ending, state: &CommandState, limits: CommandLimits) -> Exit {
    let exit = match ending {
        Ending::Itself(Ok(Ok(()))) => Exit::Code(0),
        Ending::Itself(Ok(Err(()))) => Exit::Code(1),
        Ending::Itself(Err(error)) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Exit::Code(exit.0),
            None => ended_by(&error),
        },
        Ending::Late => Exit::timed_out(limits.time),
        Ending::Cancelled => Exit::Failed("it was cancelled".to_owned()),
    };
    match (refused(state), exit) {
        // It failed after the refusal, whatever it did in between.
        (Some(refused), Exit::Failed(_) | Exit::Code(1..)) => Exit::Limit(refused),
        (_, exit) => exit,
    }
}

/// Returns the limit that refused the program more, if one did.
fn refused(state: &CommandState) -> Option<String> {
    let quota = state.quota.lock().unwrap_or_else(PoisonError::into_inner);
    quota.refused().or_else(|| state.memory.refused())
}

fn ended_by(error: &wasmtime::Error) -> Exit {
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Exit::Limit(format!("limit of {HANDLES_MAX} handles (open files, streams) at once"));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Exit::Limit(format!("stack limit of {}", size(STACK_BYTES))),
        Some(trap) => Exit::Failed(trapped(*trap, error)),
        None => Exit::Failed(text::clean(&error.root_cause().to_string(), TEXT_BYTES_MAX)),
    }
}

fn trapped(trap: Trap, error: &wasmtime::Error) -> String {
    let what = match trap {
        // If stderr says why, that text follows this one: see `last_words`.
        Trap::UnreachableCodeReached => return "it panicked or aborted".to_owned(),
        trap => {
            let what = trap.to_string();
            format!("trap: {}", what.strip_prefix("wasm trap: ").unwrap_or(&what))
        }
    };
    match function(error) {
        Some(name) => format!("{what}, in `{name}`"),
        None => what,
    }
}

/// Returns the function that trapped, where the module has names that people can read.
fn function(error: &wasmtime::Error) -> Option<String> {
    let name = error.downcast_ref::<WasmBacktrace>()?.frames().first()?.func_name()?;
    (!MANGLED.iter().any(|begin| name.starts_with(begin))).then(|| text::clean(name, TEXT_BYTES_MAX))
}

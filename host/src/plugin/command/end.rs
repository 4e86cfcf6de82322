//! How a program came to its end, in words for its author.

use std::sync::PoisonError;

use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::place::Place;
use super::{CommandLimits, HANDLES_MAX};
use crate::domain::handler::Exit;
use crate::plugin::engine::STACK_BYTES;
use crate::plugin::limits::size;
use crate::plugin::text;

/// What ended a program.
pub(super) enum Ending {
    /// It returned from `wasi:cli/run`, or an error ended it.
    Itself(wasmtime::Result<Result<(), ()>>),
    /// Its time was over.
    Late,
    /// Nobody waits for it any more.
    Cancelled,
}

/// The longest text of wasmtime's that goes into an exit.
const TEXT_BYTES_MAX: usize = 512;
/// The most functions of a backtrace that are named.
const FRAMES_MAX: usize = 4;
/// How the names of functions begin that tell where Rust's own code was: whoever panicked called them.
const RUST_ITSELF: [&str; 10] =
    ["panic_", "std::", "core::", "alloc::", "<std::", "<core::", "<alloc::", "__rust", "rust_", "abort"];

/// Names a program's exit. `place` is what was left of it.
pub(super) fn exit(ending: Ending, place: &Place, limits: CommandLimits) -> Exit {
    let exit = match ending {
        Ending::Itself(Ok(Ok(()))) => Exit::Code(0),
        Ending::Itself(Ok(Err(()))) => Exit::Code(1),
        Ending::Itself(Err(error)) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Exit::Code(exit.0),
            None => ended_by(&error),
        },
        Ending::Late => Exit::Limit(format!("timeout of {:?} (timeout)", limits.time)),
        Ending::Cancelled => Exit::Failed("it was cancelled".to_owned()),
    };
    match (refused(place), exit) {
        // Whatever it made of that, it did not cope.
        (Some(refused), Exit::Failed(_) | Exit::Code(1..)) => Exit::Limit(refused),
        (_, exit) => exit,
    }
}

/// Returns the limit that refused the program more, if one did.
fn refused(place: &Place) -> Option<String> {
    let quota = place.quota.lock().unwrap_or_else(PoisonError::into_inner);
    quota.refused().or_else(|| place.room.refused())
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
        Trap::UnreachableCodeReached => "it panicked or aborted (`unreachable` was executed)".to_owned(),
        trap => {
            let what = trap.to_string();
            format!("trap: {}", what.strip_prefix("wasm trap: ").unwrap_or(&what))
        }
    };
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    let names: Vec<&str> = frames.iter().filter_map(wasmtime::FrameInfo::func_name).collect();
    let own = names.iter().position(|name| !RUST_ITSELF.iter().any(|rust| name.starts_with(rust)));
    let named: Vec<_> = names[own.unwrap_or_default()..].iter().take(FRAMES_MAX).copied().collect();
    if named.is_empty() {
        return what;
    }
    format!("{what} in {}", text::clean(&named.join(" < "), TEXT_BYTES_MAX))
}

//! Explains to a plugin's author why a call ended without an answer.

use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::engine::STACK_BYTES;
use super::guest::Guest;
use super::limits::{Limits, size};
use super::meter::{HANDLES_MAX, RANDOM_BYTES_MAX, Shortage};
use super::text::{self, last_words};
use waypost_domain::plugin::Failure;

/// The longest text of wasmtime's that goes into a failure.
const TEXT_BYTES_MAX: usize = 512;

/// Names what ended a call. `guest` is the state in which the call left it.
pub(super) fn of(error: &wasmtime::Error, guest: &Guest) -> Failure {
    if error.is::<PoolConcurrencyLimitError>() {
        return Failure::Host(format!("no room for another call now: {error}"));
    }
    // Memory that other calls hold is not the guest's fault either.
    if let Some(shortage) = error.downcast_ref::<Shortage>() {
        return Failure::Host(shortage.to_string());
    }
    if let Some(limit) = limit(error, guest) {
        return Failure::Limit(limit);
    }
    let ended = match error.downcast_ref::<Trap>() {
        Some(trap) => trapped(*trap, error, guest),
        None => match error.downcast_ref::<I32Exit>() {
            Some(exit) => format!("it called `exit` with the status {}", exit.0),
            // Any other error, for example of an instance that could not be made.
            None => text::clean(&format!("trap: {}", error.root_cause()), TEXT_BYTES_MAX),
        },
    };
    Failure::Trap(match &guest.meter.refused {
        Some(refused) => format!("{ended} (before that, the {refused} had kept it from growing)"),
        None => ended,
    })
}

/// Returns the sentence for a call that took too long.
pub(super) fn time_limit(limits: &Limits) -> String {
    format!("time limit of {} ms", limits.time.as_millis())
}

/// Returns the limit that ended a call, if one did.
fn limit(error: &wasmtime::Error, guest: &Guest) -> Option<String> {
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Some(handles_limit());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => return Some(time_limit(&guest.limits)),
        Some(Trap::StackOverflow) => return Some(format!("stack limit of {}", size(STACK_BYTES))),
        Some(Trap::AllocationTooLarge) | None => {}
        // A guest that runs out of memory aborts or exits. If it panics with a message, it failed for another reason.
        Some(Trap::UnreachableCodeReached) if !panicked(guest) => return guest.meter.refused.clone(),
        Some(_) => return None,
    }
    // wasmtime has no types for these.
    let cause = error.root_cause().to_string();
    let limits = &guest.limits;
    match cause.as_str() {
        text if text.contains("fuel allocated for hostcalls") => {
            // Wasm is on the stack while a host function is called, but no longer when an answer is read.
            let is_answer = error.downcast_ref::<WasmBacktrace>().is_none();
            Some(if is_answer {
                format!("output limit of {}", size(limits.output_bytes))
            } else {
                format!("limit of {} for one call of a host function", size(limits.handed_bytes()))
            })
        }
        text if text.contains("handle limit exceeded") => Some(handles_limit()),
        text if text.contains("requested len") => Some(random_limit()),
        // The memory that an instance begins with goes through the same meter as its growth.
        _ if error.is::<I32Exit>() || !guest.began => guest.meter.refused.clone(),
        _ => None,
    }
}

fn handles_limit() -> String {
    format!("limit of {HANDLES_MAX} handles at once")
}

fn random_limit() -> String {
    format!("limit of {} KiB of random bytes at once", RANDOM_BYTES_MAX / 1024)
}

/// Tells whether a Rust guest wrote that it panicked. When an allocation fails, it writes something else.
fn panicked(guest: &Guest) -> bool {
    guest.tail.text().contains("panicked at")
}

fn trapped(trap: Trap, error: &wasmtime::Error, guest: &Guest) -> String {
    if trap == Trap::UnreachableCodeReached {
        // The text of a panic hook explains the most; a guest without one writes nothing.
        return match last_words(&guest.tail.text()) {
            Some(words) => format!("it panicked or aborted: {words}"),
            None => {
                "it panicked or aborted (`unreachable` was executed), and wrote nothing to stderr".to_owned()
            }
        };
    }
    let what = trap.to_string();
    let what = what.strip_prefix("wasm trap: ").unwrap_or(&what);
    match function(error) {
        Some(name) => format!("trap: {what}, in `{}`", text::clean(&name, TEXT_BYTES_MAX)),
        None => format!("trap: {what}"),
    }
}

/// Returns the function that trapped, where the module has names.
fn function(error: &wasmtime::Error) -> Option<String> {
    let trace = error.downcast_ref::<WasmBacktrace>()?;
    trace.frames().first()?.func_name().map(str::to_owned)
}

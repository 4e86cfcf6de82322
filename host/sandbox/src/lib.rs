//! The sandbox: WebAssembly components that filter, decide and transform, one fresh instance for each delivery; and
//! programs, which `waypost_handlers` runs.
//!
//! This is the only crate that names wasmtime. It knows modules, calls and limits, and depends neither on the store
//! nor on HTTP targets: `waypost_engine::modules` keeps uploads, and `waypost_engine::delivery` makes calls.
//!
//! [`Host`] composes parts that do not know it:
//!
//! - `artefacts`: machine code on disk, with a keyed hash. `compile`: from wasm to machine code, in a child process with
//!   limits (`child` is the service's side of it, `worker` the child's, which checks the `structure` first).
//! - `runner`: the `engine`, its threads, and the permits of users. `call` is what goes in and out, `instance` a fresh
//!   instance, which `steps` asks interface by interface; `schedule` decides which guest runs next, `timer` measures
//!   time, `output` and `headers` check the result, `failure` explains why there is none.
//! - `command`: programs, which have a folder, run for longer, and share with plugins how they are compiled and kept.
//! - `outline`, `offers`, `report`: what a module exports and imports, and whether it is accepted. `metadata` and
//!   `configuration`: what it says about itself, and about its configuration. `refusals`: what exceeded a limit lately.
//! - `component`: a module that is ready to be instantiated. `guest`: what a call's store holds: `imports` (`logs`, config,
//!   `state`), `http` and its client `web`, `stdio`; `meter` limits its memory, by the numbers of `limits`.
//!
//! # What a plugin cannot do
//!
//! It has no files, environment, arguments or sockets; HTTP goes to its subscription's `allow_hosts` only, and to
//! addresses that are public or that the operator opened. It cannot exceed its limits of time, memory, output and logs
//! ([`Limits`]): the call ends with the limit's name, except that log lines over the limit are dropped and counted.
//! Only `state` survives a call, and only if the call succeeded.
//!
//! # What is absent
//!
//! Fuel: the clock is the limit, so the same call may end at another instruction. Reuse of instances: each call starts
//! fresh. Retries, breakers and reactions to failures, which are `waypost_engine::delivery`'s. Redirects, which a guest
//! follows itself; each hop is checked. Threads, GC and async components, which are not compiled in.

#![cfg_attr(not(feature = "wasm"), allow(dead_code, reason = "only the sandbox uses the rest"))]

mod call;
mod error;
mod limits;
mod problem;
mod program;
mod settings;
mod state;
mod text;

#[cfg(feature = "wasm")]
mod wasm;

#[cfg(not(feature = "wasm"))]
mod absent;

#[cfg(not(feature = "wasm"))]
pub use absent::{Command, Host, Plugin};
pub use call::{Call, CallResult, Purpose, Steps};
pub use error::{Error, Refused};
pub use limits::Limits;
pub use problem::Problem;
pub use program::{CommandCall, CommandEnd, CommandLimits};
pub use settings::{CompileLimits, CompilerProcess, Settings};
pub use state::State;
pub use text::last_words;
#[cfg(feature = "wasm")]
pub use wasm::{Allowance, Command, Host, Plugin, Task, compile_main};

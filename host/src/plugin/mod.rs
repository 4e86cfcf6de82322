//! The sandbox: WebAssembly components that filter, decide and transform, one fresh instance for each delivery; and
//! programs, which [`crate::handler`] runs.
//!
//! This is the only module that names wasmtime. It has modules, calls and limits, and depends neither on the store nor
//! on HTTP targets: [`crate::modules`] keeps uploads, and [`crate::delivery`] calls.
//!
//! - `engine`: how wasm is compiled and where it runs: the pool, the threads, the one ticker.
//! - `outline`: what a component exports and imports, before it is compiled.
//! - `queues`: the permits to use a child process. `compile`, `child`, `worker`, `structure`, `artefacts`: from wasm to
//!   machine code in a child process with limits, and a cache of it on disk.
//! - `loaded`, `report`, `offered`, `metadata`, `configuration`: a component that is ready to be instantiated, what is
//!   known of it, and what it says about itself and its configuration.
//! - `run`: one call, from a fresh store to a [`PluginRun`](crate::domain::plugin::PluginRun). `course` asks the
//!   interfaces in order, `schedule` decides which guest runs next, `timer` measures time, `output` and `headers` check
//!   the result, `ending` explains why there is none.
//! - `guest`: what a call's store holds: `imports` (`logs`, config, `state`), `http` (`web`, `addresses`), `stdio`,
//!   `limits`.
//! - `command`: programs, which have a folder, run for longer, and share with plugins how they are compiled and kept.
//!
//! # What a plugin cannot do
//!
//! It has no files, environment, arguments or sockets; HTTP goes to its subscription's `allow_hosts` only, and to
//! addresses that are public or that the operator opened. It cannot outlast its time, outgrow its memory, or say more
//! than its output and log limits: each ends the call with the limit's name ([`Limits`]), but log lines, which are
//! dropped and counted. Nothing survives a call but `state`, and that only when the call succeeded.
//!
//! # What is absent
//!
//! Fuel: the clock is the limit, so the same call may end at another instruction. Reuse of instances: each call starts
//! fresh. Retries, breakers and reactions to failures, which are [`crate::delivery`]'s. Redirects, which a guest follows
//! itself, hop by hop, each asked about. Threads, GC and async components, which are not compiled in.

mod artefacts;
mod bindings;
mod child;
mod command;
mod compile;
mod configuration;
mod course;
mod ending;
mod engine;
mod error;
mod guest;
mod headers;
mod host;
mod http;
mod imports;
mod limits;
mod loaded;
mod logs;
mod metadata;
mod offered;
mod outline;
mod output;
mod queues;
mod report;
mod run;
mod schedule;
mod state;
mod stdio;
mod structure;
#[cfg(test)]
mod tests;
mod text;
mod timer;
mod web;
mod worker;

pub use command::{Command, CommandCall, CommandEnd, CommandLimits};
pub use compile::{CompileLimits, Compiler};
pub use configuration::Problem;
pub use ending::last_words;
pub use error::{Error, Refused};
pub use host::{Host, Settings};
pub use limits::Limits;
pub use loaded::Plugin;
pub use run::{Call, CallResult, Purpose, Steps};
pub use state::State;
pub use worker::{Allowance, Task, compile_main};

//! The sandbox itself: all that needs wasmtime. See the crate's documentation for its parts.

mod artefacts;
mod bindings;
mod child;
mod command;
mod compile;
mod component;
mod configuration;
mod engine;
mod failure;
mod guest;
mod headers;
mod host;
mod http;
mod imports;
mod instance;
mod logs;
mod metadata;
mod meter;
mod offers;
mod outline;
mod output;
mod refusals;
mod report;
mod runner;
mod schedule;
mod stdio;
mod steps;
mod structure;
#[cfg(test)]
mod tests;
mod timer;
mod web;
mod worker;

use super::{call, error, limits, problem, program, settings, state, text};

pub use command::Command;
pub use component::Plugin;
pub use host::Host;
pub use worker::{Allowance, Task, compile_main};

//! Shared by all tests: the binary as a process, a REST client, a scripted target, bounded waiting.

mod accept;
mod api;
mod authority;
mod browser;
mod events;
mod process;
mod raw;
mod raw_target;
mod server;
mod target;
mod wait;

pub(crate) use accept::{accept, serve_each};
pub(crate) use api::{Api, Reply};
pub(crate) use authority::{Authority, Pair};
pub(crate) use browser::Browser;
pub(crate) use events::{event, event_1_0, merged};
pub(crate) use process::{Output, Process, WAYPOST, run, run_in};
pub(crate) use raw::RawConnection;
pub(crate) use raw_target::{Act, RawTarget};
pub(crate) use server::{Launch, Server};
pub(crate) use target::{Answer, Gate, Request, Reserved, Target};
pub(crate) use wait::wait_until;

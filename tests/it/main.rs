//! The end-to-end suite: the real binary, real sockets, a real redb file in a folder of its own for each test.
//!
//! Each file covers one topic; `harness` has what they share. Only `embed`, `supervise`, and parts of `handlers` and
//! `secrets` import the library: the rest uses only REST and the command line, like a client.
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test, which is the point")]

mod harness;

mod packed;
mod receive;
mod subscriptions;

mod delivery;
mod described;
mod explain;
mod filters;
mod flow;
mod guarding;
mod handlers;
mod isolation;
mod jobs;
mod mutual_tls;
mod operator;
mod ordering;
mod outgoing;
mod plugins;
mod policy;
mod recover;
mod retrying;
mod secrets;
mod sending;
mod signing;
mod speaking;

mod pages;

mod connections;
mod crash;
mod disk_full;
mod disk_limit;
mod tail;
mod tls;
// The writer's panic is an overflowing addition, which only a debug build checks.
#[cfg(debug_assertions)]
mod dying;
mod faults;
mod ledger;
mod limits;
mod lists;
mod nested;

mod supervise;

mod cli;
mod embed;
mod story;

mod access;
mod walk;

//! The `waypost` command: one file for each command, all of them users of the library.

mod client;
mod compile;
mod config;
mod db;
mod docs;
mod event;
mod explanation;
mod handler;
mod input;
mod job;
mod listen;
mod logged;
mod match_;
mod plugin;
mod pretty;
mod print;
mod recover;
mod send;
mod serve;
mod settings;
mod story;
mod supervise;
mod telemetry;
mod token;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// With the system's allocator, allocation takes a quarter of the time of a small event.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bad usage and bad settings; clap ends with the same code.
const EXIT_USAGE: u8 = 2;

/// Routes CloudEvents: filters decide who wants them, policy who may have them, and a durable queue sees them arrive.
#[derive(Debug, Parser)]
#[command(name = "waypost", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
A first session, each in a terminal of its own:
  waypost serve                  the router, with its data in ./waypost-data
  waypost listen                 a receiver that shows what it gets
  curl localhost:8070/eventmatch -H 'Content-Type: application/json' \\
    -d '{\"name\":\"all\",\"jsonpath\":\"$\",\"target_url\":\"http://127.0.0.1:8071/\"}'
  waypost send event.json        an event; prints its id
  waypost event get              what became of it";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Listen(listen::Arguments),
    Send(send::Arguments),
    Match(match_::Arguments),
    Recover(recover::Arguments),
    Redeliver(job::Redeliver),
    Discard(job::Discard),
    #[command(subcommand)]
    Plugin(plugin::Command),
    #[command(subcommand)]
    Handler(handler::Command),
    #[command(subcommand)]
    Event(event::Command),
    #[command(subcommand)]
    Token(token::Command),
    #[command(subcommand)]
    Config(config::Command),
    #[command(subcommand)]
    Db(db::Command),
    Docs(docs::Arguments),
    #[command(hide = true)]
    Compile(compile::Arguments),
}

/// Runs the command of this process, and reports a failure on stderr. Wrong usage ends the process at once.
fn main() -> ExitCode {
    run().unwrap_or_else(|error| fail(&error))
}

fn run() -> anyhow::Result<ExitCode> {
    if let Some(arguments) = supervise::asked() {
        return Ok(supervise::run(arguments));
    }
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Listen(arguments) => wait(listen::run(arguments)),
        Command::Send(arguments) => wait(send::run(arguments)),
        Command::Match(arguments) => match_::run(arguments),
        Command::Recover(arguments) => wait(recover::run(arguments)),
        Command::Redeliver(arguments) => wait(job::redeliver(arguments)),
        Command::Discard(arguments) => wait(job::discard(arguments)),
        Command::Plugin(command) => plugin::run(command),
        Command::Handler(command) => handler::run(command),
        Command::Event(command) => wait(event::run(command)),
        Command::Token(command) => wait(token::run(command)),
        Command::Config(command) => config::run(command),
        Command::Db(command) => db::run(command),
        Command::Docs(arguments) => docs::run(arguments),
        Command::Compile(arguments) => Ok(compile::run(arguments)),
    }
}

/// Prints why the command failed, once, and chooses the exit code.
fn fail(error: &anyhow::Error) -> ExitCode {
    if let Some(print::Error::Closed) = error.downcast_ref() {
        // The reader has closed the pipe, as in `waypost event get | head`.
        return ExitCode::SUCCESS;
    }
    print::notice(&format!("error: {error:#}"));
    if error.is::<waypost::config::Error>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
}

/// Returns this program, to be run for what has a process of its own. On Linux that stays the one that runs, also when
/// another was installed in its place: machine code would not fit that one.
fn own_program() -> Option<PathBuf> {
    if cfg!(target_os = "linux") { Some("/proc/self/exe".into()) } else { std::env::current_exe().ok() }
}

/// Runs a client's command: one thread is enough.
fn wait(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("failed to start the runtime")?.block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }
}

//! `waypost plugin`: for authors of plugins, from an empty folder to a subscription.
//!
//! `new` writes a project. `check`, `run` and `test` run a module locally, in the same sandbox as the server. `push`
//! and `replay` talk to a running Waypost.

mod case;
mod check;
mod compare;
mod given;
mod grants;
mod new;
mod push;
mod replay;

mod report;
mod run;
mod shown;
mod state;
mod templates;
mod test;
mod trial;
mod units;

use std::process::ExitCode;

use clap::Subcommand;

use crate::wait;

/// Write, try, test and upload plugins
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    New(new::Arguments),
    Check(check::Arguments),
    Run(run::Arguments),
    Test(test::Arguments),
    Push(push::Arguments),
    Replay(replay::Arguments),
}

const EXAMPLES: &str = "\
From nothing to a filter that runs:
  waypost plugin new big-files
  cd big-files
  cargo build --release --target wasm32-wasip2
  waypost plugin test target/wasm32-wasip2/release/big_files.wasm cases.json
  waypost plugin push target/wasm32-wasip2/release/big_files.wasm --subscription UUID";

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::New(arguments) => new::run(&arguments),
        Command::Check(arguments) => wait(check::run(arguments)),
        Command::Run(arguments) => wait(run::run(arguments)),
        Command::Test(arguments) => wait(test::run(arguments)),
        Command::Push(arguments) => wait(push::run(arguments)),
        Command::Replay(arguments) => wait(replay::run(arguments)),
    }
}

//! `waypost handler`: for operators, to see and try the programs that their configuration names.

mod event;
mod list;
mod progress;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use waypost::config::{self, Config, Sources};

use crate::cli::wait;

/// See and try the handlers of the configuration: programs that run on events' data files
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  waypost handler list --config waypost.toml
  waypost handler run sha512sum --config waypost.toml --event event.json --data ./files")]
pub(super) enum Command {
    Event(event::Arguments),
    List(list::Arguments),
    Run(run::Arguments),
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Event(arguments) => event::run(&arguments),
        Command::List(arguments) => list::run(&arguments),
        Command::Run(arguments) => wait(run::run(arguments)),
    }
}

/// Where the handlers are.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Source {
    /// The configuration with the handlers [env: WAYPOST_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Source {
    fn load(&self) -> Result<Config, config::Error> {
        let mut sources = Sources::from_environment(std::env::vars_os())?;
        sources.file = self.config.clone().or(sources.file);
        Config::load(sources)
    }
}

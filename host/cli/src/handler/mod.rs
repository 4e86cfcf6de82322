//! `waypost handler`: lets operators see and try the programs that their configuration names.

mod event;
mod list;
mod progress;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use uuid::Uuid;
use waypost::config::{self, Config, Loaded, Note, Sources};
use waypost_domain::EventId;
use waypost_handlers::Deps;
use waypost_handlers::upload::Refusal;
use waypost_sandbox::{CompilerProcess, Host, Settings};

use crate::{own_program, print, wait};

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
        Command::List(arguments) => wait(list::run(arguments)),
        Command::Run(arguments) => wait(run::run(arguments)),
    }
}

/// The configuration that names the handlers.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// The configuration with the handlers [env: WAYPOST_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Source {
    fn load(&self) -> Result<Config, config::Error> {
        let mut sources = Sources::from_environment(std::env::vars_os())?;
        sources.file = self.config.clone().or(sources.file);
        let Loaded { config, notes, .. } = Loaded::from(sources)?;
        for note in notes {
            match note {
                Note::Skipped { path } => print::notice(&format!(
                    "warning: {} is a copy, and not used as a handler",
                    path.display()
                )),
                // Only of interest in the service's log.
                Note::Foreign { .. } => {}
            }
        }
        Ok(config)
    }
}

/// Returns what handlers need outside a service. Compiled components are kept in the folder `runs`.
fn deps(config: &Config, runs: &Path) -> Deps {
    let program = config.plugin_compiler.clone().or_else(own_program);
    let (compiler, folder) = (program.clone().map(CompilerProcess::Program), runs.join("compiled"));
    let settings = Settings { compiler, folder, ..config.sandbox(Arc::new(config.guard())) };
    Deps {
        host: Arc::new(Host::new(settings)),
        waypost: program.map(Into::into),
        connect_timeout: config.connect_timeout,
        accept: Arc::new(|event, _sender| {
            Box::pin(async move {
                let json = String::from_utf8_lossy(&event.json()).into_owned();
                print::json_text(&json).map_err(|error| Refusal::Other(error.to_string()))?;
                Ok(EventId::from_uuid(Uuid::nil()))
            })
        }),
    }
}

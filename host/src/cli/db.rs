//! `waypost db check` and `waypost db sync`: the database's schema, while no server runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, Sources};
use crate::store::redb::{self, CheckReport};
use clap::Subcommand;

use crate::cli::print;

/// Look at the database, or create or migrate it, while no server runs
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the schema version without changing anything; exit 0 when this waypost can use it, else 1
    Check {
        #[command(flatten)]
        data: Data,
        /// Also exit 1 when the schema is older than this waypost's and would be migrated
        #[arg(long)]
        equal: bool,
    },
    /// Create the database, or migrate it to this waypost's schema
    Sync {
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Data {
    /// The folder with the database [env: WAYPOST_DATA] [default: ./waypost-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Data {
    /// Returns the folder that `waypost serve` would use with the same flag.
    fn folder(self) -> anyhow::Result<PathBuf> {
        let mut sources = Sources::from_environment(std::env::vars_os())?;
        let flag = self.data.map(|data| ("data".to_owned(), data.to_string_lossy().into_owned()));
        sources.flags = flag.into_iter().collect::<BTreeMap<_, _>>();
        Ok(Config::load(sources)?.data)
    }
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { data, equal } => check(&redb::check(&data.folder()?)?, equal),
        Command::Sync { data } => sync(&redb::sync(&data.folder()?)?),
    }
}

fn check(checked: &CheckReport, equal: bool) -> anyhow::Result<ExitCode> {
    let CheckReport { found, current } = *checked;
    let (sentence, good) = match found {
        Some(found) if found == current => (format!("the schema is current (version {found})"), true),
        Some(found) => {
            (format!("the schema has version {found}; `waypost db sync` migrates it to {current}"), !equal)
        }
        None => ("the database is empty; `waypost db sync` creates the schema".to_owned(), !equal),
    };
    print::line(format_args!("{sentence}"))?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sync(before: &CheckReport) -> anyhow::Result<ExitCode> {
    let CheckReport { found, current } = *before;
    let sentence = match found {
        Some(found) if found == current => format!("the schema is current already (version {found})"),
        Some(found) => format!("the schema is migrated from version {found} to {current}"),
        None => format!("the schema is created (version {current})"),
    };
    print::line(format_args!("{sentence}"))?;
    Ok(ExitCode::SUCCESS)
}

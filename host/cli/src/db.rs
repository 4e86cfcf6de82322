//! `waypost db`: the database's schema and its master key, while no server runs; and the room that it takes, while one does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use reqwest::{Method, Url};
use waypost::config::{Config, Sources};
use waypost_api::v1;
use waypost_store::redb::{self, CheckReport, Rekeyed, Rekeying, Resealed};

use crate::client::{Client, DEFAULT_SERVER, Identity};
use crate::{print, wait};

/// Check, create or migrate the database, replace its master key, or make its file smaller
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the file and its schema version without changing anything; exit 0 if this waypost can use it, else 1
    ///
    /// Reads the whole file, to find damage of the disk, and takes about a second for each gigabyte.
    Check {
        #[command(flatten)]
        data: Data,
        /// Also exit 1 if the schema does not exist yet, or is older than this waypost's and would be migrated
        #[arg(long)]
        equal: bool,
    },
    /// Create the database, or migrate it to this waypost's schema
    Sync {
        #[command(flatten)]
        data: Data,
    },
    /// Give back the disk space that the database of a running server does not need
    ///
    /// Requests and deliveries wait meanwhile, about six seconds for each gigabyte that is left. Only an admin may do it.
    Compact(Compact),
    /// Seal all secrets with another master key, all or nothing; run it again if it was killed
    Rekey {
        #[command(flatten)]
        data: Data,
        /// A file with the new key, in base64 [default: a new key]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Keep the old keys in the key file, for entries of a journal that are sealed with them
        #[arg(long)]
        keep_old_keys: bool,
        /// Disable the subscriptions whose secrets are sealed with a lost key
        #[arg(long)]
        give_up_lost_secrets: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Compact {
    /// The Waypost to ask
    #[arg(long = "server", value_name = "URL", default_value = DEFAULT_SERVER)]
    url: Url,
    #[command(flatten)]
    identity: Identity,
}

#[derive(Debug, clap::Args)]
pub(super) struct Data {
    /// The folder with the database [env: WAYPOST_DATA] [default: ./waypost-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The file with the master key [env: WAYPOST_MASTER_KEY_FILE] [default: master.key in the folder]
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<PathBuf>,
}

impl Data {
    /// Returns the settings that `waypost serve` would use with the same flags.
    fn config(self) -> anyhow::Result<Config> {
        let mut sources = Sources::from_environment(std::env::vars_os())?;
        let flags = [("data", self.data), ("master_key_file", self.master_key_file)];
        let given = flags.into_iter().filter_map(|(name, path)| Some((name.to_owned(), path?)));
        sources.flags =
            given.map(|(name, path)| (name, path.to_string_lossy().into_owned())).collect::<BTreeMap<_, _>>();
        Ok(Config::load(sources)?)
    }
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { data, equal } => check(&redb::check(&data.config()?.data)?, equal),
        Command::Sync { data } => {
            let config = data.config()?;
            sync(&redb::sync(&config.data, &config.key_file())?)
        }
        Command::Compact(arguments) => wait(compact(arguments)),
        Command::Rekey { data, key, keep_old_keys, give_up_lost_secrets } => {
            let config = data.config()?;
            let rekeying =
                Rekeying { new: key, keeps_old: keep_old_keys, gives_up_lost: give_up_lost_secrets };
            let rekeyed = redb::rekey(&config.data, &config.key_file(), &rekeying)?;
            tell_rekeyed(&rekeyed, &config)
        }
    }
}

async fn compact(Compact { url, identity }: Compact) -> anyhow::Result<ExitCode> {
    let client = Client::new(url, &identity, "--server")?;
    let asked = client.request(Method::POST, &["db", "compact"]);
    let v1::Compaction { before, after } = client.json_in_time(asked).await?;
    print::line(format_args!("the database took {before} bytes of the disk, and takes {after}"))?;
    Ok(ExitCode::SUCCESS)
}

fn check(checked: &CheckReport, equal: bool) -> anyhow::Result<ExitCode> {
    let CheckReport { found, current, is_last_commit_torn } = *checked;
    let pages = match is_last_commit_torn {
        true => {
            "the last commit is not whole, as after a power cut: the next start goes back to the one before it"
        }
        false => "every page of the file is as it was written",
    };
    print::line(format_args!("{pages}"))?;
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
    let CheckReport { found, current, .. } = *before;
    let sentence = match found {
        Some(found) if found == current => format!("the schema is already current (version {found})"),
        Some(found) => format!("migrated the schema from version {found} to {current}"),
        None => format!("created the schema (version {current})"),
    };
    print::line(format_args!("{sentence}"))?;
    Ok(ExitCode::SUCCESS)
}

fn tell_rekeyed(rekeyed: &Rekeyed, config: &Config) -> anyhow::Result<ExitCode> {
    let Rekeyed { key, secrets: Resealed { sealed, disabled, damaged } } = *rekeyed;
    let file = config.key_file().path();
    print::line(format_args!(
        "the master key is {key} now, in {}; secrets sealed with it: {sealed}",
        file.display()
    ))?;
    if disabled > 0 {
        print::line(format_args!("subscriptions disabled because the key of a secret is lost: {disabled}"))?;
    }
    if damaged > 0 {
        print::line(format_args!("damaged secrets, left as they are: {damaged}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

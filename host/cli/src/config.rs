//! `waypost config show` and `check`: what a server would run with, and whether a file is right.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Url;
use waypost::config::{KEYS, Key, Loaded, Sources};
use waypost_net::without_credentials;

use crate::print;
use crate::settings::Settings;

/// Show the settings that a server would have, or check a configuration file
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show every setting with its origin, as a configuration file; credentials are left out
    #[command(after_help = "Takes the file, the variables and the flags that `waypost serve` takes.")]
    Show {
        /// A TOML file with settings [env: WAYPOST_CONFIG]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Check a configuration file, alone: exit 0 if `waypost serve` can read it, else 2
    Check {
        /// The file
        file: PathBuf,
    },
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Show { config, settings } => {
            let mut sources = Sources::from_environment(std::env::vars_os())?;
            sources.file = config.or(sources.file);
            sources.flags = settings.0;
            show(&Loaded::from(sources)?)?;
        }
        Command::Check { file } => {
            let loaded = Loaded::from(Sources { file: Some(file.clone()), ..Sources::default() })?;
            let (set, handlers) = (loaded.set.len(), loaded.config.handlers.len());
            print::line(format_args!(
                "{}: all right; settings: {set}, handlers: {handlers}",
                file.display()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(loaded: &Loaded) -> Result<(), print::Error> {
    let mut group = "";
    for key in KEYS {
        if key.group != group {
            if !group.is_empty() {
                print::line("")?;
            }
            print::line(format_args!("# {}", key.group))?;
            group = key.group;
        }
        print::line(line(key, loaded))?;
    }
    for handler in &loaded.config.handlers {
        print::line("")?;
        print::line(format_args!("# [[handler]] {}", handler.name))?;
    }
    Ok(())
}

/// Returns a setting's line: a comment where it has no value.
fn line(key: &Key, loaded: &Loaded) -> String {
    match (loaded.set.get(key.name), key.default) {
        (Some(set), _) => format!("{} = {}  # {}", key.name, toml(&without_secrets(&set.value)), set.origin),
        (None, "") => format!("# {} is not set", key.name),
        (None, default) => format!("{} = {}  # default", key.name, toml(default)),
    }
}

/// Returns a value without the credentials of a URL.
fn without_secrets(value: &str) -> String {
    match Url::parse(value) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => without_credentials(&url),
        Ok(_) | Err(_) => value.to_owned(),
    }
}

/// Returns a value as TOML has it: a whole number, or a string.
fn toml(value: &str) -> String {
    match value.parse::<u64>() {
        Ok(number) if number.to_string() == value => value.to_owned(),
        Ok(_) | Err(_) => toml::Value::String(value.to_owned()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_and_urls_lose_their_credentials() {
        assert_eq!([toml("8070"), toml("007"), toml("a\"b\\")], ["8070", "\"007\"", r#"'a"b\'"#]);
        assert_eq!(without_secrets("http://me:pa55@proxy.example:3128"), "http://proxy.example:3128/");
        assert_eq!(without_secrets("127.0.0.1:8070"), "127.0.0.1:8070");
    }
}

//! Errors of reading and checking the settings.

use std::path::PathBuf;

/// Why the settings were refused. Each message says where the setting came from and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file cannot be read, or is not TOML.
    #[error("failed to read the configuration file {path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such key.
    #[error("unknown key `{key}` in {origin}{}", suggestion(*nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it was found.
        origin: String,
        /// The known key that was probably meant, if there is one.
        nearest: Option<&'static str>,
    },
    /// The key was removed.
    #[error("`{key}` in {origin} is no longer a setting: {instead}")]
    Retired {
        /// The key.
        key: String,
        /// Where it was found.
        origin: String,
        /// What to write in its place.
        instead: &'static str,
    },
    /// An environment variable is not UTF-8.
    #[error("the environment variable {0} is not UTF-8")]
    NotUnicode(String),
    /// A value is wrong.
    #[error("bad `{key}` in {origin}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// Where it was found.
        origin: String,
        /// What was expected, and what was found.
        reason: String,
    },
}

/// An invalid setting in a [`Config`](super::Config) that a program built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad `{key}`: {reason}")]
pub struct Invalid {
    /// The setting's key, as in a configuration file.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(key) => format!("; did you mean `{key}`?"),
        None => "; `waypost serve --help` lists all keys".to_owned(),
    }
}

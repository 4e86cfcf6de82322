//! What can be wrong with a key file, and with a sealed secret.

use std::io;
use std::path::PathBuf;

use super::KeyId;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is not there.
    #[error(
        "there is no master key {path} (the setting master_key_file): put the key back that the secrets are sealed with, \
         or make a new one with `openssl rand -base64 32`", path = path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("failed to read the master key {} (the setting master_key_file)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("failed to write the master key {} (the setting master_key_file)", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It holds something else than keys.
    #[error(
        "line {line} of the master key {path} (the setting master_key_file) is no key: expected the base64 of 32 random \
         bytes, as `openssl rand -base64 32` makes it", path = path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// It holds no key.
    #[error("the master key {} (the setting master_key_file) is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Why a sealed secret cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is sealed with another key.
    #[error(
        "it is sealed with the master key {sealed_with}, and {file} (the setting master_key_file) has {known}"
    )]
    OtherKey {
        /// The key that it needs.
        sealed_with: KeyId,
        /// The keys that there are.
        known: String,
        /// Where they are from.
        file: String,
    },
    /// Its bytes were changed, or it was sealed for something else.
    #[error("it is damaged, or was sealed for something else than `{0}`")]
    Damaged(&'static str),
}

//! Why a store cannot be opened.

use std::path::{Path, PathBuf};

use redb::{DatabaseError, StorageError};

use super::handle::Fault;
use super::schema::SCHEMA_VERSION;
use crate as store;
use waypost_domain::KeyId;
use waypost_secrets::{self as secrets, KeyFileError, SealedFileError};

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A secret of the service itself cannot be sealed with another key.
    #[error("failed to seal a secret of the service again")]
    File(#[source] SealedFileError),
    /// The data folder cannot be made.
    #[error("failed to create the data folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file cannot be made.
    #[error("failed to create {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has the file open.
    #[error(
        "another process already uses {}: stop it, or choose another folder with --data",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("there is no database at {}: `waypost db sync` or `waypost serve` creates one", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file has been written by a newer Waypost.
    #[error(
        "{} has schema version {found}, this waypost knows versions up to {SCHEMA_VERSION}: use a newer waypost",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u64,
    },
    /// The file is a redb database, but not Waypost's.
    #[error("{} is a redb database of another program: choose another folder with --data", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A record that is needed at the start cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: store::Error,
    },
    /// The journal was begun with other settings.
    #[error("the journal was begun with {found}, and this process has {wanted}: all need the same")]
    Settings {
        /// What it was begun with.
        found: String,
        /// What this process has.
        wanted: String,
    },
    /// The master key cannot be used.
    #[error(transparent)]
    Key(KeyFileError),
    /// The master key is not there.
    #[error(
        "the secrets in {path} are sealed with the master key {sealed_with}, and there is no {key} (the setting \
         master_key_file): put the key there; if it is lost, `waypost db rekey --give-up-lost-secrets` starts without them",
        path = path.display(), key = key.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
        /// Which key it needs.
        sealed_with: KeyId,
        /// Where the key should be.
        key: PathBuf,
    },
    /// The master key is another one.
    #[error(
        "a secret in {} cannot be opened: put the right key there; if it is lost, `waypost db rekey \
         --give-up-lost-secrets` goes on without the secrets", path.display()
    )]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// Which key it needs, and which there is.
        source: secrets::OpenError,
    },
    /// The writer's thread cannot be started.
    #[error("failed to start the store's writer")]
    Thread {
        /// Why not.
        source: std::io::Error,
    },
    /// A page of the storage engine is damaged.
    #[error("{}", damaged(path, reason))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The storage engine could not open the file.
    #[error("failed to open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<redb::Error>,
    },
}

impl OpenError {
    /// Makes the error of a transaction on a file that is being opened.
    pub(super) fn of(path: &Path, fault: Fault) -> Self {
        let path = path.to_owned();
        match fault {
            Fault::Redb(source) => match *source {
                redb::Error::Corrupted(reason) => Self::Damaged { path, reason },
                other => Self::Open { path, source: Box::new(other) },
            },
            fault @ (Fault::Damaged { .. } | Fault::Closed(_)) => Self::Read { path, source: fault.into() },
        }
    }
}

/// Says that a file is damaged, and what to do.
pub(super) fn damaged(path: &Path, reason: &str) -> String {
    format!(
        "{} is damaged ({reason}), and no part of it can be trusted: look at the disk and the memory of this machine, keep a \
         copy of the file, and put a backup of the data folder in its place",
        path.display()
    )
}

pub(super) fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        DatabaseError::Storage(StorageError::Corrupted(reason)) => OpenError::Damaged { path, reason },
        other => OpenError::Open { path, source: Box::new(other.into()) },
    }
}

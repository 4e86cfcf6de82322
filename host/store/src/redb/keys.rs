//! The master key of a file: found or made when the file is opened, and exchanged for another one.

use std::path::{Path, PathBuf};

use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableError};

use super::handle::{self, FILE_NAME, Fault, Handle};
use super::migrate;
use super::open_error::OpenError;
use super::record;
use super::registry::SUBSCRIPTIONS;
use super::rewrite::{Resealed, rewrite};
use waypost_domain::KeyId;
use waypost_secrets::{self as secrets, KeyFile, KeyFileError, Vault};

/// Returns the vault of a file. A key that nothing needs yet is made, unless the operator has named another place for it.
pub(super) fn vault(key: &KeyFile, path: &Path, database: &Database) -> Result<Vault, OpenError> {
    let unknown = |vault: Option<&Vault>| {
        let found = database.begin_read().map_err(Fault::from).and_then(|txn| unknown_key(&txn, vault));
        found.map_err(|fault| OpenError::of(path, fault))
    };
    match Vault::load(&key.path()) {
        Ok(vault) => match unknown(Some(&vault))? {
            None => Ok(vault),
            Some(other) => Err(OpenError::OtherKey { path: path.to_owned(), source: vault.other_key(other) }),
        },
        Err(KeyFileError::Missing { path: missing }) => match (unknown(None)?, key) {
            (Some(sealed_with), _) => {
                Err(OpenError::NoKey { path: path.to_owned(), sealed_with, key: missing })
            }
            (None, KeyFile::In(_)) => create(&missing),
            (None, KeyFile::At(_)) => Err(OpenError::Key(KeyFileError::Missing { path: missing })),
        },
        Err(error) => Err(OpenError::Key(error)),
    }
}

fn create(path: &Path) -> Result<Vault, OpenError> {
    let vault = Vault::create(path).map_err(OpenError::Key)?;
    tracing::info!(path = %path.display(), key = %vault.key(), "a master key is made: keep a copy of it apart from the data");
    Ok(vault)
}

/// Returns a key that a secret in the file is sealed with, and that the vault does not have. Records that cannot be read
/// need none.
pub(super) fn unknown_key(txn: &ReadTransaction, vault: Option<&Vault>) -> Result<Option<KeyId>, Fault> {
    let rows = match txn.open_table(SUBSCRIPTIONS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        opened => opened?,
    };
    let is_unknown = |key: &KeyId| vault.is_none_or(|vault| !vault.has(*key));
    for row in rows.iter()? {
        let Ok(stored) = record::decode_subscription(row?.1.value()) else { continue };
        let keys = stored.subscription.secrets().into_iter().filter_map(|(_, sealed)| sealed.key());
        if let Some(unknown) = keys.into_iter().find(is_unknown) {
            return Ok(Some(unknown));
        }
    }
    Ok(None)
}

/// How the master key is exchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rekeying {
    /// A file with the new key; `None` makes one.
    pub new: Option<PathBuf>,
    /// Whether the old keys stay in the key file: entries of a journal, and the files of others who have joined it, may
    /// need them.
    pub keeps_old: bool,
    /// Whether secrets whose key is lost are given up. Otherwise nothing is done while there are any.
    pub gives_up_lost: bool,
}

/// What an exchange of the master key has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rekeyed {
    /// The key that seals the secrets now.
    pub key: KeyId,
    /// What has become of the secrets.
    pub secrets: Resealed,
}

/// Seals all secrets of the store in `folder` with another master key, and brings its schema up to date. No server may
/// run. Blocks.
///
/// First the new key stands beside the old ones in the key file, then the file is written anew and takes the old one's
/// place, and at last the old keys leave the key file. So whatever a process that was killed leaves can be opened; the
/// next call goes on with the same new key.
///
/// # Errors
/// As for opening. Nothing has changed then but the key file, which may have the new key besides.
pub fn rekey(folder: &Path, key: &KeyFile, rekeying: &Rekeying) -> Result<Rekeyed, OpenError> {
    let path = folder.join(FILE_NAME);
    if !path.exists() {
        return Err(OpenError::Missing { path });
    }
    if !rekeying.gives_up_lost {
        // It checks that there are all keys.
        drop(Handle::open(folder, key)?);
    }
    let database = handle::database(&path)?;
    // Only a file with sealed secrets may have lost their key.
    let Some(found @ migrate::SEALED..) = handle::schema_of(&path, &database)? else {
        drop(database);
        return rekey(folder, key, &Rekeying { gives_up_lost: false, ..rekeying.clone() });
    };
    let vault = match Vault::load(&key.path()) {
        Err(KeyFileError::Missing { path }) if rekeying.gives_up_lost => create(&path)?,
        loaded => loaded.map_err(OpenError::Key)?,
    };
    let mut vault = vault.with_new_key(rekeying.new.as_deref()).map_err(OpenError::Key)?;
    let (database, resealed) = rewrite(&path, database, &vault, |txn| migrate::bring_up_to_date(txn, found))?;
    drop(database);
    for file in secrets::file::FILES {
        file.reseal(folder, &vault, rekeying.gives_up_lost).map_err(OpenError::File)?;
    }
    if !rekeying.keeps_old {
        vault.forget_old_keys().map_err(OpenError::Key)?;
    }
    Ok(Rekeyed { key: vault.key(), secrets: resealed })
}

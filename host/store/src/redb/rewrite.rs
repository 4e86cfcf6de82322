//! Writing the whole file anew: a copy beside it, with all secrets sealed with the vault's key, takes its place.
//!
//! The engine reuses pages without erasing them: a file in which secrets were sealed in place might show them for years.
//! A copy has nothing but what is there now. It is all or nothing: until the copy gets the file's name, the file is as it
//! was, and a process that is killed leaves a copy that the next one removes. The copy needs room on the disk, about as
//! much as the file has.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
    TableHandle as _, Value, WriteTransaction,
};

use super::accounts::{self, USAGE};
use super::handle::{Fault, builder};
use super::migrate;
use super::open_error::{OpenError, open_error};
use super::record;
use super::registry::SUBSCRIPTIONS;
use super::schema::Tables;
use waypost_domain::{Activity, Secret, Subscription};
use waypost_runtime::clock;
use waypost_runtime::durable;
use waypost_secrets::{self as secrets, Label, Vault};

/// What the name of the copy ends with.
const COPY: &str = ".copy";
/// How often a long copy says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What has become of the secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// How many secrets were sealed with the vault's key.
    pub sealed: u64,
    /// How many subscriptions were disabled, because the key of a secret is lost.
    pub disabled: u64,
    /// How many secrets are damaged, and stay so.
    pub damaged: u64,
}

/// Writes the file at `path` anew, which `old` has open, and returns the new one. `finish` does what else there is to do
/// with it.
pub(super) fn rewrite(
    path: &Path,
    old: Database,
    vault: &Vault,
    finish: impl FnOnce(&WriteTransaction) -> Result<(), Fault>,
) -> Result<(Database, Resealed), OpenError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(COPY);
    let beside = path.with_file_name(name);
    let refused = |source| OpenError::Create { path: beside.clone(), source };
    remove(&beside).and_then(|()| durable::create_file(&beside)).map_err(refused)?;
    let written = write(&beside, &old, vault, finish).and_then(|new| {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::rename(&beside, path).and_then(|()| File::open(folder)?.sync_all()).map_err(refused)?;
        Ok(new)
    });
    if written.is_err()
        && let Err(error) = remove(&beside)
    {
        tracing::warn!(path = %beside.display(), %error, "an unfinished copy of the database stays");
    }
    // Until now, nobody else could open the file.
    drop(old);
    written
}

/// Removes what a killed process may have left.
fn remove(beside: &Path) -> io::Result<()> {
    match fs::remove_file(beside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn write(
    beside: &Path,
    old: &Database,
    vault: &Vault,
    finish: impl FnOnce(&WriteTransaction) -> Result<(), Fault>,
) -> Result<(Database, Resealed), OpenError> {
    let new = builder().create(beside).map_err(|error| open_error(beside, error))?;
    let copied = copy(old, &new, vault, finish);
    let resealed = copied.map_err(|fault| OpenError::of(beside, fault))?;
    Ok((new, resealed))
}

/// Copies everything in one transaction.
fn copy(
    old: &Database,
    new: &Database,
    vault: &Vault,
    finish: impl FnOnce(&WriteTransaction) -> Result<(), Fault>,
) -> Result<Resealed, Fault> {
    let (from, to) = (old.begin_read()?, new.begin_write()?);
    let mut copy = Copy { from: &from, to: &to, known: BTreeSet::new(), rows: 0, told: Instant::now() };
    // Usage follows from the other tables, and the secrets of subscriptions are to be sealed.
    copy.leave_out(USAGE);
    copy.leave_out(SUBSCRIPTIONS);
    Tables::copy(&mut copy)?;
    migrate::copy(&mut copy)?;
    copy.check()?;
    let resealed = subscriptions(&from, &to, vault)?;
    finish(&to)?;
    // The records of sealed secrets have other sizes.
    accounts::count_older(&mut Tables::open(&to)?)?;
    to.commit()?;
    Ok(resealed)
}

/// The tables of a file, on their way into another one.
pub(super) struct Copy<'a> {
    from: &'a ReadTransaction,
    to: &'a WriteTransaction,
    /// The names of the tables that were met.
    known: BTreeSet<String>,
    rows: u64,
    told: Instant,
}

impl Copy<'_> {
    /// Copies a table, if there is one and it is not left out.
    pub(super) fn table<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<(), redb::Error> {
        if !self.known.insert(table.name().to_owned()) {
            return Ok(());
        }
        let rows = match self.from.open_table(table) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            opened => opened?,
        };
        let mut copied = self.to.open_table(table)?;
        for row in rows.iter()? {
            let (key, value) = row?;
            copied.insert(key.value(), value.value())?;
            self.rows += 1;
            if self.told.elapsed() > TELL_EVERY {
                self.told = Instant::now();
                tracing::info!(rows = self.rows, table = table.name(), "writing the database anew");
            }
        }
        Ok(())
    }

    /// Leaves out a table that is made by other means.
    pub(super) fn leave_out<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'_, K, V>,
    ) {
        self.known.insert(table.name().to_owned());
    }

    /// Fails if there is a table that would be lost.
    fn check(&self) -> Result<(), Fault> {
        let mut tables = self.from.list_tables()?;
        match tables.find(|table| !self.known.contains(table.name())) {
            Some(table) => {
                let reason = format!("it has a table `{}`, which this waypost does not know", table.name());
                Err(Fault::Closed(reason))
            }
            None => Ok(()),
        }
    }
}

/// Copies the subscriptions, with their secrets sealed.
fn subscriptions(from: &ReadTransaction, to: &WriteTransaction, vault: &Vault) -> Result<Resealed, Fault> {
    let mut resealed = Resealed::default();
    let rows = match from.open_table(SUBSCRIPTIONS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(resealed),
        opened => opened?,
    };
    let mut copied = to.open_table(SUBSCRIPTIONS)?;
    for row in rows.iter()? {
        let (key, row) = row?;
        match record::decode_subscription(row.value()) {
            Ok(stored) if stored.subscription.secrets().is_empty() => {
                copied.insert(key.value(), row.value())?;
            }
            Ok(stored) => {
                let mut subscription = Subscription::clone(&stored.subscription);
                reseal(&mut subscription, vault, &mut resealed);
                let record = record::encode_subscription(&subscription, stored.revision);
                copied.insert(key.value(), record.as_slice())?;
            }
            Err(error) => {
                tracing::warn!(id = %record::recipient_id(key.value()), %error, "a damaged subscription is copied as it is");
                copied.insert(key.value(), row.value())?;
            }
        }
    }
    Ok(resealed)
}

/// Seals the secrets of a subscription with the vault's key. One whose key is lost is given up: nothing is in its place,
/// and the subscription waits for its owner.
fn reseal(subscription: &mut Subscription, vault: &Vault, resealed: &mut Resealed) {
    let owner = subscription.id.uuid();
    let mut lost = None;
    for (name, sealed) in subscription.secrets_mut() {
        if sealed.key() == Some(vault.key()) {
            continue;
        }
        let label = Label::new(name, owner);
        match vault.open(label, sealed) {
            Ok(secret) => {
                *sealed = vault.seal(label, &secret);
                resealed.sealed += 1;
            }
            Err(secrets::OpenError::Damaged(_)) => resealed.damaged += 1,
            Err(secrets::OpenError::OtherKey { .. }) => {
                *sealed = vault.seal(label, &Secret::from(Vec::new()));
                lost = Some(name);
            }
        }
    }
    if let Some(name) = lost {
        let since = match &subscription.activity {
            Activity::Enabled => clock::now(),
            Activity::Disabled { since, .. } => *since,
        };
        let error = format!("the key of its secret `{name}` is lost: set the secret again");
        subscription.activity = Activity::Disabled { since, error: Some(error) };
        resealed.disabled += 1;
    }
}

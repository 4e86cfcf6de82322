//! The open file: opening, migrating, and opening again after an input/output error.
//!
//! redb refuses all work after one failed write, until the file is closed and opened again. That happens here, so that
//! the service recovers as soon as the disk has room again.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTableMetadata, TableHandle,
    WriteTransaction,
};

use super::accounts;
use super::migrate;
use super::record;
use super::schema::{self, SCHEMA_KEY, SCHEMA_VERSION, Tables};
use crate::durable;
use crate::store;

/// The name of the file in the data folder.
pub const FILE_NAME: &str = "waypost.redb";

/// The size of redb's cache, for reads and writes.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// From this file size on commits prepare for a quick repair; below it, a repair takes about half a second.
const QUICK_REPAIR_BYTES: u64 = 1024 * 1024 * 1024;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
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
    /// The writer's thread cannot be started.
    #[error("failed to start the store's writer")]
    Thread {
        /// Why not.
        source: std::io::Error,
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

/// Why a transaction failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The storage engine.
    Redb(Box<redb::Error>),
    /// A record.
    Damaged { table: &'static str, reason: record::Error },
    /// The file is closed after an earlier error, and could not be opened again yet.
    Closed(String),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

impl Fault {
    /// Returns a mapper for the errors of a table's records.
    pub(super) fn damaged(table: &'static str) -> impl Fn(record::Error) -> Self {
        move |reason| Self::Damaged { table, reason }
    }
}

impl From<Fault> for store::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Redb(error) => Self::Unavailable { reason: error.to_string() },
            Fault::Damaged { table, reason } => Self::Damaged { table, reason: reason.to_string() },
            Fault::Closed(reason) => Self::Unavailable { reason },
        }
    }
}

/// When a transaction is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Before it returns.
    Now,
    /// With the next one that is on disk. Readers see it at once; a crash loses it.
    Later,
}

/// The file, open unless an error has closed it.
pub(super) struct Handle {
    path: PathBuf,
    database: RwLock<Option<Database>>,
    /// What a test has instead of the file.
    #[cfg(test)]
    disk: Option<super::disk::Disk>,
}

impl Handle {
    /// Opens or creates the file in `folder`, and brings its schema up to date.
    pub(super) fn open(folder: &Path) -> Result<Self, OpenError> {
        durable::create_folder(folder)
            .map_err(|source| OpenError::Folder { path: folder.to_owned(), source })?;
        let path = folder.join(FILE_NAME);
        durable::create_file(&path).map_err(|source| OpenError::Create { path: path.clone(), source })?;
        let database = builder().create(&path).map_err(|error| open_error(&path, error))?;
        Self::around(path, database)
    }

    /// Opens or creates the file on a simulated disk.
    #[cfg(test)]
    pub(super) fn on(disk: super::disk::Disk) -> Result<Self, OpenError> {
        let path = PathBuf::from("the simulated disk");
        let database = builder().create_with_backend(disk.clone());
        let database = database.map_err(|error| open_error(&path, error))?;
        Ok(Self { disk: Some(disk), ..Self::around(path, database)? })
    }

    fn around(path: PathBuf, database: Database) -> Result<Self, OpenError> {
        match schema_of(&path, &database)? {
            Some(SCHEMA_VERSION) => {}
            older => bring_up_to_date(&path, &database, older)?,
        }
        Ok(Self {
            path,
            database: RwLock::new(Some(database)),
            #[cfg(test)]
            disk: None,
        })
    }

    /// Reads in one short transaction. Blocks on the disk.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        // Without a write to come, nothing else would open it: pending deliveries could never be read.
        self.reopen()?;
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database =
            guard.as_ref().ok_or_else(|| Fault::Closed("the file is being reopened".to_owned()))?;
        read(&database.begin_read()?)
    }

    /// Writes in one durable transaction, or not at all. Blocks until it is on disk.
    pub(super) fn write<T>(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.write_as(Durability::Now, write)
    }

    /// Puts on disk what was written to be durable later.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        self.write(|_| Ok(()))
    }

    /// Writes in one transaction, or not at all.
    pub(super) fn write_as<T>(
        &self,
        durability: Durability,
        write: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.reopen()?;
        let result = {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let database = guard.as_ref().ok_or_else(|| Fault::Closed("the file is closed".to_owned()))?;
            let quick_repair = durability == Durability::Now && self.wants_quick_repair();
            commit(database, durability, quick_repair, write)
        };
        if matches!(&result, Err(Fault::Redb(_))) {
            // Dropping the database waits for readers, whose transactions are short.
            drop(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
            if let Err(fault) = self.reopen() {
                tracing::warn!(error = ?fault, "the database could not be opened again yet");
            }
        }
        result
    }

    /// Tells whether opening the file after a crash would take long without redb's quick repair. A quick repair takes
    /// milliseconds, but costs each commit a second sync.
    fn wants_quick_repair(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|file| file.len() >= QUICK_REPAIR_BYTES)
    }

    fn open_again(&self) -> Result<Database, DatabaseError> {
        #[cfg(test)]
        if let Some(disk) = &self.disk {
            return builder().create_with_backend(disk.clone());
        }
        builder().open(&self.path)
    }

    fn reopen(&self) -> Result<(), Fault> {
        if self.database.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Another reader may have been first.
        if guard.is_some() {
            return Ok(());
        }
        let database = self.open_again().map_err(|error| Fault::Closed(error.to_string()))?;
        *guard = Some(database);
        tracing::info!("the database is open again");
        Ok(())
    }
}

fn commit<T>(
    database: &Database,
    durability: Durability,
    quick_repair: bool,
    write: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut txn = database.begin_write()?;
    txn.set_quick_repair(quick_repair);
    if durability == Durability::Later {
        txn.set_durability(redb::Durability::None)?;
    }
    let value = write(&txn)?;
    txn.commit()?;
    Ok(value)
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        other => OpenError::Open { path, source: Box::new(other.into()) },
    }
}

/// Returns the schema version of a file, `None` for a new one.
fn schema_of(path: &Path, database: &impl ReadableDatabase) -> Result<Option<u64>, OpenError> {
    let found = (|| -> Result<_, redb::Error> {
        let txn = database.begin_read()?;
        let tables: Vec<_> = txn.list_tables()?.map(|table| table.name().to_owned()).collect();
        if !tables.iter().any(|name| name == schema::META.name()) {
            return Ok((tables.is_empty() && txn.list_multimap_tables()?.next().is_none(), None));
        }
        // Waypost writes the version in the same commit as the table: a table without it is another program's.
        let version = txn.open_table(schema::META)?.get(SCHEMA_KEY)?.map(|version| version.value());
        Ok((version.is_some(), version))
    })();
    let path = path.to_owned();
    match found {
        Ok((true, Some(found))) if found > SCHEMA_VERSION => Err(OpenError::Newer { path, found }),
        Ok((true, version)) => Ok(version),
        Ok((false, _)) => Err(OpenError::Foreign { path }),
        Err(redb::Error::TableTypeMismatch { .. }) => Err(OpenError::Foreign { path }),
        Err(source) => Err(OpenError::Open { path, source: Box::new(source) }),
    }
}

/// Creates the tables of a new file, or migrates an older one; all or nothing.
fn bring_up_to_date(path: &Path, database: &Database, older: Option<u64>) -> Result<(), OpenError> {
    let done = commit(database, Durability::Now, false, |txn| {
        if let Some(version) = older {
            tracing::info!(version, to = SCHEMA_VERSION, "bringing the database up to date");
            migrate::deliveries(txn)?;
        }
        let mut tables = Tables::open(txn)?;
        tables.meta.insert(SCHEMA_KEY, SCHEMA_VERSION)?;
        if tables.usage.is_empty()? {
            accounts::count_older(&mut tables)?;
        }
        Ok(())
    });
    done.map_err(|fault| match fault {
        Fault::Redb(source) => OpenError::Open { path: path.to_owned(), source },
        fault @ (Fault::Damaged { .. } | Fault::Closed(_)) => {
            OpenError::Read { path: path.to_owned(), source: fault.into() }
        }
    })
}

/// What `waypost db check` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// The schema version of the file; `None` for a file without any.
    pub found: Option<u64>,
    /// The version that this Waypost writes.
    pub current: u64,
}

/// Reads the schema version of the store in `folder`, without changing anything.
///
/// # Errors
/// When there is no file, when it is in use, or when it is not Waypost's.
pub fn check(folder: &Path) -> Result<CheckReport, OpenError> {
    let path = folder.join(FILE_NAME);
    if !path.exists() {
        return Err(OpenError::Missing { path });
    }
    let found = match builder().open_read_only(&path) {
        Ok(database) => schema_of(&path, &database)?,
        // A file that was not closed properly is repaired when it is opened for writing.
        Err(DatabaseError::RepairAborted) => {
            schema_of(&path, &builder().open(&path).map_err(|error| open_error(&path, error))?)?
        }
        Err(error) => return Err(open_error(&path, error)),
    };
    Ok(CheckReport { found, current: SCHEMA_VERSION })
}

/// Creates the store in `folder`, or migrates it to the current schema; returns what was there before.
///
/// # Errors
/// As for opening.
pub fn sync(folder: &Path) -> Result<CheckReport, OpenError> {
    let before = match check(folder) {
        Ok(checked) => checked,
        Err(OpenError::Missing { .. }) => CheckReport { found: None, current: SCHEMA_VERSION },
        Err(error) => return Err(error),
    };
    drop(Handle::open(folder)?);
    Ok(before)
}

//! The open file: opening, migrating, and opening again after an input/output error.
//!
//! redb refuses all work after one failed write, until the file is closed and opened again. That happens here, so that
//! the service recovers as soon as the disk has room again.

use std::fs::{self, Metadata, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, TableHandle, WriteTransaction,
};

use super::examine::{self, GIVES_UP_COMMIT};
use super::keys;
use super::migrate;
use super::open_error::{OpenError, damaged, open_error};
use super::record;
use super::rewrite::rewrite;
use super::room;
use super::schema::{self, SCHEMA_KEY, SCHEMA_VERSION, Tables};
use super::under_way::UnderWay;
use crate as store;
use waypost_runtime::durable;
use waypost_runtime::stage::Alarm;
use waypost_secrets::{KeyFile, Vault};

/// The name of the file in the data folder.
pub const FILE_NAME: &str = "waypost.redb";

/// The size of redb's cache, for reads and writes.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// From this file size on commits prepare for a quick repair; below it, a repair takes about half a second.
const QUICK_REPAIR_BYTES: u64 = 1024 * 1024 * 1024;

/// How soon a file is examined again after a panic: nothing is read or written meanwhile.
const EXAMINE_INTERVAL: Duration = Duration::from_secs(10 * 60);

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
    /// Seals and opens the secrets in it.
    pub(super) vault: Arc<Vault>,
    /// Raised when the file is damaged, or a transaction does not end: the service ends then.
    pub(super) alarm: Alarm,
    under_way: UnderWay,
    /// When the file was last examined after a panic.
    examined: Mutex<Option<Instant>>,
    /// What a test has instead of the file.
    #[cfg(any(test, feature = "testing"))]
    disk: Option<super::disk::Disk>,
}

impl Handle {
    /// Opens or creates the file in `folder` with its master key, and brings its schema up to date.
    pub(super) fn open(folder: &Path, key: &KeyFile) -> Result<Self, OpenError> {
        durable::create_folder(folder)
            .map_err(|source| OpenError::Folder { path: folder.to_owned(), source })?;
        let path = folder.join(FILE_NAME);
        durable::create_file(&path).map_err(|source| OpenError::Create { path: path.clone(), source })?;
        let database = database(&path)?;
        let found = schema_of(&path, &database)?;
        let vault = keys::vault(key, &path, &database)?;
        let database = match found {
            Some(SCHEMA_VERSION) => create_missing(&path, &database).map(|()| database)?,
            Some(version @ migrate::SEALED..) => {
                tracing::info!(version, to = SCHEMA_VERSION, "bringing the database up to date");
                let done =
                    commit(&database, Durability::Now, false, |txn| migrate::bring_up_to_date(txn, version));
                done.map(|()| database).map_err(|fault| OpenError::of(&path, fault))?
            }
            None => create_tables(&path, &database).map(|()| database)?,
            Some(version) => {
                tracing::info!(version, to = SCHEMA_VERSION, "bringing the database up to date");
                let finish = |txn: &WriteTransaction| migrate::bring_up_to_date(txn, version);
                rewrite(&path, database, &vault, finish)?.0
            }
        };
        Ok(Self::around(path, database, vault))
    }

    /// Makes a database in memory. Its secrets are sealed with a key that nothing keeps.
    pub(super) fn in_memory() -> Result<Self, OpenError> {
        let path = PathBuf::from("memory");
        let database = builder().create_with_backend(InMemoryBackend::new());
        let database = database.map_err(|error| open_error(&path, error))?;
        create_tables(&path, &database)?;
        Ok(Self::around(path, database, Vault::unkept()))
    }

    /// Opens or creates the file on a simulated disk.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn on(disk: super::disk::Disk) -> Result<Self, OpenError> {
        let path = PathBuf::from("the simulated disk");
        let database = builder().create_with_backend(disk.clone());
        let database = database.map_err(|error| open_error(&path, error))?;
        match schema_of(&path, &database)? {
            Some(found) => assert_eq!(found, SCHEMA_VERSION, "a simulated disk is never older"),
            None => create_tables(&path, &database)?,
        }
        let mut handle = Self::around(path, database, Vault::unkept());
        handle.disk = Some(disk);
        Ok(handle)
    }

    fn around(path: PathBuf, database: Database, vault: Vault) -> Self {
        Self {
            path,
            database: RwLock::new(Some(database)),
            vault: Arc::new(vault),
            alarm: Alarm::default(),
            under_way: UnderWay::default(),
            examined: Mutex::default(),
            #[cfg(any(test, feature = "testing"))]
            disk: None,
        }
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
        let _under_way = self.under_way.begin();
        let result = database.begin_read().map_err(Fault::from).and_then(|txn| read(&txn));
        self.look_at(&result);
        result
    }

    /// Raises the alarm if the storage engine has found the file damaged.
    fn look_at<T>(&self, result: &Result<T, Fault>) {
        if let Err(Fault::Redb(error)) = result
            && let Some(reason) = examine::reason_of(error)
        {
            self.give_up(damaged(&self.path, &reason));
        }
    }

    fn give_up(&self, reason: String) {
        if self.alarm.dead().is_none() {
            self.alarm.raise("the store", reason);
        }
    }

    /// Finds out whether the file is damaged, after a panic in a transaction, and raises the alarm if it is. Otherwise the
    /// panic is a bug, which a request may repeat: the file is not read again for a while.
    pub(super) fn examine_after(&self, panic: &str) {
        // No lock of ours is poisoned: it is one of the storage engine, which does not recover.
        if panic.contains("PoisonError") {
            return self.give_up(format!("the storage engine panicked before, and cannot go on: {panic}"));
        }
        let mut examined = self.examined.lock().unwrap_or_else(PoisonError::into_inner);
        if examined.is_some_and(|examined| examined.elapsed() < EXAMINE_INTERVAL) {
            return;
        }
        // Nobody writes to it meanwhile.
        let _database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = self.damage() {
            self.give_up(damaged(&self.path, &reason));
        }
        *examined = Some(Instant::now());
    }

    fn damage(&self) -> Option<String> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(disk) = &self.disk {
            return examine::damage(disk.closed());
        }
        examine::damage_of(&self.path)
    }

    /// Raises the alarm if a transaction has been under way for longer than this.
    pub(super) fn give_up_after(&self, max: Duration) {
        let longest = self.under_way.longest();
        if longest > max {
            self.give_up(format!(
                "a transaction in {} has not ended for {} s: the disk does not answer, or the file is damaged (`waypost db \
                 check` reads all of it)",
                self.path.display(),
                longest.as_secs()
            ));
        }
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
            let _under_way = self.under_way.begin();
            commit(database, durability, quick_repair, write)
        };
        self.mended(result)
    }

    /// Moves what is in the file to its beginning, and cuts off the rest. Nobody else reads or writes meanwhile. A process that
    /// is killed in the middle leaves a file that the next start repairs.
    pub(super) fn compact(&self) -> Result<(), Fault> {
        self.reopen()?;
        let result = {
            let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
            let database = guard.as_mut().ok_or_else(|| Fault::Closed("the file is closed".to_owned()))?;
            database.compact().map(drop).map_err(Fault::from)
        };
        self.mended(result)
    }

    /// Returns how many bytes of the disk the file takes; none if it is in memory.
    pub(super) fn bytes(&self) -> u64 {
        room::bytes_on_disk(&self.path)
    }

    /// Opens the file again after an error of the storage engine.
    fn mended<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        self.look_at(&result);
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
        #[cfg(any(test, feature = "testing"))]
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
        let opened = self.open_again().map_err(Fault::from);
        self.look_at(&opened);
        let database = opened.map_err(|fault| Fault::Closed(store::Error::from(fault).to_string()))?;
        *guard = Some(database);
        tracing::info!("the database is open again");
        Ok(())
    }
}

/// A damaged file may let the storage engine panic when it is closed.
impl Drop for Handle {
    fn drop(&mut self) {
        let database = self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::error!("the database could not be closed well");
        }
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

/// Opens a file that is there, and locks it.
pub(super) fn database(path: &Path) -> Result<Database, OpenError> {
    let refused = |source| OpenError::Create { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(refused)?;
    let opened = identity(&file.metadata().map_err(refused)?);
    let locked = FileBackend::new(file).and_then(|file| builder().create_with_backend(file));
    let database = locked.map_err(|error| open_error(path, error))?;
    // A process that has just written the file anew has put another one in the place of this.
    match fs::metadata(path) {
        Ok(found) if identity(&found) == opened => Ok(database),
        _ => Err(OpenError::InUse { path: path.to_owned() }),
    }
}

/// Tells files apart, whatever their names.
#[cfg(unix)]
fn identity(file: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (file.dev(), file.ino())
}

/// Windows does not let a file be replaced that is open.
#[cfg(not(unix))]
fn identity(_: &Metadata) {}

pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_repair_callback(|repair| {
        if GIVES_UP_COMMIT.contains(&repair.progress()) {
            tracing::warn!(
                "the last commit of the database is not whole, as after a power cut: the one before it is the last now"
            );
        }
    });
    builder
}

/// Returns the schema version of a file, `None` for a new one.
pub(super) fn schema_of(path: &Path, database: &impl ReadableDatabase) -> Result<Option<u64>, OpenError> {
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

/// Creates the tables that a file lacks whose Waypost did not know them: reads find them from the start.
fn create_missing(path: &Path, database: &Database) -> Result<(), OpenError> {
    let created = (|| -> Result<(), redb::Error> {
        let txn = database.begin_write()?;
        let found = txn.list_tables()?.count();
        drop(Tables::open(&txn)?);
        if txn.list_tables()?.count() > found {
            txn.commit()?
        } else {
            txn.abort()?
        }
        Ok(())
    })();
    created.map_err(|error| OpenError::of(path, error.into()))
}

/// Creates the tables of a new file.
fn create_tables(path: &Path, database: &Database) -> Result<(), OpenError> {
    let created = commit(database, Durability::Now, false, |txn| {
        let mut tables = Tables::open(txn)?;
        tables.meta.insert(SCHEMA_KEY, SCHEMA_VERSION)?;
        Ok(())
    });
    created.map_err(|fault| OpenError::of(path, fault))
}

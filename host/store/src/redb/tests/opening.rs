//! Which files are opened, and which errors the others give.

use redb::{Database, MultimapTableDefinition, TableDefinition};

use super::super::check::{self, CheckReport, check};
use super::super::open_error::OpenError;
use super::super::plugin_data::{PREPARED, STATE};
use super::super::registry::RECOVERIES;
use super::super::schema::{META, SCHEMA_KEY, SCHEMA_VERSION};
use super::*;
use waypost_runtime::chain;

const CURRENT: CheckReport =
    CheckReport { found: Some(SCHEMA_VERSION), current: SCHEMA_VERSION, is_last_commit_torn: false };
const NOTHING: CheckReport = CheckReport { found: None, ..CURRENT };

/// A redb file as somebody wrote it.
fn file(write: impl FnOnce(&redb::WriteTransaction)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::create(folder.path().join(FILE_NAME)).unwrap();
    let txn = database.begin_write().unwrap();
    write(&txn);
    txn.commit().unwrap();
    folder
}

fn sync(folder: &Path) -> Result<CheckReport, OpenError> {
    check::sync(folder, &key(folder))
}

fn error(folder: &Path) -> OpenError {
    Store::open(folder, Duration::ZERO).err().expect("the store must not open")
}

#[tokio::test]
async fn a_second_one_is_told_that_the_file_is_in_use() {
    let (folder, store) = fresh();
    assert!(matches!(error(folder.path()), OpenError::InUse { .. }));
    assert!(matches!(check(folder.path()), Err(OpenError::InUse { .. })));
    assert!(matches!(sync(folder.path()), Err(OpenError::InUse { .. })));
    accept(&store, "a", &[]).await;
    store.close().await;
    close(store).await;
    assert_eq!(listed(&open(folder.path()), ALL).await.len(), 1);
}

/// Dropping a store waited for its writer, and blocked every other task of the runtime.
#[tokio::test]
async fn a_store_that_is_dropped_in_a_runtime_blocks_nobody() {
    let (_folder, store) = fresh();
    let (let_go, held) = std::sync::mpsc::channel();
    let (begin, begun) = std::sync::mpsc::channel();
    let handle = std::sync::Arc::clone(&store.reader.handle);
    // The writer cannot write while another thread does.
    let holder = std::thread::spawn(move || {
        let mut released = Ok(());
        let written = handle.write(|_| {
            begin.send(()).unwrap();
            released = held.recv_timeout(Duration::from_secs(20));
            Ok(())
        });
        written.unwrap();
        released
    });
    begun.recv().unwrap();
    let mut probe = Box::pin(store.probe());
    assert!(futures_util::poll!(&mut probe).is_pending());
    drop(probe);
    drop(store);
    let_go.send(()).unwrap();
    holder.join().unwrap().expect("the drop comes back before the writer does");
}

#[test]
fn another_programs_database_is_left_alone() {
    let table = |name| TableDefinition::<&str, u64>::new(name);
    let folders = [
        file(|txn| drop(txn.open_table(table("others")).unwrap())),
        file(|txn| {
            drop(txn.open_multimap_table(MultimapTableDefinition::<u64, u64>::new("others")).unwrap())
        }),
        file(|txn| drop(txn.open_table(TableDefinition::<u64, u64>::new("meta")).unwrap())),
        file(|txn| drop(txn.open_multimap_table(MultimapTableDefinition::<u64, u64>::new("meta")).unwrap())),
        // One that keeps its facts in a table of the same name and type.
        file(|txn| {
            txn.open_table(table("meta")).unwrap().insert("rows", 7).unwrap();
            drop(txn.open_table(table("others")).unwrap());
        }),
    ];
    for folder in folders {
        let path = folder.path().join(FILE_NAME);
        let before = std::fs::metadata(&path).unwrap().len();
        let error = error(folder.path());
        assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
        assert!(matches!(check(folder.path()), Err(OpenError::Foreign { .. })));
        assert!(matches!(sync(folder.path()), Err(OpenError::Foreign { .. })));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), before);
    }
}

#[test]
fn a_newer_schema_is_refused_by_its_number() {
    let newer = SCHEMA_VERSION + 1;
    let folder = file(|txn| {
        txn.open_table(META).unwrap().insert(SCHEMA_KEY, newer).unwrap();
    });
    for error in [error(folder.path()), check(folder.path()).unwrap_err(), sync(folder.path()).unwrap_err()] {
        assert!(matches!(error, OpenError::Newer { found, .. } if found == newer), "{error:?}");
        assert!(error.to_string().contains("use a newer waypost"));
    }
}

/// Records got checksums under the old version number: an older Waypost opened the file and reported everything as
/// damaged.
#[tokio::test]
async fn a_file_from_before_checksums_is_migrated_and_then_refused_by_its_waypost() {
    let (folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    close(store).await;
    let database = Database::open(folder.path().join(FILE_NAME)).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(META).unwrap().insert(SCHEMA_KEY, 1).unwrap();
    txn.commit().unwrap();
    drop(database);
    assert_eq!(check(folder.path()).unwrap(), CheckReport { found: Some(1), ..CURRENT });
    let store = open(folder.path());
    assert_eq!(only(&store, sub(1)).await.event.id, id);
    close(store).await;
    let found = check(folder.path()).unwrap().found;
    assert!(found.is_some_and(|found| found > 1), "what wrote version 1 knows no higher one: {found:?}");
}

#[test]
fn a_file_that_is_no_database_is_named_and_kept() {
    for content in [b"hello".to_vec(), vec![0; 100_000], b"redb\x1a\x0a\xa9\x0d\x0a".to_vec()] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, &content).unwrap();
        let error = error(folder.path());
        assert!(matches!(error, OpenError::Open { .. }), "{error:?}");
        let text = chain::text(&error);
        assert!(text.contains(FILE_NAME) && text.len() > path.display().to_string().len() + 25, "{text}");
        assert!(check(folder.path()).is_err() && sync(folder.path()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), content, "it may be dear to somebody");
    }
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(error(&file.join("below")), OpenError::Folder { .. }));
}

#[test]
fn check_and_sync_tell_what_they_found() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("new/data");
    assert!(matches!(check(&below), Err(OpenError::Missing { .. })));
    assert!(!below.exists(), "a check changes nothing");
    assert_eq!(sync(&below).unwrap(), NOTHING);
    assert_eq!(check(&below).unwrap(), CURRENT);
    assert_eq!(sync(&below).unwrap(), CURRENT);
    let empty = file(|_| ());
    assert_eq!(check(empty.path()).unwrap(), NOTHING);
    assert_eq!(sync(empty.path()).unwrap(), NOTHING);
    assert_eq!(check(empty.path()).unwrap(), CURRENT);
}

#[tokio::test]
async fn what_a_crash_leaves_is_checked_too() {
    let (folder, store) = fresh();
    accept(&store, "a", &[]).await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.path().join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
    assert_eq!(check(copy.path()).unwrap(), CURRENT);
    assert_eq!(sync(copy.path()).unwrap(), CURRENT);
    assert_eq!(listed(&open(copy.path()), ALL).await.len(), 1);
}

/// A file of an older version may lack any of the tables that came later.
#[tokio::test]
async fn a_file_from_before_recoveries_and_plugins_gets_their_tables() {
    for older in 0..3 {
        let (folder, store) = fresh();
        let id = accept(&store, "a", &[sub(1)]).await;
        close(store).await;
        let database = Database::open(folder.path().join(FILE_NAME)).unwrap();
        let txn = database.begin_write().unwrap();
        assert!(match older {
            0 => txn.delete_table(RECOVERIES).unwrap(),
            1 => txn.delete_table(PREPARED).unwrap(),
            _ => txn.delete_table(STATE).unwrap(),
        });
        set_version(&txn, 2);
        txn.commit().unwrap();
        drop(database);
        assert_eq!(check(folder.path()).unwrap(), CheckReport { found: Some(2), ..CURRENT });
        let store = open(folder.path());
        assert!(store.running_recoveries().await.unwrap().is_empty());
        assert!(store.rendered(id, sub(1)).await.unwrap().is_none());
        assert!(store.plugin_state(sub(1)).await.unwrap().is_empty());
        assert!(!only(&store, sub(1)).await.rendered);
        assert_eq!(listed(&store, ALL).await.len(), 1);
    }
}

/// A read would fail until the first write.
#[tokio::test]
async fn a_current_file_gets_the_tables_that_it_lacks() {
    let (folder, store) = fresh();
    accept(&store, "a", &[sub(1)]).await;
    close(store).await;
    let database = Database::open(folder.path().join(FILE_NAME)).unwrap();
    let txn = database.begin_write().unwrap();
    assert!(txn.delete_table(STATE).unwrap());
    txn.commit().unwrap();
    drop(database);
    assert_eq!(check(folder.path()).unwrap(), CURRENT);
    let store = open(folder.path());
    assert!(store.plugin_state(sub(1)).await.unwrap().is_empty());
}

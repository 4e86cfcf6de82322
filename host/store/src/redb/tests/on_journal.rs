//! The tests of the store on the journal's road: each store has joined a journal in memory that delays, doubles and forgets.

#[path = "accepting.rs"]
mod accepting;
#[path = "accessing.rs"]
mod accessing;
#[path = "announcing.rs"]
mod announcing;
#[path = "cancelling.rs"]
mod cancelling;
#[path = "counting.rs"]
mod counting;
#[path = "crashing.rs"]
mod crashing;
#[path = "deduplicating.rs"]
mod deduplicating;
#[path = "expiring.rs"]
mod expiring;
#[path = "filling.rs"]
mod filling;
#[path = "finishing.rs"]
mod finishing;
#[path = "forgetting.rs"]
mod forgetting;
#[path = "freezing.rs"]
mod freezing;
#[path = "growing.rs"]
mod growing;
#[path = "jobs.rs"]
mod jobs;
#[path = "listing.rs"]
mod listing;
#[path = "model.rs"]
mod model;
#[path = "paging.rs"]
mod paging;
#[path = "purging.rs"]
mod purging;
#[path = "recovering.rs"]
mod recovering;
#[path = "redelivering.rs"]
mod redelivering;
#[path = "replacing.rs"]
mod replacing;
#[path = "tailing.rs"]
mod tailing;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use super::tests::common::*;
use crate::journal::{MemoryJournal, Trouble};

const ON_JOURNAL: bool = true;

/// Where the stores' tasks run: a test's own runtime has one thread, which the test may block.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());

/// The journals of the folders.
static JOURNALS: LazyLock<Mutex<HashMap<PathBuf, Arc<MemoryJournal>>>> = LazyLock::new(Mutex::default);

/// Now and then, a journal does what journals may do.
fn journal() -> Arc<MemoryJournal> {
    let attempts = std::sync::atomic::AtomicU64::new(0);
    Arc::new(MemoryJournal::with_troubles(move |_| {
        match attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 11 {
            3 => Trouble::LostAnswer,
            5 => Trouble::Delay(Duration::from_millis(2)),
            7 => Trouble::Doubled,
            9 => Trouble::Refused,
            _ => Trouble::Nothing,
        }
    }))
}

fn open(folder: &Path) -> Store {
    open_with(folder, Options::default())
}

fn open_with(folder: &Path, options: Options) -> Store {
    let journal = Arc::clone(JOURNALS.lock().unwrap().entry(folder.to_owned()).or_insert_with(journal));
    let joining = || RUNTIME.block_on(Store::join(folder, options, journal)).unwrap();
    std::thread::scope(|scope| scope.spawn(joining).join().unwrap())
}

/// A store in a folder that is removed with it.
fn fresh() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    (folder, store)
}

/// What a crash at this moment would leave of the store in `folder`, which is still open, and what the journal brings back.
fn crashed(folder: &Path) -> (tempfile::TempDir, Store) {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
    let mut journals = JOURNALS.lock().unwrap();
    let journal = Arc::new(journals[folder].fork());
    journals.insert(copy.path().to_owned(), journal);
    drop(journals);
    let store = open(copy.path());
    (copy, store)
}

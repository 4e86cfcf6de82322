//! Tests of the store on real files, on the direct road. Each file tests one kind of guarantee; `model` tests all of them
//! at once, in random order. Most run on the journal's road, too (`on_journal`).

mod accepting;
mod accessing;
mod announcing;
mod cancelling;
pub(super) mod common;
mod counting;
mod crashing;
mod damaged;
mod deduplicating;
mod determinism;
mod expiring;
mod failing;
mod filling;
mod finishing;
mod flipping;
mod forgetting;
mod freezing;
mod growing;
mod jobs;
mod joining;
mod listing;
mod migrating;
mod model;
mod opening;
mod ordering;
mod paging;
mod purging;
mod queueing;
mod records;
mod recovering;
mod redelivering;
mod rekeying;
mod replacing;
mod replicas;
mod sealing;
mod tailing;

use common::*;

const ON_JOURNAL: bool = false;

fn open(folder: &Path) -> Store {
    Store::open(folder, Duration::ZERO).unwrap()
}

fn open_with(folder: &Path, options: Options) -> Store {
    Store::with(folder, options).unwrap()
}

/// A store in a folder that is removed with it.
fn fresh() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    (folder, store)
}

/// What a crash at this moment would leave of the store in `folder`, which is still open.
fn crashed(folder: &Path) -> (tempfile::TempDir, Store) {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
    let store = open(copy.path());
    (copy, store)
}

//! A write that fails midway leaves no trace, in the file or in memory, and does not affect other writes.

use std::pin::pin;

use futures_util::{FutureExt, join};
use redb::ReadableTableMetadata;

use super::super::group::{Group, Op};
use super::super::handle::{Fault, Handle};
use super::super::log::BATCHES;
use super::super::schema::Tables;
use super::*;
use crate::redb::Disk;
use crate::{Error, Position};

/// Lays bytes where a record should be.
fn spoil(store: &Store, spoil: impl FnOnce(&mut Tables<'_>)) {
    let spoilt = store.reader.handle.write(|txn| {
        spoil(&mut Tables::open(txn)?);
        Ok(())
    });
    spoilt.unwrap();
}

#[test]
fn a_failed_transaction_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let handle = Handle::open(folder.path(), &key(folder.path())).unwrap();
    let machine = machine(Duration::ZERO);
    let written: Result<(), Fault> = handle.write(|txn| {
        let op = Op::Accept { arrivals: vec![arrival("a", &[sub(1)])], matched_at: Position::default() };
        let group = Group { ops: vec![op], ends: Vec::new() };
        machine.apply(&mut Tables::open(txn)?, clock::now(), &group)?;
        Err(Fault::Closed("midway".to_owned()))
    });
    assert!(written.is_err());
    let rows = handle.read(|txn| Ok(txn.open_table(BATCHES)?.len()?));
    assert_eq!(rows.unwrap(), 0);
}

/// The time of a target's last success was kept in memory although its commit failed. When the end was retried, it
/// seemed to be known already and was never written.
#[tokio::test]
async fn a_success_whose_first_commit_failed_is_remembered() {
    let (_folder, store) = fresh();
    accept(&store, "a", &[sub(1)]).await;
    accept(&store, "b", &[sub(2)]).await;
    let (good, bad) = (only(&store, sub(1)).await, only(&store, sub(2)).await);
    let row = (sub::<RecipientId>(2).uuid().as_u128(), bad.position.batch.uuid().as_u128());
    spoil(&store, |tables| drop(tables.deliveries.fresh.insert(row, &[1, 2, 3][..]).unwrap()));
    // Both in one commit, which the second makes fail.
    let (first, second) = join!(
        store.settle(ending(sub(1), &good, Outcome::Delivered)),
        store.settle(ending(sub(2), &bad, Outcome::Delivered))
    );
    first.unwrap();
    assert!(matches!(second, Err(Error::Damaged { table: "fresh", .. })), "{second:?}");
    let reached = store.reached().await.unwrap();
    assert_eq!(reached.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [sub(1)]);
}

/// One damaged record failed all writes of the same commit.
#[tokio::test]
async fn who_meets_a_damaged_record_fails_alone() {
    let (_folder, store) = fresh();
    let spoilt = accept(&store, "a", &[sub(1)]).await;
    let whole = accept(&store, "b", &[sub(2)]).await;
    let waiting = only(&store, sub(2)).await;
    spoil(&store, |tables| drop(tables.log.batches.insert(spoilt.uuid().as_u128(), &[9, 9][..]).unwrap()));
    let again = |id| store.redeliver(id, vec![sub(3)], "bob".to_owned(), after(1), None);
    let (accepted, first, second, purged, ended, probed) = join!(
        store.log(vec![arrival("c", &[sub(4)])]),
        again(spoilt),
        again(whole),
        store.purge(Purge::Before(Timestamp::MAX), None),
        store.settle(ending(sub(2), &waiting, Outcome::Delivered)),
        store.probe(),
    );
    accepted.unwrap();
    assert!(matches!(first, Err(Error::Damaged { table: "batches", .. })), "{first:?}");
    assert!(second.unwrap());
    assert!(purged.unwrap().kept > 0, "it passes");
    ended.unwrap();
    probed.unwrap();
    assert!(ready(&store, sub(2)).await.first_attempts.is_empty());
    for owed_once in [sub(3), sub(4)] {
        only(&store, owed_once).await;
    }
}

#[tokio::test]
async fn a_purge_in_the_same_commit_is_seen_at_once() {
    let (_folder, store) = fresh();
    let (accepted, purged, probed) = join!(
        store.log(vec![arrival("a", &[]), arrival("b", &[sub(1)])]),
        store.purge(Purge::Before(Timestamp::MAX), None),
        store.probe(),
    );
    let ids = accepted.unwrap();
    probed.unwrap();
    assert_eq!(purged.unwrap(), PurgeReport { purged: 1, kept: 1 });
    assert_eq!(store.history(ids[0]).await.unwrap(), None, "not even from memory");
    assert_eq!(listed(&store, ALL).await, [ids[1]]);
}

/// The last part of a commit may fail after the file has all of it. Nothing of it is acknowledged then; but subscriptions and
/// workers did not see what the file had, until the next start.
#[tokio::test]
async fn a_group_that_is_in_the_file_although_its_commit_failed_is_seen() {
    let (mut in_file, mut lost) = (0, 0);
    for good in 0..100 {
        let disk = Disk::default();
        let (store, mut writer) = Store::simulated(disk.clone(), Options::default()).unwrap();
        disk.fail_after(Some(good));
        let mut accepting = pin!(store.accept(vec![arrival("a", &[sub(1)])], Position::default()));
        assert!(accepting.as_mut().now_or_never().is_none());
        writer.step();
        disk.fail_after(None);
        writer.step();
        let answer = accepting.await;
        let is_logged = !store.histories(ALL).await.unwrap().is_empty();
        assert_eq!(store.wakes().drain().now_or_never().is_some(), is_logged, "{good}");
        match answer {
            Ok(_) => break,
            Err(Error::Uncertain) => {}
            Err(error) => {
                assert!(matches!(error, Error::Unavailable { .. }) && !is_logged, "{good}: {error}")
            }
        }
        if is_logged { in_file += 1 } else { lost += 1 }
    }
    assert!(in_file > 0 && lost > 0, "{in_file} {lost}");
}

/// A file that could not be opened again after an error stayed closed until the next write: pending deliveries were not
/// read, and so none came.
#[tokio::test]
async fn a_read_opens_the_file_again() {
    let disk = Disk::default();
    let (store, mut writer) = Store::simulated(disk.clone(), Options::default()).unwrap();
    disk.fail_after(Some(0));
    let mut probing = pin!(store.probe());
    assert!(probing.as_mut().now_or_never().is_none());
    writer.step();
    assert!(probing.await.is_err() && store.histories(ALL).await.is_err());
    disk.fail_after(None);
    assert!(store.histories(ALL).await.unwrap().is_empty());
}

/// Where a disk hangs, or a page leads in circles, a transaction never ends: the service looked alive.
#[tokio::test]
async fn a_transaction_that_does_not_end_ends_the_service() {
    let (_folder, store) = fresh();
    store.reader.handle.give_up_after(Duration::ZERO);
    assert_eq!(store.alarm().dead(), None);
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel();
    let handle = std::sync::Arc::clone(&store.reader.handle);
    let holder = std::thread::spawn(move || {
        handle.write(|_| {
            begin.send(()).unwrap();
            held.recv().ok();
            Ok(())
        })
    });
    begun.recv().unwrap();
    let waiting = store.log(vec![arrival("a", &[])]);
    let giving_up = async {
        store.reader.handle.give_up_after(Duration::from_secs(60));
        assert_eq!(store.alarm().dead(), None);
        store.reader.handle.give_up_after(Duration::ZERO);
        let dead = store.alarm().raised().await;
        assert!(dead.reason.contains("waypost.redb has not ended for"), "{dead}");
        // The writer waits for that transaction.
        store.close().await;
        let_go.send(()).unwrap();
    };
    drop(tokio::join!(waiting, giving_up));
    holder.join().unwrap().unwrap();
}

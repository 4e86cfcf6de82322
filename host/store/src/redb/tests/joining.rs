//! Stores that share a journal.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;

use super::*;
use crate::journal::{Journal as _, MemoryJournal, Ticket, Trouble};
use crate::redb::Disk;
use crate::{Error, Module};

async fn join(folder: &tempfile::TempDir, journal: &Arc<MemoryJournal>) -> Store {
    let journal = Arc::clone(journal);
    Store::join(folder.path(), Options::default(), journal).await.unwrap()
}

async fn two(journal: &Arc<MemoryJournal>) -> [(tempfile::TempDir, Store); 2] {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let stores = [join(&folders[0], journal).await, join(&folders[1], journal).await];
    let [first, second] = folders;
    let [one, other] = stores;
    [(first, one), (second, other)]
}

/// Waits until a store has everything that the journal has now.
async fn caught_up(store: &Store, journal: &MemoryJournal) {
    let last = journal.last().await.unwrap();
    while store.reader.position().unwrap() < last {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_writes_the_other_has_in_the_same_order() {
    let journal = Arc::new(MemoryJournal::default());
    let [(_one, first), (_other, second)] = two(&journal).await;
    for number in 0..20 {
        let store = if number % 2 == 0 { &first } else { &second };
        accept(store, &number.to_string(), &[sub(1)]).await;
    }
    let target = "http://localhost/".parse().unwrap();
    let new = Subscription::new("ann".into(), "all".into(), "$".into(), target, after(0));
    let before = second.subscriptions().await.unwrap().0;
    first.put(new.clone(), Quota::Holds).await.unwrap();
    // The second one knows nothing of it when it matches: the event is given back.
    let stale = second.accept(vec![arrival("late", &[])], before).await.unwrap();
    assert!(matches!(stale, Accepted::Stale(..)), "{stale:?}");
    caught_up(&first, &journal).await;
    caught_up(&second, &journal).await;
    assert_eq!(first.histories(ALL).await.unwrap(), second.histories(ALL).await.unwrap());
    assert_eq!(subscriptions(&second).await, [new.into()]);
    assert_eq!(second.changes().take().await.subscriptions.len(), 1, "its directory learns it");
    for store in [first, second] {
        store.close().await;
        assert!(store.alarm().dead().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_travels_in_parts() {
    let journal = Arc::new(MemoryJournal::default());
    let [(_one, first), (_other, second)] = two(&journal).await;
    let wasm =
        Bytes::from((0..5_000_000u32).map(|number| u8::try_from(number % 251).unwrap()).collect::<Vec<_>>());
    let digest = PluginDigest::of(&wasm);
    let module = Module::new(crate::shorthand::report(digest), "ann", after(0));
    first.put_module(module.clone(), wasm.clone(), None).await.unwrap();
    caught_up(&second, &journal).await;
    assert!(journal.entries().len() > 5, "one part would hold up all other writes");
    assert!(journal.entries().iter().all(|entry| entry.group.len() <= journal.group_bytes_max()));
    for store in [&first, &second] {
        assert_eq!(store.module_bytes(digest).await.unwrap(), Some(wasm.clone()));
    }
    assert!(second.remove_module(digest, module.uploaded).await.unwrap());
    caught_up(&first, &journal).await;
    for store in [&first, &second] {
        assert!(store.module(digest).await.unwrap().is_none());
        assert_eq!(store.module_bytes(digest).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_with_other_settings_does_not_join() {
    let journal = Arc::new(MemoryJournal::default());
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = join(&folder, &journal).await;
    let options = Options { user_bytes_max: 7, ..Options::default() };
    let refused = Store::join(other.path(), options, Arc::<MemoryJournal>::clone(&journal)).await;
    let refused = refused.err().expect("it must not join").to_string();
    assert!(refused.contains("user_bytes_max = 7"), "{refused}");
    store.close().await;
}

/// Going on would leave its file different from those of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_read_ends_the_store_and_names_it() {
    let journal = Arc::new(MemoryJournal::default());
    let folder = tempfile::tempdir().unwrap();
    let store = join(&folder, &journal).await;
    journal.append(Ticket { member: 1, number: 1 }, Bytes::from_static(b"\x09nothing")).await.unwrap();
    let dead = store.alarm().raised().await;
    assert_eq!(dead.stage, "the store's applier");
    assert!(dead.reason.contains("journal") && dead.reason.contains("version 9"), "{dead}");
    assert!(store.log(vec![arrival("a", &[])]).await.is_err());
}

/// Nobody may be told that nothing was kept: it may be kept yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_silent_journal_has_been_given_is_uncertain() {
    let is_silent = Arc::new(AtomicBool::new(false));
    let silent = Arc::clone(&is_silent);
    let journal = Arc::new(MemoryJournal::with_troubles(move |_| match silent.load(Ordering::SeqCst) {
        true => Trouble::Refused,
        false => Trouble::Nothing,
    }));
    let folder = tempfile::tempdir().unwrap();
    let store = join(&folder, &journal).await;
    is_silent.store(true, Ordering::SeqCst);
    assert!(matches!(store.log(vec![arrival("a", &[])]).await, Err(Error::Uncertain)));
    is_silent.store(false, Ordering::SeqCst);
    accept(&store, "b", &[]).await;
    let histories = store.histories(ALL).await.unwrap();
    let ids: Vec<_> = histories.iter().map(|history| history.event.event.id()).collect();
    assert!(ids.contains(&"b"), "{ids:?}");
    close(store).await;
    let again = join(&folder, &journal).await;
    assert_eq!(again.histories(ALL).await.unwrap().len(), 2, "it was kept after all");
}

/// While one group was refused again and again, more than the mask holds passed it: it counted as applied, and was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_others_pass_is_not_lost() {
    let attempts = std::sync::atomic::AtomicU64::new(0);
    let journal = Arc::new(MemoryJournal::with_troubles(move |ticket| {
        match ticket.number == 3 && attempts.fetch_add(1, Ordering::SeqCst) < 6 {
            true => Trouble::Refused,
            false => Trouble::Nothing,
        }
    }));
    let folder = tempfile::tempdir().unwrap();
    let store = join(&folder, &journal).await;
    let all = futures_util::future::join_all((0..2).map(async |writer| {
        for number in 0..150 {
            accept(&store, &format!("{writer}-{number}"), &[]).await;
        }
    }));
    all.await;
    assert_eq!(store.histories(ALL).await.unwrap().len(), 300);
}

/// The last part of a commit may fail after the file has all of it. The journal was read on behind it: nobody was woken,
/// and callers waited in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_in_the_file_although_their_commit_failed_are_seen() {
    for good in 0..100 {
        let (disk, journal) = (Disk::default(), Arc::new(MemoryJournal::default()));
        let store = super::super::open::join_simulated(disk.clone(), journal).await.unwrap();
        disk.fail_after(Some(good));
        let answered = {
            let mut accepting = pin!(store.log(vec![arrival("a", &[sub(1)])]));
            let answer = loop {
                match accepting.as_mut().now_or_never() {
                    Some(answer) => break answer,
                    None if disk.has_failed() => {
                        disk.fail_after(None);
                        break accepting.await;
                    }
                    None => tokio::task::yield_now().await,
                }
            };
            answer.unwrap()
        };
        assert!(store.wakes().drain().now_or_never().is_some(), "{good}");
        let histories = store.histories(ALL).await.unwrap();
        assert_eq!(histories.iter().map(|history| history.event.id).collect::<Vec<_>>(), answered, "{good}");
        if !disk.has_failed() {
            assert!(good > 3, "some have failed");
            return;
        }
    }
    panic!("a commit has fewer steps");
}

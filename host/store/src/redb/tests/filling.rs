//! What is kept for a user is counted exactly, and has a limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::ReadableTable;

use super::super::accounts::count_all;
use super::super::{Options, schema::Tables};
use super::*;
use crate::{Error, UserUsage};
use waypost_domain::handler::{Exit, HandlerRun, ProgramEnd, RunStart, StreamTail};
use waypost_domain::plugin::{LogLevel, LogLine, Output};
use waypost_domain::{Answer, PluginUse, Subscription};

const MAX: u64 = 200_000;

fn limited() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = reopened(folder.path());
    (folder, store)
}

fn reopened(folder: &Path) -> Store {
    open_with(folder, Options { user_bytes_max: MAX, ..Options::default() })
}

/// Gives a user a subscription with a plugin.
async fn subscribe(store: &Store, id: u128, user: &str) -> Subscription {
    let target = "http://localhost/".parse().unwrap();
    let mut new = Subscription::new(user.to_owned(), "all".to_owned(), "$".to_owned(), target, after(0));
    new.id = sub(id);
    new.plugin = Some(Arc::new(PluginUse::new(PluginDigest::of(b"module"))));
    store.put(new.clone(), Quota::Holds).await.unwrap();
    new
}

fn bytes(store: &Store, user: &str) -> u64 {
    let UserUsage { bytes, max } = store.usage_of(user);
    assert_eq!(max, MAX);
    bytes
}

/// A preparation with an output, a value of state and a log line of these sizes.
fn making(id: u128, pending: &PendingDelivery, output: usize, state: usize, log: usize) -> Rendering {
    let mut made = counting(sub(id), pending, 1);
    let body = vec![b'o'; output].into();
    let output = Output::Raw { content_type: "text/plain".to_owned(), headers: Vec::new(), body };
    made.payload.result = PluginResult::Outputs(vec![output]);
    made.state[0].value.as_mut().unwrap().bytes = vec![b's'; state];
    made.run.logs = lines(1, log);
    made
}

fn lines(count: usize, bytes: usize) -> Vec<LogLine> {
    let line = |_| LogLine { level: LogLevel::Info, message: "l".repeat(bytes), fields: Vec::new() };
    (0..count).map(line).collect()
}

/// An attempt that the target answers with so much.
fn answered(id: u128, pending: &PendingDelivery, outcome: Outcome, bytes: usize) -> Settlement {
    let mut ended = ending(sub(id), pending, outcome);
    ended.attempt.target = Some(Answer { status: 500, body: "e".repeat(bytes) });
    ended
}

/// Counts from the start what the store has counted as it went.
fn assert_exact(store: &Store) {
    let (counted, found) = store
        .reader
        .handle
        .write(|txn| {
            let mut tables = Tables::open(txn)?;
            let rows = |tables: &Tables<'_>| -> Result<BTreeMap<u128, Vec<u8>>, redb::StorageError> {
                let rows = tables.usage.iter()?.map(|row| {
                    let (key, value) = row?;
                    Ok((key.value(), value.value().to_vec()))
                });
                rows.collect()
            };
            let counted = rows(&tables)?;
            tables.usage.retain(|_, _| false)?;
            count_all(&mut tables)?;
            Ok((counted, rows(&tables)?))
        })
        .unwrap();
    assert_eq!(counted, found);
}

#[tokio::test]
async fn whatever_comes_and_goes_is_counted_once() {
    let (folder, store) = limited();
    let ann = subscribe(&store, 1, "ann").await;
    subscribe(&store, 2, "ann").await;
    subscribe(&store, 3, "bob").await;
    assert_exact(&store);
    let alone = bytes(&store, "bob");
    let mut ids = Vec::new();
    for (number, size) in [10, 5_000, 20_000].into_iter().enumerate() {
        ids.push(accept(&store, &number.to_string(), &[sub(1), sub(2), sub(3)]).await);
        for id in [1, 2] {
            let pending = only(&store, sub(id)).await;
            assert!(store.freeze(making(id, &pending, size, size, size)).await.unwrap());
            assert_exact(&store);
            let pending = PendingDelivery { rendered: true, ..pending };
            store.settle(answered(id, &pending, retry(after(1)), 5_000)).await.unwrap();
            assert_exact(&store);
            let pending = only(&store, sub(id)).await;
            let outcome = if number == 1 { Outcome::Delivered } else { dead() };
            store.settle(answered(id, &pending, outcome, 500)).await.unwrap();
            assert_exact(&store);
        }
        // A plugin without a rendered payload, and a run that is recorded late.
        let pending = only(&store, sub(3)).await;
        let run = making(3, &pending, 0, 0, 3_000).run;
        let ended = Settlement { plugin: Some(run), ..ending(sub(3), &pending, dead()) };
        store.settle(ended.clone()).await.unwrap();
        store.settle(ended).await.unwrap();
        assert_exact(&store);
    }
    assert!(bytes(&store, "bob") > alone + 18_000);
    let all = bytes(&store, "ann");
    close(store).await;
    let store = reopened(folder.path());
    assert_eq!(bytes(&store, "ann"), all, "a restart knows it");

    let bare = Subscription { plugin: None, ..ann };
    store.put(bare, Quota::Holds).await.unwrap();
    assert_exact(&store);
    assert!(bytes(&store, "ann") < all - 20_000, "its state is gone");
    store.redeliver(ids[0], vec![sub(1)], "ann".to_owned(), after(2), None).await.unwrap();
    assert_exact(&store);
    while store.cancel_pending(sub(1), 1).await.unwrap() {}
    while store.cancel_pending(sub(2), 1).await.unwrap() {}
    assert_exact(&store);
    assert_eq!(purge(&store, Purge::Events(ids[..1].to_vec())).await, (1, 0));
    assert_eq!(purge(&store, Purge::Before(Timestamp::MAX)).await, (2, 0));
    assert_exact(&store);
    assert_eq!(bytes(&store, "bob"), alone, "nothing but the subscription is left");
}

/// One user's dead letters filled the disk for all users.
#[tokio::test]
async fn a_user_without_room_is_refused_and_nobody_else() {
    let (folder, store) = limited();
    subscribe(&store, 1, "ann").await;
    subscribe(&store, 2, "bob").await;
    let full = async |store: &Store, pending: &PendingDelivery| {
        let refused = store.freeze(making(1, pending, 60_000, 10, 10)).await.unwrap_err();
        assert!(matches!(&refused, Error::Quota { user, max: MAX, .. } if user == "ann"), "{refused}");
        assert!(refused.to_string().contains("the setting user_bytes_max"), "{refused}");
    };
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(accept(&store, &number.to_string(), &[sub(1)]).await);
        let pending = only(&store, sub(1)).await;
        assert!(store.freeze(making(1, &pending, 60_000, 10, 10)).await.unwrap());
        settle(&store, sub(1), &PendingDelivery { rendered: true, ..pending }, dead()).await;
    }
    let refused = accept(&store, "refused", &[sub(1), sub(2)]).await;
    let (ann, bob) = (only(&store, sub(1)).await, only(&store, sub(2)).await);
    full(&store, &ann).await;
    assert!(history(&store, refused, sub(1)).await.is_empty() && !only(&store, sub(1)).await.rendered);
    // Two at once, one of which has room.
    let (refusal, rendered) = tokio::join!(
        store.freeze(making(1, &ann, 60_000, 10, 10)),
        store.freeze(making(2, &bob, 60_000, 10, 10))
    );
    assert!(refusal.is_err() && rendered.unwrap());
    close(store).await;
    let store = reopened(folder.path());
    full(&store, &ann).await;
    assert_exact(&store);
    assert_eq!(purge(&store, Purge::Events(ids[..1].to_vec())).await, (1, 0));
    assert!(store.freeze(making(1, &ann, 60_000, 10, 10)).await.unwrap(), "there is room again");
}

#[tokio::test]
async fn a_new_or_larger_subscription_needs_room_and_a_pause_does_not() {
    let (_folder, store) = limited();
    let mut large = subscribe(&store, 1, "ann").await;
    large.name = "n".repeat(190_000);
    store.put(large.clone(), Quota::Holds).await.unwrap();
    let larger = Subscription { name: "n".repeat(210_000), ..large.clone() };
    let refused = store.put(larger.clone(), Quota::Holds).await;
    assert!(matches!(refused, Err(Error::Quota { .. })), "{refused:?}");
    let another = Subscription { id: sub(2), ..large.clone() };
    assert!(store.put(another.clone(), Quota::Holds).await.is_err());
    assert_eq!(subscriptions(&store).await, [large.into()]);
    assert_exact(&store);
    let of_bob = Subscription { user: "bob".to_owned(), ..another };
    store.put(of_bob, Quota::Holds).await.unwrap();
    store.put(larger, Quota::Exempt).await.unwrap();
    assert_exact(&store);
}

/// Answers and log lines of failures are kept whole, and there is no end of failures.
#[tokio::test]
async fn over_the_limit_the_history_keeps_little_and_says_so() {
    let (_folder, store) = limited();
    subscribe(&store, 1, "ann").await;
    let mut most = 0;
    for number in 0..20 {
        let id = accept(&store, &number.to_string(), &[sub(1)]).await;
        let pending = only(&store, sub(1)).await;
        let mut run = making(1, &pending, 0, 0, 0).run;
        run.logs = lines(30, 1_000);
        let ended = Settlement { plugin: Some(run), ..answered(1, &pending, dead(), 10_000) };
        store.settle(ended).await.unwrap();
        most = most.max(bytes(&store, "ann"));
        assert_exact(&store);
        let [Entry::Plugin(run), Entry::Attempt(attempt)] = &history(&store, id, sub(1)).await[..] else {
            panic!("a run and its attempt")
        };
        let body = attempt.target.as_ref().unwrap().body.len();
        if number < 2 {
            assert_eq!((run.logs.len(), body), (30, 10_000));
        } else {
            assert!(run.logs[0].message.contains("user_bytes_max"), "{:?}", run.logs);
            assert_eq!((run.logs.len(), run.logs_dropped, body), (1, 30, 1_024));
        }
    }
    assert!(most < MAX / 2, "{most}");
}

/// One damaged row of the count kept the store from being opened.
#[tokio::test]
async fn a_damaged_count_is_made_again_when_the_file_is_opened() {
    let (folder, store) = limited();
    subscribe(&store, 1, "ann").await;
    accept(&store, "a", &[sub(1)]).await;
    let pending = only(&store, sub(1)).await;
    assert!(store.freeze(making(1, &pending, 3_000, 3_000, 3_000)).await.unwrap());
    let counted = bytes(&store, "ann");
    let damaged = store.reader.handle.write(|txn| {
        let mut tables = Tables::open(txn)?;
        tables.usage.insert(sub::<RecipientId>(1).uuid().as_u128(), &[7][..])?;
        Ok(())
    });
    damaged.unwrap();
    close(store).await;
    let store = reopened(folder.path());
    assert_eq!(bytes(&store, "ann"), counted);
    assert_exact(&store);
}

/// One damaged row of the count failed each end of an attempt and all that the plugin made, until a restart counted again.
#[tokio::test]
async fn a_damaged_count_is_made_again_by_whatever_meets_it_first() {
    let (folder, store) = limited();
    let ann = subscribe(&store, 1, "ann").await;
    let damage = || {
        let damaged = store.reader.handle.write(|txn| {
            let mut tables = Tables::open(txn)?;
            tables.usage.insert(sub::<RecipientId>(1).uuid().as_u128(), &[7][..])?;
            Ok(())
        });
        damaged.unwrap();
    };
    accept(&store, "a", &[sub(1)]).await;
    let pending = only(&store, sub(1)).await;
    damage();
    assert!(store.freeze(making(1, &pending, 5_000, 5_000, 10)).await.unwrap());
    assert_exact(&store);
    let rendered = bytes(&store, "ann");
    damage();
    settle(&store, sub(1), &PendingDelivery { rendered: true, ..pending }, Outcome::Delivered).await;
    assert_exact(&store);
    let kept = bytes(&store, "ann");
    assert!(kept < rendered - 5_000 && kept > 5_000, "{kept} of {rendered}");
    damage();
    store.put(Subscription { plugin: None, ..ann }, Quota::Holds).await.unwrap();
    assert_exact(&store);
    let left = bytes(&store, "ann");
    assert!(left < kept - 5_000, "{left} of {kept}");
    assert_eq!(store.damaged(), 1, "it is one row");
    close(store).await;
    assert_eq!(bytes(&reopened(folder.path()), "ann"), left);
}

/// The bytes that an unreadable batch had counted were counted for ever.
#[tokio::test]
async fn a_damaged_batch_counts_nothing_when_it_is_purged() {
    let (_folder, store) = limited();
    subscribe(&store, 1, "ann").await;
    let alone = bytes(&store, "ann");
    let id = accept(&store, "a", &[sub(1)]).await;
    let pending = only(&store, sub(1)).await;
    store.settle(answered(1, &pending, dead(), 10_000)).await.unwrap();
    assert!(bytes(&store, "ann") > alone);
    let damaged = store.reader.handle.write(|txn| {
        let mut tables = Tables::open(txn)?;
        tables.log.batches.insert(id.uuid().as_u128(), &[9, 9][..])?;
        Ok(())
    });
    damaged.unwrap();
    assert_eq!(purge(&store, Purge::Before(after(0))).await, (1, 0));
    assert_exact(&store);
    assert_eq!(bytes(&store, "ann"), alone);
}

/// A file from before it was counted has no such table.
#[tokio::test]
async fn what_an_older_file_has_is_counted_when_it_is_opened() {
    let (folder, store) = limited();
    subscribe(&store, 1, "ann").await;
    accept(&store, "a", &[sub(1)]).await;
    let pending = only(&store, sub(1)).await;
    assert!(store.freeze(making(1, &pending, 3_000, 3_000, 3_000)).await.unwrap());
    let counted = bytes(&store, "ann");
    assert!(counted > 9_000);
    close(store).await;
    let database = redb::Database::open(folder.path().join(FILE_NAME)).unwrap();
    let txn = database.begin_write().unwrap();
    assert!(txn.delete_table(super::super::accounts::USAGE).unwrap());
    set_version(&txn, 2);
    txn.commit().unwrap();
    drop(database);
    assert_eq!(bytes(&reopened(folder.path()), "ann"), counted);
}

/// A run that wrote so much.
fn ran(pending: &PendingDelivery, outcome: Outcome, bytes: usize) -> Settlement {
    let stream = |bytes: usize| StreamTail { tail: "ö".repeat(bytes / 2), bytes: 9, kept: 9 };
    let run = HandlerRun {
        handler: "sum".to_owned(),
        start: RunStart::Fresh,
        fetched: None,
        program: Some(ProgramEnd {
            exit: Exit::Code(1),
            took: Duration::ZERO,
            stdout: stream(bytes),
            stderr: stream(bytes),
        }),
        uploads: Vec::new(),
    };
    Settlement { run: Some(Box::new(run)), ..ending(sub(7), pending, outcome) }
}

/// What handlers' programs wrote was kept without any limit.
#[tokio::test]
async fn what_runs_leave_counts_for_the_sender_of_the_event() {
    let (folder, store) = limited();
    let sent = |id: &str, sender: &str| Arrival { sender: sender.to_owned(), ..arrival(id, &[sub(7)]) };
    let arrivals = vec![sent("a", "ann"), sent("b", "bob"), sent("c", "ann"), sent("d", "ann")];
    let ids = store.log(arrivals).await.unwrap();
    for pending in ready(&store, sub(7)).await.first_attempts {
        let bytes = if pending.event.event.id() == "d" { 100 } else { 20_000 };
        store.settle(ran(&pending, dead(), bytes)).await.unwrap();
    }
    assert_exact(&store);
    assert!((80_000..82_000).contains(&bytes(&store, "ann")), "{}", bytes(&store, "ann"));
    assert!((40_000..41_000).contains(&bytes(&store, "bob")));
    close(store).await;
    let store = reopened(folder.path());
    assert!((80_000..82_000).contains(&bytes(&store, "ann")), "a restart knows it");

    // Half of the share is for the history: the next run keeps the end of what it wrote.
    store.log(vec![sent("e", "ann"), sent("f", "bob")]).await.unwrap();
    for pending in ready(&store, sub(7)).await.first_attempts {
        store.settle(ran(&pending, dead(), 20_000)).await.unwrap();
        let history = history(&store, pending.event.id, sub(7)).await;
        let Entry::Run(run) = &history[0] else { panic!("a run") };
        let kept = run.program.as_ref().unwrap().stdout.tail.len();
        assert_eq!(kept, if pending.event.sender == "ann" { 256 } else { 20_000 });
    }
    assert_exact(&store);

    assert_eq!(purge(&store, Purge::Events(vec![ids[0]])).await, (1, 0));
    assert_exact(&store);
    assert!((40_000..42_000).contains(&bytes(&store, "ann")), "its events go one by one");
    assert_eq!(purge(&store, Purge::Before(Timestamp::MAX)).await, (5, 0));
    assert_exact(&store);
    assert_eq!((bytes(&store, "ann"), bytes(&store, "bob")), (0, 0));
}

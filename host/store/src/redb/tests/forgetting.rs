//! Deleted subscriptions go when nothing in the log refers to them.

use redb::ReadableTableMetadata;

use super::super::accounts::USAGE;
use super::super::group::{Group, Op};
use super::super::registry::{RECOVERIES, SUBSCRIPTIONS};
use super::super::schema::Tables;
use super::*;
use waypost_domain::{Recovery, Subscription};

async fn subscribe(store: &Store, id: u128, deleted: Option<Timestamp>) {
    let target = "http://localhost/".parse().unwrap();
    let mut new = Subscription::new("ann".into(), "all".into(), "$".into(), target, after(0));
    (new.id, new.deleted) = (sub(id), deleted);
    store.put(new, Quota::Holds).await.unwrap();
}

fn ago(minutes: u64) -> Option<Timestamp> {
    Some(clock::now() - Duration::from_secs(60 * minutes))
}

async fn forget(store: &Store) -> Vec<SubscriptionId> {
    store.forget(vec![sub(1), sub(2), sub(3), sub(4), sub(5)]).await.unwrap()
}

/// Deleted subscriptions stayed in the table and in memory for ever: a subscription an hour was 9,000 a year.
#[tokio::test]
async fn a_deleted_one_goes_with_the_last_event_from_before() {
    let (_folder, store) = fresh();
    subscribe(&store, 1, ago(20)).await;
    subscribe(&store, 2, ago(1)).await;
    subscribe(&store, 3, None).await;
    subscribe(&store, 4, ago(20)).await;
    let recovery = Recovery::new(sub(1), None, None, "ann".to_owned(), after(0));
    assert!(store.begin_recovery(recovery, None).await.unwrap());
    let id = accept(&store, "newer than the deletion", &[sub(4)]).await;
    settle(&store, sub(1), &only(&store, sub(4)).await, Outcome::Delivered).await;
    assert_eq!(
        forget(&store).await,
        [sub(1)],
        "the second may be in an event on its way, the fourth has a delivery"
    );
    assert_eq!(forget(&store).await, []);
    while store.cancel_pending(sub(4), 10).await.unwrap() {}
    assert_eq!(forget(&store).await, [sub(4)]);
    assert_eq!(subscriptions(&store).await.len(), 2);
    let rows = store.reader.handle.read(|txn| {
        let recoveries = txn.open_table(RECOVERIES)?.len()?;
        Ok((txn.open_table(SUBSCRIPTIONS)?.len()?, txn.open_table(USAGE)?.len()?, recoveries))
    });
    assert_eq!(rows.unwrap(), (2, 2, 0));
    assert!(store.reached().await.unwrap().iter().all(|(id, _)| *id != sub(1)));
    assert!(store.history(id).await.unwrap().is_some());
}

#[tokio::test]
async fn one_with_a_delivery_of_an_old_event_stays_until_that_is_purged() {
    // It writes to the file past the journal.
    if ON_JOURNAL {
        return;
    }
    let (_folder, store) = fresh();
    let id = accept(&store, "old", &[sub(1)]).await;
    // As if the event were half an hour old, and the subscription deleted a quarter later.
    subscribe(&store, 1, ago(0)).await;
    while store.cancel_pending(sub(1), 10).await.unwrap() {}
    let now = clock::now() + Duration::from_secs(60 * 15);
    let forget = |now| {
        store.reader.handle.write(|txn| {
            let group = Group { ops: vec![Op::Forget { deleted: vec![sub(1)] }], ends: Vec::new() };
            let mut answers = machine(Duration::ZERO).apply(&mut Tables::open(txn)?, now, &group)?.0;
            Ok(answers.remove(0).unwrap().forgotten())
        })
    };
    assert_eq!(forget(now).unwrap(), []);
    assert_eq!(purge(&store, Purge::Events(vec![id])).await, (1, 0));
    assert_eq!(forget(now).unwrap(), [sub(1)]);
}

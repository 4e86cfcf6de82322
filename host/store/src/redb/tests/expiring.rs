//! What waits for a disabled subscription ends after a while, and keeps no events any more.

use super::*;
use crate::StoredState;
use waypost_domain::{Activity, Subscription};

async fn subscribe(store: &Store, id: u128, activity: Activity) -> Subscription {
    let target = "http://localhost/".parse().unwrap();
    let mut new = Subscription::new("ann".into(), "all".into(), "$".into(), target, after(0));
    (new.id, new.activity) = (sub(id), activity);
    store.put(new.clone(), Quota::Holds).await.unwrap();
    new
}

fn disabled() -> Activity {
    Activity::Disabled { since: Timestamp::MAX, error: None }
}

/// Gives up what has waited since before a time, and removes the events that nothing waits for; returns how many deliveries
/// and events that were.
async fn expire(store: &Store, id: u128, time: Timestamp) -> (u64, u64) {
    let expired = store.expire_backlog(sub(id), time).await.unwrap();
    (expired, purge(store, Purge::Before(Timestamp::MAX)).await.0)
}

/// One disabled subscription kept every event of its pending deliveries, and the disk filled.
#[tokio::test]
async fn what_has_waited_for_too_long_is_given_up_and_its_event_goes() {
    let (folder, store) = fresh();
    subscribe(&store, 1, disabled()).await;
    let first = accept(&store, "never tried", &[sub(1)]).await;
    let second = accept(&store, "tried", &[sub(1)]).await;
    let waiting = ready(&store, sub(1)).await.first_attempts;
    assert!(store.freeze(counting(sub(1), &waiting[1], 1)).await.unwrap());
    settle(&store, sub(1), &PendingDelivery { rendered: true, ..waiting[1].clone() }, retry(after(1))).await;
    assert_eq!(purge(&store, Purge::Before(Timestamp::MAX)).await, (0, 2), "a purge keeps what waits");
    assert_eq!(expire(&store, 1, waiting[0].event.received).await, (0, 0), "not before its time");
    assert_eq!(expire(&store, 1, Timestamp::MAX).await, (2, 2));
    for store in [&store, &crashed(folder.path()).1] {
        assert!(listed(store, ALL).await.is_empty());
        assert!(store.recipients_with_backlog().await.unwrap().is_empty());
        for id in [first, second] {
            assert_eq!(store.rendered(id, sub(1)).await.unwrap(), None);
        }
    }
    // An attempt that was in flight when it was disabled.
    settle(&store, sub(1), &waiting[0], Outcome::Delivered).await;
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
}

#[tokio::test]
async fn others_keep_their_deliveries_and_the_history_tells_of_the_dead_letter() {
    let (_folder, store) = fresh();
    let first = subscribe(&store, 1, disabled()).await;
    subscribe(&store, 2, Activity::Enabled).await;
    // The third is a handler.
    let id = accept(&store, "a", &[sub(1), sub(2), sub(3)]).await;
    let asked = accept(&store, "asked for lately", &[sub(1)]).await;
    let tried = ready(&store, sub(1)).await.first_attempts.remove(1);
    settle(&store, sub(1), &tried, dead()).await;
    let lately = clock::now();
    store.redeliver(asked, vec![sub(1)], "ann".to_owned(), lately, None).await.unwrap();
    for (id, expired) in [(1, 1), (2, 0), (3, 0)] {
        assert_eq!(expire(&store, id, lately).await, (expired, 0), "{id}");
    }
    let State::Dead { reason } = state(&store, id, sub(1)).await else { panic!("a dead letter") };
    assert!(reason.contains("the setting backlog_retention"), "{reason}");
    for id in [2, 3] {
        only(&store, sub(id)).await;
    }
    assert_eq!(only(&store, sub(1)).await.event.id, asked);
    store.redeliver(id, vec![sub(1)], "ann".to_owned(), lately, None).await.unwrap();
    assert_eq!(ready(&store, sub(1)).await.due.len(), 2, "it can be asked for again");
    let enabled = Subscription { activity: Activity::Enabled, ..first };
    store.put(enabled, Quota::Exempt).await.unwrap();
    assert_eq!(expire(&store, 1, Timestamp::MAX).await.0, 0);
}

/// More than one write gives up, over several batches.
#[tokio::test]
async fn a_long_backlog_ends_to_the_last() {
    let (_folder, store) = fresh();
    subscribe(&store, 1, disabled()).await;
    for batch in 0..5 {
        let arrivals = (0..300).map(|place| arrival(&format!("{batch}-{place}"), &[sub(1), sub(2)]));
        store.log(arrivals.collect()).await.unwrap();
    }
    assert_eq!(expire(&store, 1, Timestamp::MAX).await, (1_500, 0));
    let counts = store.counts(sub(1)).await.unwrap();
    assert_eq!((counts.of(StoredState::Dead), counts.total()), (1_500, 1_500));
    assert_eq!(ready(&store, sub(2)).await.first_attempts.len(), 1_500);
}

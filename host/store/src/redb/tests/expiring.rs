//! The pending deliveries of a disabled subscription keep their events for as long as any other, and no longer.

use super::*;
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

async fn expire(store: &Store, time: Timestamp) -> PurgeReport {
    store.purge(Purge::Expired(time), None).await.unwrap()
}

/// One disabled subscription kept every event of its pending deliveries, and the disk filled.
#[tokio::test]
async fn what_has_waited_for_longer_than_the_retention_is_given_up_and_its_event_goes() {
    let (folder, store) = fresh();
    subscribe(&store, 1, disabled()).await;
    let first = accept(&store, "never tried", &[sub(1)]).await;
    let second = accept(&store, "tried", &[sub(1)]).await;
    let waiting = ready(&store, sub(1)).await.first_attempts;
    assert!(store.freeze(counting(sub(1), &waiting[1], 1)).await.unwrap());
    settle(&store, sub(1), &PendingDelivery { rendered: true, ..waiting[1].clone() }, retry(after(1))).await;
    assert_eq!(
        expire(&store, waiting[0].event.received).await,
        PurgeReport::default(),
        "not before its time"
    );
    assert_eq!(purge(&store, Purge::Before(Timestamp::MAX)).await, (0, 2), "only retention does that");
    assert_eq!(expire(&store, clock::now()).await, PurgeReport { purged: 2, kept: 0, expired: 2 });
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
    assert_eq!(expire(&store, lately).await, PurgeReport { purged: 0, kept: 2, expired: 1 });
    let State::Dead { reason } = state(&store, id, sub(1)).await else { panic!("a dead letter") };
    assert!(reason.contains("the setting retention"), "{reason}");
    for id in [2, 3] {
        only(&store, sub(id)).await;
    }
    assert_eq!(only(&store, sub(1)).await.event.id, asked);
    store.redeliver(id, vec![sub(1)], "ann".to_owned(), lately, None).await.unwrap();
    assert_eq!(ready(&store, sub(1)).await.due.len(), 2, "it can be asked for again");
    let enabled = Subscription { activity: Activity::Enabled, ..first };
    store.put(enabled, Quota::Exempt).await.unwrap();
    assert_eq!(expire(&store, Timestamp::MAX).await.expired, 0);
}

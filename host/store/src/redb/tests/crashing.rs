//! What is left after the process is killed.

use super::super::ids;
use super::*;
use waypost_domain::Subscription;

#[tokio::test]
async fn nothing_accepted_is_lost() {
    let (folder, store) = fresh();
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(accept(&store, &number.to_string(), &[sub(1), sub(2)]).await);
        if number % 5 == 4 {
            let (_copy, after_crash) = crashed(folder.path());
            let mut listed = listed(&after_crash, ALL).await;
            listed.reverse();
            assert_eq!(listed, ids);
            for subscription in [sub(1), sub(2)] {
                let fresh = ready(&after_crash, subscription).await.first_attempts;
                assert_eq!(fresh.iter().map(|pending| pending.event.id).collect::<Vec<_>>(), ids);
            }
            assert!(accept(&after_crash, "more", &[]).await > ids[number]);
        }
    }
}

#[tokio::test]
async fn every_answered_write_survives() {
    let (folder, store) = fresh();
    let ids = store.log(["a", "b", "c", "d"].map(|id| arrival(id, &[sub(1)])).to_vec()).await.unwrap();
    let waiting = ready(&store, sub(1)).await.first_attempts;
    settle(&store, sub(1), &waiting[0], retry(after(1))).await;
    store.redeliver(ids[1], vec![sub(2)], "bob".to_owned(), after(2), None).await.unwrap();
    settle(&store, sub(1), &waiting[2], Outcome::Delivered).await;
    assert_eq!(purge(&store, Purge::Events(vec![ids[2]])).await, (1, 0));
    let target = "http://localhost/".parse().unwrap();
    let mut subscription = Subscription::new("ann".into(), "all".into(), "$".into(), target, clock::now());
    store.put(subscription.clone(), Quota::Exempt).await.unwrap();
    subscription.name = "every".to_owned();
    store.put(subscription.clone(), Quota::Exempt).await.unwrap();
    store.probe().await.unwrap();

    let (_copy, after_crash) = crashed(folder.path());
    assert_eq!(subscriptions(&after_crash).await, [subscription.into()]);
    assert_eq!(after_crash.histories(ALL).await.unwrap(), store.histories(ALL).await.unwrap());
    assert_eq!(after_crash.recipients_with_backlog().await.unwrap(), [sub(1), sub(2)]);
    let left = ready(&after_crash, sub(1)).await;
    assert_eq!(
        left.first_attempts.iter().map(|pending| pending.event.id).collect::<Vec<_>>(),
        [ids[1], ids[3]]
    );
    assert_eq!((left.due[0].event.id, left.due[0].position.due), (ids[0], Some(after(1))));
    assert_eq!(only(&after_crash, sub(2)).await.event.id, ids[1]);
    assert_eq!(after_crash.reached().await.unwrap(), store.reached().await.unwrap());
}

#[tokio::test]
async fn an_end_that_is_not_answered_yet_may_be_forgotten_and_then_the_delivery_waits() {
    let (folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let waiting = only(&store, sub(1)).await;
    let mut end = std::pin::pin!(store.settle(ending(sub(1), &waiting, Outcome::Delivered)));
    // The writer may be quicker than this look.
    let looked = futures_util::poll!(end.as_mut());
    let (_copy, after_crash) = crashed(folder.path());
    // Forgotten as a whole, or recorded as a whole.
    match ready(&after_crash, sub(1)).await.first_attempts.len() {
        1 => assert_eq!(history(&after_crash, id, sub(1)).await, []),
        left => {
            assert_eq!(left, 0);
            assert!(matches!(state(&after_crash, id, sub(1)).await, State::Delivered { .. }));
        }
    }
    match looked {
        std::task::Poll::Ready(ended) => ended.unwrap(),
        std::task::Poll::Pending => end.await.unwrap(),
    }
    assert!(ready(&store, sub(1)).await.first_attempts.is_empty());
}

#[tokio::test]
async fn close_writes_what_waits() {
    let (folder, store) = fresh();
    accept(&store, "a", &[sub(1)]).await;
    let waiting = only(&store, sub(1)).await;
    let end = store.settle(ending(sub(1), &waiting, Outcome::Delivered));
    let more = store.log(vec![arrival("b", &[sub(2)])]);
    let (ended, accepted, ()) = futures_util::join!(end, more, store.close());
    ended.unwrap();
    accepted.unwrap();
    close(store).await;
    assert_eq!(open(folder.path()).recipients_with_backlog().await.unwrap(), [sub(2)]);
}

#[tokio::test]
async fn ids_grow_over_restarts_though_the_clock_went_back() {
    let (folder, store) = fresh();
    let first = accept(&store, "a", &[]).await;
    close(store).await;
    // The log's last event came when the clock was a century ahead.
    let ahead = ids::first_at(after(3_000_000_000));
    rename_batch(folder.path(), first, ahead);
    let mut last = ahead;
    for _ in 0..3 {
        let store = open(folder.path());
        let ids = store.log(vec![arrival("b", &[sub(1)]), arrival("c", &[])]).await.unwrap();
        assert!(ids[0] > last && ids[1] > ids[0]);
        last = ids[1];
        assert_eq!(listed(&store, Range { limit: 2, ..ALL }).await, [ids[1], ids[0]]);
        assert_eq!(store.history(ids[1]).await.unwrap().unwrap().event.event.id(), "c");
        close(store).await;
    }
}

fn rename_batch(folder: &Path, from: EventId, to: EventId) {
    use super::super::{
        handle::Handle,
        record,
        schema::{MILLIS_KEY, Tables},
    };
    use crate::LoggedEvent;
    let renamed = Handle::open(folder, &key(folder)).unwrap().write(|txn| {
        let mut tables = Tables::open(txn)?;
        let row = tables.log.batches.remove(from.uuid().as_u128())?.unwrap().value().to_vec();
        let batch = record::decode_batch(&row.into()).unwrap();
        let logged = LoggedEvent { id: to, ..LoggedEvent::clone(batch[0].as_ref().unwrap()) };
        tables
            .log
            .batches
            .insert(to.uuid().as_u128(), record::encode_batch([Some(&logged)].into_iter(), &[]).as_slice())?;
        tables.meta.insert(MILLIS_KEY, ids::millis(to))?;
        Ok(())
    });
    renamed.unwrap();
}

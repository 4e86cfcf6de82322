//! What a purge removes, and what it must keep.

use super::*;

async fn delivered(store: &Store, id: &str) -> EventId {
    let id = accept(store, id, &[sub(9)]).await;
    let waiting = ready(store, sub(9)).await;
    let waiting = waiting.first_attempts.iter().find(|pending| pending.event.id == id).unwrap();
    settle(store, sub(9), waiting, Outcome::Delivered).await;
    id
}

#[tokio::test]
async fn open_deliveries_keep_their_event() {
    let (_folder, store) = fresh();
    let (done, unmatched) = (delivered(&store, "done").await, accept(&store, "unmatched", &[]).await);
    let pending = accept(&store, "pending", &[sub(1)]).await;
    let retrying = accept(&store, "retrying", &[sub(2)]).await;
    settle(&store, sub(2), &only(&store, sub(2)).await, retry(after(1))).await;
    let again = delivered(&store, "again").await;
    store.redeliver(again, vec![sub(9)], "bob".to_owned(), after(2), None).await.unwrap();
    let half = accept(&store, "half", &[sub(3), sub(4)]).await;
    settle(&store, sub(3), &only(&store, sub(3)).await, dead()).await;

    let all = vec![half, done, unmatched, pending, retrying, again, half, EventId::MAX, EventId::NIL];
    assert_eq!(purge(&store, Purge::Events(all.clone())).await, (2, 4));
    assert_eq!(listed(&store, ALL).await, [half, again, retrying, pending]);
    assert_eq!(store.history(done).await.unwrap(), None);
    assert_eq!(purge(&store, Purge::Before(Timestamp::MAX)).await, (0, 4));

    for subscription in [sub(1), sub(2), sub(4), sub(9)] {
        settle(&store, subscription, &only(&store, subscription).await, Outcome::Delivered).await;
    }
    assert_eq!(purge(&store, Purge::Events(all)).await, (4, 0));
    assert!(listed(&store, ALL).await.is_empty());
    assert_eq!(purge(&store, Purge::Before(Timestamp::MAX)).await, (0, 0));
}

#[tokio::test]
async fn those_that_stay_keep_their_places() {
    let (folder, store) = fresh();
    let matched = [&[][..], &[sub(1)], &[sub(9)], &[sub(1)]];
    let arrivals = matched.iter().zip("abcd".chars()).map(|(matched, id)| arrival(&id.to_string(), matched));
    let ids = store.log(arrivals.collect()).await.unwrap();
    settle(&store, sub(9), &only(&store, sub(9)).await, Outcome::Delivered).await;
    assert_eq!(purge(&store, Purge::Events(ids.clone())).await, (2, 2));
    close(store).await;
    let store = open(folder.path());
    assert_eq!(listed(&store, ALL).await, [ids[3], ids[1]]);
    let waiting = ready(&store, sub(1)).await.first_attempts;
    let found: Vec<_> = waiting.iter().map(|pending| (pending.event.id, pending.position.index)).collect();
    assert_eq!(found, [(ids[1], 1), (ids[3], 3)]);
    settle(&store, sub(1), &waiting[1], retry(after(1))).await;
    assert_eq!(ready(&store, sub(1)).await.due[0].event.event.id(), "d");
    let again = accept(&store, "e", &[]).await;
    assert!(again > ids[3]);
    assert_eq!(store.history(ids[2]).await.unwrap(), None);
    assert_eq!(store.history(ids[3]).await.unwrap().unwrap().event.id, ids[3]);
}

#[tokio::test]
async fn history_goes_with_the_last_event_of_a_batch() {
    let (_folder, store) = fresh();
    let ids = store.log(vec![arrival("a", &[sub(9)]), arrival("b", &[sub(9)])]).await.unwrap();
    for waiting in ready(&store, sub(9)).await.first_attempts {
        settle(&store, sub(9), &waiting, dead()).await;
    }
    let rows = || rows_of_history(&store);
    assert_eq!(purge(&store, Purge::Events(vec![ids[0]])).await, (1, 0));
    assert!(rows() > 0, "the other event's");
    assert_eq!(history(&store, ids[1], sub(9)).await.len(), 1);
    assert_eq!(purge(&store, Purge::Events(vec![ids[1]])).await, (1, 0));
    assert_eq!(rows(), 0);
}

fn rows_of_history(store: &Store) -> u64 {
    use redb::ReadableTableMetadata;
    store.reader.handle.read(|txn| Ok(txn.open_table(super::super::history::HISTORY)?.len()?)).unwrap()
}

/// When an attempt ended after its event had been purged, it left a row of history that nothing would remove.
#[tokio::test]
async fn a_late_end_leaves_nothing_of_a_purged_event() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let under_way = only(&store, sub(1)).await;
    assert!(!store.cancel_pending(sub(1), 10).await.unwrap());
    assert_eq!(purge(&store, Purge::Events(vec![id])).await, (1, 0));
    settle(&store, sub(1), &under_way, retry(after(1))).await;
    assert_eq!(rows_of_history(&store), 0);
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_purge_goes_on_over_more_batches_than_one_transaction_looks_at() {
    for by_id in [true, false] {
        let (_folder, store) = fresh();
        let mut ids = Vec::new();
        for number in 0..50 {
            let matched = if number % 10 == 0 { &[sub(1)][..] } else { &[] };
            ids.push(accept(&store, &number.to_string(), matched).await);
        }
        let what = if by_id { Purge::Events(ids.clone()) } else { Purge::Before(Timestamp::MAX) };
        assert_eq!(purge(&store, what).await, (45, 5));
        let mut left: Vec<_> = ids.iter().step_by(10).copied().collect();
        left.reverse();
        assert_eq!(listed(&store, ALL).await, left);
        assert_eq!(ready(&store, sub(1)).await.first_attempts.len(), 5);
    }
}

/// An event gets its id a little after it was received, so that a bound on ids kept the newest events of the range: a
/// purge of everything until now kept what had been received in the same millisecond.
/// After a clock had been ahead, the purge ended at what was received then, and what came later stayed until that time.
#[tokio::test]
async fn what_came_tomorrow_is_kept_and_what_came_after_it_today_goes() {
    let (_folder, store) = fresh();
    let (now, day) = (clock::now(), jiff::SignedDuration::from_hours(24));
    let tomorrow = Arrival { received: now + day, ..arrival("tomorrow", &[]) };
    let first = store.log(vec![tomorrow]).await.unwrap()[0];
    let today = Arrival { received: now, ..arrival("today", &[]) };
    let second = store.log(vec![today]).await.unwrap()[0];
    let before = now + jiff::SignedDuration::from_secs(1);
    assert_eq!(purge(&store, Purge::Before(before)).await, (1, 0));
    assert!(store.history(second).await.unwrap().is_none());
    assert!(store.history(first).await.unwrap().is_some());
}

#[tokio::test]
async fn everything_received_before_a_time_goes_and_nothing_else() {
    let (_folder, store) = fresh();
    let mut log = Vec::new();
    for number in 0..40 {
        let sent = arrival(&number.to_string(), &[]);
        log.push((store.log(vec![sent.clone()]).await.unwrap()[0], sent.received));
    }
    let mut left = 40;
    for cut in [0, 1, 2, 17, 33, 39] {
        let (_, time) = log[cut];
        let (purged, kept) = purge(&store, Purge::Before(time)).await;
        left -= purged;
        assert_eq!((left, kept), (40 - cut as u64, 0));
        assert_eq!(listed(&store, ALL).await.last(), Some(&log[cut].0));
    }
    // One that waited for its id for an hour.
    let (long_ago, lately) =
        (clock::now() - Duration::from_secs(3_600), clock::now() - Duration::from_secs(1_800));
    let late = Arrival { received: long_ago, ..arrival("late", &[]) };
    let late = store.log(vec![late]).await.unwrap()[0];
    purge(&store, Purge::Events(vec![log[39].0])).await;
    assert_eq!(listed(&store, ALL).await, [late]);
    assert_eq!(purge(&store, Purge::Before(long_ago)).await, (0, 0));
    assert_eq!(purge(&store, Purge::Before(lately)).await, (1, 0));
}

//! Deliveries by recipient and state.

use super::*;
use crate::redb::deliveries::FOLD_EVERY;
use crate::{DeliveriesQuery, ListedDelivery, Release, StoredState};
use waypost_domain::Holder;

async fn list(
    store: &Store,
    state: impl Into<Option<StoredState>>,
    before: Option<EventId>,
    limit: usize,
) -> Vec<EventId> {
    let state = state.into();
    let query = DeliveriesQuery { recipient: sub(1), state, since: None, until: None, before, limit };
    store.deliveries(query).await.unwrap().into_iter().map(|listed| listed.event).collect()
}

/// The numbers of a subscription's deliveries in the order of [`StoredState::ALL`].
async fn counts(store: &Store) -> [u64; 7] {
    let counts = store.counts(sub(1)).await.unwrap();
    StoredState::ALL.map(|state| counts.of(state))
}

/// Writes until changes of numbers have been folded.
async fn fold(store: &Store) {
    for _ in 0..FOLD_EVERY {
        store.probe().await.unwrap();
    }
}

/// Events of three batches with one delivery in each state, oldest first.
async fn one_in_each_state(store: &Store) -> Vec<EventId> {
    let skipped = Outcome::Skipped { reason: "nothing to send".to_owned() };
    let ends = [Outcome::Delivered, Outcome::Denied, skipped, dead(), retry(after(5))];
    let mut ids = Vec::new();
    for number in 0..3 {
        let arrivals = ["a", "b", "c", "d", "e", "f"].map(|id| arrival(&format!("{id}{number}"), &[sub(1)]));
        ids.extend(store.log(arrivals.to_vec()).await.unwrap());
        let page = ready(store, sub(1)).await.first_attempts;
        let new = page.iter().filter(|pending| ids[number * 6..].contains(&pending.event.id));
        for (pending, end) in new.zip(&ends) {
            settle(store, sub(1), pending, end.clone()).await;
        }
    }
    ids
}

#[tokio::test]
async fn each_state_lists_its_deliveries_newest_first() {
    let (folder, store) = fresh();
    let ids = one_in_each_state(&store).await;
    close(store).await;
    let store = open(folder.path());
    assert_eq!(counts(&store).await, [3, 3, 0, 3, 3, 3, 3]);
    let places = [
        (StoredState::Delivered, 0),
        (StoredState::Denied, 1),
        (StoredState::Skipped, 2),
        (StoredState::Dead, 3),
        (StoredState::Pending, 5),
    ];
    for (state, place) in places {
        let expected = [ids[12 + place], ids[6 + place], ids[place]];
        assert_eq!(list(&store, state, None, 9).await, expected, "{state:?}");
        assert_eq!(list(&store, state, None, 2).await, expected[..2], "{state:?}");
        assert_eq!(list(&store, state, Some(expected[0]), 9).await, expected[1..], "{state:?}");
        assert_eq!(list(&store, state, Some(expected[1]), 1).await, expected[2..], "{state:?}");
    }
    assert!(list(&store, StoredState::Held, None, 9).await.is_empty());
}

#[tokio::test]
async fn all_states_together_are_in_the_order_of_the_log() {
    let (_folder, store) = fresh();
    let mut ids = one_in_each_state(&store).await;
    let other = accept(&store, "other", &[sub(2)]).await;
    assert!(store.redeliver(other, vec![sub(1)], "bob".to_owned(), after(1), None).await.unwrap());
    ids.push(other);
    ids.reverse();
    assert_eq!(list(&store, None, None, 99).await, ids);
    assert_eq!(list(&store, None, None, 7).await, ids[..7]);
    assert_eq!(list(&store, None, Some(ids[6]), 7).await, ids[7..14]);
}

#[tokio::test]
async fn what_waits_is_listed_with_its_time() {
    let (_folder, store) = fresh();
    one_in_each_state(&store).await;
    let mut due = ready(&store, sub(1)).await.due;
    settle(&store, sub(1), &due[0], retry(after(50))).await;
    due.sort_by_key(|pending| std::cmp::Reverse(pending.event.id));
    let state = Some(StoredState::Retrying);
    let query =
        DeliveriesQuery { recipient: sub(1), state, since: None, until: None, before: None, limit: 9 };
    let times = [5, 5, 50].map(|seconds| Some(after(seconds)));
    let expected: Vec<_> =
        due.iter().zip(times).map(|(pending, due)| ListedDelivery { event: pending.event.id, due }).collect();
    assert_eq!(store.deliveries(query).await.unwrap(), expected);
}

/// Whatever a delivery goes through, it is counted once, and where it stands.
#[tokio::test]
async fn redelivery_cancelling_and_purge_are_counted() {
    let (_folder, store) = fresh();
    let ids = one_in_each_state(&store).await;
    for id in [ids[0], ids[3], ids[4]] {
        assert!(store.redeliver(id, vec![sub(1)], "bob".to_owned(), after(1), None).await.unwrap());
    }
    assert_eq!(counts(&store).await, [6, 2, 0, 2, 3, 3, 2]);
    let pending = list(&store, StoredState::Pending, None, 9).await;
    assert_eq!(pending.len(), 6);
    assert!(!store.cancel_pending(sub(1), 100).await.unwrap());
    assert_eq!(counts(&store).await, [0, 0, 0, 2, 3, 11, 2]);
    assert_eq!(list(&store, StoredState::Skipped, None, 99).await.len(), 11);
    assert_eq!(purge(&store, Purge::Events(ids[..6].to_vec())).await, (6, 0));
    assert_eq!(counts(&store).await, [0, 0, 0, 2, 2, 6, 2]);
    assert_eq!(purge(&store, Purge::Before(Timestamp::MAX)).await, (12, 0));
    assert_eq!(counts(&store).await, [0; 7]);
    for state in StoredState::ALL {
        assert!(list(&store, state, None, 9).await.is_empty(), "{state:?}");
    }
}

/// Counts that cannot be read are made again from the rows when changes are folded.
#[tokio::test]
async fn damaged_counts_are_counted_again() {
    let (_folder, store) = fresh();
    let ids = one_in_each_state(&store).await;
    let damaged = store.reader.handle.write(|txn| {
        let mut tables = super::super::schema::Tables::open(txn)?;
        tables.deliveries.counts.insert(sub::<RecipientId>(1).uuid().as_u128(), &[4, 4, 4][..])?;
        Ok(())
    });
    damaged.unwrap();
    assert!(matches!(store.counts(sub(1)).await, Err(crate::Error::Damaged { table: "counts", .. })));
    assert!(store.redeliver(ids[0], vec![sub(1)], "bob".to_owned(), after(1), None).await.unwrap());
    fold(&store).await;
    assert_eq!(counts(&store).await, [4, 3, 0, 2, 3, 3, 3]);
}

/// Whose changes were in a row that cannot be read is unknown: all are counted again.
#[tokio::test]
async fn damaged_changes_of_counts_are_counted_again() {
    let (_folder, store) = fresh();
    one_in_each_state(&store).await;
    let damaged = store.reader.handle.write(|txn| {
        let mut tables = super::super::schema::Tables::open(txn)?;
        assert!(tables.deliveries.count_changes.pop_first()?.is_some(), "changes wait to be folded");
        tables.deliveries.count_changes.insert(1, &[4, 4, 4][..])?;
        Ok(())
    });
    damaged.unwrap();
    let unreadable = store.counts(sub(1)).await;
    assert!(matches!(unreadable, Err(crate::Error::Damaged { table: "count_changes", .. })));
    fold(&store).await;
    assert_eq!(counts(&store).await, [3, 3, 0, 3, 3, 3, 3]);
}

/// The ends of a batch that cannot be read leave lists and counts with it.
#[tokio::test]
async fn a_damaged_batch_is_uncounted_when_it_is_purged() {
    let (_folder, store) = fresh();
    let ids = one_in_each_state(&store).await;
    let damaged = store.reader.handle.write(|txn| {
        let mut tables = super::super::schema::Tables::open(txn)?;
        tables.log.batches.insert(ids[0].uuid().as_u128(), &[9, 9][..])?;
        Ok(())
    });
    damaged.unwrap();
    store.reader.recent.drop_batch(ids[0].uuid().as_u128());
    assert_eq!(
        purge(&store, Purge::Before(Timestamp::MAX)).await,
        (9, 4),
        "the damaged one counts as one event"
    );
    // What waits for another attempt there becomes a dead letter when it is read.
    assert_eq!(counts(&store).await[3..], [0, 0, 0, 0]);
    assert!(list(&store, StoredState::Dead, None, 9).await.is_empty());
}

#[tokio::test]
async fn since_and_until_bound_the_receipt_in_every_state() {
    let (_folder, store) = fresh();
    let mut ids = Vec::new();
    // The ids are of one moment, a quarter of an hour after one receipt, and within minutes of others.
    for hour in 0..4_i64 {
        let received = waypost_runtime::clock::now() - jiff::SignedDuration::from_mins(15 * (3 - hour));
        let arrivals =
            ["a", "b", "c", "d"].map(|id| Arrival { received, ..arrival(&format!("{id}{hour}"), &[sub(1)]) });
        ids.push((received, store.log(arrivals.to_vec()).await.unwrap()));
    }
    let pending = ready(&store, sub(1)).await.first_attempts;
    for (pending, end) in pending.iter().zip([Outcome::Delivered, dead(), retry(after(5))].iter().cycle()) {
        if ids.iter().all(|(_, of)| of[3] != pending.event.id) {
            settle(&store, sub(1), pending, end.clone()).await;
        }
    }
    let all: Vec<EventId> = ids.iter().flat_map(|(_, of)| of.clone()).collect();
    for state in [None].into_iter().chain(StoredState::ALL.map(Some)) {
        let whole = list(&store, state, None, 99).await;
        for (first, last) in [(0, 4), (1, 3), (2, 2), (3, 4)] {
            let since = ids.get(first).map(|(at, _)| *at);
            let until = ids.get(last).map(|(at, _)| *at);
            let query = DeliveriesQuery { recipient: sub(1), state, since, until, before: None, limit: 99 };
            let found: Vec<_> =
                store.deliveries(query).await.unwrap().into_iter().map(|listed| listed.event).collect();
            let meant = &all[first * 4..last * 4];
            let expected: Vec<_> = whole.iter().filter(|event| meant.contains(event)).copied().collect();
            assert_eq!(found, expected, "{state:?} {first}..{last}");
        }
    }
}

#[tokio::test]
async fn what_is_held_or_retried_is_found_among_much_else_that_waits() {
    let (folder, store) = fresh();
    let arrivals = (0..300).map(|number| arrival(&format!("{number}"), &[sub(1)])).collect();
    let ids = store.log(arrivals).await.unwrap();
    for pending in ready(&store, sub(1)).await.first_attempts {
        if pending.event.id == ids[7] {
            let (event, position, progress) = (pending.event.id, pending.position, pending.progress);
            let (by, reason) = (Holder::Store, "the disk is full".to_owned());
            let (since, due) = (after(1), after(9));
            let held = Release { recipient: sub(1), event, position, progress, by, reason, since, due };
            store.release(held).await.unwrap();
        } else {
            settle(&store, sub(1), &pending, retry(after(5))).await;
        }
    }
    close(store).await;
    let store = open(folder.path());
    assert_eq!(list(&store, StoredState::Held, None, 9).await, [ids[7]]);
    assert_eq!(list(&store, StoredState::Retrying, None, 999).await.len(), 299);
    assert_eq!(list(&store, StoredState::Retrying, Some(ids[8]), 1).await, [ids[6]]);
}

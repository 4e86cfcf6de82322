//! What is accepted is there, whole and in order.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::*;
use crate::{Error, FailedFilter};

#[tokio::test]
async fn an_accepted_event_is_listed_with_its_pending_deliveries() {
    let (_folder, store) = fresh();
    let sent = arrival("a", &[sub(1), sub(2)]);
    let id = store.log(vec![sent.clone()]).await.unwrap()[0];

    let history = store.history(id).await.unwrap().unwrap();
    assert_eq!(history.event.id, id);
    assert_eq!(history.event.event, sent.event);
    assert_eq!(history.event.received, sent.received);
    assert_eq!(history.event.sender, "ann");
    assert_eq!(history.deliveries, [untried(sub(1)), untried(sub(2))]);
    assert_eq!(store.histories(ALL).await.unwrap(), std::slice::from_ref(&history));
    for subscription in [sub(1), sub(2)] {
        let waiting = ready(&store, subscription).await;
        assert_eq!(waiting.first_attempts.len(), 1);
        assert_eq!(waiting.first_attempts[0].event, history.event);
        assert_eq!(waiting.first_attempts[0].progress, Progress::default());
        assert!(waiting.due.is_empty() && waiting.next_due.is_none());
    }
    assert!(ready(&store, sub(3)).await.first_attempts.is_empty());
    assert_eq!(store.recipients_with_backlog().await.unwrap(), [sub(1), sub(2)]);
    let woken = store.wakes().drain().await;
    let counts: std::collections::HashMap<_, _> = woken.iter().map(|(id, news)| (*id, news.count)).collect();
    assert_eq!(counts, [(sub(1), 1), (sub(2), 1)].into());
    assert_eq!(store.history(EventId::NIL).await.unwrap(), None);
    assert_eq!(store.history(EventId::MAX).await.unwrap(), None);
}

#[tokio::test]
async fn an_event_that_nothing_matches_is_logged_without_deliveries() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[]).await;
    assert!(store.history(id).await.unwrap().unwrap().deliveries.is_empty());
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_filter_without_an_answer_is_told_and_owes_nothing() {
    let (folder, store) = fresh();
    let failed = |number| (sub(number), format!("reason {number}"));
    let arrivals = vec![
        Arrival { failed: vec![failed(9), failed(2)], ..arrival("a", &[sub(1)]) },
        arrival("b", &[sub(2)]),
        Arrival { failed: vec![failed(2)], ..arrival("c", &[]) },
    ];
    let received: Vec<_> = arrivals.iter().map(|arrival| arrival.received).collect();
    let ids = store.log(arrivals).await.unwrap();
    let told = |number, at| FailedFilter { recipient: sub(number), at, reason: format!("reason {number}") };
    let expected = [
        (vec![untried(sub(1))], vec![told(2, received[0]), told(9, received[0])]),
        (vec![untried(sub(2))], vec![]),
        (vec![], vec![told(2, received[2])]),
    ];
    close(store).await;
    let store = open(folder.path());
    for (id, (deliveries, failed)) in ids.iter().zip(expected) {
        let history = store.history(*id).await.unwrap().unwrap();
        // Times on disk are whole microseconds.
        let failed: Vec<_> =
            failed.into_iter().map(|told| FailedFilter { at: on_disk(told.at), ..told }).collect();
        assert_eq!((history.deliveries, history.failed), (deliveries, failed));
    }
    assert_eq!(store.recipients_with_backlog().await.unwrap(), [sub(1), sub(2)]);
    assert_eq!(purge(&store, Purge::Events(vec![ids[2]])).await, (1, 0), "it keeps no event");
    assert_eq!(store.history(ids[2]).await.unwrap(), None);
}

fn on_disk(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap()
}

#[tokio::test]
async fn no_events_get_no_ids() {
    let (_folder, store) = fresh();
    assert!(store.log(Vec::new()).await.unwrap().is_empty());
    assert!(listed(&store, ALL).await.is_empty());
}

#[tokio::test]
async fn a_long_batch_is_split_and_every_event_is_found() {
    let (folder, store) = fresh();
    let arrivals: Vec<_> = (0..700).map(|number| arrival(&number.to_string(), &[sub(1)])).collect();
    let ids = store.log(arrivals).await.unwrap();
    assert!(ids.is_sorted() && ids.iter().collect::<HashSet<_>>().len() == 700);
    // From memory, and then from the file.
    let (_copy, crashed) = crashed(folder.path());
    for store in [store, crashed] {
        let batches: HashSet<_> =
            ready(&store, sub(1)).await.first_attempts.iter().map(|pending| pending.position.batch).collect();
        assert_eq!(batches.len(), 3, "256 + 256 + 188");
        for (number, id) in ids.iter().enumerate() {
            let history = store.history(*id).await.unwrap().unwrap();
            assert_eq!(history.event.event.id(), number.to_string());
        }
        let mut listed = listed(&store, ALL).await;
        listed.reverse();
        assert_eq!(listed, ids);
    }
}

#[tokio::test]
async fn a_batch_is_full_at_a_mebibyte() {
    let (_folder, store) = fresh();
    let big =
        |number: u32| Arrival { event: event(&number.to_string(), 400 * 1024), ..arrival("", &[sub(1)]) };
    let ids = store.log((0..7).map(big).collect()).await.unwrap();
    let fresh = ready(&store, sub(1)).await.first_attempts;
    let places: Vec<_> =
        fresh.iter().map(|pending| (pending.position.batch, pending.position.index)).collect();
    let expected =
        [(0, 0), (0, 1), (0, 2), (3, 0), (3, 1), (3, 2), (6, 0)].map(|(batch, index)| (ids[batch], index));
    assert_eq!(places, expected);
    assert_eq!(fresh.iter().map(|pending| pending.event.id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn who_accepts_at_once_gets_his_own_ids_in_order() {
    let (_folder, store) = fresh();
    let accepts = (0..100).map(|sender: u32| {
        let arrivals =
            (0..sender % 5).map(|number| arrival(&format!("{sender}-{number}"), &[sub(1)])).collect();
        store.log(arrivals)
    });
    let answers = join_all(accepts).await;
    let mut all = Vec::new();
    for (sender, ids) in answers.into_iter().enumerate() {
        let ids = ids.unwrap();
        assert_eq!(ids.len(), sender % 5);
        assert!(ids.is_sorted());
        for (number, id) in ids.iter().enumerate() {
            let history = store.history(*id).await.unwrap().unwrap();
            assert_eq!(history.event.event.id(), format!("{sender}-{number}"));
        }
        all.extend(ids);
    }
    all.sort();
    let fresh = ready(&store, sub(1)).await.first_attempts;
    assert_eq!(fresh.iter().map(|pending| pending.event.id).collect::<Vec<_>>(), all);
    let batches: HashSet<_> = fresh.iter().map(|pending| pending.position.batch).collect();
    assert!(batches.len() < 50, "{} commits for 100 accepts at once", batches.len());
}

#[tokio::test]
async fn first_attempts_are_read_on_from_where_the_last_reading_ended() {
    let (_folder, store) = fresh();
    let mut ids = Vec::new();
    for number in 0..5 {
        let pair = [0, 1].map(|half| arrival(&format!("{number}-{half}"), &[sub(1)]));
        ids.extend(store.log(pair.to_vec()).await.unwrap());
    }
    let mut query = ReadyQuery {
        recipient: sub(1),
        after: EventId::NIL,
        first_attempts: 3,
        now: Timestamp::MAX,
        due: usize::MAX,
    };
    let mut read = Vec::new();
    loop {
        let fresh = store.ready(query).await.unwrap().first_attempts;
        let Some(last) = fresh.last() else { break };
        assert!(fresh.len() == 4 || read.len() == 8, "whole batches until there are three");
        query.after = last.position.batch;
        read.extend(fresh.into_iter().map(|pending| pending.event.id));
    }
    assert_eq!(read, ids);
    let none = store.ready(ReadyQuery { after: EventId::NIL, first_attempts: 0, ..query }).await.unwrap();
    assert!(none.first_attempts.is_empty());
}

#[tokio::test]
async fn a_dropped_accept_is_written_all_the_same() {
    let (_folder, store) = fresh();
    {
        let mut accept = std::pin::pin!(store.log(vec![arrival("a", &[sub(1)])]));
        // The writer may be quicker than this look.
        drop(futures_util::poll!(accept.as_mut()));
    }
    // On a journal, what comes later may be there first.
    while listed(&store, ALL).await.is_empty() {
        store.probe().await.unwrap();
    }
    assert_eq!(listed(&store, ALL).await.len(), 1);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (_folder, store) = fresh();
    store.close().await;
    store.close().await;
    assert!(matches!(store.log(vec![arrival("a", &[])]).await, Err(Error::Closed)));
    assert!(matches!(store.probe().await, Err(Error::Closed)));
    assert!(listed(&store, ALL).await.is_empty(), "reading goes on until the end");
}

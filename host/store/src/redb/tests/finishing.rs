//! The state of the store after an attempt has ended.

use futures_util::future::{join, join_all};

use super::*;

#[tokio::test]
async fn a_final_outcome_leaves_no_row() {
    let (_folder, store) = fresh();
    let skipped = Outcome::Skipped { reason: "nothing to send".to_owned() };
    for outcome in [Outcome::Delivered, Outcome::Denied, skipped, dead()] {
        let id = accept(&store, "a", &[sub(1)]).await;
        let waiting = only(&store, sub(1)).await;
        let ending = ending(sub(1), &waiting, outcome.clone());
        store.settle(ending.clone()).await.unwrap();
        // The future has resolved: every reader sees it.
        assert!(ready(&store, sub(1)).await.first_attempts.is_empty());
        assert!(ready(&store, sub(1)).await.due.is_empty());
        assert!(store.recipients_with_backlog().await.unwrap().is_empty());
        assert_eq!(history(&store, id, sub(1)).await, [Entry::Attempt(ending.attempt)]);
        assert!(state(&store, id, sub(1)).await.is_final());
    }
}

#[tokio::test]
async fn a_retry_is_due_at_its_time_and_not_before() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let first = only(&store, sub(1)).await;
    let begun = ending(sub(1), &first, retry(after(5)));
    store.settle(begun.clone()).await.unwrap();

    let early = ready_at(&store, sub(1), after(5) - Duration::from_micros(1)).await;
    assert!(early.first_attempts.is_empty() && early.due.is_empty());
    assert_eq!(early.next_due, Some(after(5)));
    let waiting = ready_at(&store, sub(1), after(5)).await;
    assert_eq!(waiting.next_due, None);
    let [again] = &waiting.due[..] else { panic!("{waiting:?}") };
    assert_eq!((again.event.id, again.position.due), (id, Some(after(5))));
    assert_eq!(again.progress, begun.progress);
    assert_eq!(again.progress.first_attempt, Some(begun.attempt.at));
    assert_eq!(store.recipients_with_backlog().await.unwrap(), [sub(1)]);

    settle(&store, sub(1), again, retry(after(9))).await;
    let third = only(&store, sub(1)).await;
    assert_eq!((third.progress.failed, third.position.due), (2, Some(after(9))));
    assert_eq!(third.progress.first_attempt, Some(begun.attempt.at));
    settle(&store, sub(1), &third, Outcome::Delivered).await;
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
    assert_eq!(history(&store, id, sub(1)).await.len(), 3);
}

#[tokio::test]
async fn the_most_overdue_come_first_and_the_next_one_is_named() {
    let (_folder, store) = fresh();
    for due in [30, 10, 20] {
        accept(&store, "a", &[sub(1)]).await;
        let waiting = ready(&store, sub(1)).await;
        settle(&store, sub(1), &waiting.first_attempts[0], retry(after(due))).await;
    }
    let query =
        ReadyQuery { recipient: sub(1), after: EventId::NIL, first_attempts: 0, now: after(25), due: 1 };
    let dues = |waiting: &ReadyPage| {
        waiting.due.iter().map(|pending| pending.position.due.unwrap()).collect::<Vec<_>>()
    };
    let waiting = store.ready(query).await.unwrap();
    assert_eq!((dues(&waiting), waiting.next_due), (vec![after(10)], Some(after(20))));
    let waiting = store.ready(ReadyQuery { due: 9, ..query }).await.unwrap();
    assert_eq!((dues(&waiting), waiting.next_due), (vec![after(10), after(20)], Some(after(30))));
}

#[tokio::test]
async fn places_of_one_batch_end_apart_and_together() {
    let (_folder, store) = fresh();
    let arrivals: Vec<_> = (0..40).map(|number| arrival(&number.to_string(), &[sub(1), sub(2)])).collect();
    let ids = store.log(arrivals).await.unwrap();
    let fresh = ready(&store, sub(1)).await.first_attempts;
    let outcome = |index: u32| if index.is_multiple_of(3) { retry(after(1)) } else { Outcome::Delivered };
    let ended =
        fresh[..30].iter().map(|pending| settle(&store, sub(1), pending, outcome(pending.position.index)));
    join_all(ended).await;
    let waiting = ready(&store, sub(1)).await;
    assert_eq!(waiting.first_attempts.iter().map(|pending| pending.event.id).collect::<Vec<_>>(), ids[30..]);
    let again: Vec<_> = ids[..30].iter().step_by(3).copied().collect();
    assert_eq!(waiting.due.iter().map(|pending| pending.event.id).collect::<Vec<_>>(), again);
    assert_eq!(
        ready(&store, sub(2)).await.first_attempts.len(),
        40,
        "the other subscription's delivery is as before"
    );
}

/// A delivery must never have two rows, so an end that is recorded twice counts once.
#[tokio::test]
async fn an_end_told_twice_counts_once() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let waiting = only(&store, sub(1)).await;
    // In one commit, first fresh and then due, and in two commits.
    let twice = |seconds| settle(&store, sub(1), &waiting, retry(after(seconds)));
    join(twice(1), twice(2)).await;
    let waiting = only(&store, sub(1)).await;
    assert_eq!(waiting.position.due, Some(after(1)));
    let twice = |seconds| settle(&store, sub(1), &waiting, retry(after(seconds)));
    join(twice(3), twice(4)).await;
    let last = only(&store, sub(1)).await;
    assert_eq!(last.position.due, Some(after(3)));
    settle(&store, sub(1), &last, dead()).await;
    settle(&store, sub(1), &last, retry(after(5))).await;
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
    assert_eq!(history(&store, id, sub(1)).await.len(), 6, "the history has all of them");
    assert!(
        matches!(state(&store, id, sub(1)).await, State::Dead { .. }),
        "and agrees with the pending deliveries"
    );
}

#[tokio::test]
async fn a_target_that_was_reached_is_remembered() {
    let (folder, store) = fresh();
    for (at, outcome) in [(0, dead()), (10, Outcome::Delivered), (20, retry(after(1)))] {
        accept(&store, "a", &[sub(1)]).await;
        let waiting = ready(&store, sub(1)).await;
        let mut ending = ending(sub(1), &waiting.first_attempts[0], outcome);
        ending.attempt.at = after(at);
        store.settle(ending).await.unwrap();
    }
    assert_eq!(store.reached().await.unwrap(), [(sub(1), after(10))]);
    close(store).await;
    assert_eq!(open(folder.path()).reached().await.unwrap(), [(sub(1), after(10))]);
}

#[tokio::test]
async fn long_answers_are_told_whole() {
    let (_folder, store) = fresh();
    let subscriptions: Vec<_> = (0..60).map(sub).collect();
    let id = accept(&store, "a", &subscriptions).await;
    let mut endings = Vec::new();
    for subscription in &subscriptions {
        let mut ending = ending(*subscription, &only(&store, *subscription).await, dead());
        let body = "x".repeat(waypost_domain::delivery::ANSWER_BYTES_MAX);
        ending.attempt.target = Some(waypost_domain::Answer { status: 410, body });
        endings.push(ending);
    }
    join_all(endings.iter().map(|ending| store.settle(ending.clone()))).await;
    let history = store.history(id).await.unwrap().unwrap();
    for (delivery, ending) in history.deliveries.iter().zip(&endings) {
        assert_eq!(delivery.history, [Entry::Attempt(ending.attempt.clone())], "{}", delivery.recipient);
    }
}

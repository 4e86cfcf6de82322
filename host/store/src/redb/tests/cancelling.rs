//! The pending deliveries of a deleted subscription.

use super::*;

fn dropped(entries: &[Entry]) -> bool {
    matches!(entries.last(), Some(Entry::Dropped { .. }))
}

#[tokio::test]
async fn fresh_and_due_rows_go_and_the_history_says_so() {
    let (_folder, store) = fresh();
    let ids = store.log(vec![arrival("a", &[sub(1), sub(2)]), arrival("b", &[sub(1)])]).await.unwrap();
    let waiting = ready(&store, sub(1)).await.first_attempts;
    settle(&store, sub(1), &waiting[0], retry(after(1))).await;
    assert!(!store.cancel_pending(sub(1), 10).await.unwrap());
    assert_eq!(store.recipients_with_backlog().await.unwrap(), [sub(2)]);
    assert_eq!(ready(&store, sub(2)).await.first_attempts.len(), 1);
    for id in &ids {
        assert!(dropped(&history(&store, *id, sub(1)).await));
        assert!(matches!(state(&store, *id, sub(1)).await, State::Skipped { .. }));
    }
    assert!(history(&store, ids[0], sub(2)).await.is_empty());
    assert!(!store.cancel_pending(sub(1), 10).await.unwrap(), "nothing is left");
    assert_eq!(history(&store, ids[1], sub(1)).await.len(), 1);
    assert_eq!(purge(&store, Purge::Events(ids)).await, (1, 1));
}

#[tokio::test]
async fn a_long_backlog_goes_in_slices() {
    let (_folder, store) = fresh();
    for number in 0..7 {
        accept(&store, &number.to_string(), &[sub(1), sub(2)]).await;
    }
    for (seconds, waiting) in (0..).zip(&ready(&store, sub(1)).await.first_attempts[..4]) {
        settle(&store, sub(1), waiting, retry(after(seconds))).await;
    }
    let mut left = vec![7];
    while store.cancel_pending(sub(1), 2).await.unwrap() {
        let waiting = ready(&store, sub(1)).await;
        left.push(waiting.first_attempts.len() + waiting.due.len());
    }
    assert!(left.windows(2).all(|pair| pair[1] < pair[0]), "{left:?}");
    assert!(left.len() > 2);
    assert_eq!(store.recipients_with_backlog().await.unwrap(), [sub(2)]);
    let histories = store.histories(ALL).await.unwrap();
    assert!(
        histories.iter().all(
            |history| dropped(&history.deliveries[0].history) && history.deliveries[1].history.is_empty()
        )
    );
}

/// An attempt was in flight while its subscription was deleted, and failed. Its entry is the last in the history, and
/// changes nothing: once, it said "retrying" for ever, and no purge removed the event.
#[tokio::test]
async fn an_attempt_that_fails_after_it_was_forgiven_stays_forgiven() {
    let (_folder, store) = fresh();
    let first = accept(&store, "a", &[sub(1)]).await;
    let waiting = only(&store, sub(1)).await;
    settle(&store, sub(1), &waiting, retry(after(1))).await;
    let due = only(&store, sub(1)).await;
    let second = accept(&store, "b", &[sub(1)]).await;
    let fresh = ready(&store, sub(1)).await.first_attempts.remove(0);
    assert!(!store.cancel_pending(sub(1), 10).await.unwrap());
    for (id, under_way, entries) in [(first, due, 3), (second, fresh, 2)] {
        settle(&store, sub(1), &under_way, retry(after(2))).await;
        let history = history(&store, id, sub(1)).await;
        assert_eq!(history.len(), entries, "the attempt is in the history");
        assert!(dropped(&history[..entries - 1]), "{history:?}");
        assert!(matches!(state(&store, id, sub(1)).await, State::Skipped { .. }));
    }
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
    assert_eq!(purge(&store, Purge::Events(vec![first, second])).await, (2, 0));
}

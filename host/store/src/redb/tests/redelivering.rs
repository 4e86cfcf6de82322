//! Sending an event again.

use super::*;

async fn redeliver(store: &Store, id: EventId, recipients: &[RecipientId], at: Timestamp) -> bool {
    store.redeliver(id, recipients.to_vec(), "bob".to_owned(), at, None).await.unwrap()
}

fn redelivery(at: Timestamp) -> Entry {
    Entry::Redelivery { at, by: "bob".to_owned() }
}

#[tokio::test]
async fn a_subscription_that_did_not_match_gets_a_delivery() {
    let (folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    assert!(redeliver(&store, id, &[sub(2), sub(3)], after(1)).await);
    close(store).await;
    let store = open(folder.path());
    assert_eq!(recipients(&store, id).await, [sub(1), sub(2), sub(3)]);
    let history = store.history(id).await.unwrap().unwrap();
    assert_eq!(history.event.matched, [sub(1)], "what was so when the event came stays");
    for new in [sub(2), sub(3)] {
        let waiting = only(&store, new).await;
        assert_eq!((waiting.event.id, waiting.position.due), (id, Some(after(1))));
        assert_eq!(waiting.progress, Progress::default());
        assert_eq!(state(&store, id, new).await, State::Pending);
        settle(&store, new, &waiting, Outcome::Delivered).await;
    }
    assert_eq!(store.recipients_with_backlog().await.unwrap(), [sub(1)]);
}

#[tokio::test]
async fn a_subscription_whose_filter_gave_no_answer_can_get_a_delivery_later() {
    let (_folder, store) = fresh();
    let failed = vec![(sub(1), "too expensive".to_owned())];
    let sent = Arrival { failed, ..arrival("a", &[]) };
    let id = store.log(vec![sent]).await.unwrap()[0];
    assert!(redeliver(&store, id, &[sub(1)], after(1)).await);
    assert_eq!(history(&store, id, sub(1)).await, [redelivery(after(1))]);
    let waiting = only(&store, sub(1)).await;
    settle(&store, sub(1), &waiting, Outcome::Delivered).await;
    assert!(state(&store, id, sub(1)).await.is_final());
    let history = store.history(id).await.unwrap().unwrap();
    assert_eq!(history.failed.len(), 1, "what was so when the event came stays told");
}

#[tokio::test]
async fn what_is_over_begins_again() {
    let (_folder, store) = fresh();
    for outcome in [Outcome::Delivered, Outcome::Denied, dead()] {
        let id = accept(&store, "a", &[sub(1)]).await;
        let first = only(&store, sub(1)).await;
        settle(&store, sub(1), &first, outcome).await;
        assert!(redeliver(&store, id, &[sub(1)], after(1)).await);
        let again = only(&store, sub(1)).await;
        assert_eq!((again.position.due, again.progress), (Some(after(1)), Progress::default()));
        assert_eq!(recipients(&store, id).await, [sub(1)], "no second place");
        settle(&store, sub(1), &again, Outcome::Delivered).await;
        let entries = history(&store, id, sub(1)).await;
        assert_eq!((entries.len(), &entries[1]), (3, &redelivery(after(1))));
    }
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_waits_for_a_retry_comes_now() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let first = only(&store, sub(1)).await;
    settle(&store, sub(1), &first, retry(after(100))).await;
    for at in [after(1), after(2)] {
        assert!(redeliver(&store, id, &[sub(1)], at).await);
        let again = only(&store, sub(1)).await;
        assert_eq!((again.position.due, again.progress), (Some(at), Progress::default()));
    }
    assert_eq!(history(&store, id, sub(1)).await[1..], [redelivery(after(1)), redelivery(after(2))]);
}

#[tokio::test]
async fn what_was_not_tried_yet_comes_anyway() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    assert!(redeliver(&store, id, &[sub(1), sub(1)], after(1)).await);
    assert_eq!(only(&store, sub(1)).await.position.due, None);
    assert!(history(&store, id, sub(1)).await.is_empty());
}

#[tokio::test]
async fn a_subscription_named_twice_gets_one_delivery() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[]).await;
    assert!(redeliver(&store, id, &[sub(1), sub(1)], after(1)).await);
    only(&store, sub(1)).await;
    assert_eq!(recipients(&store, id).await, [sub(1)]);
    assert_eq!(history(&store, id, sub(1)).await, [redelivery(after(1))]);
}

#[tokio::test]
async fn an_unknown_event_is_not_sent() {
    let (_folder, store) = fresh();
    assert!(!redeliver(&store, EventId::MAX, &[sub(1)], after(1)).await);
    let id = accept(&store, "a", &[]).await;
    assert!(!redeliver(&store, EventId::MAX, &[sub(1)], after(1)).await, "it would be in the last batch");
    assert!(!redeliver(&store, EventId::NIL, &[sub(1)], after(1)).await);
    assert_eq!(purge(&store, Purge::Events(vec![id])).await, (1, 0));
    assert!(!redeliver(&store, id, &[sub(1)], after(1)).await);
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
}

/// An attempt was in flight while its delivery was redelivered. Its end was the last entry of the history, which then
/// said that nothing was pending: a third request made a second row, and a purge left a row without an event.
#[tokio::test]
async fn an_attempt_that_ends_after_a_redelivery_does_not_end_it() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let first = only(&store, sub(1)).await;
    settle(&store, sub(1), &first, retry(after(100))).await;
    let under_way = only(&store, sub(1)).await;
    assert!(redeliver(&store, id, &[sub(1)], after(1)).await);
    settle(&store, sub(1), &under_way, Outcome::Delivered).await;

    assert_eq!(only(&store, sub(1)).await.position.due, Some(after(1)));
    assert_eq!(state(&store, id, sub(1)).await, State::Pending);
    let entries = history(&store, id, sub(1)).await;
    assert_eq!(entries[1], redelivery(after(1)));
    assert!(matches!(&entries[2], Entry::Attempt(late) if late.outcome == Outcome::Delivered), "{entries:?}");
    assert_eq!(purge(&store, Purge::Events(vec![id])).await, (0, 1));
    assert!(redeliver(&store, id, &[sub(1)], after(2)).await);
    assert_eq!(only(&store, sub(1)).await.position.due, Some(after(2)));
}

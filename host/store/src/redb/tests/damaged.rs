//! Damaged records: what depends on one is a dead letter, and everything else goes on.

use redb::{ReadableTable, TableDefinition};

use super::super::history::{self, HISTORY};
use super::super::pieces::PIECES;
use super::super::schema::Tables;
use super::*;
use crate::{Error, Forward, Quota, StoredState};
use waypost_domain::{Activity, Subscription};

/// Lays other bytes where records are, and opens the store again, so that nothing of them is left in memory.
async fn damage(folder: &Path, store: Store, damage: impl FnOnce(&mut Tables<'_>)) -> Store {
    damage_now(&store, damage);
    store.close().await;
    drop(store);
    open(folder)
}

/// Lays other bytes where records are, under a store that runs.
fn damage_now(store: &Store, damage: impl FnOnce(&mut Tables<'_>)) {
    let damaged = store.reader.handle.write(|txn| {
        damage(&mut Tables::open(txn)?);
        Ok(())
    });
    damaged.unwrap();
}

/// Changes one byte of a batch, counted from its end.
fn damage_batch(tables: &mut Tables<'_>, id: EventId, from_end: usize) {
    let key = id.uuid().as_u128();
    let mut record = tables.log.batches.get(key).unwrap().unwrap().value().to_vec();
    let place = record.len() - from_end;
    record[place] ^= 0x10;
    tables.log.batches.insert(key, record.as_slice()).unwrap();
}

/// Returns how the last attempts at a subscription's deliveries of a batch ended, by their places.
fn states(store: &Store, batch: EventId, recipient: RecipientId) -> Vec<(u32, State)> {
    let recipient = recipient.uuid().as_u128();
    let found = store.reader.handle.read(|txn| {
        let (table, pieces) = (txn.open_table(HISTORY)?, txn.open_table(PIECES)?);
        history::of_batch(&table, &pieces, batch.uuid().as_u128(), &store.reader.marks, |_| true)
    });
    let entries = found.unwrap().into_iter();
    let mut states: Vec<_> = entries
        .filter(|((_, of), _)| *of == recipient)
        .map(|((index, _), entries)| (index, last_end(&entries)))
        .collect();
    states.sort_by_key(|(index, _)| *index);
    states
}

fn last_end(entries: &[Entry]) -> State {
    let Some(Entry::Attempt(attempt)) = entries.last() else { return State::Pending };
    match &attempt.outcome {
        Outcome::Delivered => State::Delivered { at: attempt.at },
        Outcome::Denied => State::Denied { at: attempt.at },
        Outcome::Skipped { reason } => State::Skipped { reason: reason.clone() },
        Outcome::Retry { reason, due } => State::Retrying { due: *due, reason: reason.clone() },
        Outcome::Dead { reason } => State::Dead { reason: reason.clone() },
    }
}

fn is_damaged(state: &State) -> bool {
    matches!(state, State::Dead { reason } if reason.starts_with("record damaged"))
}

fn ids(pending: &[PendingDelivery]) -> Vec<EventId> {
    pending.iter().map(|pending| pending.event.id).collect()
}

/// One damaged event failed, for good, every page of every subscription with a pending delivery in its batch.
#[tokio::test]
async fn a_damaged_event_is_a_dead_letter_and_the_others_of_its_batch_go_on() {
    let (folder, store) = fresh();
    let (one, both) = ([sub(1)], [sub(1), sub(2)]);
    let batch = vec![arrival("a", &both), arrival("b", &one), arrival("c", &both)];
    let logged = store.log(batch).await.unwrap();
    let later = accept(&store, "d", &both).await;
    let store = damage(folder.path(), store, |tables| damage_batch(tables, logged[0], 1)).await;
    assert_eq!(ids(&ready(&store, sub(1)).await.first_attempts), [logged[0], logged[1], later]);
    assert_eq!(ids(&ready(&store, sub(2)).await.first_attempts), [logged[0], later]);
    for recipient in both {
        let states = states(&store, logged[0], recipient);
        assert!(matches!(&states[..], [(2, state)] if is_damaged(state)), "{states:?}");
    }
    assert_eq!(store.damaged(), 1, "it is counted once");
    for (recipient, pending) in [(sub(1), 3), (sub(2), 2)] {
        let counts = store.counts(recipient).await.unwrap();
        assert_eq!((counts.of(StoredState::Dead), counts.total()), (1, 1 + pending));
    }
    assert!(matches!(store.history(logged[2]).await, Err(Error::Damaged { table: "batches", .. })));
    assert_eq!(listed(&store, ALL).await, [later, logged[1], logged[0]]);
    // A rewrite of its batch leaves the others whole.
    assert!(store.redeliver(logged[1], vec![sub(3)], "bob".to_owned(), after(1), None).await.unwrap());
    only(&store, sub(3)).await;
    for waiting in ready(&store, sub(1)).await.first_attempts {
        settle(&store, sub(1), &waiting, Outcome::Delivered).await;
    }
    assert_eq!(store.recipients_with_backlog().await.unwrap(), [sub(2), sub(3)]);
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_at_all_is_dead_letters_and_holds_up_nothing() {
    let (folder, store) = fresh();
    let lost = store.log(vec![arrival("a", &[sub(1)]), arrival("b", &[sub(1)])]).await.unwrap();
    let retried = accept(&store, "c", &[sub(1)]).await;
    let waiting = ready(&store, sub(1)).await.first_attempts.remove(2);
    settle(&store, sub(1), &waiting, retry(after(0))).await;
    let kept = accept(&store, "d", &[sub(1)]).await;
    let store = damage(folder.path(), store, |tables| {
        for id in [lost[0], retried] {
            tables.log.batches.insert(id.uuid().as_u128(), &[9, 9][..]).unwrap();
        }
    })
    .await;
    let left = ready(&store, sub(1)).await;
    assert_eq!((ids(&left.first_attempts), left.due.len()), (vec![kept], 0));
    let dead = states(&store, lost[0], sub(1));
    assert!(dead.len() == 2 && dead.iter().all(|(_, state)| is_damaged(state)), "{dead:?}");
    assert!(is_damaged(&states(&store, retried, sub(1))[0].1));
    assert_eq!(listed(&store, ALL).await, [kept]);
    let forward =
        Forward { after: None, last: EventId::MAX, since: None, until: None, events: 9, bytes: 9_999 };
    let walked: Vec<_> = store.forward(forward).await.unwrap().iter().map(|logged| logged.id).collect();
    assert_eq!(walked, [kept], "a replay passes them");
    // A purge does not stop at damaged batches, and removes them.
    settle(&store, sub(1), &left.first_attempts[0], Outcome::Delivered).await;
    assert_eq!(purge(&store, Purge::Before(after(0))).await, (3, 0));
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
    let next = accept(&store, "e", &[sub(1)]).await;
    assert!(next > kept);
}

#[tokio::test]
async fn a_damaged_row_of_pending_deliveries_is_dead_letters_that_can_be_sent_again() {
    let (folder, store) = fresh();
    let fresh = store.log(vec![arrival("a", &[sub(1), sub(2)]), arrival("b", &[sub(1)])]).await.unwrap();
    let retried = accept(&store, "c", &[sub(1)]).await;
    let waiting = ready(&store, sub(1)).await.first_attempts.remove(2);
    settle(&store, sub(1), &waiting, retry(after(0))).await;
    let key = |id: EventId| id.uuid().as_u128();
    let store = damage(folder.path(), store, |tables| {
        tables
            .deliveries
            .fresh
            .insert((sub::<RecipientId>(1).uuid().as_u128(), key(fresh[0])), &[1, 2, 3][..])
            .unwrap();
        tables
            .deliveries
            .waiting
            .insert((sub::<RecipientId>(1).uuid().as_u128(), key(retried)), &[7][..])
            .unwrap();
    })
    .await;
    let left = ready(&store, sub(1)).await;
    assert!(left.first_attempts.is_empty() && left.due.is_empty());
    for id in [fresh[0], fresh[1], retried] {
        let state = state(&store, id, sub(1)).await;
        assert!(is_damaged(&state), "{state:?}");
    }
    only(&store, sub(2)).await;
    assert_eq!(store.damaged(), 2);
    assert!(store.redeliver(retried, vec![sub(1)], "bob".to_owned(), after(1), None).await.unwrap());
    assert_eq!(ready(&store, sub(1)).await.due[0].event.id, retried);
}

#[tokio::test]
async fn deleted_subscriptions_are_forgiven_whatever_is_damaged() {
    let (folder, store) = fresh();
    let first = accept(&store, "a", &[sub(1)]).await;
    let second = accept(&store, "b", &[sub(1)]).await;
    let store = damage(folder.path(), store, |tables| {
        let (of, key) = (sub::<RecipientId>(1).uuid().as_u128(), |id: EventId| id.uuid().as_u128());
        tables.deliveries.fresh.insert((of, key(first)), &[1, 2, 3][..]).unwrap();
        tables.deliveries.waiting.insert((of, key(second)), &[7][..]).unwrap();
        tables.deliveries.due.insert((of, 0, key(second)), ()).unwrap();
        tables.log.batches.insert(key(second), &[9, 9][..]).unwrap();
    })
    .await;
    assert!(!store.cancel_pending(sub(1), 10).await.unwrap());
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
}

/// The purge that a service makes by itself passed damaged batches, and they stayed for ever.
#[tokio::test]
async fn retention_takes_damaged_batches_with_their_time() {
    let (folder, store) = fresh();
    let lost = accept(&store, "a", &[]).await;
    let partly = store.log(vec![arrival("b", &[]), arrival("c", &[])]).await.unwrap();
    let store = damage(folder.path(), store, |tables| {
        tables.log.batches.insert(lost.uuid().as_u128(), &[9, 9][..]).unwrap();
        damage_batch(tables, partly[0], 1);
    })
    .await;
    for expected in [3, 0] {
        assert_eq!(purge(&store, Purge::Before(after(0))).await, (expected, 0));
    }
}

/// A subscription or a row of first attempts that could not be read failed the purge of an event half way: the rows that
/// others waited in were gone, and nothing told of it.
#[tokio::test]
async fn what_is_given_up_does_not_depend_on_what_is_damaged_beside_it() {
    let (_folder, store) = fresh();
    for id in [1, 2, 3] {
        let target = "http://localhost/".parse().unwrap();
        let mut new = Subscription::new("ann".into(), "all".into(), "$".into(), target, clock::now());
        new.id = sub(id);
        new.activity = Activity::Disabled { since: clock::now(), error: None };
        store.put(new, Quota::Exempt).await.unwrap();
    }
    let id = accept(&store, "a", &[sub(1), sub(2), sub(3)]).await;
    settle(&store, sub(1), &only(&store, sub(1)).await, retry(after(1))).await;
    damage_now(&store, |tables| {
        tables.registry.subscriptions.insert(sub::<RecipientId>(2).uuid().as_u128(), &b"\x01{"[..]).unwrap();
        tables
            .deliveries
            .fresh
            .insert((sub::<RecipientId>(3).uuid().as_u128(), id.uuid().as_u128()), &[1, 2, 3][..])
            .unwrap();
    });
    for (id, expired) in [(1, 1), (2, 1), (3, 0)] {
        assert_eq!(store.expire_backlog(sub(id), after(0)).await.unwrap(), expired, "{id}");
    }
    assert_eq!(
        purge(&store, Purge::Before(after(0))).await,
        (1, 0),
        "a row that cannot be read holds nothing"
    );
    assert!(listed(&store, ALL).await.is_empty());
    assert!(ready(&store, sub(3)).await.first_attempts.is_empty());
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
}

/// An event that waited for its next attempt was purged where the row of history that told of it was damaged.
#[tokio::test]
async fn an_event_that_waits_stays_whatever_its_history_says() {
    let (folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    settle(&store, sub(1), &only(&store, sub(1)).await, retry(after(1))).await;
    settle(&store, sub(1), &only(&store, sub(1)).await, retry(after(2))).await;
    let store = damage(folder.path(), store, |tables| {
        tables.history.insert((id.uuid().as_u128(), 1), &[7][..]).unwrap();
    })
    .await;
    assert_eq!(purge(&store, Purge::Before(after(0))).await, (0, 1));
    assert_eq!(only(&store, sub(1)).await.event.id, id);
}

/// A damaged row of history failed the purge at its batch, hour after hour: the disk filled.
#[tokio::test]
async fn a_purge_and_a_story_pass_a_damaged_history() {
    let (folder, store) = fresh();
    let done = accept(&store, "a", &[sub(1)]).await;
    settle(&store, sub(1), &only(&store, sub(1)).await, Outcome::Delivered).await;
    let open = accept(&store, "b", &[sub(2)]).await;
    let store = damage(folder.path(), store, |tables| {
        for id in [done, open] {
            tables.history.insert((id.uuid().as_u128(), 0), &[7][..]).unwrap();
        }
    })
    .await;
    assert!(store.history(done).await.unwrap().is_some());
    assert_eq!(purge(&store, Purge::Before(after(0))).await, (1, 1), "events with pending deliveries stay");
    assert_eq!(listed(&store, ALL).await, [open]);
    only(&store, sub(2)).await;
}

#[tokio::test]
async fn a_damaged_subscription_keeps_no_other_from_being_read() {
    let (folder, store) = fresh();
    let target = "http://localhost/".parse().unwrap();
    let good = Subscription::new("ann".into(), "all".into(), "$".into(), target, clock::now());
    store.put(good.clone(), Quota::Exempt).await.unwrap();
    let store = damage(folder.path(), store, |tables| {
        tables.registry.subscriptions.insert(1, &b"\x01{"[..]).unwrap();
        tables.registry.recoveries.insert(1, &b"\x01{"[..]).unwrap();
        tables.registry.reached.insert(1, i64::MAX).unwrap();
        tables.modules.modules.insert("sha256:00", &b"\x01{"[..]).unwrap();
        tables.plugin_data.state.insert((1, "key"), &[7][..]).unwrap();
    })
    .await;
    assert_eq!(subscriptions(&store).await, [good.into()]);
    assert!(store.running_recoveries().await.unwrap().is_empty());
    assert!(store.reached().await.unwrap().is_empty() && store.modules().await.unwrap().is_empty());
    assert!(store.plugin_state(sub(1)).await.unwrap().is_empty());
    assert_eq!(store.damaged(), 5);
}

/// Pending deliveries of a damaged subscription waited for ever, and were reported as runs of handlers that were not
/// configured.
#[tokio::test]
async fn deliveries_of_a_damaged_subscription_are_dead_letters_after_a_start() {
    let (folder, store) = fresh();
    let target = "http://localhost/".parse().unwrap();
    let mut new = Subscription::new("ann".into(), "all".into(), "$".into(), target, clock::now());
    new.id = sub(1);
    store.put(new, Quota::Exempt).await.unwrap();
    let retried = accept(&store, "a", &[sub(1), sub(2)]).await;
    settle(&store, sub(1), &only(&store, sub(1)).await, retry(after(0))).await;
    let logged = store.log(vec![arrival("b", &[sub(1)]), arrival("c", &[sub(1)])]).await.unwrap();
    let store = damage(folder.path(), store, |tables| {
        tables.registry.subscriptions.insert(sub::<RecipientId>(1).uuid().as_u128(), &b"\x01{"[..]).unwrap();
    })
    .await;
    assert_eq!(
        store.recipients_with_backlog().await.unwrap(),
        [sub(2)],
        "a recipient without a record is a handler"
    );
    for id in [retried, logged[0], logged[1]] {
        let state = state(&store, id, sub(1)).await;
        assert!(is_damaged(&state), "{state:?}");
    }
    assert!(subscriptions(&store).await.is_empty());
    assert_eq!(store.damaged(), 1, "it is counted once");
}

/// Reading the state of a plugin panicked where a key was damaged: its subscription's deliveries were held for ever.
#[tokio::test]
async fn a_value_of_a_plugin_whose_key_is_no_text_is_passed_over() {
    const RAW_STATE: TableDefinition<'_, (u128, RawText), &[u8]> = TableDefinition::new("state");
    let (_folder, store) = fresh();
    accept(&store, "a", &[sub(1)]).await;
    let pending = only(&store, sub(1)).await;
    assert!(store.freeze(counting(sub(1), &pending, 7)).await.unwrap());
    let damaged = store.reader.handle.write(|txn| {
        txn.open_table(RAW_STATE)?
            .insert((sub::<RecipientId>(1).uuid().as_u128(), &b"\xff"[..]), &b"\x01"[..])?;
        Ok(())
    });
    damaged.unwrap();
    let state = store.plugin_state(sub(1)).await.unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), ["count"]);
    assert_eq!(store.damaged(), 1);
}

/// The row of a disabled subscription is read by no worker: while it was damaged, none of its events could be sent again.
#[tokio::test]
async fn a_redelivery_buries_the_damaged_row_that_it_meets() {
    let (_folder, store) = fresh();
    let logged = store.log(vec![arrival("a", &[sub(1)]), arrival("b", &[sub(1), sub(2)])]).await.unwrap();
    damage_now(&store, |tables| {
        let row = (sub::<RecipientId>(1).uuid().as_u128(), logged[0].uuid().as_u128());
        tables.deliveries.fresh.insert(row, &[1, 2, 3][..]).unwrap();
    });
    assert!(
        store.redeliver(logged[1], vec![sub(1), sub(2)], "bob".to_owned(), after(1), None).await.unwrap()
    );
    let state_of_other = state(&store, logged[0], sub(1)).await;
    assert!(is_damaged(&state_of_other), "{state_of_other:?}");
    let again = only(&store, sub(1)).await;
    assert_eq!((again.event.id, again.position.due), (logged[1], Some(after(1))));
    assert_eq!(state(&store, logged[1], sub(1)).await, State::Pending);
    assert_eq!(only(&store, sub(2)).await.position.due, None, "it comes anyway");
    assert_eq!(store.damaged(), 1);
    assert!(store.redeliver(logged[0], vec![sub(1)], "bob".to_owned(), after(2), None).await.unwrap());
    assert_eq!(ready(&store, sub(1)).await.due.len(), 2);
}

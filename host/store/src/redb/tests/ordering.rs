//! Reading pending deliveries in the order of acceptance.

use super::*;
use crate::{OrderedPage, OrderedQuery, PageEnd, Step};
use waypost_domain::Recovery;
use waypost_domain::recovery::{Mark, ScanProgress};

async fn read(store: &Store, after: EventId, rows: usize) -> OrderedPage {
    let query = OrderedQuery {
        recipient: sub(1),
        events: Vec::new(),
        after,
        rows,
        dead_letters: 9,
        dead_letters_after: None,
    };
    store.in_order(query).await.unwrap()
}

fn ids(deliveries: &[PendingDelivery]) -> Vec<EventId> {
    deliveries.iter().map(|pending| pending.event.id).collect()
}

/// Logs six events in two commits, and lets the second and the fifth wait for a retry.
async fn logged(store: &Store) -> Vec<EventId> {
    let mut all = Vec::new();
    for commit in ["a", "b"] {
        let arrivals = (0..3).map(|number| arrival(&format!("{commit}{number}"), &[sub(1)])).collect();
        all.extend(store.log(arrivals).await.unwrap());
    }
    for (place, due) in [(1, after(3600)), (4, after(-3600))] {
        let pending = ready(store, sub(1)).await.first_attempts;
        let pending = pending.iter().find(|pending| pending.event.id == all[place]).unwrap();
        settle(store, sub(1), pending, retry(due)).await;
    }
    all
}

#[tokio::test]
async fn first_and_further_attempts_are_one_list_whatever_their_time() {
    let (folder, store) = fresh();
    let all = logged(&store).await;
    let (_copy, after_crash) = crashed(folder.path());
    for store in [&store, &after_crash] {
        for rows in [1, 2, 4, 6, 9] {
            let (mut seen, mut from) = (Vec::new(), EventId::NIL);
            loop {
                let page = read(store, from, rows).await;
                assert!(page.following.len() <= rows);
                seen.extend(ids(&page.following));
                from = page.read_to;
                if page.end == PageEnd::Newest {
                    break;
                }
            }
            assert_eq!(seen, all, "{rows} at a time");
        }
        let is_retry = |pending: &PendingDelivery| pending.position.due.is_some();
        let page = read(store, all[0], 9).await;
        assert_eq!(
            page.following.iter().map(is_retry).collect::<Vec<_>>(),
            [true, false, false, true, false]
        );
    }
}

#[tokio::test]
async fn those_that_are_asked_for_are_read_where_they_stand_now() {
    let (_folder, store) = fresh();
    let all = logged(&store).await;
    let pending = ready(&store, sub(1)).await.first_attempts;
    settle(&store, sub(1), &pending[0], Outcome::Delivered).await;
    settle(&store, sub(1), &pending[1], dead()).await;
    let events = vec![all[5], all[0], all[1], all[2], EventId::MAX];
    let query = OrderedQuery {
        recipient: sub(1),
        events,
        after: EventId::NIL,
        rows: 0,
        dead_letters: 9,
        dead_letters_after: None,
    };
    let page = store.in_order(query).await.unwrap();
    assert_eq!(ids(&page.asked), [all[5], all[1]], "one that is over, dead or unknown is not pending");
    assert!(page.following.is_empty() && page.asked[1].position.due.is_some());
    assert_eq!(page.dead_letters.iter().map(|dead| dead.id).collect::<Vec<_>>(), [all[2]]);
}

#[tokio::test]
async fn nothing_behind_a_running_recovery_is_returned() {
    let (_folder, store) = fresh();
    let all = logged(&store).await;
    let recovery = Recovery::new(sub(1), None, None, "bob".to_owned(), after(0));
    assert!(store.begin_recovery(recovery, None).await.unwrap());
    let step = async |step| store.recover(sub(1), after(0), step, after(1), None).await.unwrap();
    step(Step::Begin).await;
    let page = read(&store, EventId::NIL, 9).await;
    assert_eq!((page.following.len(), page.end), (0, PageEnd::Recovery), "it may add to all of them");
    let last = Mark { event: all[1], received: after(0) };
    let scan = ScanProgress { first: Some(last), last, events: 2, failed: 0, matched: Vec::new() };
    step(Step::Advance(scan)).await;
    let page = read(&store, EventId::NIL, 9).await;
    assert_eq!((ids(&page.following), page.end), (all[..2].to_vec(), PageEnd::Recovery));
    step(Step::End(waypost_domain::recovery::State::Done { at: after(2) })).await;
    let page = read(&store, page.read_to, 9).await;
    assert_eq!((ids(&page.following), page.end), (all[2..].to_vec(), PageEnd::Newest));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_becomes_a_dead_letter_and_hides_no_other() {
    let (folder, store) = fresh();
    let all = logged(&store).await;
    close(store).await;
    let file = redb::Database::open(folder.path().join(FILE_NAME)).unwrap();
    let txn = file.begin_write().unwrap();
    let waiting = redb::TableDefinition::<(u128, u128), &[u8]>::new("waiting");
    let row = (sub::<RecipientId>(1).uuid().as_u128(), all[1].uuid().as_u128());
    txn.open_table(waiting).unwrap().insert(row, b"nonsense".as_slice()).unwrap();
    txn.commit().unwrap();
    drop(file);
    let store = open(folder.path());
    let page = read(&store, EventId::NIL, 9).await;
    assert_eq!(ids(&page.following), [all[0], all[2], all[3], all[4], all[5]]);
    assert!(matches!(state(&store, all[1], sub(1)).await, State::Dead { .. }));
}

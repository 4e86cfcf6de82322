//! Recoveries: missing deliveries are enqueued once, together with the progress, or not at all.

use super::*;
use crate::{Backlog, Forward, Step};
use waypost_domain::recovery::{Mark, ScanProgress, State as Progressed};
use waypost_domain::{Recovery, Subscription};

fn recovery(subscription: SubscriptionId, asked: Timestamp) -> Recovery {
    Recovery::new(subscription, None, None, "bob".to_owned(), asked)
}

/// Begins a recovery and sets its end.
async fn begun(store: &Store, subscription: SubscriptionId) -> Recovery {
    assert!(store.begin_recovery(recovery(subscription, after(0)), None).await.unwrap());
    step(store, subscription, Step::Begin).await.unwrap()
}

async fn step(store: &Store, subscription: SubscriptionId, step: Step) -> Option<Recovery> {
    store.recover(subscription, after(0), step, after(1), None).await.unwrap()
}

fn looked(ids: &[EventId]) -> Step {
    let mark = |id: &EventId| Mark { event: *id, received: after(0) };
    Step::Advance(ScanProgress {
        first: ids.first().map(mark),
        last: mark(ids.last().unwrap()),
        events: ids.len() as u64,
        failed: 0,
        matched: ids.to_vec(),
    })
}

fn recovered() -> Entry {
    Entry::Recovered { at: after(1), by: "bob".to_owned() }
}

async fn running(store: &Store) -> Vec<Recovery> {
    store.running_recoveries().await.unwrap()
}

#[tokio::test]
async fn what_is_missing_is_enqueued_and_survives_with_the_progress() {
    let (folder, store) = fresh();
    let ids = store.log(["a", "b", "c"].map(|id| arrival(id, &[sub(1)])).to_vec()).await.unwrap();
    let begun = begun(&store, sub(2)).await;
    assert_eq!(begun.end.unwrap().event, ids[2]);
    let next = step(&store, sub(2), looked(&ids[..2])).await.unwrap();
    assert_eq!((next.looked_at, next.matched, next.created), (2, 2, 2));
    let (_copy, after_crash) = crashed(folder.path());
    for store in [&store, &after_crash] {
        assert_eq!(running(store).await, std::slice::from_ref(&next));
        assert_eq!(store.recovery(sub(2)).await.unwrap(), Some(next.clone()));
        let waiting = ready(store, sub(2)).await;
        assert!(waiting.first_attempts.is_empty(), "a worker has passed the batch");
        let due: Vec<_> =
            waiting.due.iter().map(|pending| (pending.event.id, pending.position.due)).collect();
        assert_eq!(due, [(ids[0], Some(after(1))), (ids[1], Some(after(1)))]);
        assert_eq!(history(store, ids[0], sub(2)).await, [recovered()]);
        assert_eq!(state(store, ids[0], sub(2)).await, State::Pending);
        assert_eq!(recipients(store, ids[0]).await, [sub(1), sub(2)]);
        assert_eq!(ready(store, sub(1)).await.first_attempts.len(), 3, "others are as they were");
    }
    let done = step(&store, sub(2), looked(&ids[2..])).await.unwrap();
    assert_eq!(done.state, Progressed::Done { at: after(1) });
    assert!(running(&store).await.is_empty());
    let waiting = ready(&store, sub(2)).await.due;
    settle(&store, sub(2), &waiting[0], retry(after(9))).await;
    settle(&store, sub(2), &waiting[1], Outcome::Delivered).await;
    assert!(matches!(state(&store, ids[0], sub(2)).await, State::Retrying { .. }));
    assert!(matches!(state(&store, ids[1], sub(2)).await, State::Delivered { .. }));
    assert_eq!(purge(&store, Purge::Before(Timestamp::MAX)).await, (0, 3), "each has a pending delivery");
}

#[tokio::test]
async fn a_page_that_is_looked_at_twice_owes_once() {
    let (_folder, store) = fresh();
    let mut ids = Vec::new();
    for id in ["a", "b", "c"] {
        ids.push(accept(&store, id, &[]).await);
    }
    begun(&store, sub(1)).await;
    step(&store, sub(1), looked(&ids[..2])).await.unwrap();
    let again = step(&store, sub(1), looked(&ids[..2])).await.unwrap();
    assert_eq!((again.matched, again.created), (4, 2));
    assert_eq!(ready(&store, sub(1)).await.due.len(), 2);
}

#[tokio::test]
async fn a_delivery_that_exists_stays_as_it_is() {
    let (_folder, store) = fresh();
    let mut ids = Vec::new();
    for outcome in [None, Some(Outcome::Delivered), Some(dead()), Some(retry(after(7)))] {
        let id = accept(&store, "a", &[sub(1)]).await;
        if let Some(outcome) = outcome {
            let waiting = ready(&store, sub(1)).await.first_attempts;
            settle(&store, sub(1), waiting.last().unwrap(), outcome).await;
        }
        ids.push(id);
    }
    let again = accept(&store, "a", &[]).await;
    assert!(store.redeliver(again, vec![sub(1)], "ann".to_owned(), after(5), None).await.unwrap());
    ids.push(again);
    let before = store.histories(ALL).await.unwrap();
    begun(&store, sub(1)).await;
    let done = step(&store, sub(1), looked(&ids)).await.unwrap();
    assert_eq!((done.matched, done.created, done.is_running()), (5, 0, false));
    assert_eq!(store.histories(ALL).await.unwrap(), before);
    let waiting = ready(&store, sub(1)).await;
    assert_eq!((waiting.first_attempts.len(), waiting.due.len()), (1, 2));
}

#[tokio::test]
async fn a_recovered_delivery_can_be_asked_for_again() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[]).await;
    begun(&store, sub(1)).await;
    step(&store, sub(1), looked(&[id])).await.unwrap();
    assert!(store.redeliver(id, vec![sub(1)], "ann".to_owned(), after(5), None).await.unwrap());
    assert_eq!(only(&store, sub(1)).await.position.due, Some(after(5)), "its row has moved");
}

#[tokio::test]
async fn an_event_that_was_purged_meanwhile_is_passed() {
    let (_folder, store) = fresh();
    let ids = store.log(["a", "b"].map(|id| arrival(id, &[])).to_vec()).await.unwrap();
    let alone = accept(&store, "c", &[]).await;
    begun(&store, sub(1)).await;
    assert_eq!(purge(&store, Purge::Events(vec![ids[0], alone])).await, (2, 0));
    let done = step(&store, sub(1), looked(&[ids[0], ids[1], alone])).await.unwrap();
    assert_eq!((done.created, done.is_running()), (1, false));
    assert_eq!(only(&store, sub(1)).await.event.id, ids[1]);
}

#[tokio::test]
async fn one_runs_at_a_time_and_brings_its_subscription_with_it() {
    let (folder, store) = fresh();
    let target = "http://localhost/".parse().unwrap();
    let subscription = Subscription::new("ann".into(), "all".into(), "$".into(), target, clock::now());
    let id = subscription.id;
    let with = Some(recovery(id, after(0)));
    let put = store.put_subscription(subscription.clone(), None, with, Quota::Holds, None).await.unwrap();
    let Put::Done(revision) = put else { panic!("{put:?}") };
    let renamed = Subscription { name: "other".to_owned(), ..subscription.clone() };
    let with = Some(recovery(id, after(5)));
    let put_again = store.put_subscription(renamed, None, with, Quota::Holds, None).await.unwrap();
    assert_eq!(put_again, Put::Changed(revision), "it is there already");
    assert!(!store.begin_recovery(recovery(id, after(5)), None).await.unwrap());
    let (_copy, after_crash) = crashed(folder.path());
    assert_eq!(subscriptions(&after_crash).await, [subscription.into()]);
    assert_eq!(running(&after_crash).await, [recovery(id, after(0))]);

    let cancelled = Progressed::Cancelled { at: after(1) };
    let ended = step(&store, id, Step::End(cancelled.clone())).await.unwrap();
    assert_eq!(ended.state, cancelled);
    assert!(store.begin_recovery(recovery(id, after(5)), None).await.unwrap());
    assert_eq!(store.recovery(id).await.unwrap(), Some(recovery(id, after(5))));
}

#[tokio::test]
async fn a_step_of_one_that_is_over_or_replaced_does_nothing() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[]).await;
    assert_eq!(step(&store, sub(1), looked(&[id])).await, None, "there is none");
    begun(&store, sub(1)).await;
    step(&store, sub(1), Step::End(Progressed::Cancelled { at: after(1) })).await.unwrap();
    let over = store.recovery(sub(1)).await.unwrap();
    for late in [looked(&[id]), Step::Begin, Step::End(Progressed::Done { at: after(2) })] {
        assert_eq!(step(&store, sub(1), late).await, None);
    }
    assert_eq!(store.recovery(sub(1)).await.unwrap(), over);
    assert!(store.begin_recovery(recovery(sub(1), after(5)), None).await.unwrap());
    assert_eq!(step(&store, sub(1), looked(&[id])).await, None, "another one runs");
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_recovery_of_a_deleted_subscription_is_cancelled() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[]).await;
    let target = "http://localhost/".parse().unwrap();
    let mut subscription = Subscription::new("ann".into(), "all".into(), "$".into(), target, clock::now());
    store.put(subscription.clone(), Quota::Exempt).await.unwrap();
    begun(&store, subscription.id).await;
    subscription.deleted = Some(after(1));
    store.put(subscription.clone(), Quota::Exempt).await.unwrap();
    let ended = step(&store, subscription.id, looked(&[id])).await.unwrap();
    assert_eq!((ended.created, ended.state), (0, Progressed::Cancelled { at: after(1) }));
    assert!(store.recipients_with_backlog().await.unwrap().is_empty());
}

/// A client hangs up while its event waits for the disk: the accept has no caller any more, but still completes.
#[tokio::test]
async fn the_end_is_behind_every_event_that_was_handed_over_before() {
    // A journal may let a later group pass one that nobody waits for.
    if ON_JOURNAL {
        return;
    }
    let (_folder, store) = fresh();
    assert!(store.begin_recovery(recovery(sub(1), after(0)), None).await.unwrap());
    for number in 0..20 {
        let arrivals = vec![arrival(&number.to_string(), &[]), arrival("last", &[])];
        let mut accept = Box::pin(store.log(arrivals));
        assert!(futures_util::poll!(accept.as_mut()).is_pending());
        drop(accept);
        let begun = step(&store, sub(1), Step::Begin).await.unwrap();
        assert_eq!(begun.end.unwrap().event, listed(&store, ALL).await[0]);
        assert_eq!(listed(&store, ALL).await.len(), 2 * (number + 1));
    }
}

#[tokio::test]
async fn an_empty_log_is_done_at_once() {
    let (_folder, store) = fresh();
    assert_eq!(begun(&store, sub(1)).await.state, Progressed::Done { at: after(1) });
    let id = accept(&store, "a", &[]).await;
    purge(&store, Purge::Events(vec![id])).await;
    assert_eq!(begun(&store, sub(1)).await.state, Progressed::Done { at: after(1) });
}

async fn forward(store: &Store, query: Forward) -> Vec<EventId> {
    store.forward(query).await.unwrap().iter().map(|logged| logged.id).collect()
}

const ANY: Forward = Forward {
    after: None,
    last: EventId::MAX,
    since: None,
    until: None,
    events: usize::MAX,
    bytes: usize::MAX,
};

#[tokio::test]
async fn pages_of_any_size_make_up_the_log_in_its_order() {
    let (_folder, store) = fresh();
    let mut ids = Vec::new();
    for count in [3, 1, 7, 2, 1, 5] {
        let arrivals = (0..count).map(|number: u32| arrival(&number.to_string(), &[])).collect();
        ids.extend(store.log(arrivals).await.unwrap());
    }
    let gone = vec![ids[0], ids[3], ids[6], ids[18]];
    purge(&store, Purge::Events(gone.clone())).await;
    ids.retain(|id| !gone.contains(id));
    for (events, bytes) in [(1, 9000), (2, 9000), (3, 9000), (4, 9000), (100, 9000), (100, 1), (100, 35)] {
        for last in [ids[0], ids[7], *ids.last().unwrap(), EventId::MAX] {
            let expected: Vec<_> = ids.iter().copied().filter(|id| *id <= last).collect();
            let (mut walked, mut after) = (Vec::new(), None);
            loop {
                let page = forward(&store, Forward { after, last, events, bytes, ..ANY }).await;
                let Some(end) = page.last() else { break };
                assert!(page.len() <= events, "{} of {events}", page.len());
                after = Some(*end);
                walked.extend(page);
            }
            assert_eq!(walked, expected, "{events} events, {bytes} bytes");
        }
    }
    assert!(forward(&store, Forward { after: Some(EventId::MAX), ..ANY }).await.is_empty());
    assert!(forward(&store, Forward { last: EventId::NIL, ..ANY }).await.is_empty());
    assert!(forward(&store, Forward { events: 0, ..ANY }).await.is_empty());
}

#[tokio::test]
async fn the_walk_begins_and_ends_near_its_times() {
    let (_folder, store) = fresh();
    let ids = store.log(["a", "b"].map(|id| arrival(id, &[])).to_vec()).await.unwrap();
    let now = clock::now();
    let hour = jiff::SignedDuration::from_hours(1);
    assert_eq!(forward(&store, Forward { since: Some(now), until: Some(now), ..ANY }).await, ids);
    assert!(forward(&store, Forward { since: Some(now + hour), ..ANY }).await.is_empty());
    assert!(forward(&store, Forward { until: Some(now - hour), ..ANY }).await.is_empty());
    let old = Forward { since: Some(Timestamp::MIN), until: Some(Timestamp::MAX), ..ANY };
    assert_eq!(forward(&store, old).await, ids);
}

/// After the clock had been set back by a day, a replay up to now missed all that came since: ids only grow, so theirs were
/// tomorrow's.
#[tokio::test]
async fn a_walk_up_to_a_time_finds_what_came_after_the_clock_was_set_back() {
    let (_folder, store) = fresh();
    let (now, day) = (clock::now(), jiff::SignedDuration::from_hours(24));
    let tomorrow = Arrival { received: now + day, ..arrival("tomorrow", &[]) };
    let first = store.log(vec![tomorrow]).await.unwrap()[0];
    let second = store.log(vec![arrival("today", &[])]).await.unwrap()[0];
    assert!(second > first);
    // The event came in the last millisecond.
    let received = store.history(second).await.unwrap().unwrap().event.received;
    let until = received.checked_add(jiff::SignedDuration::from_micros(1)).unwrap();
    let found = forward(&store, Forward { until: Some(until), ..ANY }).await;
    assert!(found.contains(&second), "{found:?}");
    assert_eq!(forward(&store, Forward { since: Some(now + day), ..ANY }).await[0], first);
    assert!(store.newest_time().await.unwrap().unwrap() >= now + day - jiff::SignedDuration::from_secs(1));
}

#[tokio::test]
async fn the_backlog_is_what_waits_besides_first_attempts() {
    let (_folder, store) = fresh();
    let ids = store.log(["a", "b", "c"].map(|id| arrival(id, &[sub(2)])).to_vec()).await.unwrap();
    begun(&store, sub(1)).await;
    step(&store, sub(1), looked(&ids)).await.unwrap();
    let waiting = ready(&store, sub(1)).await.due;
    settle(&store, sub(1), &waiting[0], retry(after(100))).await;
    let backlog = async |subscription, limit| store.backlog(subscription, after(1), limit).await.unwrap();
    assert_eq!(backlog(sub(1), 10).await, Backlog { all: 3, due: 2 });
    assert_eq!(backlog(sub(1), 1).await, Backlog { all: 1, due: 1 });
    assert_eq!(backlog(sub(2), 10).await, Backlog::default());
    let until = async |until| store.backlog_until(sub(1), until, after(1), 10).await.unwrap();
    assert_eq!(until(EventId::NIL).await, Backlog::default());
    assert_eq!(until(ids[0]).await, Backlog { all: 1, due: 0 });
    assert_eq!(until(ids[1]).await, Backlog { all: 2, due: 1 });
}

#[tokio::test]
async fn workers_are_told_how_much_there_is() {
    let (_folder, store) = fresh();
    let ids = store.log(["a", "b"].map(|id| arrival(id, &[])).to_vec()).await.unwrap();
    begun(&store, sub(1)).await;
    step(&store, sub(1), looked(&ids)).await.unwrap();
    let news = store.wakes().drain().await.remove(&sub(1)).unwrap();
    assert_eq!((news.count, news.due), (2, true));
}

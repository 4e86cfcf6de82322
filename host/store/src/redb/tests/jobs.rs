//! Jobs: all deliveries in a state are sent again or given up, each once, together with the progress.

use super::*;
use crate::{CountLimits, Counted, DeliveriesQuery, Error, JobStep, StoredState};
use waypost_domain::job::{Job, Kind, Scope, Work};
use waypost_domain::recovery::State as Progressed;

fn job(work: Work, of: Scope) -> Job {
    Job {
        subscription: sub(1),
        work,
        of,
        since: None,
        until: None,
        asked: after(0),
        by: "ann".to_owned(),
        total: None,
        end: None,
        position: None,
        looked_at: 0,
        changed: 0,
        state: Progressed::Running,
    }
}

fn discard(of: Scope) -> Job {
    job(Work::Discard { reason: "wrong target".to_owned() }, of)
}

async fn begin(store: &Store, job: &Job) {
    assert!(store.begin_job(job.clone(), None).await.unwrap());
}

async fn advance(store: &Store, kind: Kind, rows: u32) -> Option<Job> {
    let step = JobStep::Advance { rows };
    store.advance_job((sub(1), kind), after(0), step, after(1), None).await.unwrap()
}

/// Advances a job to its end.
async fn whole(store: &Store, job: &Job, rows: u32) -> Job {
    begin(store, job).await;
    loop {
        let next = advance(store, job.work.kind(), rows).await.unwrap();
        if !next.is_running() {
            return next;
        }
    }
}

async fn counts(store: &Store) -> [u64; 7] {
    let counts = store.counts(sub(1)).await.unwrap();
    StoredState::ALL.map(|state| counts.of(state))
}

async fn listed_in(store: &Store, state: StoredState) -> Vec<EventId> {
    let query = DeliveriesQuery { state: Some(state), ..all_of(sub(1)) };
    let mut ids: Vec<_> =
        store.deliveries(query).await.unwrap().into_iter().map(|listed| listed.event).collect();
    ids.reverse();
    ids
}

fn all_of(recipient: RecipientId) -> DeliveriesQuery {
    DeliveriesQuery { recipient, state: None, before: None, since: None, until: None, limit: usize::MAX }
}

/// Dead letters of the events of three batches.
async fn dead_letters(store: &Store) -> Vec<EventId> {
    let mut ids = Vec::new();
    for number in 0..3 {
        let arrivals = ["a", "b", "c", "d"].map(|id| arrival(&format!("{id}{number}"), &[sub(1), sub(2)]));
        ids.extend(store.log(arrivals.to_vec()).await.unwrap());
    }
    for pending in ready(store, sub(1)).await.first_attempts {
        settle(store, sub(1), &pending, dead()).await;
    }
    ids
}

#[tokio::test]
async fn a_job_walks_each_dead_letter_once_whatever_dies_meanwhile() {
    let (folder, store) = fresh();
    let ids = dead_letters(&store).await;
    begin(&store, &job(Work::Redeliver, Scope::Dead)).await;
    let late = accept(&store, "late", &[sub(1)]).await;
    settle(&store, sub(1), &only(&store, sub(1)).await, dead()).await;
    let next = advance(&store, Kind::Redeliver, 5).await.unwrap();
    assert_eq!((next.looked_at, next.changed, next.position), (5, 5, Some(ids[4])));
    // One that dies again does so behind the walk.
    let due = ready(&store, sub(1)).await.due;
    assert_eq!(due.iter().map(|pending| pending.event.id).collect::<Vec<_>>(), ids[..5]);
    settle(&store, sub(1), &due[0], dead()).await;
    let (_copy, after_crash) = crashed(folder.path());
    for store in [&store, &after_crash] {
        assert_eq!(store.running_jobs().await.unwrap(), std::slice::from_ref(&next));
        let next = advance(store, Kind::Redeliver, 5).await.unwrap();
        assert_eq!((next.looked_at, next.changed), (10, 10));
        let done = advance(store, Kind::Redeliver, 5).await.unwrap();
        assert_eq!((done.looked_at, done.changed, &done.state), (12, 12, &Progressed::Done { at: after(1) }));
        assert_eq!(counts(store).await, [11, 0, 0, 0, 0, 0, 2]);
        assert_eq!(listed_in(store, StoredState::Dead).await, [ids[0], late]);
        let again = Entry::Redelivery { at: after(1), by: "ann".to_owned() };
        assert_eq!(history(store, ids[7], sub(1)).await.last(), Some(&again));
        assert!(advance(store, Kind::Redeliver, 5).await.is_none(), "it is over");
        assert!(store.running_jobs().await.unwrap().is_empty());
        assert_eq!(store.job(sub(1), Kind::Redeliver).await.unwrap(), Some(done));
        assert_eq!(store.job(sub(1), Kind::Discard).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_discarded_delivery_ends_and_says_why() {
    for (scope, expected) in [
        (Scope::Pending, [0, 2, 0, 0, 0, 5, 1]),
        (Scope::Retrying, [5, 0, 0, 0, 0, 2, 1]),
        (Scope::Dead, [5, 2, 0, 0, 0, 1, 0]),
    ] {
        for rows in [1, 3, 99] {
            let (_folder, store) = fresh();
            let mut ids = Vec::new();
            for number in 0..2 {
                let arrivals = ["a", "b", "c", "d"].map(|id| arrival(&format!("{id}{number}"), &[sub(1)]));
                ids.extend(store.log(arrivals.to_vec()).await.unwrap());
            }
            let page = ready(&store, sub(1)).await.first_attempts;
            for (place, end) in [(1, retry(after(9))), (4, retry(after(9))), (5, dead()), (6, dead())] {
                settle(&store, sub(1), &page[place], end).await;
            }
            // It waits in the other table.
            assert!(store.redeliver(ids[6], vec![sub(1)], "bob".to_owned(), after(1), None).await.unwrap());
            assert_eq!(counts(&store).await, [5, 2, 0, 0, 0, 0, 1]);
            let done = whole(&store, &discard(scope), rows).await;
            assert_eq!(done.changed, expected[5], "{scope:?} {rows}");
            assert_eq!(counts(&store).await, expected, "{scope:?} {rows}");
            let skipped = listed_in(&store, StoredState::Skipped).await;
            let reason = "discarded by ann: wrong target".to_owned();
            for id in skipped {
                assert_eq!(state(&store, id, sub(1)).await, State::Skipped { reason: reason.clone() });
            }
            let left = ready(&store, sub(1)).await;
            let left = left.first_attempts.len() + left.due.len();
            assert_eq!(left as u64, expected[0] + expected[1], "no worker sees them");
        }
    }
}

#[tokio::test]
async fn what_was_rendered_for_it_is_gone() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let pending = only(&store, sub(1)).await;
    assert!(store.freeze(counting(sub(1), &pending, 1)).await.unwrap());
    let pending = only(&store, sub(1)).await;
    settle(&store, sub(1), &pending, dead()).await;
    assert!(store.rendered(id, sub(1)).await.unwrap().is_some());
    whole(&store, &discard(Scope::Dead), 9).await;
    assert_eq!(store.rendered(id, sub(1)).await.unwrap(), None);
}

/// Where the attempt was under way when its delivery was given up, its end is history.
#[tokio::test]
async fn an_attempt_under_way_changes_nothing_any_more() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let pending = only(&store, sub(1)).await;
    whole(&store, &discard(Scope::Pending), 9).await;
    settle(&store, sub(1), &pending, retry(after(5))).await;
    assert!(matches!(state(&store, id, sub(1)).await, State::Skipped { .. }));
    assert_eq!(counts(&store).await, [0, 0, 0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn only_events_of_the_time_that_was_asked_for() {
    let (_folder, store) = fresh();
    let mut ids = Vec::new();
    for second in 0..4 {
        let arrival = Arrival { received: after(second), ..arrival(&format!("e{second}"), &[sub(1)]) };
        ids.extend(store.log(vec![arrival]).await.unwrap());
    }
    for pending in ready(&store, sub(1)).await.first_attempts {
        settle(&store, sub(1), &pending, dead()).await;
    }
    let part = Job { since: Some(after(1)), until: Some(after(3)), ..job(Work::Redeliver, Scope::Dead) };
    let done = whole(&store, &part, 1).await;
    assert_eq!(done.changed, 2);
    assert_eq!(listed_in(&store, StoredState::Pending).await, ids[1..3]);
}

#[tokio::test]
async fn one_of_a_kind_runs_at_a_time() {
    let (_folder, store) = fresh();
    dead_letters(&store).await;
    begin(&store, &job(Work::Redeliver, Scope::Dead)).await;
    assert!(!store.begin_job(job(Work::Redeliver, Scope::Skipped), None).await.unwrap());
    begin(&store, &discard(Scope::Dead)).await;
    let cancelled = Progressed::Cancelled { at: after(2) };
    let end = JobStep::End(cancelled.clone());
    let ended = store.advance_job((sub(1), Kind::Redeliver), after(0), end, after(2), None).await.unwrap();
    assert_eq!(ended.unwrap().state, cancelled);
    assert!(advance(&store, Kind::Redeliver, 9).await.is_none());
    begin(&store, &job(Work::Redeliver, Scope::Dead)).await;
}

/// An empty log has nothing to walk, and leaves nothing running.
#[tokio::test]
async fn an_empty_log_is_done_at_once() {
    let (_folder, store) = fresh();
    begin(&store, &discard(Scope::Dead)).await;
    assert_eq!(
        store.job(sub(1), Kind::Discard).await.unwrap().unwrap().state,
        Progressed::Done { at: after(0) }
    );
}

#[tokio::test]
async fn jobs_count_among_the_recoveries_of_their_user() {
    let folder = tempfile::tempdir().unwrap();
    let counts = CountLimits { recoveries: 1, ..CountLimits::default() };
    let options = || Options { counts, ..Options::default() };
    let store = open_with(folder.path(), options());
    let target = "http://localhost/".parse().unwrap();
    let new = Subscription::new("ann".to_owned(), "all".to_owned(), "$".to_owned(), target, clock::now());
    let subscription = Subscription { id: sub(1), ..new };
    store.put(subscription.clone(), Quota::Holds).await.unwrap();
    dead_letters(&store).await;
    begin(&store, &job(Work::Redeliver, Scope::Dead)).await;
    let refused = store.begin_job(discard(Scope::Dead), None).await;
    assert!(matches!(refused, Err(Error::TooMany { counted: Counted::Recoveries, .. })), "{refused:?}");
    close(store).await;
    let store = open_with(folder.path(), options());
    assert!(
        store.begin_job(discard(Scope::Dead), None).await.is_err(),
        "it is counted again after a restart"
    );
    advance(&store, Kind::Redeliver, 99).await.unwrap();
    begin(&store, &discard(Scope::Dead)).await;
    // A deletion ends it with its next step.
    store.put(subscription.deleted(clock::now()), Quota::Exempt).await.unwrap();
    let ended = advance(&store, Kind::Discard, 9).await.unwrap();
    assert_eq!((ended.state, ended.changed), (Progressed::Cancelled { at: after(1) }, 0));
}

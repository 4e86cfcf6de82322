//! Announcements: each is written with its cause, logged once, and gone with that.

use super::*;
use crate::{AnnouncementPage, AnnouncementRow, JobStep, Step};
use waypost_domain::job::{Job, Kind, Scope, Work};
use waypost_domain::operator::{Cause, DeadLetter, Replayed};
use waypost_domain::recovery::State as Progressed;
use waypost_domain::{Activity, Announcement, Answer, OPERATOR, Recovery};

fn subscription() -> Subscription {
    let target = "http://localhost/".parse().unwrap();
    Subscription {
        id: sub(1),
        ..Subscription::new("ann".into(), "all".into(), "$".into(), target, clock::now())
    }
}

async fn with_subscription() -> (tempfile::TempDir, Store) {
    let (folder, store) = fresh();
    store.put(subscription(), Quota::Exempt).await.unwrap();
    (folder, store)
}

async fn page(store: &Store) -> Option<AnnouncementPage> {
    store.announcements(100).await.unwrap()
}

async fn causes(store: &Store) -> Vec<Cause> {
    let found = page(store).await.map(|page| page.found).unwrap_or_default();
    found.into_iter().map(|row| row.announcement.cause).collect()
}

/// Lets a delivery of a new event die, and returns the event.
async fn die(store: &Store, id: &str, sender: &str) -> EventId {
    let arrival = Arrival { sender: sender.to_owned(), ..arrival(id, &[sub(1)]) };
    let event = store.log(vec![arrival]).await.unwrap()[0];
    let mut end = ending(sub(1), &only(store, sub(1)).await, dead());
    end.attempt.target = Some(Answer { status: 410, body: "x".repeat(5_000) });
    store.settle(end).await.unwrap();
    event
}

/// Logs the events of all announcements that wait, one for each, as an announcer does.
async fn announce(store: &Store, page: &AnnouncementPage) -> usize {
    let arrivals = page.found.iter().enumerate().map(|(number, _)| arrival(&format!("told-{number}"), &[]));
    let rows = Some((page.first, page.last));
    match store.announce(arrivals.collect(), Position(u64::MAX), rows).await.unwrap() {
        Accepted::Logged(receipts) => receipts.len(),
        Accepted::Stale(..) => panic!("nothing is newer"),
    }
}

#[tokio::test]
async fn a_dead_letter_and_its_announcement_are_one_commit() {
    let (folder, store) = with_subscription().await;
    let event = die(&store, "a", "ann").await;
    store.probe().await.unwrap();
    for store in [&store, &crashed(folder.path()).1] {
        assert!(matches!(state(store, event, sub(1)).await, State::Dead { .. }));
        let page = page(store).await.unwrap();
        let [AnnouncementRow { announcement, event: Some(name), .. }] = &page.found[..] else {
            panic!("{page:?}")
        };
        let Announcement { about, cause: Cause::Dead(letter), .. } = announcement else { panic!("{page:?}") };
        assert_eq!((*about, &*name.id, &*name.source, &*name.ty), (sub(1), "a", "/tests", "t"));
        let DeadLetter { event: of, attempts: 1, reason, answer: Some(answer), was_allowed: true } = letter
        else {
            panic!("{letter:?}")
        };
        assert_eq!((*of, &**reason, answer.status, answer.body.len()), (event, "410", 410, 1024));
    }
}

#[tokio::test]
async fn an_announcement_is_logged_once_over_crashes_and_by_two_who_read_it() {
    let (folder, store) = with_subscription().await;
    die(&store, "a", "ann").await;
    die(&store, "b", "ann").await;
    let read = page(&store).await.unwrap();
    assert_eq!(read.found.len(), 2);
    // One that comes meanwhile stays.
    die(&store, "c", "ann").await;
    let (_copy, before) = crashed(folder.path());
    assert_eq!(causes(&before).await.len(), 3);
    for store in [&before, &store] {
        assert_eq!(announce(store, &read).await, 2);
        assert_eq!(announce(store, &read).await, 0, "they are logged");
        assert_eq!(listed(store, ALL).await.len(), 5);
    }
    let (_copy, after) = crashed(folder.path());
    assert_eq!(announce(&after, &read).await, 0, "they are logged");
    let left = page(&after).await.unwrap();
    assert_eq!((left.found.len(), announce(&after, &left).await), (1, 1));
    assert_eq!((page(&after).await, listed(&after, ALL).await.len()), (None, 6));
}

/// Events that were matched without a change of subscriptions are matched again, and the announcements stay until then.
#[tokio::test]
async fn what_is_stale_keeps_its_announcements() {
    let (_folder, store) = with_subscription().await;
    die(&store, "a", "ann").await;
    let read = page(&store).await.unwrap();
    let rows = Some((read.first, read.last));
    let stale = store.announce(vec![arrival("told", &[])], Position::default(), rows).await.unwrap();
    assert!(matches!(stale, Accepted::Stale(..)));
    assert_eq!(page(&store).await, Some(read.clone()));
    assert_eq!(announce(&store, &read).await, 1);
}

#[tokio::test]
async fn the_death_of_an_operator_event_is_not_announced_and_a_success_writes_nothing() {
    let (_folder, store) = with_subscription().await;
    die(&store, "a", OPERATOR).await;
    accept(&store, "b", &[sub(1)]).await;
    settle(&store, sub(1), &only(&store, sub(1)).await, Outcome::Delivered).await;
    assert_eq!(page(&store).await, None);
}

#[tokio::test]
async fn a_run_that_fails_for_good_is_announced_as_that() {
    let (_folder, store) = fresh();
    let event = die(&store, "a", "ann").await;
    let causes = causes(&store).await;
    assert!(
        matches!(&causes[..], [Cause::RunFailed { handler: None, letter }] if letter.event == event),
        "{causes:?}"
    );
}

#[tokio::test]
async fn what_becomes_disabled_and_enabled_is_announced_and_nothing_else_of_a_change() {
    let (_folder, store) = with_subscription().await;
    let enabled = subscription();
    let disabled = |error: Option<&str>| Subscription {
        activity: Activity::Disabled { since: after(1), error: error.map(str::to_owned) },
        ..enabled.clone()
    };
    for change in [
        Subscription { name: "other".into(), ..enabled.clone() },
        disabled(Some("gone")),
        disabled(None),
        enabled.clone(),
        disabled(None),
        disabled(None).deleted(after(2)),
    ] {
        store.put(change, Quota::Exempt).await.unwrap();
    }
    let reason = Some("gone".to_owned());
    assert_eq!(
        causes(&store).await,
        [Cause::Disabled { reason }, Cause::Enabled, Cause::Disabled { reason: None }]
    );
}

#[tokio::test]
async fn the_end_of_a_replay_and_of_a_job_is_announced() {
    let (_folder, store) = with_subscription().await;
    let event = die(&store, "a", "ann").await;
    let recovery = Recovery::new(sub(1), None, None, "ann".to_owned(), after(0));
    assert!(store.begin_recovery(recovery, None).await.unwrap());
    let end = Step::End(Progressed::Failed { at: after(1), reason: "why".to_owned() });
    store.recover(sub(1), after(0), Step::Begin, after(1), None).await.unwrap();
    store.recover(sub(1), after(0), end, after(1), None).await.unwrap();
    let job = Job {
        subscription: sub(1),
        work: Work::Redeliver,
        of: Scope::Dead,
        since: None,
        until: None,
        asked: after(0),
        by: "bob".to_owned(),
        total: None,
        end: None,
        position: None,
        looked_at: 0,
        changed: 0,
        state: Progressed::Running,
    };
    assert!(store.begin_job(job, None).await.unwrap());
    let step = JobStep::Advance { rows: 9 };
    store.advance_job((sub(1), Kind::Redeliver), after(0), step, after(1), None).await.unwrap();
    let replayed = |job, state: &str, reason: Option<&str>, number, by: &str| {
        let (state, reason, by) = (state.to_owned(), reason.map(str::to_owned), by.to_owned());
        Cause::Replayed(Replayed { job, state, reason, looked_at: number, changed: number, by })
    };
    assert!(matches!(state(&store, event, sub(1)).await, State::Pending));
    assert_eq!(
        causes(&store).await[1..],
        [
            replayed(None, "failed", Some("why"), 0, "ann"),
            replayed(Some(Kind::Redeliver), "done", None, 1, "bob")
        ]
    );
}

/// A group's announcements stand in its order, and those of later groups behind it.
#[tokio::test]
async fn announcements_are_read_in_the_order_of_their_causes() {
    let (_folder, store) = with_subscription().await;
    let mut events = Vec::new();
    for number in 0..5 {
        events.push(die(&store, &number.to_string(), "ann").await);
    }
    let first = store.announcements(3).await.unwrap().unwrap();
    let of = |page: &AnnouncementPage| -> Vec<_> {
        page.found.iter().filter_map(|row| row.announcement.event()).collect()
    };
    assert_eq!(of(&first), events[..3]);
    announce(&store, &first).await;
    assert_eq!(of(&page(&store).await.unwrap()), events[3..]);
}

//! A bit that has flipped on the disk: it is found and named, and no event is served that nobody sent.
//!
//! A record has a checksum. A page of redb's own has one, too, which redb reads only when it repairs a file, or is asked to: a
//! bit that flips there ends the service, or hides a row until the file is examined.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

use futures_util::FutureExt as _;

use super::*;
use crate::Forward;
use crate::redb::Disk;
use crate::redb::check::check;
use crate::redb::examine::{Condition, examine};
use crate::redb::handle::Fault;
use crate::redb::open_error::OpenError;
use crate::redb::writer::Stepper;

/// How long each event's body is.
const BODY: usize = 300;
/// How often a read may come back to a row that it has had buried.
const STEPS_MAX: usize = 1_000;

/// Returns the answer of a store whose writer commits meanwhile.
fn stepped<T>(writer: &mut Stepper, asked: impl Future<Output = T>) -> T {
    let mut asked = pin!(asked);
    for _ in 0..STEPS_MAX {
        if let Some(answer) = asked.as_mut().now_or_never() {
            return answer;
        }
        writer.step();
    }
    panic!("no answer");
}

/// Returns a disk with events that wait, are retried, or are over, and these events.
fn filled() -> (Disk, BTreeMap<EventId, Event>) {
    let disk = Disk::default();
    let (store, mut writer) = Store::simulated(disk.clone(), Options::default()).unwrap();
    let mut sent = BTreeMap::new();
    for number in 0..30 {
        let arrivals: Vec<_> = (0..3)
            .map(|place| Arrival {
                event: event(&format!("{number}-{place}"), BODY),
                ..arrival("", &[sub(1), sub(2)])
            })
            .collect();
        let events: Vec<_> = arrivals.iter().map(|arrival| arrival.event.clone()).collect();
        let ids = stepped(&mut writer, store.log(arrivals)).unwrap();
        sent.extend(ids.into_iter().zip(events));
    }
    let page = stepped(&mut writer, ready(&store, sub(1)));
    for (place, pending) in page.first_attempts.into_iter().enumerate() {
        let outcome = [Outcome::Delivered, dead(), retry(after(1))].into_iter().nth(place % 4);
        if let Some(outcome) = outcome {
            stepped(&mut writer, store.settle(ending(sub(1), &pending, outcome))).unwrap();
        }
    }
    stepped(&mut writer, store.close());
    // A file that is closed is not repaired, and so not examined, when it is opened.
    drop((store, writer));
    (disk.closed(), sent)
}

/// What becomes of a file with a flipped bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// Nothing was in it, or all can be read.
    Whole,
    /// The store does not open.
    Refused,
    /// A record is named as damaged.
    Damaged,
    /// A read failed.
    Failed,
    /// Something is not there, and nothing says so.
    Silent,
    /// The storage engine panicked.
    Panicked,
    /// It has not ended in time.
    Endless,
}

/// Reads everything there is; all that is served was sent.
fn read(disk: Disk, sent: &BTreeMap<EventId, Event>) -> Found {
    let Ok((store, mut writer)) = Store::simulated(disk, Options::default()) else { return Found::Refused };
    let mut missing = false;
    let check = |id: EventId, event: &Event| {
        assert_eq!(sent.get(&id), Some(event), "an event that nobody sent");
    };
    let mut failed = false;
    for number in [1, 2] {
        let query = ReadyQuery {
            recipient: sub(number),
            after: EventId::NIL,
            first_attempts: usize::MAX,
            now: Timestamp::MAX,
            due: usize::MAX,
        };
        match stepped(&mut writer, store.ready(query)) {
            Ok(page) => {
                let all: Vec<_> = page.first_attempts.iter().chain(&page.due).collect();
                all.iter().for_each(|pending| check(pending.event.id, &pending.event.event));
                let expected = if number == 2 {
                    sent.len()
                } else {
                    (0..sent.len()).filter(|place| place % 4 >= 2).count()
                };
                missing |= all.len() != expected;
            }
            Err(_) => failed = true,
        }
    }
    match stepped(&mut writer, store.histories(ALL)) {
        Ok(histories) => {
            histories.iter().for_each(|history| check(history.event.id, &history.event.event));
            missing |= histories.len() != sent.len();
        }
        Err(_) => failed = true,
    }
    let all =
        Forward { after: None, last: EventId::MAX, since: None, until: None, events: 1000, bytes: 1 << 20 };
    match stepped(&mut writer, store.forward(all)) {
        Ok(events) => events.iter().for_each(|logged| check(logged.id, &logged.event)),
        Err(_) => failed = true,
    }
    match (failed, store.damaged(), missing) {
        (true, ..) => Found::Failed,
        (false, 1.., _) => Found::Damaged,
        (false, 0, true) => Found::Silent,
        (false, 0, false) => Found::Whole,
    }
}

/// Each event is found by its body: a run of blanks.
#[test]
fn a_bit_that_flips_in_an_event_is_found_and_no_event_is_served_that_nobody_sent() {
    let (disk, sent) = filled();
    assert_eq!(read(disk.clone(), &sent), Found::Whole);
    let file = disk.bytes();
    let ends = file.windows(BODY + 1).enumerate();
    let ends = ends.filter(|(_, run)| run[..BODY].iter().all(|byte| *byte == b' ') && run[BODY] != b' ');
    let mut found = BTreeMap::<Found, usize>::new();
    for (start, _) in ends {
        // In the attributes before it, and in the body.
        for place in [start - 7, start + BODY / 2] {
            *found.entry(read(disk.flipped(place * 8 + 3), &sent)).or_default() += 1;
        }
    }
    // Pages that are free have old copies, whose bits nobody reads.
    assert!(found.keys().all(|found| [Found::Whole, Found::Damaged].contains(found)), "{found:?}");
    assert!(found[&Found::Damaged] >= 2 * sent.len(), "{found:?}");
}

/// How long one answer may take, and how long a file is read that leads in circles.
const BOUND: Duration = Duration::from_secs(20);
const ENDLESS: Duration = Duration::from_secs(3);
/// The pages of redb, each with its kind in its first byte.
const PAGE: usize = 4096;

/// Returns where pages with something in them begin. The first one is the header.
fn pages(file: &[u8]) -> Vec<usize> {
    let pages = file.chunks(PAGE).enumerate().skip(1);
    pages.filter(|(_, page)| page.iter().any(|byte| *byte != 0)).map(|(number, _)| number * PAGE).collect()
}

/// The same as [`read`], in a thread of its own, which is left behind when it does not end.
fn read_in_time(disk: Disk, sent: &BTreeMap<EventId, Event>) -> Found {
    let (tell, told) = std::sync::mpsc::channel();
    let sent = sent.clone();
    std::thread::spawn(move || {
        let found = catch_unwind(AssertUnwindSafe(|| read(disk, &sent)));
        let found = found.or_else(|panic| {
            let text = waypost_runtime::stage::panic_text(&*panic);
            if text.contains("nobody sent") { Err(text) } else { Ok(Found::Panicked) }
        });
        tell.send(found).ok();
    });
    told.recv_timeout(ENDLESS).map_or(Found::Endless, |found| found.expect("an event that nobody sent"))
}

/// A page of the storage engine was not examined: a bit that had flipped there let it panic, or hid rows.
#[test]
fn a_bit_that_flips_in_any_page_is_found_by_an_examination() {
    let (disk, sent) = filled();
    let whole = |disk: &Disk| examine(disk.closed(), |_| ()).unwrap().1;
    assert_eq!((whole(&disk), read(disk.closed(), &sent)), (Condition::Whole, Found::Whole));
    let pages = pages(&disk.bytes());
    let mut found = BTreeMap::<(Found, bool), usize>::new();
    for (number, page) in pages.iter().enumerate() {
        // In its kind, its number of entries, and anywhere.
        for byte in [0, 2, 100 + 83 * number % 3_900] {
            let flipped = disk.flipped((page + byte) * 8 + (number + byte) % 8);
            let is_damaged = whole(&flipped) != Condition::Whole;
            // A wrong number or place may lead in circles: what is found is read only where it does not.
            if is_damaged && byte != 0 {
                continue;
            }
            let read = read_in_time(flipped, &sent);
            assert!(read == Found::Whole || is_damaged, "{read:?}: byte {byte} of the page at {page}");
            *found.entry((read, is_damaged)).or_default() += 1;
        }
    }
    assert!(found.get(&(Found::Panicked, true)).is_some_and(|panicked| *panicked > 2), "{found:?}");
}

/// A read that panicked was answered with "unavailable", again and again, by a service that looked alive.
#[tokio::test]
async fn a_damaged_page_ends_the_service_with_the_name_of_the_file() {
    let (folder, store) = fresh();
    for number in 0..200 {
        let events = (0..3).map(|place| Arrival {
            event: event(&format!("{number}-{place}"), BODY),
            ..arrival("", &[sub(1), sub(2)])
        });
        store.log(events.collect()).await.unwrap();
    }
    store.close().await;
    close(store).await;
    let file = std::fs::read(folder.path().join(FILE_NAME)).unwrap();
    let mut refused = 0;
    for page in pages(&file).into_iter().step_by(3) {
        let mut damaged = file.clone();
        damaged[page] ^= 4;
        let there = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                std::fs::copy(entry.path(), there.path().join(entry.file_name())).unwrap();
            }
        }
        let path = there.path().join(FILE_NAME);
        std::fs::write(&path, damaged).unwrap();
        let checked = check(there.path());
        let text = format!("{} is damaged", path.display());
        let store = match Store::open(there.path(), Duration::ZERO) {
            Ok(store) => store,
            Err(error) => {
                assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
                assert!(error.to_string().contains(&text) && checked.is_err(), "{error}");
                refused += 1;
                continue;
            }
        };
        let used = async {
            let reads = store.histories(ALL).await.is_ok()
                && store.subscriptions().await.is_ok()
                && store.recipients_with_backlog().await.is_ok();
            reads && store.log(vec![arrival("more", &[sub(1)])]).await.is_ok() && store.probe().await.is_ok()
        };
        let is_well = tokio::time::timeout(BOUND, used).await.expect("each answers, well or not");
        if !is_well {
            let dead = tokio::time::timeout(BOUND, store.alarm().raised()).await.expect("it ends");
            assert!(dead.to_string().contains(&text), "{dead}");
            assert!(matches!(checked, Err(OpenError::Damaged { .. })), "{checked:?}");
        }
        tokio::time::timeout(BOUND, store.close()).await.expect("it closes");
    }
    assert!(refused > 0);
    // A panic in a read: of a file that is whole, it is a bug, and of a damaged one the end.
    let panics = async |store: &Store| {
        let read = store.read(|_| -> Result<(), Fault> { panic!("a panic in a read") });
        tokio::time::timeout(BOUND, read).await.expect("it answers").unwrap_err()
    };
    let store = open(folder.path());
    assert!(panics(&store).await.to_string().contains("a panic in a read"));
    assert_eq!(store.alarm().dead(), None);
    close(store).await;
    let (store, path) = (open(folder.path()), folder.path().join(FILE_NAME));
    let mut damaged = std::fs::read(&path).unwrap();
    damaged.chunks_mut(PAGE).skip(1).filter(|page| [1, 2].contains(&page[0])).for_each(|page| page[0] ^= 4);
    std::fs::write(&path, damaged).unwrap();
    panics(&store).await;
    let dead = tokio::time::timeout(BOUND, store.alarm().raised()).await.expect("it ends");
    assert!(dead.to_string().contains(&format!("{} is damaged", path.display())), "{dead}");
    tokio::time::timeout(BOUND, store.close()).await.expect("it closes");
}

//! A bit that has flipped on the disk, in a record: it is found and named, and no event is served that nobody sent.
//!
//! A record has a checksum. A page of redb's own has one, too, which redb reads only when it repairs a file: there, a flipped
//! bit may end the process.

use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::FutureExt as _;

use super::*;
use crate::Forward;
use crate::redb::Disk;
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

//! The dedup window: an event that is sent twice is logged once.

use redb::{ReadableTableMetadata, TableDefinition};
use uuid::Uuid;

use super::super::group::{Group, Op};
use super::super::handle::Handle;
use super::super::log::{SEEN, SEEN_KEYS, SEEN_KEYS_ORDER, SEEN_ORDER};
use super::super::schema::Tables;
use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn with_window(folder: &Path) -> Store {
    open_with(folder, Options { dedup_window: DAY, ..Options::default() })
}

#[tokio::test]
async fn a_repeat_gets_the_first_ones_id_and_is_delivered_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_window(folder.path());
    let first = accept(&store, "a", &[sub(1)]).await;
    let other = accept(&store, "b", &[sub(1)]).await;
    assert_ne!(first, other);
    assert_eq!(accept(&store, "a", &[sub(1), sub(2)]).await, first);
    assert_eq!(listed(&store, ALL).await, [other, first]);
    assert_eq!(store.recipients_with_backlog().await.unwrap(), [sub(1)]);
    close(store).await;
    let store = with_window(folder.path());
    assert_eq!(accept(&store, "a", &[sub(1)]).await, first, "also after a restart");
    assert_eq!(ready(&store, sub(1)).await.first_attempts.len(), 2);
}

#[tokio::test]
async fn a_repeat_in_one_batch_counts_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_window(folder.path());
    let ids = store.log(["a", "b", "a", "c", "b"].map(|id| arrival(id, &[sub(1)])).to_vec()).await.unwrap();
    assert_eq!((ids[2], ids[4]), (ids[0], ids[1]));
    assert_eq!(listed(&store, ALL).await, [ids[3], ids[1], ids[0]]);
    let fresh = ready(&store, sub(1)).await.first_attempts;
    let places: Vec<_> =
        fresh.iter().map(|pending| (pending.position.index, pending.event.event.id().to_owned())).collect();
    assert_eq!(places, [(0, "a".to_owned()), (1, "b".to_owned()), (2, "c".to_owned())]);
}

#[tokio::test]
async fn the_same_id_of_another_source_is_another_event() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_window(folder.path());
    let mut arrivals = vec![arrival("a", &[]), arrival("a", &[])];
    let event = &arrivals[1].event;
    let (id, ty, wire) = (event.id().to_owned(), event.ty().to_owned(), event.wire().clone());
    arrivals[1].event = Event::from_parts(event.spec_version(), id, "/others".to_owned(), ty, wire);
    let ids = store.log(arrivals).await.unwrap();
    assert_eq!(listed(&store, ALL).await, [ids[1], ids[0]]);
}

#[tokio::test]
async fn without_a_window_each_is_an_event() {
    let (_folder, store) = fresh();
    let first = accept(&store, "a", &[]).await;
    let second = accept(&store, "a", &[]).await;
    assert_eq!(listed(&store, ALL).await, [second, first]);
}

/// A file that is written at the times that a test sets.
struct Timed {
    _folder: tempfile::TempDir,
    handle: Handle,
    machine: Machine,
}

impl Timed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let handle = Handle::open(folder.path(), &key(folder.path())).unwrap();
        Self { _folder: folder, handle, machine: machine(DAY) }
    }

    /// Accepts an event that is received now.
    fn accept(&mut self, id: &str, now: Timestamp) -> EventId {
        let arrivals = vec![Arrival { received: now, ..arrival(id, &[]) }];
        self.apply(Op::Accept { arrivals, matched_at: Position::default() }, now)
    }

    /// Likewise, of a request with a key.
    fn accept_once(&mut self, id: &str, key: u128, now: Timestamp) -> EventId {
        let arrivals = vec![Arrival { received: now, ..arrival(id, &[]) }];
        self.apply(Op::AcceptOnce { arrivals, matched_at: Position::default(), key }, now)
    }

    fn apply(&mut self, op: Op, now: Timestamp) -> EventId {
        let written = self.handle.write(|txn| {
            let group = Group { ops: vec![op], ends: Vec::new() };
            Ok(self.machine.apply(&mut Tables::open(txn)?, now, &group)?.0.remove(0))
        });
        match written.unwrap().unwrap().accepted() {
            Accepted::Logged(receipts) => receipts[0].id,
            Accepted::Stale(..) => unreachable!("no subscription changes"),
        }
    }

    fn remembered(&self) -> (u64, u64) {
        let rows = |txn: &redb::ReadTransaction| {
            Ok((txn.open_table(SEEN)?.len()?, txn.open_table(SEEN_ORDER)?.len()?))
        };
        self.handle.read(rows).unwrap()
    }

    fn keys_remembered(&self) -> (u64, u64) {
        let rows = |txn: &redb::ReadTransaction| {
            Ok((txn.open_table(SEEN_KEYS)?.len()?, txn.open_table(SEEN_KEYS_ORDER)?.len()?))
        };
        self.handle.read(rows).unwrap()
    }
}

#[test]
fn outside_the_window_it_is_a_new_event() {
    let mut store = Timed::new();
    let first = store.accept("a", after(0));
    assert_eq!(store.accept("a", after(0) + DAY), first, "the window's last moment");
    let second = store.accept("a", after(1) + DAY);
    assert_ne!(second, first);
    assert_eq!(store.accept("a", after(0) + 2 * DAY), second, "the window begins again with the new one");
    assert_ne!(store.accept("a", after(2) + 2 * DAY), second);
}

#[test]
fn what_is_too_old_makes_room() {
    let mut store = Timed::new();
    for number in 0..30 {
        store.accept(&number.to_string(), after(0));
    }
    assert_eq!(store.remembered(), (30, 30));
    for number in 30..60 {
        store.accept(&number.to_string(), after(1) + DAY);
    }
    assert_eq!(store.remembered(), (30, 30), "two go for each that comes");
    let last = store.accept("59", after(2) + DAY);
    assert_eq!(store.accept("59", after(1) + 2 * DAY), last, "and none of the young ones");
}

/// An expired one that comes again is remembered again; its old place in the order must not take the new one away.
#[test]
fn an_expired_one_that_came_again_stays_remembered() {
    let mut store = Timed::new();
    for id in ["x", "y", "z", "a"] {
        store.accept(id, after(0));
    }
    // Makes room for itself by two of the older ones, not by its own old place.
    let again = store.accept("a", after(1) + DAY);
    store.accept("b", after(1) + DAY);
    store.accept("c", after(1) + DAY);
    assert_eq!(store.remembered(), (3, 3));
    assert_eq!(store.accept("a", after(1) + DAY), again);
}

/// One damaged byte there made the writer panic, and again with the first event after each restart.
#[test]
fn an_expired_one_that_is_no_text_is_passed_over() {
    const RAW_ORDER: TableDefinition<'_, u128, RawText> = TableDefinition::new("seen_order");
    let mut store = Timed::new();
    let first = store.accept("a", after(0));
    let damaged = store.handle.write(|txn| {
        txn.open_table(RAW_ORDER)?.insert(first.uuid().as_u128(), &b"/tests\0\xff"[..])?;
        Ok(())
    });
    damaged.unwrap();
    assert_ne!(store.accept("a", after(1) + DAY), first);
    assert_eq!((store.remembered(), store.machine.marks.count()), ((1, 1), 1));
}

async fn accept_once(store: &Store, ids: &[&str], key: u128) -> Vec<(EventId, bool)> {
    let arrivals = ids.iter().map(|id| arrival(id, &[sub(1)])).collect();
    match store.accept_once(arrivals, Position(u64::MAX), Uuid::from_u128(key)).await.unwrap() {
        Accepted::Logged(receipts) => {
            receipts.iter().map(|receipt| (receipt.id, receipt.is_repeat)).collect()
        }
        Accepted::Stale(..) => unreachable!("nothing is newer"),
    }
}

#[tokio::test]
async fn a_request_with_a_known_key_logs_nothing_whatever_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_window(folder.path());
    let first = accept_once(&store, &["a", "b"], 7).await;
    assert!(first.iter().all(|(_, is_repeat)| !is_repeat));
    let other = accept_once(&store, &["c"], 8).await[0];
    assert!(!other.1, "another key");
    let again = accept_once(&store, &["d", "e", "f"], 7).await;
    assert_eq!(again[..2], [(first[0].0, true), (first[1].0, true)]);
    assert!(!again[2].1, "the first request had no event in this place");
    close(store).await;
    let store = with_window(folder.path());
    assert_eq!(accept_once(&store, &["a"], 7).await, [(first[0].0, true)], "also after a restart");
    assert_eq!(listed(&store, ALL).await, [again[2].0, other.0, first[1].0, first[0].0]);
    assert_eq!(ready(&store, sub(1)).await.first_attempts.len(), 4);
}

#[tokio::test]
async fn both_ways_find_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_window(folder.path());
    let first = accept_once(&store, &["a"], 7).await[0].0;
    assert_eq!(accept(&store, "a", &[]).await, first, "by its source and id, without a key");
    assert_eq!(accept_once(&store, &["a"], 8).await, [(first, true)], "and with another one");
    let second = accept(&store, "b", &[]).await;
    assert_eq!(accept_once(&store, &["b"], 7).await, [(first, true)], "the key counts first");
    assert_ne!(second, first);
}

#[tokio::test]
async fn two_requests_with_one_key_in_one_commit_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_window(folder.path());
    let (one, two) = tokio::join!(accept_once(&store, &["a"], 7), accept_once(&store, &["b"], 7));
    assert_eq!(one[0].0, two[0].0);
    assert_eq!(listed(&store, ALL).await.len(), 1);
}

#[tokio::test]
async fn without_a_window_keys_count_for_nothing() {
    let (_folder, store) = fresh();
    assert_ne!(accept_once(&store, &["a"], 7).await, accept_once(&store, &["a"], 7).await);
    assert_eq!(listed(&store, ALL).await.len(), 2);
}

#[test]
fn keys_expire_with_the_window() {
    let mut store = Timed::new();
    let first = store.accept_once("a", 7, after(0));
    assert_eq!(store.accept_once("b", 7, after(0) + DAY), first, "the window's last moment");
    let second = store.accept_once("b", 7, after(1) + DAY);
    assert_ne!(second, first);
    for key in 8..30 {
        store.accept_once(&key.to_string(), key, after(2) + DAY);
    }
    assert_eq!(store.keys_remembered(), (23, 23));
    store.accept_once("x", 30, after(3) + 2 * DAY);
    assert_eq!(store.keys_remembered(), (22, 22), "two go for each that comes");
}

/// The window went by the ids, which stay at the latest time that was seen: after a clock was a day ahead and was set back,
/// it held for a day more.
#[test]
fn the_window_goes_by_receipts_also_after_a_clock_was_ahead() {
    let mut store = Timed::new();
    store.accept_once("ahead", 1, after(0) + 3 * DAY);
    let first = store.accept_once("a", 7, after(0));
    assert_eq!(store.accept_once("a", 7, after(0) + DAY), first, "the window's last moment");
    let second = store.accept_once("a", 7, after(1) + DAY);
    assert_ne!(second, first);
    assert_eq!(store.accept_once("a", 7, after(2) + DAY), second);
    assert_eq!(store.accept_once("z", 7, after(1) + 2 * DAY), second);
}

/// A file of this version may be of a Waypost that had fewer tables: a read before the first write found none.
#[test]
fn tables_that_an_earlier_waypost_did_not_make_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let handle = Handle::open(folder.path(), &key(folder.path())).unwrap();
    let deleted = handle.write(|txn| Ok((txn.delete_table(SEEN_KEYS)?, txn.delete_table(SEEN_KEYS_ORDER)?)));
    assert_eq!(deleted.unwrap(), (true, true));
    drop(handle);
    let handle = Handle::open(folder.path(), &key(folder.path())).unwrap();
    handle
        .read(|txn| Ok((txn.open_table(SEEN_KEYS)?.len()?, txn.open_table(SEEN_KEYS_ORDER)?.len()?)))
        .unwrap();
}

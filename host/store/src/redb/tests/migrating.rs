//! Files of released versions (`fixtures`): everything in them is found again, and a migration that is cut off starts
//! over.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::GzDecoder;
use redb::{Database, ReadableDatabase};
use serde::Deserialize;

use super::super::check::check;
use super::super::migrate;
use super::*;
use crate::{DeliveriesQuery, StoredState};

/// What a server of that version said of an event.
#[derive(Debug, Deserialize, PartialEq)]
struct Told {
    event: EventId,
    deliveries: Vec<ToldDelivery>,
    filters_failed: Vec<RecipientId>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct ToldDelivery {
    recipient: RecipientId,
    state: String,
    due: Option<Timestamp>,
    attempts: usize,
}

/// The schema version of each file, its bytes, and what it holds.
const FILES: [(u64, &[u8], &str); 3] = [
    (1, include_bytes!("fixtures/v1.redb.gz"), include_str!("fixtures/v1.json")),
    (2, include_bytes!("fixtures/v2.redb.gz"), include_str!("fixtures/v2.json")),
    (4, include_bytes!("fixtures/v4.redb.gz"), include_str!("fixtures/v2.json")),
];

fn unpacked(packed: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    std::fs::write(folder.path().join(FILE_NAME), bytes).unwrap();
    folder
}

/// Compares everything in a store with what was told of it.
async fn compare(store: &Store, told: &str) {
    let told: Vec<Told> = serde_json::from_str(told).unwrap();
    let mut histories = store.histories(ALL).await.unwrap();
    histories.reverse();
    assert_eq!(histories.len(), told.len());
    let mut by_state: BTreeMap<(RecipientId, StoredState), Vec<EventId>> = BTreeMap::new();
    for (found, told) in histories.into_iter().zip(told) {
        let mut deliveries = Vec::new();
        for Delivery { recipient, state, history, .. } in found.deliveries {
            let (stored, due) = match &state {
                State::Pending | State::Delivering => (StoredState::Pending, None),
                State::Retrying { due, .. } => (StoredState::Retrying, Some(*due)),
                State::Held { due, .. } => (StoredState::Held, Some(*due)),
                State::Delivered { .. } => (StoredState::Delivered, None),
                State::Denied { .. } => (StoredState::Denied, None),
                State::Skipped { .. } => (StoredState::Skipped, None),
                State::Dead { .. } => (StoredState::Dead, None),
            };
            by_state.entry((recipient, stored)).or_default().push(found.event.id);
            let attempts = history.iter().filter(|entry| matches!(entry, Entry::Attempt(_))).count();
            deliveries.push(ToldDelivery { recipient, state: state.name().to_owned(), due, attempts });
        }
        deliveries.sort_by_key(|delivery| delivery.recipient);
        let filters_failed = found.failed.iter().map(|failed| failed.recipient).collect();
        assert_eq!(Told { event: found.event.id, deliveries, filters_failed }, told);
    }
    for ((recipient, state), events) in by_state {
        let counts = store.counts(recipient).await.unwrap();
        assert_eq!(counts.of(state), events.len() as u64, "{recipient} {state:?}");
        let query = DeliveriesQuery {
            recipient,
            state: Some(state),
            since: None,
            until: None,
            before: None,
            limit: usize::MAX,
        };
        let mut listed: Vec<_> =
            store.deliveries(query).await.unwrap().into_iter().map(|listed| listed.event).collect();
        listed.sort_unstable();
        assert_eq!(listed, events, "{recipient} {state:?}");
    }
    assert_eq!(store.damaged(), 0);
}

#[tokio::test]
async fn an_older_file_has_all_its_deliveries() {
    for (version, packed, told) in FILES {
        let folder = unpacked(packed);
        assert_eq!(check(folder.path()).unwrap().found, Some(version));
        let store = open(folder.path());
        compare(&store, told).await;
        close(store).await;
        let checked = check(folder.path()).unwrap();
        assert_eq!(checked.found, Some(checked.current), "it is not migrated again");
        compare(&open(folder.path()), told).await;
    }
}

/// A process that is killed in the middle leaves the file as it was.
#[tokio::test]
async fn a_migration_that_is_cut_off_starts_over() {
    for (version, packed, told) in FILES {
        let folder = unpacked(packed);
        let path = folder.path().join(FILE_NAME);
        let database = Database::open(&path).unwrap();
        let txn = database.begin_write().unwrap();
        migrate::deliveries(&txn).unwrap();
        // What a crash at this moment leaves on the disk.
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(&path, copy.path().join(FILE_NAME)).unwrap();
        txn.abort().unwrap();
        assert!(database.begin_read().unwrap().list_tables().unwrap().count() > 0);
        drop(database);
        for folder in [copy.path(), folder.path()] {
            assert_eq!(check(folder).unwrap().found, Some(version));
            compare(&open(folder), told).await;
        }
    }
}

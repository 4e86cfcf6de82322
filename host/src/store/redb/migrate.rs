//! Making the tables of deliveries of a file that has none: schema versions 1 and 2, in which a delivery's state followed
//! from its history and its row among first attempts or retries.
//!
//! It all happens in one transaction: a migration that is killed leaves the file as it was, and starts over.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::apply::referred;
use super::damage::Marks;
use super::deliveries::{encode_counts, minute_of};
use super::handle::Fault;
use super::history::{self, Histories};
use super::ids::millis;
use super::record::{self, Ended, Origin, RetryRecord, Waiting, Why, encode_ended, event_id, final_code};
use super::schema::{MILLIS_KEY, Tables};
use crate::domain::{Entry, Outcome};
use crate::store::{DeliveryCounts, LoggedEvent, StoredState};

/// (Subscription, due in microseconds since 1970, event) → how far the delivery had come.
const RETRIES: TableDefinition<'_, (u128, i64, u128), &[u8]> = TableDefinition::new("retries");
/// How often a long migration says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Deliveries that wait for another attempt: by recipient and event, when they are due and how far they have come.
type Retries = HashMap<(u128, u128), (Timestamp, RetryRecord)>;

/// Makes the tables of deliveries, and removes what they replace.
pub(super) fn deliveries(txn: &WriteTransaction) -> Result<(), Fault> {
    let mut tables = Tables::open(txn)?;
    let marks = Marks::default();
    let mut migration = Migration { retries: retries(txn)?, counts: BTreeMap::new() };
    let keys: Vec<u128> = tables
        .log
        .batches
        .iter()?
        .map(|row| Ok(row?.0.value()))
        .collect::<Result<_, redb::StorageError>>()?;
    let mut told = Instant::now();
    for (place, batch) in keys.iter().enumerate() {
        migration.batch(&mut tables, &marks, *batch)?;
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            tracing::info!(batches = place, of = keys.len(), "bringing the database up to date");
        }
    }
    migration.finish(&mut tables)?;
    refer(&mut tables)?;
    txn.delete_table(RETRIES)?;
    Ok(())
}

/// Makes the table of the subscriptions that refer to modules.
fn refer(tables: &mut Tables<'_>) -> Result<(), Fault> {
    for row in tables.registry.subscriptions.iter()? {
        let (key, row) = row?;
        let known = record::decode_subscription(row.value()).ok();
        if let Some(digest) = referred(known.as_ref().map(|known| &*known.subscription)) {
            tables.modules.referring.insert((digest.to_string().as_str(), key.value()), ())?;
        }
    }
    Ok(())
}

/// Reads the table of retries. A row that cannot be read leaves a delivery without a row: it becomes a dead letter.
fn retries(txn: &WriteTransaction) -> Result<Retries, Fault> {
    let mut retries = Retries::new();
    for row in txn.open_table(RETRIES)?.iter()? {
        let (key, row) = row?;
        let (recipient, due, event) = key.value();
        if let (Ok(due), Ok(retry)) = (record::timestamp(due), RetryRecord::decode(row.value())) {
            retries.insert((recipient, event), (due, retry));
        }
    }
    Ok(retries)
}

struct Migration {
    retries: Retries,
    counts: BTreeMap<u128, DeliveryCounts>,
}

impl Migration {
    fn count(&mut self, recipient: u128, state: StoredState) {
        self.counts.entry(recipient).or_default().0[state as usize] += 1;
    }

    /// Sorts the deliveries of a batch into the tables. One that cannot be read is left to the readers, which make dead
    /// letters of its pending deliveries.
    fn batch(&mut self, tables: &mut Tables<'_>, marks: &Marks, batch: u128) -> Result<(), Fault> {
        let Some(row) = tables.log.batches.get(batch)?.map(|row| row.value().to_vec()) else { return Ok(()) };
        let Ok(events) = record::decode_batch(&row.into()) else { return Ok(()) };
        let histories = history::of_batch(&tables.history, &tables.pieces, batch, marks, |_| true)?;
        let mut first: HashMap<u128, Vec<u32>> = HashMap::new();
        let mut ended: BTreeMap<u128, Vec<Ended>> = BTreeMap::new();
        for (index, logged) in (0u32..).zip(events.iter()) {
            let Some(logged) = logged.as_deref() else { continue };
            for recipient in logged.matched.iter().map(|id| id.uuid().as_u128()) {
                let places = match first.entry(recipient) {
                    Slot::Occupied(known) => known.into_mut(),
                    Slot::Vacant(new) => {
                        let row = tables.deliveries.fresh.get((recipient, batch))?;
                        let places = row.map(|row| record::decode_places(row.value()));
                        new.insert(places.and_then(Result::ok).unwrap_or_default())
                    }
                };
                let history = entries(&histories, index, recipient);
                if self.waits(tables, recipient, logged, history)? {
                    continue;
                }
                if !places.contains(&index) {
                    let state = final_state(history);
                    ended.entry(recipient).or_default().push(Ended {
                        index,
                        state,
                        was_allowed: was_allowed(history),
                    });
                    self.count(recipient, state);
                    if state != StoredState::Delivered {
                        let key = (recipient, final_code(state), batch, index);
                        tables.deliveries.ended_by_state.insert(key, logged.id.uuid().as_u128())?;
                    }
                }
            }
        }
        for (recipient, ended) in ended {
            tables.deliveries.ended.insert((batch, recipient), encode_ended(&ended).as_slice())?;
            tables.deliveries.ended_minutes.insert((recipient, minute_of(batch)), ())?;
        }
        Ok(())
    }

    /// Lets a delivery wait that has a row among the retries; returns whether it has one.
    fn waits(
        &mut self,
        tables: &mut Tables<'_>,
        recipient: u128,
        logged: &LoggedEvent,
        history: &[Entry],
    ) -> Result<bool, Fault> {
        let event = logged.id.uuid().as_u128();
        let Some((due, retry)) = self.retries.remove(&(recipient, event)) else { return Ok(false) };
        self.wait(tables, (recipient, event), due, &retry, history)?;
        Ok(true)
    }

    fn wait(
        &mut self,
        tables: &mut Tables<'_>,
        (recipient, event): (u128, u128),
        due: Timestamp,
        retry: &RetryRecord,
        history: &[Entry],
    ) -> Result<(), Fault> {
        let origin = Origin { asked: asked(history), was_allowed: was_allowed(history) };
        let (batch, index, why) = (retry.batch, retry.index, why(history));
        let Ok(progress) = retry.progress() else { return Ok(()) };
        self.count(recipient, why.state());
        let waiting = Waiting { batch, index, due, why, progress, origin };
        tables.deliveries.waiting.insert((recipient, event), waiting.encode().as_slice())?;
        tables.deliveries.due.insert((recipient, due.as_microsecond(), event), ())?;
        Ok(())
    }

    /// Writes the counts, and lets those wait whose events cannot be read: readers make dead letters of them.
    fn finish(mut self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        for (key, (due, retry)) in std::mem::take(&mut self.retries) {
            self.wait(tables, key, due, &retry, &[])?;
        }
        for (recipient, counts) in self.counts {
            tables.deliveries.counts.insert(recipient, encode_counts(&counts).as_slice())?;
        }
        // An older id may end in anything: new ones are of a later time. All ids of a batch are of one moment.
        if let Some((last, _)) = tables.log.batches.last()? {
            tables.meta.insert(MILLIS_KEY, millis(event_id(last.value())) + 1)?;
        }
        Ok(())
    }
}

fn entries(histories: &Histories, index: u32, recipient: u128) -> &[Entry] {
    histories.get(&(index, recipient)).map_or(&[][..], Vec::as_slice)
}

/// Returns the last entry that said where the delivery stood.
fn last_state(history: &[Entry]) -> Option<&Entry> {
    history.iter().rfind(|entry| !entry.is_run() && !matches!(entry, Entry::FilterFailed { .. }))
}

fn final_state(history: &[Entry]) -> StoredState {
    match last_state(history) {
        Some(Entry::Attempt(attempt)) => match attempt.outcome {
            Outcome::Delivered => StoredState::Delivered,
            Outcome::Denied => StoredState::Denied,
            Outcome::Skipped { .. } => StoredState::Skipped,
            Outcome::Dead { .. } | Outcome::Retry { .. } => StoredState::Dead,
        },
        Some(Entry::Dropped { .. }) => StoredState::Skipped,
        // It should have a row, and has none: its record was damaged.
        None
        | Some(
            Entry::Redelivery { .. }
            | Entry::FilterFailed { .. }
            | Entry::Recovered { .. }
            | Entry::Held { .. }
            | Entry::Plugin(_)
            | Entry::Run(_),
        ) => StoredState::Dead,
    }
}

fn why(history: &[Entry]) -> Why {
    match last_state(history) {
        Some(Entry::Attempt(attempt)) => match &attempt.outcome {
            Outcome::Retry { reason, .. } | Outcome::Dead { reason } | Outcome::Skipped { reason } => {
                Why::Failed { reason: reason.clone() }
            }
            Outcome::Delivered | Outcome::Denied => Why::Asked,
        },
        Some(Entry::Held { by, reason, .. }) => Why::Held { by: *by, reason: reason.clone() },
        None
        | Some(
            Entry::Redelivery { .. }
            | Entry::Dropped { .. }
            | Entry::FilterFailed { .. }
            | Entry::Recovered { .. }
            | Entry::Plugin(_)
            | Entry::Run(_),
        ) => Why::Asked,
    }
}

fn asked(history: &[Entry]) -> Option<Timestamp> {
    history.iter().rev().find_map(|entry| match entry {
        Entry::Redelivery { at, .. } | Entry::Recovered { at, .. } => Some(*at),
        Entry::Attempt(_)
        | Entry::Dropped { .. }
        | Entry::FilterFailed { .. }
        | Entry::Held { .. }
        | Entry::Plugin(_)
        | Entry::Run(_) => None,
    })
}

/// Tells whether policy ever let the user see the event: only then was the plugin called or a request sent.
fn was_allowed(history: &[Entry]) -> bool {
    history.iter().any(|entry| match entry {
        Entry::Plugin(_) => true,
        Entry::Attempt(attempt) => match &attempt.policy {
            Some(answer) => answer.is_success(),
            None => attempt.target.is_some(),
        },
        Entry::Redelivery { .. }
        | Entry::Dropped { .. }
        | Entry::FilterFailed { .. }
        | Entry::Held { .. }
        | Entry::Recovered { .. }
        | Entry::Run(_) => false,
    })
}

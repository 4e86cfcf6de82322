//! Making the tables of deliveries of a file that has none: schema versions 1 and 2, in which a delivery's state followed
//! from its history and its row among first attempts or retries. Files of version 3 have secrets in plain. Files up to
//! version 4 have no list of what waits by state, and no numbers of first attempts; up to version 5, no number of the log's
//! bytes.
//!
//! It all happens in one transaction: of a copy ([`super::rewrite`]), or of the file itself if its secrets are sealed. A
//! migration that is killed leaves the file as it was, and starts over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use redb::{ReadableTable as _, StorageError, TableDefinition, WriteTransaction};

use super::apply::referred;
use super::damage::{self, Marks};
use super::deliveries::{self, Deliveries, DeliveryKey};
use super::handle::Fault;
use super::history::{self, Histories};
use super::ids::millis;
use super::log;
use super::modules::Modules;
use super::record::{self, Batch, Origin, RetryRecord, Waiting, Why, event_id};
use super::rewrite::Copy;
use super::room;
use super::schema::{META, MILLIS_KEY, SCHEMA_KEY, SCHEMA_VERSION, Tables};
use crate::{Position, StoredState};
use waypost_domain::{Entry, Outcome};

/// (Subscription, due in microseconds since 1970, event) → how far the delivery had come.
const RETRIES: TableDefinition<'_, (u128, i64, u128), &[u8]> = TableDefinition::new("retries");
/// The first version with tables of deliveries.
const DELIVERIES: u64 = 3;
/// The first version with sealed secrets: files of it are brought up to date in place.
pub(super) const SEALED: u64 = 4;
/// The first version that lists what waits by state.
const BY_STATE: u64 = 5;
/// The first version that counts the bytes of the log.
const COUNTED: u64 = 6;
/// How often a long migration says how far it is.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(5);

/// Deliveries that wait for another attempt: by recipient and event, when they are due and how far they have come.
type Retries = HashMap<(u128, u128), (Timestamp, RetryRecord)>;

/// Copies the tables that only older files have.
pub(super) fn copy(copy: &mut Copy<'_>) -> Result<(), redb::Error> {
    copy.table(RETRIES)
}

/// Brings a file of an older version up to date, of which this is a copy unless its secrets are sealed.
pub(super) fn bring_up_to_date(txn: &WriteTransaction, version: u64) -> Result<(), Fault> {
    if version < DELIVERIES {
        deliveries(txn)?;
    }
    if version < BY_STATE {
        deliveries::index(&mut Tables::open(txn)?.deliveries)?;
    }
    if version < COUNTED {
        room::count(&mut Tables::open(txn)?)?;
    }
    txn.open_table(META)?.insert(SCHEMA_KEY, SCHEMA_VERSION)?;
    Ok(())
}

/// Makes the tables of deliveries, and removes what they replace.
pub(super) fn deliveries(txn: &WriteTransaction) -> Result<(), Fault> {
    let (mut tables, marks, no_minutes) = (Tables::open(txn)?, Marks::default(), HashMap::new());
    let Tables { log, history, pieces, deliveries, .. } = &mut tables;
    let mut migration =
        Migration { deliveries: Deliveries::new(deliveries, &marks, &no_minutes), retries: retries(txn)? };
    let keys: Vec<u128> =
        log.batches.iter()?.map(|row| Ok(row?.0.value())).collect::<Result<_, StorageError>>()?;
    let mut told = Instant::now();
    for (place, batch) in keys.iter().enumerate() {
        // Readers make dead letters of the pending deliveries of a batch that cannot be read.
        let Some(events) = log::read_batch(log, *batch)? else { continue };
        let histories = history::of_batch(history, pieces, *batch, &marks, |_| true)?;
        migration.batch(*batch, &events, &histories)?;
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            tracing::info!(batches = place, of = keys.len(), "bringing the database up to date");
        }
    }
    migration.finish()?;
    // An older id may end in anything: new ones are of a later time. All ids of a batch are of one moment.
    if let Some(last) = keys.last() {
        tables.meta.insert(MILLIS_KEY, millis(event_id(*last)) + 1)?;
    }
    refer(&mut tables, &marks)?;
    txn.delete_table(RETRIES)?;
    Ok(())
}

/// Makes the table of the subscriptions that refer to modules.
fn refer(tables: &mut Tables<'_>, marks: &Marks) -> Result<(), Fault> {
    let mut modules = Modules::new(&mut tables.modules, marks);
    for row in tables.registry.subscriptions.iter()? {
        let (key, row) = row?;
        let known = record::decode_subscription(row.value()).ok();
        modules.refer(key.value(), None, referred(known.as_ref().map(|known| &*known.subscription)))?;
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

struct Migration<'a, 'txn> {
    deliveries: Deliveries<'a, 'txn>,
    retries: Retries,
}

impl Migration<'_, '_> {
    /// Sorts the deliveries of a batch into the tables: those that have no row are over.
    fn batch(&mut self, batch: u128, events: &Batch, histories: &Histories) -> Result<(), Fault> {
        for (index, logged) in (0u32..).zip(events.iter()) {
            let Some(logged) = logged.as_deref() else { continue };
            for recipient in logged.matched.iter().map(|id| id.uuid().as_u128()) {
                let key = DeliveryKey { recipient, event: logged.id.uuid().as_u128(), batch, index };
                let history = entries(histories, index, recipient);
                if let Some((due, retry)) = self.retries.remove(&(recipient, key.event)) {
                    self.wait(key, due, &retry, history)?;
                } else if !damage::apart(self.deliveries.is_pending(key, None))?.unwrap_or(false) {
                    self.deliveries.end(key, final_state(history), was_allowed(history))?;
                }
            }
        }
        // They would grow with the log.
        self.deliveries.ended_minutes.clear();
        self.deliveries.write_rows()
    }

    /// Lets a delivery wait that has a row among the retries.
    fn wait(
        &mut self,
        key: DeliveryKey,
        due: Timestamp,
        retry: &RetryRecord,
        history: &[Entry],
    ) -> Result<(), Fault> {
        let origin = Origin { asked: asked(history), was_allowed: was_allowed(history) };
        let (batch, index, why) = (retry.batch, retry.index, why(history));
        let Ok(progress) = retry.progress() else { return Ok(()) };
        Ok(self.deliveries.wait(key, &Waiting { batch, index, due, why, progress, origin })?)
    }

    /// Lets those wait whose events cannot be read, of which readers make dead letters; and writes the counts.
    fn finish(mut self) -> Result<(), Fault> {
        for ((recipient, event), (due, retry)) in std::mem::take(&mut self.retries) {
            let key = DeliveryKey { recipient, event, batch: retry.batch, index: retry.index };
            self.wait(key, due, &retry, &[])?;
        }
        // It is as if before the first group.
        self.deliveries.write(Position::default())
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

//! Deliveries that cannot be loaded: they become dead letters.

use std::time::Duration;

use jiff::Timestamp;

use super::{Apply, announce};
use crate::StoredState;
use crate::redb::damage::{DeadRow, apart};
use crate::redb::deliveries::{DeliveryKey, DueRow, PendingRows, Stand};
use crate::redb::handle::Fault;
use crate::redb::machine::Machine;
use crate::redb::read::Reader;
use crate::redb::record::{self, Batch};
use crate::redb::registry;
use crate::redb::schema::Tables;
use waypost_domain::{Attempt, Entry, Outcome, RecipientId};

/// How many rows of each kind one transaction of [`bury_stranded`] handles.
const STRANDED_AT_ONCE: usize = 256;

/// Which deliveries of a row of first attempts become dead letters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BuryScope {
    /// Those that cannot be loaded.
    Unreadable,
    /// All.
    All,
}

/// Makes dead letters of all pending deliveries of subscriptions whose own records cannot be read: no worker would ever
/// read them. Called before the writer starts. Blocks.
pub(crate) fn bury_stranded(reader: &Reader, machine: &mut Machine, at: Timestamp) -> Result<(), Fault> {
    for id in registry::stranded(reader)? {
        tracing::error!(
            subscription = %id, "its record cannot be read: its pending deliveries become dead letters"
        );
        let mut more = true;
        while more {
            let mut effects = reader.handle.write(|txn| {
                let mut tables = Tables::open(txn)?;
                let mut apply = Apply::begin(machine, &mut tables, at)?;
                more = bury_all(&mut apply, id, STRANDED_AT_ONCE, at)?;
                apply.finish()
            })?;
            machine.remember(&mut effects);
        }
    }
    Ok(())
}

/// Makes dead letters of the deliveries in these rows of a subscription that cannot be loaded, and leaves the others.
pub(super) fn bury(
    apply: &mut Apply<'_, '_>,
    id: RecipientId,
    rows: &[DeadRow],
    at: Timestamp,
) -> Result<(), Fault> {
    let recipient = id.uuid().as_u128();
    for row in rows {
        match *row {
            DeadRow::Fresh { batch } => bury_first(apply, recipient, batch, BuryScope::Unreadable, at)?,
            DeadRow::Due { due, event } => bury_due(apply, (recipient, due, event), at)?,
        }
    }
    apply.write_history()
}

/// Makes dead letters of the pending deliveries of a recipient, at most `limit` rows of each kind; returns whether there
/// may be more.
fn bury_all(apply: &mut Apply<'_, '_>, id: RecipientId, limit: usize, at: Timestamp) -> Result<bool, Fault> {
    let recipient = id.uuid().as_u128();
    let PendingRows { batches, due } = apply.deliveries.pending_rows(recipient, limit)?;
    for batch in &batches {
        bury_first(apply, recipient, *batch, BuryScope::All, at)?;
    }
    for (due, event) in &due {
        bury_due(apply, (recipient, *due, *event), at)?;
    }
    apply.write_history()?;
    Ok(batches.len() == limit || due.len() == limit)
}

/// Handles the unreadable rows of one delivery, and returns where it stands then.
pub(super) fn bury_unreadable(
    apply: &mut Apply<'_, '_>,
    key: DeliveryKey,
    reason: &record::Error,
    at: Timestamp,
) -> Result<Option<Stand>, Fault> {
    if !apply.deliveries.remove_unreadable(key, reason)? {
        bury_first(apply, key.recipient, key.batch, BuryScope::Unreadable, at)?;
    }
    apply.deliveries.stand(key)
}

/// Makes dead letters of deliveries of a row of first attempts, and removes them from it; if the row itself cannot be
/// read, of all of them.
fn bury_first(
    apply: &mut Apply<'_, '_>,
    recipient: u128,
    batch: u128,
    scope: BuryScope,
    at: Timestamp,
) -> Result<(), Fault> {
    let row = (recipient, batch);
    let events = apart(apply.log.batch(batch))?.ok();
    let (places, is_row_damaged) = match apart(apply.deliveries.first_row(row).map(|places| places.clone()))?
    {
        Ok(places) => (places, false),
        Err(_) => {
            apply.deliveries.replace_first(row, Vec::new())?;
            (untried(apply, row, events.as_ref())?, true)
        }
    };
    let mut left = Vec::new();
    for index in places {
        let event = events.as_ref().and_then(|events| events.event_at(index));
        let event = event.map_or(0, |logged| logged.id.uuid().as_u128());
        match events.as_ref().map(|events| event_state(events, index)) {
            Some(EventState::Event) if !is_row_damaged && scope == BuryScope::Unreadable => left.push(index),
            Some(EventState::Event | EventState::Damaged) | None => {
                let key = DeliveryKey { recipient, event, batch, index };
                end(apply, key, dead(1, at), false)?;
            }
            Some(EventState::Nothing) => {}
        }
    }
    apply.deliveries.replace_first(row, left)
}

/// Makes a dead letter of a delivery that waits and cannot be loaded. A time that is not its own is removed.
fn bury_due(apply: &mut Apply<'_, '_>, row: (u128, i64, u128), at: Timestamp) -> Result<(), Fault> {
    let (recipient, _, event) = row;
    let (place, number, was_allowed) = match apply.deliveries.remove_due(row)? {
        DueRow::Other => return Ok(()),
        DueRow::Waiting(waiting) => {
            let number = waiting.progress.failed.saturating_add(1);
            (Some((waiting.batch, waiting.index)), number, waiting.origin.was_allowed)
        }
        // Its key still tells which event it is.
        DueRow::Unreadable => {
            let found = apart(apply.log.find(event))?.ok().flatten();
            (found.map(|(batch, index, _)| (batch, index)), 1, false)
        }
    };
    let Some((batch, index)) = place else { return Ok(()) };
    let key = DeliveryKey { recipient, event, batch, index };
    let is_gone = |events: Batch| matches!(event_state(&events, index), EventState::Nothing);
    if apart(apply.log.batch(batch))?.is_ok_and(is_gone)
        || apart(apply.deliveries.stand(key))?.is_ok_and(|at| at.is_some())
    {
        return Ok(());
    }
    end(apply, key, dead(number, at), was_allowed)
}

/// Makes a dead letter of a delivery that stands nowhere.
fn end(
    apply: &mut Apply<'_, '_>,
    key: DeliveryKey,
    attempt: Attempt,
    was_allowed: bool,
) -> Result<(), Fault> {
    announce::dead(apply, key, &attempt, None, was_allowed)?;
    apply.history.add(key, Entry::Attempt(attempt));
    apply.deliveries.end(key, StoredState::Dead, was_allowed)
}

/// Returns the places of a batch whose first attempt a subscription has pending, found from its other rows: those that it
/// matched and that stand nowhere else.
fn untried(
    apply: &mut Apply<'_, '_>,
    (recipient, batch): (u128, u128),
    events: Option<&Batch>,
) -> Result<Vec<u32>, Fault> {
    let Some(events) = events else { return Ok(Vec::new()) };
    let id = record::recipient_id(recipient);
    let mut untried = Vec::new();
    for (index, logged) in (0u32..).zip(events.iter()) {
        let Some(logged) = logged.as_ref().filter(|logged| logged.matched.contains(&id)) else { continue };
        let key = DeliveryKey { recipient, event: logged.id.uuid().as_u128(), batch, index };
        if apart(apply.deliveries.stand(key))?.is_ok_and(|stand| stand.is_none()) {
            untried.push(index);
        }
    }
    Ok(untried)
}

/// What is in a place of a batch.
enum EventState {
    Event,
    Damaged,
    /// It was purged, or was never there.
    Nothing,
}

fn event_state(events: &Batch, index: u32) -> EventState {
    match events.event_at(index) {
        Some(_) => EventState::Event,
        None if events.damaged.contains(&index) => EventState::Damaged,
        None => EventState::Nothing,
    }
}

/// Makes the attempt of a delivery that cannot be loaded.
fn dead(number: u32, at: Timestamp) -> Attempt {
    let reason = "record damaged: what it needs cannot be read from the disk".to_owned();
    let outcome = Outcome::Dead { reason };
    Attempt { number, at, took: Duration::ZERO, policy: None, target: None, outcome }
}

//! Removing events from the log, a few batches in each transaction. An event with a delivery that waits stays.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::{Apply, expire};
use crate::redb::deliveries::DeliveryKey;
use crate::redb::handle::Fault;
use crate::redb::record::{self, Batch, HistoryRecord};
use crate::redb::usage::{self, Kind};
use crate::redb::{damage, ids, log};
use crate::{LoggedEvent, Purge, PurgeReport};
use waypost_domain::{Entry, EventId};

/// The most batches that one transaction reads, so that accepts do not wait long for the writer.
const BATCHES_AT_ONCE: usize = 16;

/// Purges from batch `from` on; returns what was done and where to go on, if there is more.
pub(super) fn purge(
    apply: &mut Apply<'_, '_>,
    purge: &Purge,
    from: EventId,
) -> Result<(PurgeReport, Option<EventId>), Fault> {
    let (mut keys, end, last) = match purge {
        Purge::Events(events) => (batches_of(apply, events, from)?, u128::MAX, u128::MAX),
        Purge::Before(time) | Purge::Expired(time) => {
            let keys = apply.log.keys(from.uuid().as_u128(), BATCHES_AT_ONCE + 1)?;
            let first_at = |time| ids::first_at(time).uuid().as_u128();
            let lead = log::lead(&*apply.meta)?;
            (keys, first_at(*time), first_at(time.checked_add(lead).unwrap_or(Timestamp::MAX)))
        }
    };
    let next = (keys.len() > BATCHES_AT_ONCE).then(|| record::event_id(keys[BATCHES_AT_ONCE]));
    keys.truncate(BATCHES_AT_ONCE);
    let mut purged = PurgeReport::default();
    for key in &keys {
        let meant = match damage::apart(apply.log.batch(*key))? {
            Ok(batch) => purge_batch(apply, *key, batch, purge, *key < end, &mut purged)?,
            // A batch that cannot be read is purged once it is old enough.
            Err(_) => purge_damaged(apply, *key, purge, *key < end, &mut purged)?,
        };
        // An event gets its id a little after it was received, and long after it where the clock was set back; the purge
        // therefore ends at the first batch without a match that cannot have one.
        if meant == 0 && *key >= last {
            return Ok((purged, None));
        }
    }
    Ok((purged, next))
}

fn batches_of(apply: &Apply<'_, '_>, events: &[EventId], from: EventId) -> Result<Vec<u128>, Fault> {
    let mut keys = Vec::new();
    for event in events {
        keys.extend(apply.log.batch_of(event.uuid().as_u128())?);
    }
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| *key >= from.uuid().as_u128());
    Ok(keys)
}

/// Purges one batch; returns how many of its events the purge covers. `is_old` tells whether the whole batch is
/// older than the purge's limit.
fn purge_batch(
    apply: &mut Apply<'_, '_>,
    key: u128,
    mut batch: Batch,
    purge: &Purge,
    is_old: bool,
    purged: &mut PurgeReport,
) -> Result<u64, Fault> {
    let (before, mut recipients, mut gone) = (*purged, BTreeSet::new(), HashMap::new());
    for (index, place) in (0u32..).zip(batch.iter_mut()) {
        let Some(logged) = place.as_deref().filter(|logged| is_meant(purge, logged)) else { continue };
        let keys = keys_of(apply, key, index, logged)?;
        let mut is_open = false;
        for key in &keys {
            if let Purge::Expired(time) = purge
                && apply.registry.is_disabled(key.recipient)?
            {
                expire::give_up(apply, *key, *time, apply.now)?;
            }
            // A record that cannot be read is no reason to keep the event.
            let stand = damage::apart(apply.deliveries.stand(*key))?.ok().flatten();
            is_open |= stand.is_some_and(|stand| !stand.is_final());
        }
        apply.write_history()?;
        if is_open {
            purged.kept += 1;
        } else {
            remove_deliveries(apply, &keys)?;
            recipients.extend(keys.iter().map(|key| key.recipient));
            gone.extend(place.take().map(|logged| (index, logged)));
            purged.purged += 1;
        }
    }
    if is_old && is_by_time(purge) {
        purged.purged += batch.damaged.len() as u64;
        batch.damaged.clear();
    }
    if purged.purged > before.purged {
        apply.log.replace(key, &batch)?;
        forget_history(apply, key, &gone, batch.is_purged())?;
        if batch.is_purged() {
            apply.deliveries.forget_minutes(recipients, apply.log.oldest()?)?;
        }
    }
    Ok(purged.purged + purged.kept - before.purged - before.kept)
}

/// Purges a batch that cannot be read, once all of it is old. It counts as one event: how many it had is unknown.
fn purge_damaged(
    apply: &mut Apply<'_, '_>,
    key: u128,
    purge: &Purge,
    is_old: bool,
    purged: &mut PurgeReport,
) -> Result<u64, Fault> {
    if !is_old || !is_by_time(purge) {
        return Ok(0);
    }
    forget_history(apply, key, &HashMap::new(), true)?;
    apply.log.remove(key)?;
    let recipients = apply.deliveries.recipients_of(key)?;
    for recipient in &recipients {
        apply.deliveries.remove_batch_rows(*recipient, key)?;
    }
    apply.deliveries.forget_minutes(recipients, apply.log.oldest()?)?;
    purged.purged += 1;
    Ok(1)
}

/// Returns all deliveries of an event.
fn keys_of(
    apply: &Apply<'_, '_>,
    batch: u128,
    index: u32,
    logged: &LoggedEvent,
) -> Result<Vec<DeliveryKey>, Fault> {
    let event = logged.id.uuid().as_u128();
    let added = apply.deliveries.added(batch, index)?;
    let recipients = logged.matched.iter().map(|id| id.uuid().as_u128()).chain(added);
    Ok(recipients.map(|recipient| DeliveryKey { recipient, event, batch, index }).collect())
}

/// Removes the deliveries of an event, with what is rendered of them.
fn remove_deliveries(apply: &mut Apply<'_, '_>, keys: &[DeliveryKey]) -> Result<(), Fault> {
    let has_rendered = !apply.plugin_data.has_no_rendered()?;
    for key in keys {
        drop(damage::apart(apply.deliveries.leave(*key))?);
        apply.deliveries.remove_added(*key)?;
        if has_rendered {
            apply.discard_rendered((key.recipient, key.event))?;
        }
    }
    Ok(())
}

/// Counts what the runs of these events have left for their senders no more. Removes the history of a batch that is purged as a
/// whole, and what it counts for subscriptions.
fn forget_history(
    apply: &mut Apply<'_, '_>,
    key: u128,
    gone: &HashMap<u32, Arc<LoggedEvent>>,
    is_purged: bool,
) -> Result<(), Fault> {
    let mut counted: HashMap<u128, u64> = HashMap::new();
    let count = |record: &HistoryRecord| {
        let account = match (&record.entry, gone.get(&record.index)) {
            (Entry::Run(_), Some(logged)) => usage::account_of_sender(&logged.sender),
            // It was counted no more when its event went.
            (Entry::Run(_), None) => return,
            _ if is_purged => record.recipient,
            _ => return,
        };
        let bytes = usage::of_entry(&record.entry);
        if bytes > 0 {
            *counted.entry(account).or_default() += bytes;
        }
    };
    if is_purged {
        apply.history.remove(apply.pieces, key, count)?;
    } else {
        apply.history.walk(apply.pieces, key, count)?;
    }
    for (account, bytes) in counted {
        apply.recount(account, Kind::History, bytes, 0)?;
    }
    Ok(())
}

/// Tells whether a purge covers all events before a time, including those that cannot be read.
fn is_by_time(purge: &Purge) -> bool {
    match purge {
        Purge::Before(_) | Purge::Expired(_) => true,
        Purge::Events(_) => false,
    }
}

fn is_meant(purge: &Purge, logged: &LoggedEvent) -> bool {
    match purge {
        Purge::Events(events) => events.contains(&logged.id),
        Purge::Before(time) | Purge::Expired(time) => logged.received < *time,
    }
}

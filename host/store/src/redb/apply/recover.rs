//! Recoveries: their steps, and the deliveries that they enqueue.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Apply, announce};
use crate::redb::damage;
use crate::redb::deliveries::DeliveryKey;
use crate::redb::group::Recover;
use crate::redb::handle::Fault;
use crate::{CountLimits, Counted, Error, Step, Wake};
use waypost_domain::recovery::{ScanProgress, State};
use waypost_domain::{Announcement, Entry, EventId, RecipientId, Recovery};

/// See [`crate::Store::begin_recovery`].
pub(super) fn begin(
    apply: &mut Apply<'_, '_>,
    recovery: &Recovery,
    limits: CountLimits,
) -> Result<Result<bool, Error>, Fault> {
    if apply.registry.recovery(recovery.subscription)?.is_some_and(|known| known.is_running()) {
        return Ok(Ok(false));
    }
    let mut account = apply.account(recovery.subscription.uuid().as_u128())?;
    if let Err(full) = account.room_for_another(Counted::Recoveries, limits) {
        return Ok(Err(full));
    }
    account.count(Counted::Recoveries, 1);
    apply.registry.put_recovery(recovery)?;
    apply.wake(recovery.subscription.into(), Wake::older(0));
    Ok(Ok(true))
}

/// See [`crate::Store::recover`].
pub(super) fn recover(apply: &mut Apply<'_, '_>, request: &Recover) -> Result<Option<Recovery>, Fault> {
    let known = apply.registry.recovery(request.subscription)?;
    let Some(mut recovery) = known.filter(|known| known.is_running() && known.asked == request.asked) else {
        return Ok(None);
    };
    let before = recovery.created;
    let subscription = apply.registry.subscription(request.subscription.uuid().as_u128())?;
    match &request.step {
        _ if subscription.is_some_and(|known| known.subscription.deleted.is_some()) => {
            recovery.state = State::Cancelled { at: request.at }
        }
        Step::Begin => recovery.begin(apply.log.newest()?, request.at),
        Step::Advance(scan) => {
            let created = backfill(apply, &recovery, scan, request.at)?;
            recovery.advance(scan, created, request.at);
        }
        Step::End(state) => recovery.state = state.clone(),
    }
    if !recovery.is_running() {
        apply.account(recovery.subscription.uuid().as_u128())?.count(Counted::Recoveries, -1);
    }
    apply.registry.put_recovery(&recovery)?;
    announce::add(apply, Announcement::of_recovery(&recovery))?;
    // Also if it has added nothing: where deliveries have an order, what is behind its position waits for it.
    apply.wake(recovery.subscription.into(), Wake::older(recovery.created - before));
    Ok(Some(recovery))
}

/// Enqueues the events that the recovery's subscription never had a delivery of; returns how many these are.
fn backfill(
    apply: &mut Apply<'_, '_>,
    recovery: &Recovery,
    scan: &ScanProgress,
    at: Timestamp,
) -> Result<u64, Fault> {
    let mut by_batch: BTreeMap<u128, Vec<EventId>> = BTreeMap::new();
    for event in &scan.matched {
        if let Some(key) = apply.log.batch_of(event.uuid().as_u128())? {
            by_batch.entry(key).or_default().push(*event);
        }
    }
    let (id, mut created) = (RecipientId::from(recovery.subscription), 0);
    for (batch, events) in by_batch {
        // The walk has skipped batches that cannot be read.
        let Ok(logged) = damage::apart(apply.log.batch(batch))? else { continue };
        for (index, logged) in (0u32..).zip(logged.iter()) {
            // An event that was purged since it was read leaves an empty place.
            let Some(logged) = logged.as_ref().filter(|logged| events.contains(&logged.id)) else {
                continue;
            };
            let event = logged.id.uuid().as_u128();
            let key = DeliveryKey { recipient: id.uuid().as_u128(), event, batch, index };
            // What stands there and cannot be read is a delivery, too.
            if damage::apart(apply.deliveries.stand(key))?.map_or(true, |stand| stand.is_some()) {
                continue;
            }
            if !logged.matched.contains(&id) {
                apply.deliveries.add(key)?;
            }
            apply.history.add(key, Entry::Recovered { at, by: recovery.by.clone() });
            apply.deliveries.wait_asked(key, at, false)?;
            created += 1;
        }
    }
    apply.write_history()?;
    Ok(created)
}

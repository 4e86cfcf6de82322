//! Jobs: their steps, and the deliveries that they send again or give up.

use std::sync::Arc;

use super::{Apply, announce, redeliver};
use crate::redb::damage;
use crate::redb::deliveries::{DeliveryKey, Stand, WalkedDelivery, in_state};
use crate::redb::group::AdvanceJob;
use crate::redb::handle::Fault;
use crate::redb::log::{ids_received, ids_received_surely};
use crate::redb::record::{self, Batch};
use crate::{CountLimits, Counted, Error, JobStep, StoredState, Wake};
use waypost_domain::job::{Job, JobProgress, Work};
use waypost_domain::recovery::State;
use waypost_domain::{Announcement, Entry, RecipientId};

/// See [`crate::Store::begin_job`].
pub(super) fn begin(
    apply: &mut Apply<'_, '_>,
    job: &Job,
    limits: CountLimits,
) -> Result<Result<bool, Error>, Fault> {
    if apply.registry.job(job.subscription, job.work.kind())?.is_some_and(|known| known.is_running()) {
        return Ok(Ok(false));
    }
    let mut job = job.clone();
    job.begin(apply.log.newest()?.map(|newest| newest.event), job.asked);
    let mut account = apply.account(job.subscription.uuid().as_u128())?;
    if let Err(full) = account.room_for_another(Counted::Recoveries, limits) {
        return Ok(Err(full));
    }
    account.count(Counted::Recoveries, i64::from(job.is_running()));
    apply.registry.put_job(&job)?;
    announce::add(apply, Announcement::of_job(&job))?;
    Ok(Ok(true))
}

/// See [`crate::Store::advance_job`].
pub(super) fn advance(apply: &mut Apply<'_, '_>, request: &AdvanceJob) -> Result<Option<Job>, Fault> {
    let known = apply.registry.job(request.subscription, request.kind)?;
    let Some(mut job) = known.filter(|known| known.is_running() && known.asked == request.asked) else {
        return Ok(None);
    };
    let subscription = apply.registry.subscription(request.subscription.uuid().as_u128())?;
    match &request.step {
        _ if subscription.is_some_and(|known| known.subscription.deleted.is_some()) => {
            job.state = State::Cancelled { at: request.at }
        }
        JobStep::Advance { rows } => {
            let progress = walk(apply, &job, *rows, request)?;
            job.advance(progress, request.at);
        }
        JobStep::End(state) => job.state = state.clone(),
    }
    if !job.is_running() {
        apply.account(job.subscription.uuid().as_u128())?.count(Counted::Recoveries, -1);
    }
    apply.registry.put_job(&job)?;
    announce::add(apply, Announcement::of_job(&job))?;
    Ok(Some(job))
}

/// Handles the next deliveries of a job.
fn walk(apply: &mut Apply<'_, '_>, job: &Job, rows: u32, request: &AdvanceJob) -> Result<JobProgress, Fault> {
    let recipient = job.subscription.uuid().as_u128();
    let received = ids_received(apply.meta, job.since, job.until)?;
    let sure = ids_received_surely(apply.meta, job.since, job.until)?;
    let after = job.position.map_or(0, |position| position.uuid().as_u128().saturating_add(1));
    let first = after.max(*received.start());
    let last = job.end.map_or(0, |end| end.uuid().as_u128()).min(*received.end());
    // The range may start inside a batch.
    let batch = apply.log.batch_of(first)?.unwrap_or(first);
    let limit = usize::try_from(rows.max(1)).unwrap_or(usize::MAX);
    let state = StoredState::from(job.of);
    let walked = in_state(&mut apply.deliveries, &apply.log, (recipient, state), batch, first..=last, limit)?;
    let mut progress = JobProgress {
        position: walked.last().filter(|_| walked.len() >= limit).map(|last| record::event_id(last.event())),
        looked_at: walked.len() as u64,
        changed: 0,
    };
    let mut read: Option<(u128, Arc<Batch>)> = None;
    for delivery in walked {
        // A row that cannot be read becomes a dead letter when a worker meets it.
        let WalkedDelivery::Known(key) = delivery else { continue };
        if !sure.contains(&key.event) {
            let batch = match read.take().filter(|(batch, _)| *batch == key.batch) {
                Some((_, batch)) => batch,
                None => Arc::new(damage::apart(apply.log.batch(key.batch))?.unwrap_or_default()),
            };
            let is_meant = batch.event_at(key.index).is_some_and(|logged| job.asks_for(logged.received));
            read = Some((key.batch, batch));
            if !is_meant {
                continue;
            }
        }
        progress.changed += u64::from(handle(apply, job, key, request)?);
    }
    apply.write_history()?;
    if progress.changed > 0 {
        let count = match job.work {
            Work::Redeliver => progress.changed,
            Work::Discard { .. } => 0,
        };
        // Others may wait for one that was given up.
        apply.wake(job.subscription.into(), Wake::older(count));
    }
    Ok(progress)
}

/// Does a job's work on one delivery; returns whether it still stood where the job found it.
fn handle(
    apply: &mut Apply<'_, '_>,
    job: &Job,
    key: DeliveryKey,
    request: &AdvanceJob,
) -> Result<bool, Fault> {
    let Some(stand) = damage::apart(apply.deliveries.leave(key))?.ok().flatten() else { return Ok(false) };
    let id = record::recipient_id(key.recipient);
    match &job.work {
        Work::Redeliver => redeliver::again(apply, key, (&job.by, request.at), stand.origin().was_allowed)?,
        Work::Discard { reason } => discard(apply, key, (&job.by, reason), request, &stand, id)?,
    }
    Ok(true)
}

fn discard(
    apply: &mut Apply<'_, '_>,
    key: DeliveryKey,
    (by, reason): (&str, &str),
    request: &AdvanceJob,
    stand: &Stand,
    id: RecipientId,
) -> Result<(), Fault> {
    apply.deliveries.pruned.insert(id);
    let reason = format!("discarded by {by}: {reason}");
    apply.history.add(key, Entry::Dropped { at: request.at, reason });
    apply.discard_rendered((key.recipient, key.event))?;
    apply.deliveries.end(key, StoredState::Skipped, stand.origin().was_allowed)
}

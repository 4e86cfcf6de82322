//! The ends of attempts: deliveries are settled or released.

use super::{Apply, announce};
use crate::redb::damage;
use crate::redb::deliveries::{DeliveryKey, Stand};
use crate::redb::group::End;
use crate::redb::handle::Fault;
use crate::redb::record::{Waiting, Why};
use crate::{Progress, Release, Settlement, StoredState};
use waypost_domain::{Entry, Outcome};

/// Settles and releases deliveries whose attempts have ended.
pub(super) fn settle(apply: &mut Apply<'_, '_>, ends: &[End]) -> Result<(), Fault> {
    for end in ends {
        match end {
            End::Settled(settlement) => settle_one(apply, settlement)?,
            End::Released(release) => release_one(apply, release)?,
        }
    }
    apply.write_history()
}

fn settle_one(apply: &mut Apply<'_, '_>, settlement: &Settlement) -> Result<(), Fault> {
    let Settlement { recipient, event, position, attempt, progress, .. } = settlement;
    let key = DeliveryKey::at(*recipient, *event, *position);
    if attempt.outcome == Outcome::Delivered {
        apply.registry.remember_reached(recipient.subscription_id(), attempt.at)?;
    }
    let stand = apply.deliveries.take(key, position.due)?;
    // An attempt whose delivery was redelivered or cancelled meanwhile is history and changes nothing. If the event
    // has left the log, not even that.
    if stand.is_none() && damage::apart(apply.deliveries.stand(key))?.is_ok_and(|stand| stand.is_none()) {
        return Ok(());
    }
    apply.add_history(key, entries_of(settlement))?;
    let Some(stand) = stand else { return Ok(()) };
    if settlement.rendered && is_settled(&attempt.outcome) {
        apply.discard_rendered((key.recipient, key.event))?;
    }
    let mut origin = stand.origin();
    origin.was_allowed |= progress.allowed;
    let state = match &attempt.outcome {
        Outcome::Delivered => StoredState::Delivered,
        Outcome::Denied => StoredState::Denied,
        Outcome::Skipped { .. } => StoredState::Skipped,
        Outcome::Dead { .. } => StoredState::Dead,
        Outcome::Retry { reason, due } => {
            let why = Why::Failed { reason: reason.clone() };
            let (batch, index, progress) = (key.batch, key.index, *progress);
            let waiting = Waiting { batch, index, due: *due, why, progress, origin };
            return Ok(apply.deliveries.wait(key, &waiting)?);
        }
    };
    announce::dead(apply, key, attempt, settlement.run.as_deref(), origin.was_allowed)?;
    apply.deliveries.end(key, state, origin.was_allowed)
}

/// Puts a delivery off, if it still stands where it stood. Its history tells of the first hold in a row only.
fn release_one(apply: &mut Apply<'_, '_>, release: &Release) -> Result<(), Fault> {
    let Release { recipient, event, position, progress, by, reason, since, due } = release;
    let key = DeliveryKey::at(*recipient, *event, *position);
    let Some(stand) = apply.deliveries.take(key, position.due)? else { return Ok(()) };
    let is_same = |waiting: &Waiting| matches!(&waiting.why, Why::Held { by: known, .. } if known == by);
    if !matches!(&stand, Stand::Waiting(waiting) if is_same(waiting)) {
        apply.history.add(key, Entry::Held { since: *since, by: *by, reason: reason.clone(), due: *due });
    }
    let progress = Progress { held: Some(*since), ..*progress };
    let mut origin = stand.origin();
    origin.was_allowed |= progress.allowed;
    let (why, due) = (Why::Held { by: *by, reason: reason.clone() }, *due);
    let (batch, index) = (key.batch, key.index);
    Ok(apply.deliveries.wait(key, &Waiting { batch, index, due, why, progress, origin })?)
}

/// Returns what the history tells of an attempt.
fn entries_of(settlement: &Settlement) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(2);
    entries.extend(settlement.plugin.clone().map(Entry::Plugin));
    entries.extend(settlement.run.clone().map(Entry::Run));
    entries.push(Entry::Attempt(settlement.attempt.clone()));
    entries
}

/// Tells whether nothing can be sent after this, even when the delivery is redelivered.
fn is_settled(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } => true,
        Outcome::Retry { .. } | Outcome::Dead { .. } => false,
    }
}

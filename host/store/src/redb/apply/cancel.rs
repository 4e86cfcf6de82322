//! The pending deliveries of a deleted subscription: they are cancelled.

use jiff::Timestamp;

use super::Apply;
use super::subscriptions::forget_state;
use crate::StoredState;
use crate::redb::damage;
use crate::redb::deliveries::{DeliveryKey, DueRow, PendingRows};
use crate::redb::handle::Fault;
use crate::redb::record::{self, Origin};
use waypost_domain::{Entry, SubscriptionId};

/// Cancels pending deliveries, at most `limit` rows of each kind, and removes the plugin's state; returns whether there
/// may be more.
pub(super) fn cancel_pending(
    apply: &mut Apply<'_, '_>,
    id: SubscriptionId,
    limit: usize,
    at: Timestamp,
) -> Result<bool, Fault> {
    let recipient = id.uuid().as_u128();
    let PendingRows { batches, due: waiting } = apply.deliveries.pending_rows(recipient, limit)?;
    for batch in &batches {
        // A row that cannot be read does not tell which deliveries it held.
        let Some(places) = apply.deliveries.readable_first((recipient, *batch))? else { continue };
        let events = damage::apart(apply.log.batch(*batch))?.unwrap_or_default();
        for index in places {
            let event = events.event_at(index).map_or(0, |logged| logged.id.uuid().as_u128());
            let key = DeliveryKey { recipient, event, batch: *batch, index };
            if let Some(stand) = apply.deliveries.take(key, None)? {
                cancel(apply, key, stand.origin(), at)?;
            }
        }
    }
    for (due, event) in &waiting {
        if let DueRow::Waiting(known) = apply.deliveries.remove_due((recipient, *due, *event))? {
            let key = DeliveryKey { recipient, event: *event, batch: known.batch, index: known.index };
            cancel(apply, key, known.origin, at)?;
        }
    }
    let rendered = apply.plugin_data.rendered_keys(recipient, limit)?;
    for key in &rendered {
        apply.discard_rendered(*key)?;
    }
    forget_state(apply, recipient)?;
    apply.write_history()?;
    Ok(batches.len() == limit || waiting.len() == limit || rendered.len() == limit)
}

/// Ends a delivery that stands nowhere any more.
fn cancel(apply: &mut Apply<'_, '_>, key: DeliveryKey, origin: Origin, at: Timestamp) -> Result<(), Fault> {
    let recipient = record::recipient_id(key.recipient);
    apply.deliveries.pruned.insert(recipient);
    let reason = match recipient.dead_letters_owner() {
        None => "the subscription was deleted",
        Some(_) => {
            "dead letters go there no more: the subscription was deleted, or has no dead_letter_url any more"
        }
    };
    apply.history.add(key, Entry::Dropped { at, reason: reason.to_owned() });
    apply.deliveries.end(key, StoredState::Skipped, origin.was_allowed)
}

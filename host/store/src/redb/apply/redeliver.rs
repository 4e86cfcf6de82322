//! Sending an event again to recipients that somebody names.

use std::collections::HashSet;

use jiff::Timestamp;

use super::{Apply, bury};
use crate::Wake;
use crate::redb::damage;
use crate::redb::deliveries::{DeliveryKey, Stand};
use crate::redb::group::Redelivery;
use crate::redb::handle::Fault;
use crate::redb::plugin_data::read_rendered;
use waypost_domain::Entry;

/// See [`crate::Store::redeliver`].
pub(super) fn redeliver(apply: &mut Apply<'_, '_>, request: &Redelivery) -> Result<bool, Fault> {
    let event = request.event.uuid().as_u128();
    let Some((batch, index, logged)) = apply.log.find(event)? else { return Ok(false) };
    let mut asked = HashSet::new();
    for id in request.recipients.iter().filter(|id| asked.insert(**id)) {
        let key = DeliveryKey { recipient: id.uuid().as_u128(), event, batch, index };
        let stand = match damage::apart(apply.deliveries.stand(key))? {
            Ok(stand) => stand,
            // The row must be handled here: a disabled subscription has no worker that would ever read it.
            Err(reason) => bury::bury_unreadable(apply, key, &reason, request.at)?,
        };
        match &stand {
            // It is still waiting for its first attempt.
            Some(Stand::First) => continue,
            Some(Stand::Waiting(_) | Stand::Ended(_)) => drop(apply.deliveries.leave(key)?),
            None if logged.matched.contains(id) => {}
            None => apply.deliveries.add(key)?,
        }
        let was_allowed = stand.is_some_and(|stand| stand.origin().was_allowed);
        again(apply, key, (&request.by, request.at), was_allowed)?;
        apply.wake(*id, Wake { count: 1, ..Wake::read() });
    }
    apply.write_history()?;
    Ok(true)
}

/// Lets a delivery wait that stands nowhere any more, since somebody wants it to be sent again.
pub(super) fn again(
    apply: &mut Apply<'_, '_>,
    key: DeliveryKey,
    (by, at): (&str, Timestamp),
    was_allowed: bool,
) -> Result<(), Fault> {
    apply.history.add(key, Entry::Redelivery { at, by: by.to_owned() });
    discard_if_by_other_plugin(apply, (key.recipient, key.event))?;
    Ok(apply.deliveries.wait_asked(key, at, was_allowed)?)
}

/// Discards the rendered payload of a delivery if its subscription has another plugin now.
fn discard_if_by_other_plugin(apply: &mut Apply<'_, '_>, key: (u128, u128)) -> Result<(), Fault> {
    let Some(row) = apply.plugin_data.rendered_row(key)? else { return Ok(()) };
    let Ok(rendered) = damage::apart(read_rendered(apply.pieces, &row))? else {
        return apply.discard_rendered(key);
    };
    let Some(now) = apply.registry.subscription(key.0)? else { return Ok(()) };
    if rendered.is_by(now.subscription.plugin.as_deref()) { Ok(()) } else { apply.discard_rendered(key) }
}

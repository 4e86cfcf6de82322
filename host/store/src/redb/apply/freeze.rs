//! Rendered payloads: each becomes durable with the run of its plugin and what that has changed in its state.

use super::Apply;
use crate::redb::deliveries::DeliveryKey;
use crate::redb::handle::Fault;
use crate::redb::plugin_data::RowSizes;
use crate::redb::record;
use crate::redb::usage::{self, Kind};
use crate::{self as store, Rendering};
use waypost_domain::Entry;
use waypost_domain::plugin::StateChange;

/// See [`crate::Store::freeze`]; returns a result for each: an error means that the user has no room.
pub(super) fn freeze<'p>(
    apply: &mut Apply<'_, '_>,
    all: impl Iterator<Item = &'p Rendering>,
) -> Result<Vec<Result<bool, store::Error>>, Fault> {
    let mut answers = Vec::new();
    for rendering in all {
        answers.push(freeze_one(apply, rendering)?);
    }
    apply.write_history()?;
    Ok(answers)
}

fn freeze_one(apply: &mut Apply<'_, '_>, rendering: &Rendering) -> Result<Result<bool, store::Error>, Fault> {
    let Rendering { recipient, event, position, run, payload, state } = rendering;
    let key = DeliveryKey::at(*recipient, *event, *position);
    if !apply.deliveries.is_pending(key, position.due)? {
        return Ok(Ok(false));
    }
    let keeps_state = !state.is_empty() && !has_lost_its_plugin(apply, key.recipient)?;
    let state = if keeps_state { state.as_slice() } else { &[] };
    let record = record::encode_rendered(payload);
    let more = usage::of_row(&record) + apply.plugin_data.growth(key.recipient, state)?;
    if let Err(full) = apply.account(key.recipient)?.room_for(more) {
        return Ok(Err(full));
    }
    let RowSizes { before, after } =
        apply.plugin_data.put_rendered(apply.pieces, (key.recipient, key.event), &record)?;
    apply.recount(key.recipient, Kind::Outputs, before, after)?;
    change_state(apply, key.recipient, state)?;
    apply.add_history(key, vec![Entry::Plugin(run.clone())])?;
    Ok(Ok(true))
}

/// Tells whether the plugin, and its state with it, was removed while it ran.
fn has_lost_its_plugin(apply: &Apply<'_, '_>, subscription: u128) -> Result<bool, Fault> {
    let known = apply.registry.subscription(subscription)?;
    Ok(known.is_some_and(|known| known.subscription.plugin.is_none()))
}

/// Changes the state of a subscription's plugin.
pub(super) fn change_state(
    apply: &mut Apply<'_, '_>,
    subscription: u128,
    changes: &[StateChange],
) -> Result<(), Fault> {
    if !changes.is_empty() {
        apply.account(subscription)?;
    }
    for change in changes {
        let RowSizes { before, after } =
            apply.plugin_data.change_state(apply.pieces, subscription, change)?;
        apply.recount(subscription, Kind::State, before, after)?;
    }
    Ok(())
}

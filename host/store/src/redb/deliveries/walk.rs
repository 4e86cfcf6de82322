//! Deliveries of one recipient in one state, in the order of the log, for a job that changes them.

use std::ops::RangeInclusive;

use redb::{ReadableTable, StorageError};

use super::{Deliveries, DeliveryKey};
use crate::StoredState;
use crate::redb::damage;
use crate::redb::handle::Fault;
use crate::redb::log::Log;
use crate::redb::record::{Waiting, final_code};

/// A delivery that a job meets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WalkedDelivery {
    /// One that it can handle.
    Known(DeliveryKey),
    /// One of this event, whose row cannot be read.
    Unreadable(u128),
}

impl WalkedDelivery {
    /// Returns the event.
    pub(crate) fn event(self) -> u128 {
        match self {
            Self::Known(key) => key.event,
            Self::Unreadable(event) => event,
        }
    }
}

/// Returns the first deliveries in a state whose events are in a range of ids, which begins in the batch `from`, in the
/// order of their events: `limit` of them unless there are fewer.
pub(crate) fn in_state(
    deliveries: &mut Deliveries<'_, '_>,
    log: &Log<'_, '_>,
    (recipient, state): (u128, StoredState),
    from: u128,
    events: RangeInclusive<u128>,
    limit: usize,
) -> Result<Vec<WalkedDelivery>, Fault> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = if state.is_final() {
        ended_in(deliveries, recipient, final_code(state), from, &events, limit)?
    } else {
        waiting_in(deliveries, recipient, state, &events, limit)?
    };
    if state == StoredState::Pending {
        found.extend(first_in(deliveries, log, recipient, from, &events, limit)?);
        found.sort_unstable_by_key(|delivery| delivery.event());
        found.truncate(limit);
    }
    Ok(found)
}

fn ended_in(
    deliveries: &Deliveries<'_, '_>,
    recipient: u128,
    state: u8,
    from: u128,
    events: &RangeInclusive<u128>,
    limit: usize,
) -> Result<Vec<WalkedDelivery>, Fault> {
    let whole = (recipient, state, from, 0)..=(recipient, state, *events.end(), u32::MAX);
    let rows = deliveries.tables.ended_by_state.range(whole)?.map(|row| {
        let (key, event) = row?;
        let (_, _, batch, index) = key.value();
        Ok(DeliveryKey { recipient, event: event.value(), batch, index })
    });
    let is_meant = |key: &Result<DeliveryKey, StorageError>| {
        key.as_ref().map_or(true, |key| events.contains(&key.event))
    };
    let keys = rows.filter(is_meant).take(limit).map(|key| key.map(WalkedDelivery::Known));
    Ok(keys.collect::<Result<_, _>>()?)
}

fn waiting_in(
    deliveries: &Deliveries<'_, '_>,
    recipient: u128,
    state: StoredState,
    events: &RangeInclusive<u128>,
    limit: usize,
) -> Result<Vec<WalkedDelivery>, Fault> {
    let whole = (recipient, state as u8, *events.start())..=(recipient, state as u8, *events.end());
    let mut found = Vec::new();
    for row in deliveries.tables.waiting_by_state.range(whole)?.take(limit) {
        let (_, _, event) = row?.0.value();
        let row = deliveries.tables.waiting.get((recipient, event))?;
        let waiting = row.and_then(|row| Waiting::decode(row.value()).ok());
        found.push(waiting.map_or(WalkedDelivery::Unreadable(event), |waiting| {
            let (batch, index) = (waiting.batch, waiting.index);
            WalkedDelivery::Known(DeliveryKey { recipient, event, batch, index })
        }));
    }
    Ok(found)
}

fn first_in(
    deliveries: &mut Deliveries<'_, '_>,
    log: &Log<'_, '_>,
    recipient: u128,
    from: u128,
    events: &RangeInclusive<u128>,
    limit: usize,
) -> Result<Vec<WalkedDelivery>, Fault> {
    deliveries.write_rows()?;
    let rows = deliveries.tables.fresh.range((recipient, from)..=(recipient, *events.end()))?;
    let batches = rows.take(limit.saturating_add(1)).map(|row| Ok(row?.0.value().1));
    let batches: Vec<u128> = batches.collect::<Result<_, StorageError>>()?;
    let mut found = Vec::new();
    for batch in batches {
        let places = damage::apart(deliveries.first_row((recipient, batch)).map(|places| places.clone()))?;
        let logged = damage::apart(log.batch(batch))?;
        match (places, logged) {
            (Ok(places), Ok(logged)) => {
                let keys = places.into_iter().filter_map(|index| {
                    let event = logged.event_at(index)?.id.uuid().as_u128();
                    Some(DeliveryKey { recipient, event, batch, index })
                });
                let before = found.len();
                found.extend(keys.filter(|key| events.contains(&key.event)).map(WalkedDelivery::Known));
                if found.len() == before && events.contains(&batch) {
                    found.push(WalkedDelivery::Unreadable(batch));
                }
            }
            _ if events.contains(&batch) => found.push(WalkedDelivery::Unreadable(batch)),
            _ => {}
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

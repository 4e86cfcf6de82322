//! The end of what waits for a disabled subscription: after a while its deliveries are given up, and keep no events any more.

use std::time::Duration;

use jiff::Timestamp;

use super::{Apply, announce};
use crate::StoredState;
use crate::redb::damage;
use crate::redb::deliveries::{DeliveryKey, Stand, WalkedDelivery, in_state};
use crate::redb::group::ExpireBacklog;
use crate::redb::handle::Fault;
use crate::redb::{log, record};
use waypost_domain::operator::Cause;
use waypost_domain::{Announcement, Attempt, Entry, EventId, Outcome};

/// Why a delivery is given up.
const EXPIRED: &str = "expired: its subscription is disabled, and it has waited for longer than what waits is kept (the setting \
     backlog_retention)";

/// The states of what waits, in the order in which they are walked.
pub(in crate::redb) const WAITING: [StoredState; 3] =
    [StoredState::Pending, StoredState::Retrying, StoredState::Held];

/// Gives up deliveries in one state; returns how many these are, and where to go on, if there are more. See
/// [`crate::Store::expire_backlog`].
pub(super) fn expire(
    apply: &mut Apply<'_, '_>,
    request: &ExpireBacklog,
) -> Result<(u64, Option<EventId>), Fault> {
    let recipient = request.recipient.uuid().as_u128();
    if !apply.registry.is_disabled(recipient)? {
        return Ok((0, None));
    }
    let received = log::ids_received(apply.meta, None, Some(request.before))?;
    let first = request.from.uuid().as_u128();
    // The range may start inside a batch.
    let batch = apply.log.batch_of(first)?.unwrap_or(first);
    let limit = usize::try_from(request.rows.max(1)).unwrap_or(usize::MAX);
    let events = first..=*received.end();
    let walked =
        in_state(&mut apply.deliveries, &apply.log, (recipient, request.state), batch, events, limit)?;
    let last = walked.last().filter(|_| walked.len() >= limit).map(|last| last.event());
    let mut expired = 0;
    for delivery in walked {
        // A row that cannot be read keeps no event.
        let WalkedDelivery::Known(key) = delivery else { continue };
        expired += u64::from(give_up(apply, key, request.before, request.at)?);
    }
    apply.write_history()?;
    if expired > 0 {
        let cause = Cause::Expired { count: expired, reason: EXPIRED.to_owned() };
        announce::add(apply, Announcement { at: request.at, about: request.recipient, cause })?;
    }
    Ok((expired, last.map(|last| record::event_id(last.saturating_add(1)))))
}

/// Gives up a delivery, unless it has not waited for so long; tells whether it does.
pub(super) fn give_up(
    apply: &mut Apply<'_, '_>,
    key: DeliveryKey,
    before: Timestamp,
    at: Timestamp,
) -> Result<bool, Fault> {
    let stand = damage::apart(apply.deliveries.stand(key))?.ok().flatten();
    let Some(stand) = stand.filter(|stand| !stand.is_final()) else { return Ok(false) };
    let since = match stand.origin().asked {
        Some(asked) => Some(asked),
        None => apply.log.find(key.event)?.map(|(_, _, logged)| logged.received),
    };
    if since.is_some_and(|since| since >= before) {
        return Ok(false);
    }
    apply.deliveries.leave(key)?;
    apply.history.add(key, given_up(&stand, at));
    apply.deliveries.end(key, StoredState::Dead, stand.origin().was_allowed)?;
    Ok(true)
}

fn given_up(stand: &Stand, at: Timestamp) -> Entry {
    let number = match stand {
        Stand::Waiting(waiting) => waiting.progress.failed,
        Stand::First | Stand::Ended(_) => 0,
    };
    let outcome = Outcome::Dead { reason: EXPIRED.to_owned() };
    Entry::Attempt(Attempt { number, at, took: Duration::ZERO, policy: None, target: None, outcome })
}

//! What operators are to know of a write. Nothing is announced of the deliveries of operator events, so that these cause none
//! of their kind.

use std::sync::Arc;

use super::Apply;
use crate::LoggedEvent;
use crate::redb::damage;
use crate::redb::deliveries::DeliveryKey;
use crate::redb::handle::Fault;
use crate::redb::record;
use waypost_domain::operator::{Cause, DeadLetter, shortened};
use waypost_domain::{Announcement, Answer, Attempt, HandlerRun, OPERATOR, Outcome};

/// Announces a delivery that this attempt gave up, if it did. One whose event cannot be read may be of an operator event, and
/// is not announced.
pub(super) fn dead(
    apply: &mut Apply<'_, '_>,
    key: DeliveryKey,
    attempt: &Attempt,
    run: Option<&HandlerRun>,
    was_allowed: bool,
) -> Result<(), Fault> {
    let Outcome::Dead { reason } = &attempt.outcome else { return Ok(()) };
    let about = record::recipient_id(key.recipient);
    if about.dead_letters_owner().is_some() {
        return Ok(());
    }
    if !is_from_producer(apply, key)? {
        return Ok(());
    }
    let mut answer = attempt.target.clone();
    answer.iter_mut().for_each(Answer::keep_little);
    let (attempts, reason) = (attempt.number, shortened(reason));
    let letter = DeadLetter { event: record::event_id(key.event), attempts, reason, answer, was_allowed };
    let is_handler = apply.registry.readable(key.recipient)?.is_none();
    let cause = match is_handler {
        true => Cause::RunFailed { handler: run.map(|run| run.handler.clone()), letter },
        false => Cause::Dead(letter),
    };
    add(apply, Announcement { at: attempt.at, about, cause })
}

/// Tells whether a delivery's event is there and no operator event. A group reads each batch once for that.
fn is_from_producer(apply: &mut Apply<'_, '_>, key: DeliveryKey) -> Result<bool, Fault> {
    if !apply.from_producers.contains_key(&key.batch) {
        let batch = damage::apart(apply.log.batch(key.batch))?.unwrap_or_default();
        let is_producers = |logged: &Option<Arc<LoggedEvent>>| {
            logged.as_ref().is_some_and(|logged| logged.sender != OPERATOR)
        };
        apply.from_producers.insert(key.batch, batch.iter().map(is_producers).collect());
    }
    let places = apply.from_producers.get(&key.batch);
    let place = usize::try_from(key.index).unwrap_or(usize::MAX);
    Ok(places.and_then(|places| places.get(place)).copied().unwrap_or(false))
}

/// Adds an announcement to those of the group, if there is one.
pub(super) fn add(
    apply: &mut Apply<'_, '_>,
    announcement: impl Into<Option<Announcement>>,
) -> Result<(), Fault> {
    let Some(announcement) = announcement.into() else { return Ok(()) };
    Ok(apply.announcements.add(apply.position, &announcement)?)
}

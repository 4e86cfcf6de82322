//! Subscriptions: written within their users' quotas, each in place of the version that it was made from. Deleted ones
//! explain old deliveries, and are removed when these have left the log.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Apply, announce, freeze};
use crate::redb::deliveries::PendingRows;
use crate::redb::group::PutSubscription;
use crate::redb::handle::Fault;
use crate::redb::registry::SubscriptionRow;
use crate::redb::schema::MATCHING_KEY;
use crate::redb::usage::{self, Kind};
use crate::redb::{ids, record};
use crate::{Counted, Error, Put, Quota, StoredSubscription};
use waypost_domain::job;
use waypost_domain::{
    Announcement, FilterDialect, PluginDigest, RecipientId, Recovery, Subscription, SubscriptionId,
};

/// How long after a subscription's deletion an event that matched it may still be logged, including clock changes.
const SLACK: SignedDuration = SignedDuration::from_mins(10);

/// See [`crate::Store::put_subscription`].
pub(super) fn put(apply: &mut Apply<'_, '_>, put: &PutSubscription) -> Result<Result<Put, Error>, Fault> {
    let PutSubscription { subscription, replaces, recovery, quota } = put;
    let id = subscription.id.uuid().as_u128();
    let row = apply.registry.readable(id)?;
    let before = row.as_ref().map_or(0, |row| row.bytes);
    // What cannot be read is replaced: it was read before by those who change it.
    let is_damaged = matches!(row, Some(SubscriptionRow { stored: None, .. }));
    let known = row.and_then(|row| row.stored);
    match (&known, replaces) {
        (Some(known), _) if Some(known.revision) != *replaces => {
            return Ok(Ok(Put::Changed(known.revision)));
        }
        (None, Some(_)) if !is_damaged => return Ok(Ok(Put::Gone)),
        (Some(_) | None, _) => {}
    }
    let known = known.as_ref().map(|known| &*known.subscription);
    let (digest, digest_before) = (referred(Some(subscription)), referred(known));
    if let Some(missing) = digest.filter(|digest| digest_before != Some(*digest))
        && !apply.modules.has(missing)?
    {
        return Ok(Ok(Put::NoModule(missing)));
    }
    let record = record::encode_subscription(subscription, apply.position);
    let after = usage::of_row(&record);
    let mut account = apply.account(id)?;
    account.set_user(&subscription.user);
    let has_room = match *quota {
        Quota::Exempt => Ok(()),
        Quota::Holds => account.room_for(after.saturating_sub(before)),
        Quota::New(limits) => account.room_for(after.saturating_sub(before)).and_then(|()| {
            account.room_for_another(Counted::Subscriptions, limits)?;
            recovery.as_ref().map_or(Ok(()), |_| account.room_for_another(Counted::Recoveries, limits))
        }),
    };
    if let Err(full) = has_room {
        return Ok(Err(full));
    }
    // One that cannot be read counts as one that is not deleted.
    let was_live = is_damaged || known.is_some_and(|known| known.deleted.is_none());
    account.count(Counted::Subscriptions, i64::from(subscription.deleted.is_none()) - i64::from(was_live));
    announce::add(apply, known.and_then(|known| Announcement::of_change(known, subscription, apply.now)))?;
    let stored =
        StoredSubscription { subscription: Arc::new(subscription.clone()), revision: apply.position };
    apply.registry.put(stored, &record)?;
    apply.recount(id, Kind::Subscription, before, after)?;
    apply.modules.refer(id, digest_before, digest)?;
    if subscription.plugin.is_none() {
        forget_state(apply, id)?;
    }
    if let Some(recovery) = recovery {
        let running = |known: Option<&Recovery>| i64::from(known.is_some_and(Recovery::is_running));
        let before = apply.registry.recovery(subscription.id)?;
        let change = running(Some(recovery)) - running(before.as_ref());
        apply.account(id)?.count(Counted::Recoveries, change);
        apply.registry.put_recovery(recovery)?;
    }
    if matched_by(known) != matched_by(Some(subscription)) {
        apply.meta.insert(MATCHING_KEY, apply.position.0)?;
    }
    Ok(Ok(Put::Done(apply.position)))
}

/// See [`crate::Store::forget`].
pub(super) fn forget(
    apply: &mut Apply<'_, '_>,
    deleted: &[SubscriptionId],
) -> Result<Vec<SubscriptionId>, Fault> {
    let oldest = apply.log.oldest()?;
    let mut forgotten = Vec::new();
    for id in deleted {
        let key = id.uuid().as_u128();
        if is_forgettable(apply, key, oldest)? {
            forget_state(apply, key)?;
            apply.deliveries.forget(key)?;
            apply.deliveries.forget(dead_letters(*id))?;
            let is_recovering = apply.registry.recovery(*id)?.is_some_and(|known| known.is_running());
            let mut running = i64::from(is_recovering);
            for kind in job::Kind::ALL {
                running += i64::from(apply.registry.job(*id, kind)?.is_some_and(|known| known.is_running()));
            }
            let mut account = apply.account(key)?;
            account.count(Counted::Recoveries, -running);
            account.close();
            apply.registry.forget(*id)?;
            forgotten.push(*id);
        }
    }
    Ok(forgotten)
}

/// Tells whether a subscription is deleted, and every event of the log is newer than that. A record that cannot be read is
/// kept, and does not affect the others.
fn is_forgettable(apply: &mut Apply<'_, '_>, id: u128, oldest: Option<u128>) -> Result<bool, Fault> {
    let known = apply.registry.readable(id)?.and_then(|row| row.stored);
    let Some(deleted) = known.and_then(|known| known.subscription.deleted) else { return Ok(false) };
    let over = deleted.checked_add(SLACK).unwrap_or(Timestamp::MAX);
    let is_old =
        over < apply.now && oldest.is_none_or(|oldest| ids::first_at(over).uuid().as_u128() <= oldest);
    let letters = dead_letters(record::recipient_id(id).subscription_id());
    Ok(is_old && !has_rows(apply, id)? && !has_rows(apply, letters)?)
}

/// Returns the recipient of a subscription's dead letters.
fn dead_letters(id: SubscriptionId) -> u128 {
    RecipientId::dead_letters_of(id).uuid().as_u128()
}

/// Tells whether a subscription still has pending deliveries or rendered payloads: they are being cancelled.
fn has_rows(apply: &mut Apply<'_, '_>, id: u128) -> Result<bool, Fault> {
    let PendingRows { batches, due } = apply.deliveries.pending_rows(id, 1)?;
    let rendered = apply.plugin_data.rendered_keys(id, 1)?;
    Ok(!batches.is_empty() || !due.is_empty() || !rendered.is_empty())
}

/// Removes the state of a subscription's plugin.
pub(super) fn forget_state(apply: &mut Apply<'_, '_>, id: u128) -> Result<(), Fault> {
    let removals = apply.plugin_data.removals(id)?;
    freeze::change_state(apply, id, &removals)
}

/// Returns the module that a subscription keeps.
pub(crate) fn referred(subscription: Option<&Subscription>) -> Option<PluginDigest> {
    let known = subscription.filter(|known| known.deleted.is_none());
    known.and_then(|known| known.plugin.as_deref()).map(|plugin| plugin.digest)
}

/// Returns what decides which events match a subscription.
fn matched_by(subscription: Option<&Subscription>) -> Option<(&str, FilterDialect)> {
    let active = subscription.filter(|known| known.is_active());
    active.map(|known| (known.jsonpath.as_str(), known.filter_dialect))
}

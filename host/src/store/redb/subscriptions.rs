//! Subscriptions: written within their users' quotas, each in place of the version that it was made from. Deleted ones explain old deliveries, and are removed when these
//! have left the log.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use redb::ReadableTable;

use super::apply::{Apply, PendingRows};
use super::group::PutSubscription;
use super::handle::Fault;
use super::ids;
use super::record;
use super::schema::MATCHING_KEY;
use super::usage::{self, Kind};
use crate::domain::{FilterDialect, PluginDigest, Subscription, SubscriptionId};
use crate::store::{Error, Put, Quota, StoredSubscription};

/// How long after a subscription's deletion an event that matched it may still be logged, including clock changes.
const SLACK: SignedDuration = SignedDuration::from_mins(10);

impl Apply<'_, '_> {
    /// See [`crate::store::Store::put_subscription`].
    pub(super) fn put_subscription(&mut self, put: &PutSubscription) -> Result<Result<Put, Error>, Fault> {
        let PutSubscription { subscription, replaces, recovery, quota } = put;
        let id = subscription.id.uuid().as_u128();
        let row = self.tables.subscriptions.get(id)?;
        let before = row.as_ref().map_or(0, |row| usage::of_row(row.value()));
        let read = row.map(|row| record::decode_subscription(row.value()));
        // What cannot be read is replaced: whoever changes it has read it before.
        let is_damaged = matches!(read, Some(Err(_)));
        let known = read.and_then(|read| self.marks.pass("subscriptions", id, read));
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
            && self.tables.modules.get(missing.to_string().as_str())?.is_none()
        {
            return Ok(Ok(Put::NoModule(missing)));
        }
        let record = record::encode_subscription(subscription, self.position);
        let after = usage::of_row(&record);
        self.open_account(id, &subscription.user)?;
        if *quota == Quota::Holds
            && let Err(full) = self.room_for(id, after.saturating_sub(before))?
        {
            return Ok(Err(full));
        }
        self.tables.subscriptions.insert(id, record.as_slice())?;
        self.recount(id, Kind::Subscription, before, after)?;
        self.refer(id, digest_before, digest)?;
        if subscription.plugin.is_none() {
            self.forget_state(subscription.id)?;
        }
        if let Some(recovery) = recovery {
            self.put_recovery(recovery)?;
        }
        if matched_by(known) != matched_by(Some(subscription)) {
            self.tables.meta.insert(MATCHING_KEY, self.position.0)?;
        }
        let subscription = Arc::new(subscription.clone());
        self.effects.put.push(StoredSubscription { subscription, revision: self.position });
        Ok(Ok(Put::Done(self.position)))
    }

    /// Lets a subscription refer to another module.
    fn refer(
        &mut self,
        id: u128,
        before: Option<PluginDigest>,
        now: Option<PluginDigest>,
    ) -> Result<(), Fault> {
        if before == now {
            return Ok(());
        }
        if let Some(digest) = before {
            self.tables.referring.remove((digest.to_string().as_str(), id))?;
        }
        if let Some(digest) = now {
            self.tables.referring.insert((digest.to_string().as_str(), id), ())?;
        }
        Ok(())
    }

    /// See [`crate::store::Store::forget`].
    pub(super) fn forget(&mut self, deleted: &[SubscriptionId]) -> Result<Vec<SubscriptionId>, Fault> {
        let oldest = self.tables.batches.first()?.map(|(key, _)| key.value());
        let mut forgotten = Vec::new();
        for id in deleted {
            if self.is_forgettable(id.uuid().as_u128(), oldest)? {
                self.forget_one(*id)?;
                forgotten.push(*id);
            }
        }
        self.effects.forgotten.extend(&forgotten);
        Ok(forgotten)
    }

    /// Tells whether a subscription is deleted, and every event of the log is newer than that.
    fn is_forgettable(&mut self, subscription: u128, oldest: Option<u128>) -> Result<bool, Fault> {
        let row = self.tables.subscriptions.get(subscription)?;
        let read = row.map(|row| record::decode_subscription(row.value())).transpose();
        // A record that cannot be read is kept, and does not affect the others.
        let known = self.marks.pass("subscriptions", subscription, read).flatten();
        let Some(deleted) = known.and_then(|known| known.subscription.deleted) else { return Ok(false) };
        let over = deleted.checked_add(SLACK).unwrap_or(Timestamp::MAX);
        let is_old =
            over < self.now && oldest.is_none_or(|oldest| ids::first_at(over).uuid().as_u128() <= oldest);
        Ok(is_old && !self.has_rows(subscription)?)
    }

    /// Tells whether the subscription still has pending deliveries or rendered payloads: they are being cancelled.
    fn has_rows(&mut self, subscription: u128) -> Result<bool, Fault> {
        let PendingRows { batches, due } = self.pending_rows(subscription, 1)?;
        let rendered = self.tables.rendered.range((subscription, 0)..=(subscription, u128::MAX))?.next();
        Ok(!batches.is_empty() || !due.is_empty() || rendered.is_some())
    }

    fn forget_one(&mut self, id: SubscriptionId) -> Result<(), Fault> {
        let subscription = id.uuid().as_u128();
        self.forget_state(id)?;
        self.forget_deliveries(subscription)?;
        self.close_account(subscription)?;
        self.tables.subscriptions.remove(subscription)?;
        self.tables.reached.remove(subscription)?;
        self.tables.recoveries.remove(subscription)?;
        Ok(())
    }
}

/// Returns the module that a subscription keeps.
pub(super) fn referred(subscription: Option<&Subscription>) -> Option<PluginDigest> {
    let known = subscription.filter(|known| known.deleted.is_none());
    known.and_then(|known| known.plugin.as_deref()).map(|plugin| plugin.digest)
}

/// Returns what decides which events match a subscription.
fn matched_by(subscription: Option<&Subscription>) -> Option<(&str, FilterDialect)> {
    let active = subscription.filter(|known| known.is_active());
    active.map(|known| (known.jsonpath.as_str(), known.filter_dialect))
}

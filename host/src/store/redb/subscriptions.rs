//! Subscriptions: written within their users' quotas. Deleted ones explain old deliveries, and are removed when these
//! have left the log.

use jiff::{SignedDuration, Timestamp};
use redb::ReadableTable;

use super::apply::{Apply, PendingRows};
use super::handle::Fault;
use super::ids;
use super::record;
use super::usage::{self, Kind};
use crate::domain::{Subscription, SubscriptionId};
use crate::store::{Error, Quota, Wake};

/// How long after a subscription's deletion an event that matched it may still be logged, including clock changes.
const SLACK: SignedDuration = SignedDuration::from_mins(10);

impl Apply<'_, '_> {
    /// Creates or replaces a subscription; refuses one that grows beyond what is kept for its user.
    pub(super) fn put_subscription(
        &mut self,
        subscription: &Subscription,
        quota: Quota,
    ) -> Result<Result<(), Error>, Fault> {
        let record = record::encode_subscription(subscription);
        let id = subscription.id.uuid().as_u128();
        let before = self.tables.subscriptions.get(id)?.map_or(0, |row| usage::of_row(row.value()));
        let after = usage::of_row(&record);
        self.open_account(id, &subscription.user)?;
        if quota == Quota::Holds
            && let Err(full) = self.room_for(id, after.saturating_sub(before))?
        {
            return Ok(Err(full));
        }
        self.tables.subscriptions.insert(id, record.as_slice())?;
        self.recount(id, Kind::Subscription, before, after)?;
        if subscription.plugin.is_none() {
            self.forget_state(subscription.id)?;
        }
        self.effects.woken.entry(subscription.id.into()).or_default().merge(Wake::read());
        Ok(Ok(()))
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
        let Some(deleted) = known.and_then(|known| known.deleted) else { return Ok(false) };
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

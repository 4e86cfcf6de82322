//! The pending deliveries of disabled subscriptions: they wait, but do not keep their events for ever.

use std::time::Duration;

use jiff::Timestamp;
use redb::ReadableTable;

use super::apply::Apply;
use super::deliveries::{DeliveryKey, Stand};
use super::handle::Fault;
use super::history::Ledger;
use super::record::{self, HistoryRecord};
use crate::domain::{Activity, Attempt, Entry, Outcome};
use crate::store::StoredState;

impl Apply<'_, '_> {
    /// Gives up those of an event's open deliveries that have been pending since before `time` for disabled
    /// subscriptions; returns how many these are.
    pub(super) fn expire(
        &mut self,
        open: &[(DeliveryKey, Stand)],
        received: Timestamp,
        time: Timestamp,
    ) -> Result<usize, Fault> {
        let (mut ledger, mut expired) = (Ledger::default(), 0);
        for (key, stand) in open {
            let pending_since = stand.origin().asked.unwrap_or(received);
            if pending_since >= time || !self.is_disabled(key.recipient)? {
                continue;
            }
            self.leave(*key)?;
            let entry = given_up(stand, self.now);
            ledger.add(key.batch, HistoryRecord { index: key.index, recipient: key.recipient, entry });
            self.end(*key, StoredState::Dead, stand.origin().was_allowed)?;
            expired += 1;
        }
        ledger.write(self.tables)?;
        Ok(expired)
    }

    fn is_disabled(&self, recipient: u128) -> Result<bool, Fault> {
        // A recipient without a row here is a handler.
        let Some(row) = self.tables.subscriptions.get(recipient)? else { return Ok(false) };
        let read = record::decode_subscription(row.value());
        let known = self.marks.pass("subscriptions", recipient, read);
        // A subscription that cannot be read gets no deliveries either.
        Ok(known.is_none_or(|known| {
            known.subscription.deleted.is_none() && known.subscription.activity != Activity::Enabled
        }))
    }
}

fn given_up(stand: &Stand, at: Timestamp) -> Entry {
    let number = match stand {
        Stand::Waiting(waiting) => waiting.progress.failed,
        Stand::First | Stand::Ended(_) => 0,
    };
    let reason = "expired: its subscription is disabled, and it has waited for longer than events are kept (the setting \
                  retention)";
    let outcome = Outcome::Dead { reason: reason.to_owned() };
    Entry::Attempt(Attempt { number, at, took: Duration::ZERO, policy: None, target: None, outcome })
}

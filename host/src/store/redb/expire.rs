//! The pending deliveries of disabled subscriptions: they wait, but do not keep their events for ever.

use redb::ReadableTable;

use super::apply::{self, Apply, waiting_since};
use super::damage;
use super::fresh::FreshRows;
use super::handle::Fault;
use super::history::Ledger;
use super::record::{self, HistoryRecord};
use crate::domain::{Activity, Attempt, Entry, Outcome, RecipientId};
use crate::store::LoggedEvent;

use jiff::Timestamp;

/// An event with open deliveries, and where it is.
#[derive(Clone, Copy)]
pub(super) struct OpenEvent<'a> {
    pub(super) key: u128,
    pub(super) index: u32,
    pub(super) logged: &'a LoggedEvent,
}

impl Apply<'_, '_> {
    /// Gives up an event's open deliveries that have been pending since before `time` for disabled subscriptions;
    /// returns how many these are.
    pub(super) fn expire(
        &mut self,
        open_event: OpenEvent<'_>,
        open: &[(RecipientId, &[Entry])],
        time: Timestamp,
    ) -> Result<usize, Fault> {
        let OpenEvent { key, index, logged } = open_event;
        let (mut ledger, mut rows, mut expired) = (Ledger::default(), FreshRows::default(), 0);
        for (id, entries) in open {
            let recipient = id.uuid().as_u128();
            if owed_since(entries, logged.received) >= time || !self.is_disabled(recipient)? {
                continue;
            }
            match waiting_since(entries) {
                // A row that cannot be read refers to an event that is being removed.
                apply::QueueRow::Fresh => {
                    drop(damage::apart(rows.take(&self.tables.fresh, (recipient, key), index))?);
                }
                apply::QueueRow::Due(due) => {
                    let row = (recipient, due.as_microsecond(), logged.id.uuid().as_u128());
                    self.tables.retries.remove(row)?;
                }
                apply::QueueRow::Not => continue,
            }
            ledger.add(key, HistoryRecord { index, recipient, entry: given_up(entries, self.now) });
            expired += 1;
        }
        rows.write(&mut self.tables.fresh)?;
        ledger.write(self.tables)?;
        Ok(expired)
    }

    fn is_disabled(&self, recipient: u128) -> Result<bool, Fault> {
        // A recipient without a row here is a handler.
        let Some(row) = self.tables.subscriptions.get(recipient)? else { return Ok(false) };
        let read = record::decode_subscription(row.value());
        let known = self.marks.pass("subscriptions", recipient, read);
        // A subscription that cannot be read gets no deliveries either.
        Ok(known.is_none_or(|known| known.deleted.is_none() && known.activity != Activity::Enabled))
    }
}

/// Returns since when a delivery has been pending: since its event was received, or since it was last redelivered or
/// recovered.
fn owed_since(entries: &[Entry], received: Timestamp) -> Timestamp {
    let asked = entries.iter().rev().find_map(|entry| match entry {
        Entry::Redelivery { at, .. } | Entry::Recovered { at, .. } => Some(*at),
        Entry::Attempt(_)
        | Entry::Dropped { .. }
        | Entry::FilterFailed { .. }
        | Entry::Held { .. }
        | Entry::Plugin(_)
        | Entry::Run(_) => None,
    });
    asked.unwrap_or(received)
}

fn given_up(entries: &[Entry], at: Timestamp) -> Entry {
    let last = entries.iter().rev().find_map(|entry| match entry {
        Entry::Attempt(attempt) => Some(attempt.number),
        Entry::Redelivery { .. }
        | Entry::Dropped { .. }
        | Entry::FilterFailed { .. }
        | Entry::Held { .. }
        | Entry::Recovered { .. }
        | Entry::Plugin(_)
        | Entry::Run(_) => None,
    });
    let reason = "expired: its subscription is disabled, and it has waited for longer than events are kept (the setting \
                  retention)";
    let outcome = Outcome::Dead { reason: reason.to_owned() };
    let (number, took) = (last.unwrap_or_default(), std::time::Duration::ZERO);
    Entry::Attempt(Attempt { number, at, took, policy: None, target: None, outcome })
}

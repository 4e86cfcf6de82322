//! Logging events, with their deliveries and the filters that failed.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Apply;
use crate::redb::handle::Fault;
use crate::redb::log::{self as events, DedupWindow};
use crate::redb::record::HistoryRecord;
use crate::redb::tail::NewRow;
use crate::{Accepted, AnnouncementPlace, Arrival, LoggedEvent, Position, Receipt, Wake};
use waypost_domain::{Entry, RecipientId};

/// The most events in one batch, and the bytes at which a batch is full.
const BATCH_EVENTS_MAX: usize = 256;
const BATCH_BYTES_FULL: usize = 1024 * 1024;

/// Events to be logged together, or not at all.
pub(super) struct Accept<'e> {
    pub(super) arrivals: &'e [Arrival],
    pub(super) matched_at: Position,
    /// What their producer knows this request by.
    pub(super) key: Option<u128>,
    /// The first and the last of the announcements that they are logged for, and that are removed with that.
    pub(super) rows: Option<(AnnouncementPlace, AnnouncementPlace)>,
}

/// Logs the events of all accepts of the group, in batches, with their deliveries and failures.
pub(super) fn accept<'e>(
    apply: &mut Apply<'_, '_>,
    accepts: impl Iterator<Item = Accept<'e>>,
) -> Result<Vec<Accepted>, Fault> {
    let mut answers = Vec::new();
    let (mut batch, mut failed, mut bytes) = (Vec::new(), Vec::new(), 0);
    let window = window(apply)?;
    for Accept { arrivals, matched_at, key, rows } in accepts {
        if matched_at < apply.matching {
            answers.push(Accepted::Stale(apply.matching, arrivals.to_vec()));
            continue;
        }
        if let Some((first, last)) = rows
            && !apply.announcements.take(first, last)?
        {
            answers.push(Accepted::Logged(Vec::new()));
            continue;
        }
        let mut receipts = Vec::with_capacity(arrivals.len());
        for (place, arrival) in arrivals.iter().enumerate() {
            let id = apply.ids.next(arrival.received);
            let key = key.map(|key| format!("{key:032x}/{place}"));
            if let Some(window) = window
                && let Some(id) = apply.log.repeated(arrival, key.as_deref(), id, window)?
            {
                receipts.push(Receipt { id, is_repeat: true });
                continue;
            }
            receipts.push(Receipt { id, is_repeat: false });
            bytes += arrival.size();
            let index = u32::try_from(batch.len()).expect("a batch has at most 256 events");
            failed.extend(failures(arrival, index));
            batch.push(LoggedEvent {
                id,
                event: arrival.event.clone(),
                received: arrival.received,
                sender: arrival.sender.clone(),
                matched: arrival.matched.clone(),
            });
            if batch.len() == BATCH_EVENTS_MAX || bytes >= BATCH_BYTES_FULL {
                log(apply, &std::mem::take(&mut batch), std::mem::take(&mut failed))?;
                bytes = 0;
            }
        }
        answers.push(Accepted::Logged(receipts));
    }
    if !batch.is_empty() {
        log(apply, &batch, failed)?;
    }
    Ok(answers)
}

/// Returns the time within which an event may repeat another, if there is one.
fn window(apply: &Apply<'_, '_>) -> Result<Option<DedupWindow>, Fault> {
    if apply.dedup_window.is_zero() {
        return Ok(None);
    }
    let oldest = apply.now.checked_sub(apply.dedup_window).unwrap_or(Timestamp::MIN);
    Ok(Some(DedupWindow { oldest, lead: events::lead(apply.meta)? }))
}

fn log(apply: &mut Apply<'_, '_>, batch: &[LoggedEvent], failed: Vec<HistoryRecord>) -> Result<(), Fault> {
    let key = batch[0].id.uuid().as_u128();
    failed.into_iter().for_each(|record| apply.history.add_record(key, record));
    apply.write_history()?;
    apply.log.append(key, batch)?;
    let mut pending: BTreeMap<RecipientId, Vec<u32>> = BTreeMap::new();
    for (place, logged) in (0..).zip(batch) {
        for recipient in &logged.matched {
            pending.entry(*recipient).or_default().push(place);
        }
    }
    for (recipient, places) in pending {
        apply.wake(recipient, Wake::accepted(places.len() as u64));
        apply.new_rows.push(NewRow { recipient, batch: key, places: places.clone() });
        apply.deliveries.add_first(recipient, key, places);
    }
    Ok(())
}

/// Makes the records of the filters that gave no answer about an event.
fn failures(arrival: &Arrival, index: u32) -> impl Iterator<Item = HistoryRecord> {
    arrival.failed.iter().map(move |(recipient, reason)| {
        let entry = Entry::FilterFailed { at: arrival.received, reason: reason.clone() };
        HistoryRecord { index, recipient: recipient.uuid().as_u128(), entry }
    })
}

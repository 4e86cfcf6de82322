//! Subscriptions with what is remembered of them: their recoveries, and when their targets were last reached. And the
//! processes whose groups were applied.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use redb::{ReadableTable, StorageError};

use super::damage::Marks;
use super::deliveries;
use super::handle::Fault;
use super::read::{self, Reader};
use super::record::{self, Owner};
use super::schema::tables;
use super::usage::{self, Totals};
use crate::journal::Ticket;
use crate::{Counted, Position, StoredSubscription};
use waypost_domain::job::{Job, Kind};
use waypost_domain::{Activity, RecipientId, Recovery, SubscriptionId};

tables! {
    /// The tables of subscriptions and processes.
    RegistryTables {
        /// Subscription → the subscription. Written when it is created or changed; a deleted one stays until nothing in the
        /// log refers to it.
        SUBSCRIPTIONS as subscriptions = "subscriptions": u128 => &'static [u8];
        /// Subscription → when its target was last reached, in microseconds since 1970; up to a second behind.
        REACHED as reached = "reached": u128 => i64;
        /// Subscription → its running or last recovery. Written when one is requested, and with each page of the log that
        /// it reads.
        RECOVERIES as recoveries = "recoveries": u128 => &'static [u8];
        /// (Subscription, kind) → its running or last job of the kind (`job_key`). Written when one is requested, and with each
        /// step.
        JOBS as jobs = "jobs": (u128, u8) => &'static [u8];
        /// A life of a process that appends to the journal → its newest group that was applied, and which of the 64 before
        /// it were, a bit each. Only on a journal.
        MEMBERS as members = "members": u128 => (u64, u64);
    }
}

/// How far the stored time of a target's last success may lag behind.
const REACHED_LAG: Duration = Duration::from_secs(1);

/// Subscriptions, as a group of writes changes them.
pub(super) struct Registry<'a, 'txn> {
    tables: &'a mut RegistryTables<'txn>,
    marks: &'a Marks,
    /// When targets were last reached before this group.
    known_reached: &'a HashMap<SubscriptionId, Timestamp>,
    /// When targets were reached, for those times that were written.
    pub(super) reached: HashMap<SubscriptionId, Timestamp>,
    /// Subscriptions that were created or replaced, in order.
    pub(super) put: Vec<StoredSubscription>,
    /// Subscriptions that were removed.
    pub(super) forgotten: Vec<SubscriptionId>,
}

impl<'a, 'txn> Registry<'a, 'txn> {
    pub(super) fn new(
        tables: &'a mut RegistryTables<'txn>,
        marks: &'a Marks,
        known_reached: &'a HashMap<SubscriptionId, Timestamp>,
    ) -> Self {
        let (reached, put, forgotten) = (HashMap::new(), Vec::new(), Vec::new());
        Self { tables, marks, known_reached, reached, put, forgotten }
    }

    /// Returns the tables for counting.
    pub(super) fn tables(&self) -> &RegistryTables<'txn> {
        self.tables
    }

    /// Returns a subscription; fails for one that cannot be read.
    pub(super) fn subscription(&self, id: u128) -> Result<Option<StoredSubscription>, Fault> {
        let row = self.tables.subscriptions.get(id)?;
        let known = row.map(|row| record::decode_subscription(row.value())).transpose();
        known.map_err(Fault::damaged("subscriptions"))
    }

    /// Returns a subscription; marks one that cannot be read.
    pub(super) fn readable(&self, id: u128) -> Result<Option<SubscriptionRow>, Fault> {
        let Some(row) = self.tables.subscriptions.get(id)? else { return Ok(None) };
        let stored = self.marks.pass("subscriptions", id, record::decode_subscription(row.value()));
        Ok(Some(SubscriptionRow { bytes: usage::of_row(row.value()), stored }))
    }

    /// Tells whether a subscription gets no deliveries for now. A recipient without a row is a handler; a subscription that
    /// cannot be read gets none either.
    pub(super) fn is_disabled(&self, id: u128) -> Result<bool, Fault> {
        let Some(SubscriptionRow { stored, .. }) = self.readable(id)? else { return Ok(false) };
        Ok(stored.is_none_or(|known| {
            known.subscription.deleted.is_none() && known.subscription.activity != Activity::Enabled
        }))
    }

    /// Writes a subscription, which has this record.
    pub(super) fn put(&mut self, stored: StoredSubscription, record: &[u8]) -> Result<(), StorageError> {
        self.tables.subscriptions.insert(stored.subscription.id.uuid().as_u128(), record)?;
        self.put.push(stored);
        Ok(())
    }

    /// Removes a subscription.
    pub(super) fn forget(&mut self, id: SubscriptionId) -> Result<(), StorageError> {
        let key = id.uuid().as_u128();
        self.tables.subscriptions.remove(key)?;
        self.tables.reached.remove(key)?;
        self.tables.reached.remove(RecipientId::dead_letters_of(id).uuid().as_u128())?;
        self.tables.recoveries.remove(key)?;
        self.tables.jobs.retain_in((key, 0)..=(key, u8::MAX), |_, _| false)?;
        self.forgotten.push(id);
        Ok(())
    }

    /// Returns a recovery; one that cannot be read counts as ended.
    pub(super) fn recovery(&self, subscription: SubscriptionId) -> Result<Option<Recovery>, Fault> {
        let row = self.tables.recoveries.get(subscription.uuid().as_u128())?;
        let recovery = row.map(|row| record::decode_recovery(row.value()));
        Ok(recovery.and_then(|recovery| self.marks.pass("recoveries", subscription, recovery)))
    }

    /// Writes a recovery.
    pub(super) fn put_recovery(&mut self, recovery: &Recovery) -> Result<(), StorageError> {
        let record = record::encode_recovery(recovery);
        self.tables.recoveries.insert(recovery.subscription.uuid().as_u128(), record.as_slice())?;
        Ok(())
    }

    /// Returns a job; one that cannot be read counts as ended.
    pub(super) fn job(&self, subscription: SubscriptionId, kind: Kind) -> Result<Option<Job>, Fault> {
        let row = self.tables.jobs.get(job_key(subscription, kind))?;
        let job = row.map(|row| record::decode_job(row.value()));
        Ok(job.and_then(|job| self.marks.pass("jobs", job_key(subscription, kind), job)))
    }

    /// Writes a job.
    pub(super) fn put_job(&mut self, job: &Job) -> Result<(), StorageError> {
        let record = record::encode_job(job);
        self.tables.jobs.insert(job_key(job.subscription, job.work.kind()), record.as_slice())?;
        Ok(())
    }

    /// Remembers when a target was reached.
    pub(super) fn remember_reached(
        &mut self,
        recipient: SubscriptionId,
        at: Timestamp,
    ) -> Result<(), StorageError> {
        let known = self.reached.get(&recipient).or_else(|| self.known_reached.get(&recipient));
        if known.is_none_or(|known| at.duration_since(*known).unsigned_abs() >= REACHED_LAG) {
            self.reached.insert(recipient, at);
            self.tables.reached.insert(recipient.uuid().as_u128(), at.as_microsecond())?;
        }
        Ok(())
    }
}

fn job_key(subscription: SubscriptionId, kind: Kind) -> (u128, u8) {
    let kind = match kind {
        Kind::Redeliver => 0,
        Kind::Discard => 1,
    };
    (subscription.uuid().as_u128(), kind)
}

/// A row of a subscription.
pub(super) struct SubscriptionRow {
    /// What it takes.
    pub(super) bytes: u64,
    /// What it holds; `None` if that cannot be read.
    pub(super) stored: Option<StoredSubscription>,
}

/// How far behind its process's newest group one may be applied: as far as the mask of those that were reaches.
pub(super) const GROUPS_APART_MAX: u64 = 64;

/// Notes that a group is applied; returns whether it was not before.
pub(super) fn mark(
    tables: &mut RegistryTables<'_>,
    Ticket { member, number }: Ticket,
) -> Result<bool, StorageError> {
    let (newest, before) = tables.members.get(member)?.map_or((0, 0), |row| row.value());
    let bit = |back: u64| 1u64.checked_shl(u32::try_from(back - 1).unwrap_or(u32::MAX)).unwrap_or(0);
    let marked = if number > newest {
        let shift = u32::try_from(number - newest).unwrap_or(u32::MAX);
        let shifted = before.checked_shl(shift).unwrap_or(0);
        (number, if newest > 0 { shifted | bit(number - newest) } else { shifted })
    } else {
        // None is appended while one waits that is further back than the mask: it has been applied.
        let back = newest - number;
        if back == 0 || back > GROUPS_APART_MAX || before & bit(back) != 0 {
            return Ok(false);
        }
        (newest, before | bit(back))
    };
    tables.members.insert(member, marked)?;
    Ok(true)
}

/// See [`crate::Store::subscriptions`].
pub(super) fn subscriptions(reader: &Reader) -> Result<(Position, Vec<StoredSubscription>), Fault> {
    reader.handle.read(|txn| {
        let position = read::position(txn)?;
        let mut subscriptions = Vec::new();
        for row in txn.open_table(SUBSCRIPTIONS)?.iter()? {
            let (key, record) = row?;
            let read = record::decode_subscription(record.value());
            subscriptions.extend(reader.marks.pass("subscriptions", key.value(), read));
        }
        Ok((position, subscriptions))
    })
}

/// Returns how many subscriptions that are not deleted, and how many of their running recoveries and jobs, each user has. Records
/// that cannot be read count nothing.
pub(super) fn numbers(reader: &Reader) -> Result<HashMap<String, Totals>, Fault> {
    reader.handle.read(|txn| {
        let (subscriptions, recoveries) = (txn.open_table(SUBSCRIPTIONS)?, txn.open_table(RECOVERIES)?);
        let mut numbers: HashMap<String, Totals> = HashMap::new();
        let mut count = |user: &str, counted| {
            let one = Totals::change_of(counted, 1);
            match numbers.get_mut(user) {
                Some(known) => *known += one,
                None => drop(numbers.insert(user.to_owned(), one)),
            }
        };
        for row in subscriptions.iter()? {
            if let Ok(Owner { user, is_deleted: false }) = record::decode_owner(row?.1.value()) {
                count(&user, Counted::Subscriptions);
            }
        }
        for row in recoveries.iter()? {
            let (id, row) = row?;
            let is_running = record::decode_recovery(row.value()).is_ok_and(|known| known.is_running());
            let subscription = if is_running { subscriptions.get(id.value())? } else { None };
            if let Some(Ok(owner)) = subscription.as_ref().map(|row| record::decode_owner(row.value())) {
                count(&owner.user, Counted::Recoveries);
            }
        }
        for row in txn.open_table(JOBS)?.iter()? {
            let (key, row) = row?;
            let is_running = record::decode_job(row.value()).is_ok_and(|known| known.is_running());
            let subscription = if is_running { subscriptions.get(key.value().0)? } else { None };
            if let Some(Ok(owner)) = subscription.as_ref().map(|row| record::decode_owner(row.value())) {
                count(&owner.user, Counted::Recoveries);
            }
        }
        Ok(numbers)
    })
}

/// Returns the subscriptions with pending deliveries whose own records cannot be read.
pub(super) fn stranded(reader: &Reader) -> Result<Vec<RecipientId>, Fault> {
    let recipients = deliveries::recipients_with_backlog(reader)?;
    reader.handle.read(|txn| {
        let table = txn.open_table(SUBSCRIPTIONS)?;
        let mut stranded = Vec::new();
        for id in recipients {
            let key = id.uuid().as_u128();
            // A recipient without a row here is a handler.
            let Some(record) = table.get(key)? else { continue };
            let read = record::decode_subscription(record.value());
            if reader.marks.pass("subscriptions", key, read).is_none() {
                stranded.push(id);
            }
        }
        Ok(stranded)
    })
}

/// See [`crate::Store::reached`].
pub(super) fn reached(reader: &Reader) -> Result<Vec<(SubscriptionId, Timestamp)>, Fault> {
    reader.handle.read(|txn| {
        let mut reached = Vec::new();
        for row in txn.open_table(REACHED)?.iter()? {
            let (key, at) = row?;
            let at = reader.marks.pass("reached", key.value(), record::timestamp(at.value()));
            reached.extend(at.map(|at| (record::recipient_id(key.value()).subscription_id(), at)));
        }
        Ok(reached)
    })
}

/// See [`crate::Store::recovery`].
pub(super) fn recovery(reader: &Reader, subscription: SubscriptionId) -> Result<Option<Recovery>, Fault> {
    reader.handle.read(|txn| {
        let row = txn.open_table(RECOVERIES)?.get(subscription.uuid().as_u128())?;
        let recovery = row.map(|row| record::decode_recovery(row.value())).transpose();
        recovery.map_err(Fault::damaged("recoveries"))
    })
}

/// See [`crate::Store::job`].
pub(super) fn job(reader: &Reader, subscription: SubscriptionId, kind: Kind) -> Result<Option<Job>, Fault> {
    reader.handle.read(|txn| {
        let row = txn.open_table(JOBS)?.get(job_key(subscription, kind))?;
        let job = row.map(|row| record::decode_job(row.value())).transpose();
        job.map_err(Fault::damaged("jobs"))
    })
}

/// See [`crate::Store::running_jobs`].
pub(super) fn running_jobs(reader: &Reader) -> Result<Vec<Job>, Fault> {
    reader.handle.read(|txn| {
        let mut running = Vec::new();
        for row in txn.open_table(JOBS)?.iter()? {
            let (key, job) = row?;
            let job = reader.marks.pass("jobs", key.value(), record::decode_job(job.value()));
            running.extend(job.filter(Job::is_running));
        }
        Ok(running)
    })
}

/// See [`crate::Store::running_recoveries`].
pub(super) fn running_recoveries(reader: &Reader) -> Result<Vec<Recovery>, Fault> {
    reader.handle.read(|txn| {
        let mut running = Vec::new();
        for row in txn.open_table(RECOVERIES)?.iter()? {
            let (key, recovery) = row?;
            let read = record::decode_recovery(recovery.value());
            let recovery = reader.marks.pass("recoveries", key.value(), read);
            running.extend(recovery.filter(Recovery::is_running));
        }
        Ok(running)
    })
}

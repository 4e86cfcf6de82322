//! How a group of writes gets from the queue to the tables.
//!
//! On the direct road ([`Writer`]) the file is the truth: a group is applied and synced in one commit, at the position
//! after the last one. On the journal's road the journal is the truth: [`Appender`] appends groups, and [`Applier`] applies
//! what comes back, this process's groups and those of others alike, and answers those who wait here. A crash loses at most
//! what the journal still has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::runtime;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handle::{Durability, Fault};
use super::log;
use super::machine::{AppliedEntry, Machine};
use super::modules::Files;
use super::publish::{Publisher, send};
use super::queue::{Queue, QueuedGroup, Reply};
use super::read::Reader;
use super::record;
use super::registry::GROUPS_APART_MAX;
use super::schema::Tables;
use crate::journal::{Entry, Journal, Ticket};
use crate::{Error, Position};

/// How many groups of this process are on their way to the journal at once. More make them smaller, which costs more
/// than it gains.
const UNDER_WAY_MAX: usize = 2;
/// How long one attempt to append may take, and how long to wait before the next one, at least and at most.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
const APPEND_PAUSE_MIN: Duration = Duration::from_millis(20);
const APPEND_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a caller waits for its answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How often those who have waited too long are looked for.
const ANSWER_LOOK: Duration = Duration::from_secs(1);
/// The most entries, and bytes of them, that are applied in one transaction.
const ENTRIES_AT_ONCE: usize = 64;
const ENTRY_BYTES_AT_ONCE: usize = 4 * 1024 * 1024;
/// After this time, or this many bytes of entries, a transaction is synced.
const SYNC_AFTER: Duration = Duration::from_secs(1);
const SYNC_AFTER_BYTES: usize = 32 * 1024 * 1024;
/// How long to wait after the journal could not be read, or the file not written.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Those who wait for groups of this process, by number.
#[derive(Default)]
pub(super) struct Waiting {
    groups: Mutex<HashMap<u64, Callers>>,
    changed: Notify,
}

/// Those who wait for one group.
struct Callers {
    since: Instant,
    ops: Vec<Reply>,
    ends: Vec<Reply>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Callers>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, number: u64) -> Option<Callers> {
        let taken = self.lock().remove(&number);
        self.changed.notify_waiters();
        taken
    }

    /// Waits until no caller waits for a group below this number.
    async fn before(&self, number: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.lock().keys().all(|waiting| *waiting >= number) {
                return;
            }
            changed.await;
        }
    }

    /// Tells those who have waited for `wait` that it is uncertain what becomes of their writes. Ends of attempts go on
    /// waiting: their workers have nothing better to do.
    fn give_up(&self, wait: Duration) {
        for callers in self.lock().values_mut().filter(|callers| callers.since.elapsed() >= wait) {
            callers.ops.drain(..).for_each(|reply| send(reply, Err(Error::Uncertain)));
        }
    }
}

/// Appends the groups of this process to a journal.
pub(super) struct Appender {
    pub(super) queue: Arc<Queue>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) member: u128,
    pub(super) waiting: Arc<Waiting>,
    pub(super) runtime: runtime::Handle,
    /// Stops the applier.
    pub(super) stop: CancellationToken,
}

impl Appender {
    /// Runs until the queue is closed and empty and all groups are applied, or their callers have waited long enough.
    pub(super) fn run(self) {
        let _stop = self.stop.clone().drop_guard();
        let (places, tasks) = (Arc::new(Semaphore::new(UNDER_WAY_MAX)), TaskTracker::new());
        let (waiting, stop) = (Arc::clone(&self.waiting), self.stop.clone());
        tasks.spawn_on(
            async move {
                while stop.run_until_cancelled(tokio::time::sleep(ANSWER_LOOK)).await.is_some() {
                    waiting.give_up(ANSWER_WAIT);
                }
            },
            &self.runtime,
        );
        let mut number = 0;
        while let Some(queued) = self.queue.next() {
            for (ticket, queued, group) in self.fitting(queued, &mut number) {
                // One that is further behind would count as applied.
                self.runtime.block_on(self.waiting.before(ticket.number.saturating_sub(GROUPS_APART_MAX)));
                let Ok(place) = self.runtime.block_on(Arc::clone(&places).acquire_owned()) else { return };
                let callers = Callers { since: Instant::now(), ops: queued.ops, ends: queued.ends };
                self.waiting.lock().insert(ticket.number, callers);
                let appending = append(Arc::clone(&self.journal), ticket, group, self.stop.clone());
                tasks.spawn_on(
                    async move {
                        appending.await;
                        drop(place);
                    },
                    &self.runtime,
                );
            }
        }
        drop(
            self.runtime
                .block_on(async { tokio::time::timeout(ANSWER_WAIT, self.waiting.before(u64::MAX)).await }),
        );
        self.waiting.give_up(Duration::ZERO);
    }

    /// Writes a group down, in parts that fit into the journal.
    fn fitting(&self, queued: QueuedGroup, number: &mut u64) -> Vec<(Ticket, QueuedGroup, Bytes)> {
        let (ticket, max) =
            (Ticket { member: self.member, number: *number + 1 }, self.journal.group_bytes_max());
        let group = Bytes::from(record::encode_group(ticket, &queued.group));
        if group.len() <= max {
            *number += 1;
            return vec![(ticket, queued, group)];
        }
        if queued.len() > 1 {
            let (first, second) = queued.split();
            let mut parts = self.fitting(first, number);
            parts.extend(self.fitting(second, number));
            return parts;
        }
        let error = Error::TooLarge { bytes: group.len(), max };
        queued.ops.into_iter().chain(queued.ends).for_each(|reply| send(reply, Err(error.clone())));
        Vec::new()
    }
}

/// Appends a group, again and again until the journal has taken it.
async fn append(journal: Arc<dyn Journal>, ticket: Ticket, group: Bytes, stop: CancellationToken) {
    let mut pause = APPEND_PAUSE_MIN;
    loop {
        let appending = tokio::time::timeout(APPEND_TIMEOUT, journal.append(ticket, group.clone()));
        match stop.run_until_cancelled(appending).await {
            None | Some(Ok(Ok(_))) => return,
            Some(Ok(Err(error))) => {
                tracing::warn!(%error, number = ticket.number, "the journal has not answered well")
            }
            Some(Err(_)) => tracing::warn!(number = ticket.number, "the journal has not answered in time"),
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(APPEND_PAUSE_MAX);
    }
}

/// Applies the entries of a journal to the tables.
pub(super) struct Applier {
    pub(super) reader: Reader,
    pub(super) machine: Machine,
    pub(super) files: Files,
    pub(super) publisher: Publisher,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) member: u128,
    pub(super) waiting: Arc<Waiting>,
    pub(super) runtime: runtime::Handle,
    pub(super) stop: CancellationToken,
    pub(super) applied: watch::Sender<Position>,
    pub(super) pace: SyncPace,
    /// Entries whose commit failed in such a way that they may be in the file all the same.
    pub(super) doubt: Option<Applied>,
}

/// What entries have led to, with the position of the last one.
pub(super) struct Applied {
    last: Position,
    entries: Vec<(Ticket, AppliedEntry)>,
}

/// When transactions are synced.
pub(super) struct SyncPace {
    last: Instant,
    bytes: usize,
    after: Duration,
}

impl SyncPace {
    /// Syncs a transaction that comes this long after the one that was synced last.
    pub(super) fn after(after: Duration) -> Self {
        Self { last: Instant::now(), bytes: 0, after }
    }
}

impl Default for SyncPace {
    fn default() -> Self {
        Self::after(SYNC_AFTER)
    }
}

impl SyncPace {
    /// Counts more bytes, and tells how durable their transaction has to be.
    fn next(&mut self, bytes: usize) -> Durability {
        self.bytes += bytes;
        if self.bytes < SYNC_AFTER_BYTES && self.last.elapsed() < self.after {
            return Durability::Later;
        }
        *self = Self::after(self.after);
        Durability::Now
    }
}

impl Applier {
    /// Runs until it is stopped; fails when an entry cannot be applied, since this process's tables would differ from
    /// those of others.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut entries = self.journal.read(self.position()?);
        loop {
            let stop = self.stop.clone();
            let next = self.runtime.block_on(stop.run_until_cancelled(entries.next()));
            let result = match next {
                None => return self.reader.handle.sync().map_err(Error::from),
                Some(Some(Ok(first))) => {
                    let mut group = vec![first];
                    let mut bytes = group[0].group.len();
                    while group.len() < ENTRIES_AT_ONCE
                        && bytes < ENTRY_BYTES_AT_ONCE
                        && let Some(Some(Ok(entry))) = entries.next().now_or_never()
                    {
                        bytes += entry.group.len();
                        group.push(entry);
                    }
                    self.apply(&group)
                }
                Some(Some(Err(error))) => {
                    tracing::warn!(%error, "the journal cannot be read now");
                    Err(Fault::Closed(error.to_string()))
                }
                Some(None) => Err(Fault::Closed("the journal has ended".to_owned())),
            };
            match result {
                Ok(()) => continue,
                Err(fault @ Fault::Damaged { .. }) => return Err(fault.into()),
                Err(fault) => {
                    let error = Error::from(fault);
                    tracing::warn!(%error, "entries of the journal are not applied yet");
                }
            }
            std::thread::sleep(RETRY_PAUSE);
            // What was not synced may be gone from the file, and memory may be ahead of it.
            match self.load() {
                Ok(position) => entries = self.journal.read(position),
                Err(error) => tracing::warn!(%error, "the file cannot be read yet"),
            }
        }
    }

    /// Returns the position up to which the file has everything.
    fn position(&self) -> Result<Position, Error> {
        Ok(self.reader.position()?)
    }

    /// Takes everything that is remembered of the file from the file, unless it has the entries in doubt after all: then
    /// memory is as far as the file is, and they are published.
    fn load(&mut self) -> Result<Position, Error> {
        let position = self.position()?;
        if let Some(applied) = self.doubt.take_if(|applied| applied.last <= position) {
            self.publish(applied);
            return Ok(position);
        }
        self.doubt = None;
        self.reader.tails.begin_after(log::last_batch(&self.reader)?);
        self.machine.load_again(&self.reader)?;
        self.position()
    }

    /// Applies entries in one transaction, publishes what they have changed, and answers.
    fn apply(&mut self, entries: &[Entry]) -> Result<(), Fault> {
        let durability = self.pace.next(entries.iter().map(|entry| entry.group.len()).sum());
        let Some(last) = entries.last().map(|entry| entry.position) else { return Ok(()) };
        let (machine, files) = (&mut self.machine, &self.files);
        let mut applied = None;
        let written = self.reader.handle.write_as(durability, |txn| {
            let mut tables = Tables::open(txn)?;
            let done = entries.iter().map(|entry| machine.apply_entry(&mut tables, files, entry));
            applied = Some(Applied { last, entries: done.collect::<Result<_, _>>()? });
            Ok(())
        });
        match (written, applied) {
            (Ok(()), Some(applied)) => self.publish(applied),
            (written, applied) => {
                self.doubt = applied;
                written?;
            }
        }
        Ok(())
    }

    fn publish(&self, Applied { last, entries }: Applied) {
        for (ticket, AppliedEntry { answers, effects, removed_modules }) in entries {
            self.files.remove_all(&removed_modules);
            self.publisher.publish(effects);
            if ticket.member == self.member
                && let Some(answers) = answers
                && let Some(Callers { ops, ends, .. }) = self.waiting.take(ticket.number)
            {
                self.publisher.answer(ops, ends, answers);
            }
        }
        self.applied.send_replace(last);
    }
}

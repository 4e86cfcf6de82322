//! The store: one redb file in the data folder. The only place that names redb.
//!
//! Readers use short transactions on blocking threads. All writes go through one writer thread, which commits the
//! queued writes as one group; or, where several processes write, through a journal (`road`). What a group does to the
//! tables (`apply`) follows from the tables, the group and its time alone. Each table is read and changed by one module
//! (`schema` lists them). Three things keep a durable event cheap: a batch of events is one value (`log`), ends of attempts
//! join the next commit (`queue`), and events that were just written are delivered from memory (`recent`, `tail`).

mod access;
mod accounts;
mod announcements;
mod apply;
mod check;
mod damage;
mod deliveries;
#[cfg(any(test, feature = "testing"))]
mod disk;
mod examine;
mod group;
mod handle;
mod history;
mod ids;
mod keys;
mod log;
mod machine;
mod migrate;
mod modules;
mod open;
mod open_error;
mod pieces;
mod plugin_data;
mod publish;
mod queue;
mod read;
mod reads;
mod recent;
mod record;
mod registry;
mod rewrite;
mod road;
mod room;
mod schema;
mod tail;
#[cfg(test)]
mod tests;
#[cfg(test)]
#[expect(clippy::duplicate_mod, reason = "the same tests, with another way to open a store")]
#[path = "tests/on_journal.rs"]
mod tests_on_journal;
mod text;
mod under_way;
mod usage;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

#[cfg(any(test, feature = "testing"))]
use crate::faulty::Faults;
use crate::journal::Journal;
use crate::{
    Accepted, AnnouncementPlace, Arrival, ChangeSet, CountLimits, Error, JobStep, Module, OrderedPage,
    OrderedQuery, PageEnd, Position, Purge, PurgeReport, Put, Quota, ReadyPage, ReadyQuery, Release,
    Rendering, Settlement, Share, Step, Tokens, UserUsage, WakeSet,
};
use apply::WAITING_STATES;
use damage::DeadRow;
use group::{
    AdvanceJob, Audited, End, ExpireBacklog, Op, PutSubscription, Recover, Redelivery, Settings, Value,
};
use modules::Files;
use open::JournalSide;
use queue::{Haste, Queue};
use read::Reader;
use usage::Usage;
use waypost_domain::job::{Job, Kind};
use waypost_domain::{
    AuditEntry, EventId, PluginDigest, RecipientId, Recovery, Subscription, SubscriptionId, Token, TokenId,
};
use waypost_runtime::clock;
use waypost_runtime::stage::Alarm;
use waypost_secrets::{KeyFile, Vault};

#[cfg(any(test, feature = "testing"))]
pub use disk::Disk;
#[cfg(any(test, feature = "testing"))]
pub use writer::Stepper;

pub use check::{CheckReport, check, sync};
pub use handle::FILE_NAME;
pub use keys::{Rekeyed, Rekeying, rekey};
pub use open_error::OpenError;
pub use rewrite::Resealed;

/// The durable state of the service. Every write is durable when its future resolves, except [`Store::settle`] of
/// anything but a run, and [`Store::release`].
///
/// Cancelling the future does not cancel the write. The exception is events that are still queued: when room is needed,
/// those whose future was dropped are discarded.
pub struct Store {
    reader: Reader,
    queue: Arc<Queue>,
    wakes: Arc<WakeSet>,
    changes: Arc<ChangeSet>,
    applied: watch::Sender<Position>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    modules: Files,
    /// Held while a module's file and its row are changed.
    changing_modules: tokio::sync::Mutex<()>,
    alarm: Alarm,
    usage: Arc<Usage>,
    tokens: Arc<Tokens>,
    announced: Arc<Notify>,
    share: Arc<Share>,
    counts: CountLimits,
    /// What belongs to a journal, if there is one.
    joined: Option<JournalSide>,
    /// What calls meet in tests.
    #[cfg(any(test, feature = "testing"))]
    pub faults: Faults,
    /// Whether everything happens in one thread, step by step.
    #[cfg(any(test, feature = "testing"))]
    is_simulated: bool,
}

/// How long a transaction may take. The longest ones take seconds.
const TRANSACTION_MAX: Duration = Duration::from_secs(120);
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// How long a store whose alarm is raised waits for its threads.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// How many deliveries one write gives up.
const EXPIRED_AT_ONCE: u32 = 1_024;

/// The limits of a store, and its dedup window.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how long events with the same `source` and `id` are logged once; zero turns that off.
    pub dedup_window: Duration,
    /// The most bytes that are kept for one user: subscriptions, and what their plugins make and say.
    pub user_bytes_max: u64,
    /// The most bytes in the write queue: events with everything that they cause, and other writes.
    pub queue_bytes_max: usize,
    /// How many subscriptions, running recoveries and tokens each user may have.
    pub counts: CountLimits,
    /// The file with the master key; `None` for the one in the store's folder, which is made when it is needed first.
    pub master_key: Option<PathBuf>,
}

impl Options {
    /// Returns where the master key of a store in `folder` lies.
    fn key(&self, folder: &Path) -> KeyFile {
        self.master_key.clone().map_or_else(|| KeyFile::In(folder.to_owned()), KeyFile::At)
    }

    fn settings(&self) -> Settings {
        let dedup_window_ms = u64::try_from(self.dedup_window.as_millis()).unwrap_or(u64::MAX);
        Settings { dedup_window_ms, user_bytes_max: self.user_bytes_max }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dedup_window: Duration::ZERO,
            user_bytes_max: u64::MAX,
            queue_bytes_max: usize::MAX,
            counts: CountLimits::default(),
            master_key: None,
        }
    }
}

impl Store {
    /// Opens or creates the store in `folder` and starts its writer. Blocks.
    ///
    /// Events with the same `source` and `id` within `dedup_window` are logged once; zero turns that off.
    ///
    /// # Errors
    /// When the file is in use, damaged, not Waypost's, or of a newer version.
    pub fn open(folder: &Path, dedup_window: Duration) -> Result<Self, OpenError> {
        Self::with(folder, Options { dedup_window, ..Options::default() })
    }

    /// Opens or creates the store as [`Self::open`] does, with these options.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn with(folder: &Path, options: Options) -> Result<Self, OpenError> {
        open::direct(folder, options)
    }

    /// Makes a store in memory. Only uploaded modules are in `folder`. After a failed write it stays closed.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn in_memory(folder: &Path, options: Options) -> Result<Self, OpenError> {
        open::in_memory(folder, options)
    }

    /// Opens or creates a store whose writes go through a journal, together with those of others who have joined it. Returns
    /// once the store has all that the journal has now.
    ///
    /// # Errors
    /// As for [`Self::open`], and when the journal cannot be read, or was begun with other settings.
    pub async fn join(folder: &Path, options: Options, journal: Arc<dyn Journal>) -> Result<Self, OpenError> {
        open::join(folder, options, journal).await
    }

    /// Opens a store on a simulated disk, without threads.
    #[cfg(any(test, feature = "testing"))]
    pub fn simulated(disk: Disk, options: Options) -> Result<(Self, Stepper), OpenError> {
        open::stepped(disk, options)
    }

    async fn end(&self, end: End, haste: Haste) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.queue.push_end(end, haste, reply)?;
        answer.await.map_err(|_| Error::Closed)?.map(drop)
    }

    async fn write(&self, op: Op) -> Result<Value, Error> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(op, reply)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Writes something, with an entry of the audit if it is done.
    async fn write_noting(&self, op: Op, note: Option<AuditEntry>) -> Result<Value, Error> {
        self.write(match note {
            None => op,
            Some(entry) => Op::Audited(Box::new(Audited { op, entry })),
        })
        .await
    }

    /// Logs events together with everything that they cause, in one transaction.
    ///
    /// `matched_at` is the position of the last change of subscriptions that they were matched with ([`Self::changes`]): if
    /// there is a newer one that matters, they are given back. So an event behind a change in the log was matched with it.
    /// With a dedup window, an event whose `source` and `id` were logged within it gets the first one's id. When the
    /// queue is full, the call fails with [`Error::Busy`].
    pub async fn accept(&self, arrivals: Vec<Arrival>, matched_at: Position) -> Result<Accepted, Error> {
        Ok(self.write(Op::Accept { arrivals, matched_at }).await?.accepted())
    }

    /// As [`Self::accept`], for a request that its producer knows by `key`: with a dedup window, an event gets the id of the
    /// one that was logged in its place of a request with this key, whatever is in it.
    pub async fn accept_once(
        &self,
        arrivals: Vec<Arrival>,
        matched_at: Position,
        key: Uuid,
    ) -> Result<Accepted, Error> {
        let key = key.as_u128();
        Ok(self.write(Op::AcceptOnce { arrivals, matched_at, key }).await?.accepted())
    }

    /// Logs operator events as [`Self::accept`] does, and removes the announcements from the first to the last of `rows` in
    /// the same transaction. Does nothing if the first of these is not the oldest any more: they are logged.
    pub async fn announce(
        &self,
        arrivals: Vec<Arrival>,
        matched_at: Position,
        rows: Option<(AnnouncementPlace, AnnouncementPlace)>,
    ) -> Result<Accepted, Error> {
        Ok(self.write(Op::Announce { arrivals, matched_at, rows }).await?.accepted())
    }

    /// Waits until there may be new announcements. Cancel safe, for one reader.
    pub async fn announced(&self) {
        self.announced.notified().await;
    }

    /// Removes events from the log, but for those with an open delivery.
    pub async fn purge(&self, purge: Purge, mut note: Option<AuditEntry>) -> Result<PurgeReport, Error> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.meet("purge", None)?;
        let mut total = PurgeReport::default();
        let mut from = Some(EventId::NIL);
        while let Some(start) = from {
            let (purged, next) = self.purge_some(purge.clone(), start, note.clone()).await?;
            note = note.filter(|_| purged.purged == 0);
            total.purged += purged.purged;
            total.kept += purged.kept;
            from = next;
        }
        Ok(total)
    }

    /// Removes events of the next few batches, from this event on; returns where to go on, if there are more.
    pub async fn purge_some(
        &self,
        purge: Purge,
        from: EventId,
        note: Option<AuditEntry>,
    ) -> Result<(PurgeReport, Option<EventId>), Error> {
        Ok(self.write_noting(Op::Purge { purge, from }, note).await?.purge_report())
    }

    /// Gives up what has waited for a disabled subscription since before a time: these become dead letters. Returns how many.
    /// What waits for anybody else stays.
    pub async fn expire_backlog(&self, recipient: RecipientId, before: Timestamp) -> Result<u64, Error> {
        let mut total = 0;
        for state in WAITING_STATES {
            let mut from = Some(EventId::NIL);
            while let Some(start) = from {
                let (at, rows) = (clock::now(), EXPIRED_AT_ONCE);
                let request = ExpireBacklog { recipient, state, before, from: start, at, rows };
                let (expired, next) = self.write(Op::ExpireBacklog(request)).await?.expired();
                total += expired;
                from = next;
            }
        }
        Ok(total)
    }

    /// Enqueues an event (again) for these recipients; returns `false` when there is no such event.
    ///
    /// A rendered payload is kept, unless the subscription has another plugin or configuration now.
    pub async fn redeliver(
        &self,
        event: EventId,
        recipients: Vec<RecipientId>,
        by: String,
        at: Timestamp,
        note: Option<AuditEntry>,
    ) -> Result<bool, Error> {
        let op = Op::Redeliver(Redelivery { event, recipients, by, at });
        Ok(self.write_noting(op, note).await?.flag())
    }

    /// Creates a subscription, or replaces the version of it that was written at `replaces`, in one transaction with a
    /// recovery that begins. A subscription without a plugin loses the state of the plugin that it had. A new one whose
    /// quota holds counts among its user's ([`Options::counts`]).
    pub async fn put_subscription(
        &self,
        subscription: Subscription,
        replaces: Option<Position>,
        recovery: Option<Recovery>,
        quota: Quota,
        note: Option<AuditEntry>,
    ) -> Result<Put, Error> {
        let quota = match (replaces, quota) {
            (None, Quota::Holds) => Quota::New(self.counts),
            (Some(_) | None, quota) => quota,
        };
        let put = PutSubscription { subscription, replaces, recovery, quota };
        Ok(self.write_noting(Op::PutSubscription(Box::new(put)), note).await?.put())
    }

    /// Returns what has changed about subscriptions since the store was opened.
    pub fn changes(&self) -> Arc<ChangeSet> {
        Arc::clone(&self.changes)
    }

    /// Returns how much is kept for a user.
    pub fn usage_of(&self, user: &str) -> UserUsage {
        self.usage.of(user)
    }

    /// Keeps a new recovery; returns `false` while another one of the subscription runs. It counts among those of the
    /// subscription's user ([`Options::counts`]).
    pub async fn begin_recovery(&self, recovery: Recovery, note: Option<AuditEntry>) -> Result<bool, Error> {
        let op = Op::BeginRecoveryWithin { recovery: Box::new(recovery), limits: self.counts };
        Ok(self.write_noting(op, note).await?.flag())
    }

    /// Advances a recovery by one step, with everything that the step causes, in one transaction, and returns its new
    /// state; `None` when it is over, or has been replaced. The recovery of a deleted subscription is cancelled.
    pub async fn recover(
        &self,
        subscription: SubscriptionId,
        asked: Timestamp,
        step: Step,
        at: Timestamp,
        note: Option<AuditEntry>,
    ) -> Result<Option<Recovery>, Error> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.meet("recover", Some(subscription.into()))?;
        let recover = Box::new(Recover { subscription, asked, step, at });
        Ok(self.write_noting(Op::Recover(recover), note).await?.recovery())
    }

    /// Keeps a new job; returns `false` while another one of the kind runs for the subscription. It counts among the
    /// recoveries of the subscription's user ([`Options::counts`]).
    pub async fn begin_job(&self, job: Job, note: Option<AuditEntry>) -> Result<bool, Error> {
        let op = Op::BeginJob { job: Box::new(job), limits: self.counts };
        Ok(self.write_noting(op, note).await?.flag())
    }

    /// Advances a job by one step, with everything that the step causes, in one transaction, and returns its new state;
    /// `None` when it is over, or has been replaced. The job of a deleted subscription is cancelled.
    pub async fn advance_job(
        &self,
        (subscription, kind): (SubscriptionId, Kind),
        asked: Timestamp,
        step: JobStep,
        at: Timestamp,
        note: Option<AuditEntry>,
    ) -> Result<Option<Job>, Error> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.meet("job", Some(subscription.into()))?;
        let advance = Box::new(AdvanceJob { subscription, kind, asked, step, at });
        Ok(self.write_noting(Op::AdvanceJob(advance), note).await?.job())
    }

    /// Returns a recipient's ready deliveries: first attempts, oldest first, from batches after `after`, and further
    /// attempts that are due at `now`, most overdue first. It is the only way by which deliveries reach a worker.
    pub async fn ready(&self, query: ReadyQuery) -> Result<ReadyPage, Error> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.meet("ready", Some(query.recipient))?;
        if query.due == 0
            && let Some(page) = self.reader.tails.read(&query, &self.reader.recent)
        {
            return Ok(page);
        }
        let mut buried = Vec::new();
        loop {
            let (page, rows) = self.read(move |reader| deliveries::ready(reader, query)).await?;
            self.reader.tails.pass(query.recipient, page.read_to);
            // In a damaged page, rows may be listed that nothing removes.
            if rows.is_empty() || rows == buried || self.bury(query.recipient, rows.clone()).await.is_err() {
                return Ok(page);
            }
            buried = rows;
        }
    }

    /// Returns a recipient's pending deliveries in the order of acceptance, for a worker that keeps it. What follows
    /// [`PageEnd::Newest`] comes from [`Self::ready`], without further attempts.
    pub async fn in_order(&self, query: OrderedQuery) -> Result<OrderedPage, Error> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.meet("ready", Some(query.recipient))?;
        let (recipient, mut buried) = (query.recipient, Vec::new());
        loop {
            let query = query.clone();
            let (page, rows) = self.read(move |reader| deliveries::in_order(reader, &query)).await?;
            if page.end == PageEnd::Newest {
                self.reader.tails.pass(recipient, page.read_to);
            }
            if rows.is_empty() {
                return Ok(page);
            }
            if rows == buried {
                let reason = "rows that cannot be read stay there".to_owned();
                return Err(Error::Damaged { table: "waiting", reason });
            }
            self.bury(recipient, rows.clone()).await?;
            buried = rows;
        }
    }

    /// Makes dead letters of pending deliveries that cannot be read: the next read does not meet them.
    async fn bury(&self, recipient: RecipientId, rows: Vec<DeadRow>) -> Result<(), Error> {
        let at = clock::now();
        tracing::error!(subscription = %recipient, rows = rows.len(), "pending deliveries cannot be read: they become dead letters");
        let buried = self.write(Op::Bury { recipient, rows, at }).await;
        if let Err(error) = &buried {
            tracing::warn!(subscription = %recipient, %error, "damaged deliveries stay for now");
        }
        buried.map(drop)
    }

    /// Returns how many damaged records were met since the store was opened. They are skipped; deliveries that need one
    /// become dead letters.
    pub fn damaged(&self) -> u64 {
        self.reader.marks.count() as u64
    }

    /// Records an attempt. The future resolves when every reader sees it; a crash may still lose it, which only causes
    /// a repeat. The end of a run is durable by then, and does not wait to be grouped with others.
    pub async fn settle(&self, settlement: Settlement) -> Result<(), Error> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.meet("settle", Some(settlement.recipient))?;
        let haste = if settlement.run.is_some() { Haste::AtOnce } else { Haste::Grouped };
        self.end(End::Settled(settlement), haste).await
    }

    /// Does the same without waiting to be grouped with others: another delivery waits for this one.
    pub async fn settle_at_once(&self, settlement: Settlement) -> Result<(), Error> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.meet("settle", Some(settlement.recipient))?;
        self.end(End::Settled(settlement), Haste::AtOnce).await
    }

    /// Puts a delivery off without counting an attempt; does nothing if it is not pending at its position any more. The
    /// future resolves as that of [`Self::settle`] does.
    pub async fn release(&self, release: Release) -> Result<(), Error> {
        self.end(End::Released(release), Haste::Grouped).await
    }

    /// Freezes the rendered payload of a delivery, with the run of its plugin and the changes of its state, in one
    /// transaction. Does nothing and returns `false` if the delivery is not pending at its position any more; does
    /// nothing and fails with [`Error::Quota`] if its user has no more room.
    pub async fn freeze(&self, rendering: Rendering) -> Result<bool, Error> {
        Ok(self.write(Op::Freeze(Box::new(rendering))).await?.flag())
    }

    /// Keeps a module; an existing one gets the new record.
    pub async fn put_module(
        &self,
        module: Module,
        wasm: Bytes,
        note: Option<AuditEntry>,
    ) -> Result<(), Error> {
        let digest = module.report.digest;
        let _whole = self.changing_modules.lock().await;
        match &self.joined {
            None => {
                let files = self.modules.clone();
                self.read(move |_| files.write(digest, &wasm)).await?;
            }
            Some(JournalSide { chunk, .. }) => {
                let mut rest = wasm;
                let mut offset = 0;
                while !rest.is_empty() {
                    let bytes = rest.split_to(rest.len().min(*chunk));
                    let length = bytes.len() as u64;
                    self.write(Op::ModulePart { digest, offset, bytes }).await?;
                    offset += length;
                }
            }
        }
        self.write_noting(Op::PutModule(Box::new(module)), note).await.map(drop)
    }

    /// Removes a module that was uploaded last at this time; returns `false` and does nothing if it has been uploaded again
    /// since, or if a subscription refers to it.
    pub async fn remove_module(&self, digest: PluginDigest, uploaded: Timestamp) -> Result<bool, Error> {
        let _whole = self.changing_modules.lock().await;
        if !self.write(Op::RemoveModule { digest, uploaded }).await?.flag() {
            return Ok(false);
        }
        // On a journal, the bytes go where the entry is applied.
        if self.joined.is_none() {
            let files = self.modules.clone();
            self.read(move |_| files.remove(digest)).await?;
        }
        Ok(true)
    }

    /// Cancels the pending deliveries of a deleted subscription, at most `limit` rows; returns whether there may be more.
    pub async fn cancel_pending(&self, subscription: SubscriptionId, limit: usize) -> Result<bool, Error> {
        Ok(self.write(Op::CancelPending { subscription, limit, at: clock::now() }).await?.flag())
    }

    /// Removes deleted subscriptions that nothing in the log refers to any more, and returns which these were.
    pub async fn forget(&self, deleted: Vec<SubscriptionId>) -> Result<Vec<SubscriptionId>, Error> {
        Ok(self.write(Op::Forget { deleted }).await?.forgotten())
    }

    /// Keeps a token, which counts among its user's ([`Options::counts`]), or a session; returns `false` if the token that
    /// the session is of is gone. Returns once [`Self::tokens`] has it.
    pub async fn put_token(&self, token: Token, note: AuditEntry) -> Result<bool, Error> {
        let op = Op::PutToken { token: Box::new(token), most: self.counts.tokens };
        Ok(self.write_noting(op, Some(note)).await?.flag())
    }

    /// Removes a token with its sessions, or a session; returns whether it was there.
    pub async fn remove_token(&self, id: TokenId, note: Option<AuditEntry>) -> Result<bool, Error> {
        Ok(self.write_noting(Op::RemoveToken { id }, note).await?.flag())
    }

    /// Remembers when tokens were used.
    pub async fn tokens_used(&self, uses: Vec<(TokenId, Timestamp)>) -> Result<(), Error> {
        self.write(Op::TokensUsed(uses)).await.map(drop)
    }

    /// Returns the tokens and sessions that are good.
    pub fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens)
    }

    /// Adds an entry to the audit that belongs to no other write.
    pub async fn note(&self, entry: AuditEntry) -> Result<(), Error> {
        self.write_noting(Op::Probe, Some(entry)).await.map(drop)
    }

    /// Removes the oldest entries of the audit, from before a time; returns whether there may be more.
    pub async fn purge_audit(&self, before: Timestamp) -> Result<bool, Error> {
        Ok(self.write(Op::PurgeAudit { before }).await?.flag())
    }

    /// Writes something and waits until it is durable.
    pub async fn probe(&self) -> Result<(), Error> {
        self.write(Op::Probe).await.map(drop)
    }

    /// Returns what seals and opens the secrets of what is stored here.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.reader.handle.vault
    }

    /// Returns the set to which the ids of recipients with new work are added.
    pub fn wakes(&self) -> Arc<WakeSet> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.meet("wakes", None).expect("it panics or goes well");
        Arc::clone(&self.wakes)
    }

    /// Returns a watch on the writes that readers can see: it changes with each group of them.
    pub fn applied(&self) -> watch::Receiver<Position> {
        self.applied.subscribe()
    }

    /// Returns which deliveries are this node's to attempt.
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Returns the alarm that everything on top of this store shares. The store raises it itself when a part of it has
    /// died and it cannot write any more.
    pub fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// Raises the alarm when a transaction does not end: the disk hangs, or a damaged page leads in circles. Runs until it is
    /// dropped.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            self.reader.handle.give_up_after(TRANSACTION_MAX);
        }
    }

    /// Writes what is queued, and closes. Later calls get [`Error::Closed`]. Once the alarm is raised, a thread that does not
    /// end is left behind.
    pub async fn close(&self) {
        self.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let mut ending = tokio::task::spawn_blocking(move || thread.join());
            let ended = tokio::select! {
                ended = &mut ending => Some(ended),
                () = async {
                    self.alarm.raised().await;
                    tokio::time::sleep(CLOSE_MAX).await;
                } => None,
            };
            if !matches!(ended, Some(Ok(Ok(())))) {
                tracing::error!("a thread of the store was not waited for");
            }
        }
    }
}

/// On drop, what is queued is written, and the threads end. Inside a runtime they are not joined, since that would block a
/// runtime thread: use [`Store::close`] to wait.
impl Drop for Store {
    fn drop(&mut self) {
        self.queue.close();
        let threads = std::mem::take(self.threads.get_mut().unwrap_or_else(PoisonError::into_inner));
        if tokio::runtime::Handle::try_current().is_err() {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
    }
}

//! The embedded store: one redb file in the data folder. The only place that names redb.
//!
//! Readers use short transactions on blocking threads. All writes go through one writer thread, which commits the
//! queued writes as one group. Three things keep a durable event cheap: a batch of events is one value (`schema`), ends
//! of attempts join the next commit (`queue`), and events that were just written are delivered from memory (`recent`,
//! `tail`).

mod apply;
mod damage;
mod deliveries;
mod delivery_list;
mod expire;
mod handle;
mod history;
mod ids;
mod machine;
mod migrate;
mod modules;
mod pieces;
mod private;
mod purge;
mod queue;
mod read;
mod recent;
mod record;
mod recover;
mod rendered;
mod schema;
mod subscriptions;
mod tail;
#[cfg(test)]
mod tests;
mod text;
mod usage;
mod writer;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::clock;
use crate::domain::plugin::{RenderedPayload, StateMap};
use crate::domain::{EventId, PluginDigest, RecipientId, Recovery, Subscription, SubscriptionId};
use crate::stage::{Alarm, panic_text};
use crate::store::{
    Arrival, Backlog, DeliveriesQuery, DeliveryCounts, Error, EventHistory, Forward, ListedDelivery,
    LoggedEvent, Module, Purge, PurgeReport, Quota, Range, ReadyPage, ReadyQuery, Release, Rendering,
    Settlement, Step, Store, UserUsage, WakeSet,
};
use damage::Marks;
use handle::{Fault, Handle};
use machine::Machine;
use modules::{Change, Files};
use queue::{End, Ending, Op, Queue, Redelivery, Reply};
use read::Reader;
use recover::Recover;
use usage::Usage;
use writer::Writer;

pub use handle::{CheckReport, FILE_NAME, OpenError, check, sync};

/// The embedded [`Store`].
pub struct RedbStore {
    reader: Reader,
    queue: Arc<Queue>,
    wakes: Arc<WakeSet>,
    writer: Mutex<Option<JoinHandle<()>>>,
    modules: Files,
    alarm: Alarm,
    usage: Arc<Usage>,
}

/// The limits of a store, and its dedup window.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For how long events with the same `source` and `id` are logged once; zero turns that off.
    pub dedup_window: Duration,
    /// The most bytes that are kept for one user: subscriptions, and what their plugins make and say.
    pub user_bytes_max: u64,
    /// The most bytes in the write queue: events with everything that they cause, and other writes.
    pub queue_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { dedup_window: Duration::ZERO, user_bytes_max: u64::MAX, queue_bytes_max: usize::MAX }
    }
}

impl RedbStore {
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
        let handle = Arc::new(Handle::open(folder)?);
        let marks = Marks::default();
        let (recent, tails) = (Arc::default(), Arc::default());
        let reader = Reader { handle: Arc::clone(&handle), recent, tails, marks: marks.clone() };
        let found =
            || -> Result<_, Fault> { Ok((reader.last_batch()?, reader.reached()?, reader.accounts()?)) };
        let (last, reached, accounts) = found()
            .map_err(|fault| OpenError::Read { path: folder.join(FILE_NAME), source: Error::from(fault) })?;
        reader.tails.begin_after(last);
        let usage = Arc::new(Usage::new(accounts, options.user_bytes_max));
        let mut machine = Machine {
            dedup_window: options.dedup_window,
            reached: reached.into_iter().collect(),
            usage: Arc::clone(&usage),
            marks,
            ended_minutes: HashMap::new(),
        };
        if let Err(fault) = damage::bury_stranded(&reader, &mut machine, clock::now()) {
            let error = Error::from(fault);
            tracing::warn!(%error, "what is owed to damaged subscriptions stays until the next start");
        }
        let modules = modules::open(folder, &reader)?;
        let queue = Arc::new(Queue::new(options.queue_bytes_max));
        let (wakes, alarm) = (Arc::new(WakeSet::default()), Alarm::default());
        let writer = Writer {
            handle,
            queue: Arc::clone(&queue),
            recent: Arc::clone(&reader.recent),
            tails: Arc::clone(&reader.tails),
            wakes: Arc::clone(&wakes),
            machine,
            runtime: tokio::runtime::Handle::try_current().ok(),
            alarm: alarm.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("waypost-writer".to_owned())
            .spawn({
                let alarm = alarm.clone();
                move || {
                    // A store without its writer answers every write with `Closed`: the service cannot go on without
                    // it.
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| writer.run())) {
                        alarm.raise("the store's writer", format!("it panicked: {}", panic_text(&*panic)));
                    }
                }
            })
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Self { reader, queue, wakes, writer: Mutex::new(Some(thread)), modules, usage, alarm })
    }

    /// Reads on a blocking thread: the disk may be slow.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Error> {
        let reader = self.reader.clone();
        let read = tokio::task::spawn_blocking(move || read(&reader)).await;
        let read = read.map_err(|ended| match ended.try_into_panic() {
            Ok(panic) => Error::Unavailable { reason: format!("a read panicked: {}", panic_text(&*panic)) },
            // The runtime is shutting down.
            Err(_) => Error::Closed,
        });
        Ok(read??)
    }

    async fn end(&self, end: End) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.queue.push_ending(Ending { end, reply })?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn write<T>(&self, op: impl FnOnce(Reply<T>) -> Op) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(op(reply))?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn accept(&self, arrivals: Vec<Arrival>) -> Result<Vec<EventId>, Error> {
        self.write(|reply| Op::Accept { arrivals, reply }).await
    }

    async fn story(&self, id: EventId) -> Result<Option<EventHistory>, Error> {
        self.read(move |reader| reader.story(id)).await
    }

    async fn stories(&self, range: Range) -> Result<Vec<EventHistory>, Error> {
        self.read(move |reader| reader.stories(range)).await
    }

    async fn deliveries(&self, query: DeliveriesQuery) -> Result<Vec<ListedDelivery>, Error> {
        self.read(move |reader| reader.deliveries(query)).await
    }

    async fn deliveries_of(
        &self,
        recipient: RecipientId,
        events: Vec<EventId>,
    ) -> Result<Vec<EventHistory>, Error> {
        self.read(move |reader| reader.deliveries_of(recipient, &events)).await
    }

    async fn counts(&self, recipient: RecipientId) -> Result<DeliveryCounts, Error> {
        self.read(move |reader| reader.counts(recipient)).await
    }

    async fn purge(&self, purge: Purge) -> Result<PurgeReport, Error> {
        let mut total = PurgeReport::default();
        let mut from = Some(EventId::NIL);
        while let Some(start) = from {
            let purge = purge.clone();
            let (purged, next) = self.write(|reply| Op::Purge { purge, from: start, reply }).await?;
            total.purged += purged.purged;
            total.kept += purged.kept;
            total.expired += purged.expired;
            from = next;
        }
        Ok(total)
    }

    async fn redeliver(
        &self,
        event: EventId,
        recipients: Vec<RecipientId>,
        by: String,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let redelivery = Redelivery { event, recipients, by, at };
        self.write(|reply| Op::Redeliver { redelivery, reply }).await
    }

    async fn subscriptions(&self) -> Result<Vec<Arc<Subscription>>, Error> {
        self.read(Reader::subscriptions).await
    }

    async fn put_subscription(&self, subscription: Subscription, quota: Quota) -> Result<(), Error> {
        self.write(|reply| Op::PutSubscription { subscription: Box::new(subscription), quota, reply }).await
    }

    fn usage_of(&self, user: &str) -> UserUsage {
        self.usage.of(user)
    }

    async fn begin_recovery(
        &self,
        recovery: Recovery,
        subscription: Option<Subscription>,
    ) -> Result<bool, Error> {
        let (recovery, subscription) = (Box::new(recovery), subscription.map(Box::new));
        self.write(|reply| Op::BeginRecovery { recovery, subscription, reply }).await
    }

    async fn recovery(&self, subscription: SubscriptionId) -> Result<Option<Recovery>, Error> {
        self.read(move |reader| reader.recovery(subscription)).await
    }

    async fn running_recoveries(&self) -> Result<Vec<Recovery>, Error> {
        self.read(Reader::running_recoveries).await
    }

    async fn recover(
        &self,
        subscription: SubscriptionId,
        asked: Timestamp,
        step: Step,
        at: Timestamp,
    ) -> Result<Option<Recovery>, Error> {
        let recover = Box::new(Recover { subscription, asked, step, at });
        self.write(|reply| Op::Recover { recover, reply }).await
    }

    async fn forward(&self, forward: Forward) -> Result<Vec<Arc<LoggedEvent>>, Error> {
        self.read(move |reader| reader.forward(forward)).await
    }

    async fn backlog(&self, recipient: RecipientId, now: Timestamp, limit: usize) -> Result<Backlog, Error> {
        self.read(move |reader| reader.backlog(recipient, now, limit)).await
    }

    async fn recipients_with_backlog(&self) -> Result<Vec<RecipientId>, Error> {
        self.read(Reader::recipients_with_backlog).await
    }

    async fn ready(&self, query: ReadyQuery) -> Result<ReadyPage, Error> {
        if let Some(page) = self.reader.ready_in_memory(&query) {
            return Ok(page);
        }
        loop {
            let (page, rows) = self.read(move |reader| reader.ready(query)).await?;
            self.reader.tails.pass(query.recipient, page.read_to);
            if rows.is_empty() {
                return Ok(page);
            }
            // Once they are dead letters, the next read does not meet them.
            let (recipient, at) = (query.recipient, clock::now());
            tracing::error!(subscription = %recipient, rows = rows.len(), "what is owed there cannot be read: dead letters");
            if let Err(error) = self.write(|reply| Op::Bury { recipient, rows, at, reply }).await {
                tracing::warn!(subscription = %recipient, %error, "damaged deliveries stay for now");
                return Ok(page);
            }
        }
    }

    fn damaged(&self) -> u64 {
        self.reader.marks.count() as u64
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), Error> {
        self.end(End::Settled(settlement)).await
    }

    async fn release(&self, release: Release) -> Result<(), Error> {
        self.end(End::Released(release)).await
    }

    async fn freeze(&self, rendering: Rendering) -> Result<bool, Error> {
        self.write(|reply| Op::Freeze { rendering: Box::new(rendering), reply }).await
    }

    async fn rendered(
        &self,
        event: EventId,
        recipient: RecipientId,
    ) -> Result<Option<RenderedPayload>, Error> {
        self.read(move |reader| reader.rendered(event, recipient)).await
    }

    async fn plugin_state(&self, subscription: SubscriptionId) -> Result<StateMap, Error> {
        self.read(move |reader| reader.plugin_state(subscription)).await
    }

    async fn put_module(&self, module: Module, wasm: Bytes) -> Result<(), Error> {
        let (files, digest) = (self.modules.clone(), module.report.digest);
        self.read(move |_| files.write(digest, &wasm)).await?;
        let change = Box::new(Change::Put(Box::new(module)));
        self.write(|reply| Op::Module { change, reply }).await
    }

    async fn module(&self, digest: PluginDigest) -> Result<Option<Module>, Error> {
        self.read(move |reader| reader.module(digest)).await
    }

    async fn module_bytes(&self, digest: PluginDigest) -> Result<Option<Bytes>, Error> {
        let files = self.modules.clone();
        self.read(move |_| files.read(digest)).await
    }

    async fn modules(&self) -> Result<Vec<Module>, Error> {
        self.read(Reader::modules).await
    }

    async fn remove_module(&self, digest: PluginDigest) -> Result<(), Error> {
        let change = Box::new(Change::Remove(digest));
        self.write(|reply| Op::Module { change, reply }).await?;
        let files = self.modules.clone();
        self.read(move |_| files.remove(digest)).await
    }

    async fn cancel_pending(&self, subscription: SubscriptionId, limit: usize) -> Result<bool, Error> {
        self.write(|reply| Op::CancelPending { subscription, limit, at: clock::now(), reply }).await
    }

    async fn forget(&self, deleted: Vec<SubscriptionId>) -> Result<Vec<SubscriptionId>, Error> {
        self.write(|reply| Op::Forget { deleted, reply }).await
    }

    async fn reached(&self) -> Result<Vec<(SubscriptionId, Timestamp)>, Error> {
        self.read(Reader::reached).await
    }

    async fn probe(&self) -> Result<(), Error> {
        self.write(|reply| Op::Probe { reply }).await
    }

    fn wakes(&self) -> Arc<WakeSet> {
        Arc::clone(&self.wakes)
    }

    fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    async fn close(&self) {
        self.queue.close();
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let ended = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("the store's writer was not waited for");
            }
        }
    }
}

/// On drop, the writer writes what is queued, and ends. Inside a runtime it is not joined, since that would block a
/// runtime thread: use [`Store::close`] to wait.
impl Drop for RedbStore {
    fn drop(&mut self) {
        self.queue.close();
        let thread = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && tokio::runtime::Handle::try_current().is_err()
        {
            drop(thread.join());
        }
    }
}

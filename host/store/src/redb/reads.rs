//! What is read from the store: in short transactions, on blocking threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::handle::Fault;
use super::read::Reader;
use super::{Store, access, announcements, deliveries, history, log, modules, plugin_data, registry, room};
use crate::{
    AnnouncementPage, AuditPlace, AuditQuery, Backlog, DeliveriesQuery, DeliveryCounts, DiskUse, Error,
    EventHistory, Forward, ListedDelivery, LoggedEvent, Module, Position, Range, StoredSubscription,
};
use waypost_domain::job::{Job, Kind};
use waypost_domain::plugin::{RenderedPayload, StateMap};
use waypost_domain::{AuditEntry, EventId, PluginDigest, RecipientId, Recovery, SubscriptionId};
use waypost_runtime::stage::panic_text;

impl Store {
    /// Reads on a blocking thread: the disk may be slow.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Error> {
        #[cfg(any(test, feature = "testing"))]
        if self.is_simulated {
            tokio::task::yield_now().await;
            return Ok(read(&self.reader)?);
        }
        let reader = self.reader.clone();
        let reading = tokio::task::spawn_blocking(move || {
            catch_unwind(AssertUnwindSafe(|| read(&reader))).map_err(|panic| {
                let panic = panic_text(&*panic);
                reader.handle.examine_after(&panic);
                Error::Unavailable { reason: format!("a read panicked: {panic}") }
            })
        });
        // The runtime is shutting down.
        Ok(reading.await.map_err(|_| Error::Closed)???)
    }

    /// Returns how much of the disk the file takes, and about how much it would need. Nothing is walked: both are kept.
    pub async fn disk(&self) -> Result<DiskUse, Error> {
        let of_users = self.usage.without_history();
        self.read(move |reader| room::disk(reader, of_users)).await
    }

    /// Gives back what the file does not need. All reads and writes wait until it is done.
    pub async fn compact(&self) -> Result<(), Error> {
        self.read(|reader| reader.handle.compact()).await
    }

    /// Returns one event with the history of its deliveries.
    pub async fn history(&self, id: EventId) -> Result<Option<EventHistory>, Error> {
        self.read(move |reader| history::of_event(reader, id)).await
    }

    /// Returns the oldest announcements that have not been logged; `None` if there are none.
    pub async fn announcements(&self, limit: usize) -> Result<Option<AnnouncementPage>, Error> {
        self.read(move |reader| announcements::page(reader, limit)).await
    }

    /// Returns events with the histories of their deliveries, newest first.
    pub async fn histories(&self, range: Range) -> Result<Vec<EventHistory>, Error> {
        self.read(move |reader| history::of_range(reader, range)).await
    }

    /// Lists deliveries of a recipient, those of the newest events first.
    pub async fn deliveries(&self, query: DeliveriesQuery) -> Result<Vec<ListedDelivery>, Error> {
        self.read(move |reader| deliveries::list(reader, query)).await
    }

    /// Returns those of these events that are in the log, each with its delivery to this recipient alone, in any order.
    pub async fn deliveries_of(
        &self,
        recipient: RecipientId,
        events: Vec<EventId>,
    ) -> Result<Vec<EventHistory>, Error> {
        self.read(move |reader| history::of_these(reader, Some(recipient), &events)).await
    }

    /// Returns those of these events that are in the log, with the histories of their deliveries, in any order.
    pub async fn histories_of(&self, events: Vec<EventId>) -> Result<Vec<EventHistory>, Error> {
        self.read(move |reader| history::of_these(reader, None, &events)).await
    }

    /// Counts the deliveries of a recipient by state.
    pub async fn counts(&self, recipient: RecipientId) -> Result<DeliveryCounts, Error> {
        self.read(move |reader| deliveries::counts(reader, recipient)).await
    }

    /// Returns all subscriptions, deleted ones included, and the position up to which they have all changes.
    pub async fn subscriptions(&self) -> Result<(Position, Vec<StoredSubscription>), Error> {
        self.read(registry::subscriptions).await
    }

    /// Returns a subscription's running or last recovery.
    pub async fn recovery(&self, subscription: SubscriptionId) -> Result<Option<Recovery>, Error> {
        self.read(move |reader| registry::recovery(reader, subscription)).await
    }

    /// Returns all running recoveries.
    pub async fn running_recoveries(&self) -> Result<Vec<Recovery>, Error> {
        self.read(registry::running_recoveries).await
    }

    /// Returns a subscription's running or last job of a kind.
    pub async fn job(&self, subscription: SubscriptionId, kind: Kind) -> Result<Option<Job>, Error> {
        self.read(move |reader| registry::job(reader, subscription, kind)).await
    }

    /// Returns all running jobs.
    pub async fn running_jobs(&self) -> Result<Vec<Job>, Error> {
        self.read(registry::running_jobs).await
    }

    /// Returns the time in the newest event's id, if anything has been logged.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn newest_time(&self) -> Result<Option<Timestamp>, Error> {
        self.read(log::newest_time).await
    }

    /// Returns the next part of the log, oldest first; nothing when there is no more.
    pub async fn forward(&self, forward: Forward) -> Result<Vec<Arc<LoggedEvent>>, Error> {
        self.read(move |reader| log::forward(reader, forward)).await
    }

    /// Counts a recipient's pending deliveries besides first attempts, up to `limit`.
    pub async fn backlog(
        &self,
        recipient: RecipientId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Backlog, Error> {
        self.read(move |reader| deliveries::backlog(reader, recipient, now, limit)).await
    }

    /// Counts those of events up to this one, where deliveries have an order: later ones wait for them.
    pub async fn backlog_until(
        &self,
        recipient: RecipientId,
        until: EventId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Backlog, Error> {
        self.read(move |reader| deliveries::backlog_until(reader, recipient, until, now, limit)).await
    }

    /// Returns the recipients that have pending deliveries.
    pub async fn recipients_with_backlog(&self) -> Result<Vec<RecipientId>, Error> {
        self.read(deliveries::recipients_with_backlog).await
    }

    /// Returns the rendered payload of a delivery, if its plugin has rendered it.
    pub async fn rendered(
        &self,
        event: EventId,
        recipient: RecipientId,
    ) -> Result<Option<RenderedPayload>, Error> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.meet("rendered", Some(recipient))?;
        self.read(move |reader| plugin_data::rendered(reader, event, recipient)).await
    }

    /// Returns the state of a subscription's plugin. It may contain expired values until the next change.
    pub async fn plugin_state(&self, subscription: SubscriptionId) -> Result<StateMap, Error> {
        self.read(move |reader| plugin_data::state(reader, subscription)).await
    }

    /// Returns what is known of a module.
    pub async fn module(&self, digest: PluginDigest) -> Result<Option<Module>, Error> {
        self.read(move |reader| modules::module(reader, digest)).await
    }

    /// Returns a module's bytes.
    pub async fn module_bytes(&self, digest: PluginDigest) -> Result<Option<Bytes>, Error> {
        let files = self.modules.clone();
        self.read(move |_| files.read(digest)).await
    }

    /// Returns what is known of all modules.
    pub async fn modules(&self) -> Result<Vec<Module>, Error> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.meet("modules", None)?;
        self.read(modules::modules).await
    }

    /// Lists a part of the audit, newest first, and says where to go on if there may be more.
    pub async fn audit(&self, query: AuditQuery) -> Result<(Vec<AuditEntry>, Option<AuditPlace>), Error> {
        self.read(move |reader| access::audit(reader, &query)).await
    }

    /// Remembers when a subscription's target was last reached.
    pub async fn reached(&self) -> Result<Vec<(SubscriptionId, Timestamp)>, Error> {
        self.read(registry::reached).await
    }
}

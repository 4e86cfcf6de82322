//! A store for tests that fails or panics on request.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::*;

/// What a call meets.
pub(crate) enum Fault {
    /// It panics.
    Panic,
    /// It fails.
    Fails(Error),
}

type Script = Box<dyn Fn(&'static str, Option<RecipientId>) -> Option<Fault> + Send + Sync>;

/// A store in front of another one.
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    script: Script,
}

impl FaultyStore {
    /// Makes a store that asks `script` before each call, by the method's name and the recipient where it has one.
    pub(crate) fn new(
        inner: Arc<dyn Store>,
        script: impl Fn(&'static str, Option<RecipientId>) -> Option<Fault> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { inner, script: Box::new(script) })
    }

    fn meet(&self, method: &'static str, whose: Option<RecipientId>) -> Result<(), Error> {
        match (self.script)(method, whose) {
            None => Ok(()),
            Some(Fault::Panic) => panic!("a test wants `{method}` to panic"),
            Some(Fault::Fails(error)) => Err(error),
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn accept(&self, arrivals: Vec<Arrival>) -> Result<Vec<EventId>, Error> {
        self.meet("accept", None)?;
        self.inner.accept(arrivals).await
    }

    async fn story(&self, id: EventId) -> Result<Option<EventHistory>, Error> {
        self.meet("story", None)?;
        self.inner.story(id).await
    }

    async fn stories(&self, range: Range) -> Result<Vec<EventHistory>, Error> {
        self.meet("stories", None)?;
        self.inner.stories(range).await
    }

    async fn deliveries(&self, query: DeliveriesQuery) -> Result<Vec<ListedDelivery>, Error> {
        self.meet("deliveries", Some(query.recipient))?;
        self.inner.deliveries(query).await
    }

    async fn deliveries_of(
        &self,
        recipient: RecipientId,
        events: Vec<EventId>,
    ) -> Result<Vec<EventHistory>, Error> {
        self.meet("deliveries_of", Some(recipient))?;
        self.inner.deliveries_of(recipient, events).await
    }

    async fn counts(&self, recipient: RecipientId) -> Result<DeliveryCounts, Error> {
        self.meet("counts", Some(recipient))?;
        self.inner.counts(recipient).await
    }

    async fn purge(&self, purge: Purge) -> Result<PurgeReport, Error> {
        self.meet("purge", None)?;
        self.inner.purge(purge).await
    }

    async fn redeliver(
        &self,
        id: EventId,
        recipients: Vec<RecipientId>,
        by: String,
        at: Timestamp,
    ) -> Result<bool, Error> {
        self.meet("redeliver", None)?;
        self.inner.redeliver(id, recipients, by, at).await
    }

    async fn subscriptions(&self) -> Result<Vec<Arc<Subscription>>, Error> {
        self.meet("subscriptions", None)?;
        self.inner.subscriptions().await
    }

    async fn put_subscription(&self, subscription: Subscription, quota: Quota) -> Result<(), Error> {
        self.meet("put_subscription", Some(subscription.id.into()))?;
        self.inner.put_subscription(subscription, quota).await
    }

    fn usage_of(&self, user: &str) -> UserUsage {
        self.inner.usage_of(user)
    }

    async fn begin_recovery(
        &self,
        recovery: Recovery,
        subscription: Option<Subscription>,
    ) -> Result<bool, Error> {
        self.meet("begin_recovery", Some(recovery.subscription.into()))?;
        self.inner.begin_recovery(recovery, subscription).await
    }

    async fn recovery(&self, subscription: SubscriptionId) -> Result<Option<Recovery>, Error> {
        self.meet("recovery", Some(subscription.into()))?;
        self.inner.recovery(subscription).await
    }

    async fn running_recoveries(&self) -> Result<Vec<Recovery>, Error> {
        self.meet("running_recoveries", None)?;
        self.inner.running_recoveries().await
    }

    async fn recover(
        &self,
        subscription: SubscriptionId,
        asked: Timestamp,
        step: Step,
        at: Timestamp,
    ) -> Result<Option<Recovery>, Error> {
        self.meet("recover", Some(subscription.into()))?;
        self.inner.recover(subscription, asked, step, at).await
    }

    async fn forward(&self, forward: Forward) -> Result<Vec<Arc<LoggedEvent>>, Error> {
        self.meet("forward", None)?;
        self.inner.forward(forward).await
    }

    async fn backlog(&self, recipient: RecipientId, now: Timestamp, limit: usize) -> Result<Backlog, Error> {
        self.meet("backlog", Some(recipient))?;
        self.inner.backlog(recipient, now, limit).await
    }

    async fn recipients_with_backlog(&self) -> Result<Vec<RecipientId>, Error> {
        self.meet("recipients_with_backlog", None)?;
        self.inner.recipients_with_backlog().await
    }

    async fn ready(&self, query: ReadyQuery) -> Result<ReadyPage, Error> {
        self.meet("ready", Some(query.recipient))?;
        self.inner.ready(query).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), Error> {
        self.meet("settle", Some(settlement.recipient))?;
        self.inner.settle(settlement).await
    }

    async fn release(&self, release: Release) -> Result<(), Error> {
        self.meet("release", Some(release.recipient))?;
        self.inner.release(release).await
    }

    async fn freeze(&self, rendering: Rendering) -> Result<bool, Error> {
        self.meet("freeze", Some(rendering.recipient))?;
        self.inner.freeze(rendering).await
    }

    async fn rendered(
        &self,
        event: EventId,
        recipient: RecipientId,
    ) -> Result<Option<RenderedPayload>, Error> {
        self.meet("prepared", Some(recipient))?;
        self.inner.rendered(event, recipient).await
    }

    async fn plugin_state(&self, subscription: SubscriptionId) -> Result<StateMap, Error> {
        self.meet("plugin_state", Some(subscription.into()))?;
        self.inner.plugin_state(subscription).await
    }

    async fn put_module(&self, module: Module, wasm: Bytes) -> Result<(), Error> {
        self.meet("put_module", None)?;
        self.inner.put_module(module, wasm).await
    }

    async fn module(&self, digest: PluginDigest) -> Result<Option<Module>, Error> {
        self.meet("module", None)?;
        self.inner.module(digest).await
    }

    async fn module_bytes(&self, digest: PluginDigest) -> Result<Option<Bytes>, Error> {
        self.meet("module_bytes", None)?;
        self.inner.module_bytes(digest).await
    }

    async fn modules(&self) -> Result<Vec<Module>, Error> {
        self.meet("modules", None)?;
        self.inner.modules().await
    }

    async fn remove_module(&self, digest: PluginDigest) -> Result<(), Error> {
        self.meet("remove_module", None)?;
        self.inner.remove_module(digest).await
    }

    async fn cancel_pending(&self, subscription: SubscriptionId, limit: usize) -> Result<bool, Error> {
        self.meet("cancel_pending", Some(subscription.into()))?;
        self.inner.cancel_pending(subscription, limit).await
    }

    async fn forget(&self, deleted: Vec<SubscriptionId>) -> Result<Vec<SubscriptionId>, Error> {
        self.meet("forget", None)?;
        self.inner.forget(deleted).await
    }

    async fn reached(&self) -> Result<Vec<(SubscriptionId, Timestamp)>, Error> {
        self.meet("reached", None)?;
        self.inner.reached().await
    }

    async fn probe(&self) -> Result<(), Error> {
        self.meet("probe", None)?;
        self.inner.probe().await
    }

    fn wakes(&self) -> Arc<WakeSet> {
        if let Some(Fault::Panic) = (self.script)("wakes", None) {
            panic!("a test wants `wakes` to panic");
        }
        self.inner.wakes()
    }

    fn damaged(&self) -> u64 {
        self.inner.damaged()
    }

    fn alarm(&self) -> Alarm {
        self.inner.alarm()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

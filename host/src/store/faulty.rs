//! A store for tests that fails, panics or hangs where a test wants it to.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::*;

/// What a call meets.
#[expect(dead_code, reason = "the tests of lanes, which come next, need them all")]
pub(crate) enum Fault {
    /// It panics.
    Panic,
    /// It fails.
    Fails(Error),
    /// It waits until the semaphore has a permit or is closed, and goes on.
    Waits(Arc<Semaphore>),
}

type Script = Box<dyn Fn(&'static str, Option<SubscriptionId>) -> Option<Fault> + Send + Sync>;

/// A store in front of another one.
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    script: Script,
}

impl FaultyStore {
    /// Makes a store that asks `script` before each call, by the method's name and the recipient where it has one.
    pub(crate) fn new(
        inner: Arc<dyn Store>,
        script: impl Fn(&'static str, Option<SubscriptionId>) -> Option<Fault> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { inner, script: Box::new(script) })
    }

    async fn meet(&self, method: &'static str, whose: Option<SubscriptionId>) -> Result<(), Error> {
        match (self.script)(method, whose) {
            None => Ok(()),
            Some(Fault::Panic) => panic!("a test wants `{method}` to panic"),
            Some(Fault::Fails(error)) => Err(error),
            Some(Fault::Waits(gate)) => {
                if let Ok(permit) = gate.acquire().await {
                    permit.forget();
                }
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn accept(&self, arrivals: Vec<Arrival>) -> Result<Vec<EventId>, Error> {
        self.meet("accept", None).await?;
        self.inner.accept(arrivals).await
    }

    async fn story(&self, id: EventId) -> Result<Option<Story>, Error> {
        self.meet("story", None).await?;
        self.inner.story(id).await
    }

    async fn stories(&self, range: Range) -> Result<Vec<Story>, Error> {
        self.meet("stories", None).await?;
        self.inner.stories(range).await
    }

    async fn purge(&self, purge: Purge) -> Result<Purged, Error> {
        self.meet("purge", None).await?;
        self.inner.purge(purge).await
    }

    async fn redeliver(
        &self,
        id: EventId,
        subscriptions: Vec<SubscriptionId>,
        by: String,
        at: Timestamp,
    ) -> Result<bool, Error> {
        self.meet("redeliver", None).await?;
        self.inner.redeliver(id, subscriptions, by, at).await
    }

    async fn subscriptions(&self) -> Result<Vec<Arc<Subscription>>, Error> {
        self.meet("subscriptions", None).await?;
        self.inner.subscriptions().await
    }

    async fn put_subscription(&self, subscription: Subscription) -> Result<(), Error> {
        self.meet("put_subscription", Some(subscription.id)).await?;
        self.inner.put_subscription(subscription).await
    }

    async fn begin_recovery(
        &self,
        recovery: Recovery,
        subscription: Option<Subscription>,
    ) -> Result<bool, Error> {
        self.meet("begin_recovery", Some(recovery.subscription)).await?;
        self.inner.begin_recovery(recovery, subscription).await
    }

    async fn recovery(&self, subscription: SubscriptionId) -> Result<Option<Recovery>, Error> {
        self.meet("recovery", Some(subscription)).await?;
        self.inner.recovery(subscription).await
    }

    async fn running_recoveries(&self) -> Result<Vec<Recovery>, Error> {
        self.meet("running_recoveries", None).await?;
        self.inner.running_recoveries().await
    }

    async fn recover(
        &self,
        subscription: SubscriptionId,
        asked: Timestamp,
        step: Step,
        at: Timestamp,
    ) -> Result<Option<Recovery>, Error> {
        self.meet("recover", Some(subscription)).await?;
        self.inner.recover(subscription, asked, step, at).await
    }

    async fn forward(&self, forward: Forward) -> Result<Vec<Arc<Logged>>, Error> {
        self.meet("forward", None).await?;
        self.inner.forward(forward).await
    }

    async fn backlog(
        &self,
        subscription: SubscriptionId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Backlog, Error> {
        self.meet("backlog", Some(subscription)).await?;
        self.inner.backlog(subscription, now, limit).await
    }

    async fn creditors(&self) -> Result<Vec<SubscriptionId>, Error> {
        self.meet("creditors", None).await?;
        self.inner.creditors().await
    }

    async fn owed(&self, ask: Ask) -> Result<Waiting, Error> {
        self.meet("owed", Some(ask.subscription)).await?;
        self.inner.owed(ask).await
    }

    async fn finish(&self, finished: Finished) -> Result<(), Error> {
        self.meet("finish", Some(finished.subscription)).await?;
        self.inner.finish(finished).await
    }

    async fn prepare(&self, preparation: Preparation) -> Result<bool, Error> {
        self.meet("prepare", Some(preparation.subscription)).await?;
        self.inner.prepare(preparation).await
    }

    async fn prepared(
        &self,
        event: EventId,
        subscription: SubscriptionId,
    ) -> Result<Option<Prepared>, Error> {
        self.meet("prepared", Some(subscription)).await?;
        self.inner.prepared(event, subscription).await
    }

    async fn plugin_state(&self, subscription: SubscriptionId) -> Result<StateMap, Error> {
        self.meet("plugin_state", Some(subscription)).await?;
        self.inner.plugin_state(subscription).await
    }

    async fn put_module(&self, module: Module, wasm: Bytes) -> Result<(), Error> {
        self.meet("put_module", None).await?;
        self.inner.put_module(module, wasm).await
    }

    async fn module(&self, digest: PluginDigest) -> Result<Option<Module>, Error> {
        self.meet("module", None).await?;
        self.inner.module(digest).await
    }

    async fn module_bytes(&self, digest: PluginDigest) -> Result<Option<Bytes>, Error> {
        self.meet("module_bytes", None).await?;
        self.inner.module_bytes(digest).await
    }

    async fn modules(&self) -> Result<Vec<Module>, Error> {
        self.meet("modules", None).await?;
        self.inner.modules().await
    }

    async fn remove_module(&self, digest: PluginDigest) -> Result<(), Error> {
        self.meet("remove_module", None).await?;
        self.inner.remove_module(digest).await
    }

    async fn forgive(&self, subscription: SubscriptionId, limit: usize) -> Result<bool, Error> {
        self.meet("forgive", Some(subscription)).await?;
        self.inner.forgive(subscription, limit).await
    }

    async fn reached(&self) -> Result<Vec<(SubscriptionId, Timestamp)>, Error> {
        self.meet("reached", None).await?;
        self.inner.reached().await
    }

    async fn probe(&self) -> Result<(), Error> {
        self.meet("probe", None).await?;
        self.inner.probe().await
    }

    fn wakes(&self) -> Arc<Wakes> {
        if let Some(Fault::Panic) = (self.script)("wakes", None) {
            panic!("a test wants `wakes` to panic");
        }
        self.inner.wakes()
    }

    fn alarm(&self) -> Alarm {
        self.inner.alarm()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

//! Short forms of writes, for tests that are about something else.

use std::time::Duration;

use bytes::Bytes;

use super::{Accepted, Arrival, Error, Module, Position, Put, Quota, Store};
use waypost_domain::plugin::Report;
use waypost_domain::{EventId, PluginDigest, Subscription};
use waypost_runtime::clock;

impl Store {
    /// Logs events, whatever they were matched with.
    pub async fn log(&self, arrivals: Vec<Arrival>) -> Result<Vec<EventId>, Error> {
        match self.accept(arrivals, Position(u64::MAX)).await? {
            Accepted::Logged(receipts) => Ok(receipts.iter().map(|receipt| receipt.id).collect()),
            Accepted::Stale(..) => unreachable!("nothing is newer"),
        }
    }

    /// Creates a subscription, or replaces it whatever it is. Its module need not be there.
    pub async fn put(&self, subscription: Subscription, quota: Quota) -> Result<Position, Error> {
        if let Some(plugin) = &subscription.plugin
            && self.module(plugin.digest).await?.is_none()
        {
            self.put_module(Module::new(report(plugin.digest), "ann", clock::now()), Bytes::new(), None)
                .await?;
        }
        let stored = self.subscriptions().await?.1;
        let known = stored.iter().find(|known| known.subscription.id == subscription.id);
        match self
            .put_subscription(subscription, known.map(|known| known.revision), None, quota, None)
            .await?
        {
            Put::Done(position) => Ok(position),
            other => panic!("nobody else writes: {other:?}"),
        }
    }
}

/// What is known of a module that nothing is known of.
pub(super) fn report(digest: PluginDigest) -> Report {
    Report {
        digest,
        bytes: 0,
        exports: Vec::new(),
        imports: Vec::new(),
        manifest: None,
        compile_time: Duration::ZERO,
        compiled_bytes: 0,
        memory_bytes: 0,
    }
}

//! What all lanes share.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use super::breaker::Breakers;
use super::lane::Lane;
use super::traffic::{Gauge, Reached, UnderWay, lock};
use crate::directory::Directory;
use crate::domain::SubscriptionId;
use crate::modules::Modules;
use crate::net::{Client, Guard};
use crate::policy::Policy;
use crate::store::{News, Store};

/// How many rows of a deleted subscription are dropped in one transaction.
const FORGIVE_AT_ONCE: usize = 1_000;

/// What all lanes share; each subscription's own state is in its lane.
pub(super) struct Engine {
    pub(super) store: Arc<dyn Store>,
    pub(super) directory: Arc<Directory>,
    pub(super) modules: Arc<Modules>,
    pub(super) policy: Policy,
    pub(super) client: Client,
    /// What a plugin's headers are held against.
    pub(super) guard: Arc<Guard>,
    pub(super) limits: Limits,
    /// Permits for attempts beyond the first of each lane.
    pub(super) extra: Arc<Semaphore>,
    pub(super) under_way: UnderWay,
    pub(super) reached: Reached,
    pub(super) breakers: Arc<Breakers>,
    /// Lanes that run.
    pub(super) lanes: Mutex<HashMap<SubscriptionId, Arc<Gauge>>>,
    /// When idle subscriptions have something due.
    pub(super) timetable: Mutex<HashMap<SubscriptionId, jiff::Timestamp>>,
    /// Told when the timetable gets an entry.
    pub(super) timetable_changed: tokio::sync::Notify,
    pub(super) tasks: TaskTracker,
    /// No new attempts.
    pub(super) stop: CancellationToken,
    /// Attempts under way are dropped, too.
    pub(super) abort: CancellationToken,
}

impl Engine {
    /// Sees to it that a subscription's new work is looked at.
    pub(super) fn wake(self: &Arc<Self>, id: SubscriptionId, news: News) {
        let Some(subscription) = self.directory.get(id) else { return };
        if self.stop.is_cancelled() {
            return;
        }
        if subscription.deleted.is_some() {
            let engine = Arc::clone(self);
            self.tasks.spawn(async move { engine.forgive(id).await });
            return;
        }
        let mut lanes = lock(&self.lanes);
        if let Some(gauge) = lanes.get(&id) {
            gauge.tell(news);
        } else if subscription.is_active() {
            let gauge = Arc::new(Gauge::default());
            gauge.tell(news);
            lanes.insert(id, Arc::clone(&gauge));
            lock(&self.timetable).remove(&id);
            self.tasks.spawn(Arc::clone(self).run_lane(id, gauge));
        }
    }

    /// Drops a deleted subscription's backlog, as far as it gets before the service stops: the next start goes on.
    async fn run_lane(self: Arc<Self>, id: SubscriptionId, gauge: Arc<Gauge>) {
        let lane = Lane::new(Arc::clone(&self), id, gauge).run();
        if AssertUnwindSafe(lane).catch_unwind().await.is_err() {
            // The panic is on stderr. The next search of the store starts a new lane for what is still owed.
            tracing::error!(subscription = %id, "a delivery lane ended by a panic");
            lock(&self.lanes).remove(&id);
        }
    }

    async fn forgive(&self, id: SubscriptionId) {
        self.breakers.forget(id);
        while !self.stop.is_cancelled() {
            match self.store.forgive(id, FORGIVE_AT_ONCE).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(subscription = %id, %error, "a deleted subscription's backlog stays for now");
                    return;
                }
            }
        }
    }

    /// Waits until `end` if these subscriptions' lanes cannot keep up with what is accepted.
    pub(super) async fn pace(&self, subscriptions: &[SubscriptionId], end: Instant) {
        for id in subscriptions {
            let gauge = lock(&self.lanes).get(id).map(Arc::clone);
            if let Some(gauge) = gauge {
                gauge.pace(end).await;
            }
        }
    }
}

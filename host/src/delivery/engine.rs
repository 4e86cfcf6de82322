//! What all lanes share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use super::breaker::Breakers;
use super::lane::Lane;
use super::slots::Slots;
use super::traffic::{Gauge, Holds, Reached, UnderWay, lock};
use crate::directory::Directory;
use crate::domain::{RecipientId, SubscriptionId};
use crate::modules::Modules;
use crate::net::{Client, Guard};
use crate::policy::Policy;
use crate::stage::caught;
use crate::store::{News, Store};

/// How many rows of a deleted subscription are dropped in one transaction.
const FORGIVE_AT_ONCE: usize = 1_000;
/// How long a lane that panicked rests: at first, and at the most.
const LANE_PAUSE: Duration = Duration::from_secs(1);
const LANE_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

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
    /// For every attempt.
    pub(super) slots: Arc<Slots>,
    pub(super) under_way: UnderWay,
    pub(super) reached: Reached,
    /// Subscriptions whose lanes have just put deliveries off.
    pub(super) holds: Holds,
    pub(super) breakers: Arc<Breakers>,
    /// Lanes that run.
    pub(super) lanes: Mutex<HashMap<RecipientId, Arc<Gauge>>>,
    /// When idle subscriptions have something due.
    pub(super) timetable: Mutex<HashMap<RecipientId, jiff::Timestamp>>,
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
    pub(super) fn wake(self: &Arc<Self>, id: RecipientId, news: News) {
        let Some(subscription) = self.directory.get(id.as_subscription()) else { return };
        if self.stop.is_cancelled() {
            return;
        }
        if subscription.deleted.is_some() {
            let engine = Arc::clone(self);
            self.tasks.spawn(async move {
                if let Err(panic) = caught(engine.forgive(subscription.id)).await {
                    tracing::error!(subscription = %id, panic, "a deleted subscription's backlog stays for now");
                }
            });
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

    /// Runs a subscription's lane; one that panics begins again after a while, longer each time. Its news wait for it.
    async fn run_lane(self: Arc<Self>, id: RecipientId, gauge: Arc<Gauge>) {
        let mut wait = LANE_PAUSE;
        loop {
            let begun = Instant::now();
            let lane = Lane::new(Arc::clone(&self), id, Arc::clone(&gauge)).run();
            let Err(panic) = caught(lane).await else { return };
            if begun.elapsed() > LANE_PAUSE_MAX {
                wait = LANE_PAUSE;
            }
            tracing::error!(subscription = %id, panic, ?wait, "a delivery lane ended by a panic");
            // The next lane clears only the holds that it has noted itself.
            self.holds.clear(id);
            if self.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                break;
            }
            wait = (2 * wait).min(LANE_PAUSE_MAX);
        }
        lock(&self.lanes).remove(&id);
    }

    /// Drops a deleted subscription's backlog, as far as it gets before the service stops: the next start goes on.
    async fn forgive(&self, id: SubscriptionId) {
        self.breakers.forget(id);
        self.reached.forget(id);
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
    pub(super) async fn pace(&self, recipients: &[RecipientId], end: Instant) {
        for id in recipients {
            let gauge = lock(&self.lanes).get(id).map(Arc::clone);
            if let Some(gauge) = gauge {
                gauge.pace(end).await;
            }
        }
    }
}

//! The state that all workers share, and how they are started.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use super::breaker::Breakers;
use super::in_flight::{Holds, InFlight, LastSuccess, lock};
use super::mailbox::Mailbox;
use super::slots::Slots;
use super::worker::Worker;
use crate::directory::Directory;
use crate::domain::{RecipientId, SubscriptionId};
use crate::modules::Modules;
use crate::net::{Client, Guard};
use crate::policy::Policy;
use crate::stage::caught;
use crate::store::{HashSlot, Store, Wake};

/// How many rows of a deleted subscription are dropped in one transaction.
const CANCEL_AT_ONCE: usize = 1_000;
/// How long a worker that panicked rests: at first, and at most.
const WORKER_PAUSE: Duration = Duration::from_secs(1);
const WORKER_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

/// The state that all workers share. Each subscription's own state is in its worker.
pub(super) struct DeliveryContext {
    pub(super) store: Arc<Store>,
    pub(super) directory: Arc<Directory>,
    pub(super) modules: Arc<Modules>,
    pub(super) policy: Policy,
    pub(super) client: Client,
    /// Checks the headers that a plugin sets.
    pub(super) guard: Arc<Guard>,
    pub(super) limits: Limits,
    /// Every attempt needs one.
    pub(super) slots: Arc<Slots>,
    pub(super) in_flight: InFlight,
    pub(super) last_success: LastSuccess,
    /// Subscriptions whose workers have just put deliveries off.
    pub(super) holds: Holds,
    pub(super) breakers: Arc<Breakers>,
    /// The running workers.
    pub(super) workers: Mutex<HashMap<RecipientId, Arc<Mailbox>>>,
    /// When idle subscriptions have their next delivery due.
    pub(super) timetable: Mutex<HashMap<RecipientId, jiff::Timestamp>>,
    /// Notified when the timetable gets an entry.
    pub(super) timetable_changed: tokio::sync::Notify,
    pub(super) tasks: TaskTracker,
    /// Cancelled when no new attempts may start.
    pub(super) stop: CancellationToken,
    /// Cancelled when attempts in flight are dropped, too.
    pub(super) abort: CancellationToken,
}

impl DeliveryContext {
    /// Delivers a wake: to the running worker, or by starting one. A recipient that another node works for has none here.
    pub(super) fn wake(self: &Arc<Self>, id: RecipientId, wake: Wake) {
        let Some(subscription) = self.directory.get(id.subscription_id()) else { return };
        if self.stop.is_cancelled() {
            return;
        }
        if subscription.deleted.is_some() {
            self.breakers.forget(subscription.id);
            self.last_success.forget(subscription.id);
        }
        if !self.store.share().has(HashSlot::of_subscription(id)) {
            return;
        }
        if subscription.deleted.is_some() {
            let context = Arc::clone(self);
            self.tasks.spawn(async move {
                if let Err(panic) = caught(context.cancel_pending(subscription.id)).await {
                    tracing::error!(subscription = %id, panic, "a deleted subscription's backlog stays for now");
                }
            });
            return;
        }
        let mut workers = lock(&self.workers);
        if let Some(mailbox) = workers.get(&id) {
            mailbox.push(wake);
        } else if subscription.is_active() {
            let mailbox = Arc::new(Mailbox::default());
            mailbox.push(wake);
            workers.insert(id, Arc::clone(&mailbox));
            lock(&self.timetable).remove(&id);
            self.tasks.spawn(Arc::clone(self).run_worker(id, mailbox));
        }
    }

    /// Lets all workers look at the share of this node again.
    pub(super) fn look_again(&self) {
        for mailbox in lock(&self.workers).values() {
            mailbox.notify.notify_one();
        }
    }

    /// Runs a subscription's worker. One that panics is restarted with backoff; its mailbox stays.
    async fn run_worker(self: Arc<Self>, id: RecipientId, mailbox: Arc<Mailbox>) {
        let mut wait = WORKER_PAUSE;
        loop {
            let begun = Instant::now();
            let worker = Worker::new(Arc::clone(&self), id, Arc::clone(&mailbox)).run();
            let Err(panic) = caught(worker).await else { return };
            if begun.elapsed() > WORKER_PAUSE_MAX {
                wait = WORKER_PAUSE;
            }
            tracing::error!(subscription = %id, panic, ?wait, "a delivery lane ended by a panic");
            // The next worker clears only the holds that it has noted itself.
            self.holds.clear(id);
            if self.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                break;
            }
            wait = (2 * wait).min(WORKER_PAUSE_MAX);
        }
        lock(&self.workers).remove(&id);
    }

    /// Drops a deleted subscription's backlog, until the service stops: the next start continues.
    async fn cancel_pending(&self, id: SubscriptionId) {
        while !self.stop.is_cancelled() {
            match self.store.cancel_pending(id, CANCEL_AT_ONCE).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(subscription = %id, %error, "a deleted subscription's backlog stays for now");
                    return;
                }
            }
        }
    }

    /// Waits, until `end` at most, while the workers of these recipients lag.
    pub(super) async fn throttle(&self, recipients: &[RecipientId], end: Instant) {
        for id in recipients {
            let mailbox = lock(&self.workers).get(id).map(Arc::clone);
            if let Some(mailbox) = mailbox {
                mailbox.backpressure.throttle(end).await;
            }
        }
    }
}

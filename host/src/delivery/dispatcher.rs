//! Wakes workers and stops them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use super::breaker::BreakerState;
use super::context::DeliveryContext;
use super::in_flight::{Holds, InFlight, LastSuccess, lock};
use super::slots::{SLICE, Slots};
use crate::clock;
use crate::directory::Directory;
use crate::domain::{EventId, Holder, RecipientId, SubscriptionId};
use crate::modules::Modules;
use crate::net::{Client, Guard, KeptMax, Reach, SetUpError};
use crate::policy::Policy;
use crate::store::{self, Gains, Store, Wake};

/// How often the store is searched for work without a wake.
const SWEEP: Duration = Duration::from_secs(30);

/// Why the dispatcher cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP client cannot be made.
    #[error("failed to make the HTTP client")]
    Client(#[source] SetUpError),
    /// The store cannot be read.
    #[error("failed to read what is owed")]
    Store(#[source] store::Error),
}

/// The delivery stage: a handle on its tasks.
pub struct Dispatcher {
    pub(super) context: Arc<DeliveryContext>,
}

impl Dispatcher {
    /// Starts to attempt pending deliveries.
    ///
    /// # Errors
    /// When the store cannot be read or TLS cannot be set up.
    pub async fn start(
        store: Arc<Store>,
        directory: Arc<Directory>,
        modules: Arc<Modules>,
        policy: Policy,
        guard: Arc<Guard>,
        limits: Limits,
    ) -> Result<Self, StartError> {
        let reach = Reach::elsewhere(Arc::clone(&guard));
        let kept = KeptMax { host: limits.subscription_in_flight_max, all: limits.kept_connections_max };
        let client = Client::new(reach, limits.connect_timeout, kept).map_err(StartError::Client)?;
        let share = store.share().changed();
        let searched = *share.borrow();
        let reached = store.reached().await.map_err(StartError::Store)?;
        let (alarm, tasks) = (store.alarm(), TaskTracker::new());
        let context = Arc::new(DeliveryContext {
            directory,
            modules,
            policy,
            client,
            guard,
            slots: Slots::new(limits.in_flight_max, SLICE, tasks.clone()),
            limits,
            in_flight: InFlight::default(),
            last_success: LastSuccess::new(reached),
            holds: Holds::default(),
            breakers: Arc::default(),
            workers: Mutex::default(),
            timetable: Mutex::default(),
            timetable_changed: tokio::sync::Notify::new(),
            tasks,
            stop: alarm.stop_token(),
            abort: CancellationToken::new(),
            store,
        });
        let running = run(Arc::clone(&context), share, searched);
        context.tasks.spawn(alarm.watch("the dispatcher of deliveries", context.stop.clone(), running));
        Ok(Self { context })
    }

    /// Tells whether an attempt of this delivery is in flight.
    pub fn is_in_flight(&self, event: EventId, recipient: RecipientId) -> bool {
        self.context.in_flight.contains(event, recipient)
    }

    /// Tells whether a policy server or plugin decides who may see an event.
    pub fn asks_policy(&self) -> bool {
        match self.context.policy {
            Policy::Everyone => false,
            Policy::Server(_) | Policy::Plugin(_) => true,
        }
    }

    /// Drops the cached policy answers about an event and the users of these recipients. Called before it is
    /// redelivered.
    pub async fn ask_policy_again(&self, event: EventId, recipients: &[RecipientId]) {
        for subscription in
            recipients.iter().filter_map(|id| self.context.directory.get(id.subscription_id()))
        {
            self.context.policy.forget(event, &subscription.user).await;
        }
    }

    /// Returns the state of a subscription's plugin, if it has failed of late.
    pub fn breaker(&self, subscription: SubscriptionId) -> Option<BreakerState> {
        self.context.breakers.state(&*self.context.directory.get(subscription)?)
    }

    /// Returns what holds a subscription's deliveries, other than their target and plugin, and since when.
    pub fn hold(&self, recipient: RecipientId) -> Option<(Holder, Timestamp)> {
        self.context.holds.of(recipient)
    }

    /// Waits, until `end` at most, while the deliveries of these subscriptions lag only because this machine is busy.
    /// Called before events for them are accepted.
    pub async fn throttle(&self, recipients: &[RecipientId], end: Instant) {
        self.context.throttle(recipients, end).await;
    }

    /// Starts no more attempts, waits for those in flight at most `grace`, and then drops them: they are
    /// repeated after the next start.
    pub async fn stop(&self, grace: Duration) {
        self.context.stop.cancel();
        self.context.tasks.close();
        if tokio::time::timeout(grace, self.context.tasks.wait()).await.is_err() {
            tracing::warn!("attempts are still under way: they will be repeated after the next start");
            self.context.abort.cancel();
            self.context.tasks.wait().await;
        }
    }
}

/// Dropping without [`Dispatcher::stop`] aborts the attempts in flight; they are repeated after the next start.
impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.context.stop.cancel();
        self.context.abort.cancel();
    }
}

/// Runs until the service stops. `searched` is how often slots had been gained when the store was searched last.
async fn run(context: Arc<DeliveryContext>, mut share: watch::Receiver<Gains>, mut searched: Gains) {
    let wakes = context.store.wakes();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let next = next_due(&context);
        tokio::select! {
            () = context.stop.cancelled() => return,
            woken = wakes.drain() => wake_all(&context, woken),
            () = context.timetable_changed.notified() => {}
            () = sleep_until(next) => wake_due(&context),
            Ok(()) = share.changed() => {
                context.look_again();
                let gains = *share.borrow();
                if gains != searched {
                    search(&context, gains, &mut searched).await;
                }
            }
            _ = sweep.tick() => {
                let gains = *share.borrow();
                search(&context, gains, &mut searched).await;
            }
        }
    }
}

fn wake_all(context: &Arc<DeliveryContext>, woken: HashMap<RecipientId, Wake>) {
    for (id, wake) in woken {
        context.wake(id, wake);
    }
}

fn next_due(context: &DeliveryContext) -> Option<Timestamp> {
    lock(&context.timetable).values().min().copied()
}

async fn sleep_until(due: Option<Timestamp>) {
    match due {
        // The sleep is short because the wall clock may jump: a long one could miss its time.
        Some(due) => {
            let wait = Duration::try_from(due.duration_since(clock::now())).unwrap_or_default();
            tokio::time::sleep(wait.min(SWEEP)).await;
        }
        None => std::future::pending().await,
    }
}

fn wake_due(context: &Arc<DeliveryContext>) {
    let now = clock::now();
    let due: Vec<_> = lock(&context.timetable).extract_if(|_, due| *due <= now).map(|(id, _)| id).collect();
    for id in due {
        context.wake(id, Wake::read());
    }
}

/// Looks for work without a wake: after a start, after a gain of slots, and in case a wake was lost.
async fn search(context: &Arc<DeliveryContext>, gains: Gains, searched: &mut Gains) {
    let searching = async {
        if gains != *searched {
            // Another node may have reached targets, and settled or added retries.
            context.last_success.merge(context.store.reached().await?);
            lock(&context.timetable).clear();
        }
        context.store.recipients_with_backlog().await
    };
    match searching.await {
        Ok(recipients) => {
            *searched = gains;
            let waiting_for_retry = lock(&context.timetable).clone();
            for id in recipients.into_iter().filter(|id| !waiting_for_retry.contains_key(id)) {
                context.wake(id, Wake::read());
            }
        }
        Err(error) => tracing::warn!(%error, "the store cannot be searched for work now"),
    }
}

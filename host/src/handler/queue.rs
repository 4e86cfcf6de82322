//! One handler's runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};

use super::folder::Folder;
use super::meter::Meter;
use super::program::Shortage;
use super::ready::Handler;
use super::run::{self, Attempt, Ended, Failure};
use super::runs::{Engine, recipients};
use crate::clock;
use crate::domain::{self, DeliveryId, EventId, Outcome, SubscriptionId};
use crate::stage::caught;
use crate::store::{self, Ask, Finished, Owed, Progress};

/// How often the store is read though nobody rang.
const SWEEP: Duration = Duration::from_secs(30);
/// How long to wait after the store could not be read or written.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait for what this machine lacks, such as a folder to run in on a full disk: at first, and at the most.
const HOST_PAUSE: Duration = Duration::from_secs(5);
const HOST_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

/// One handler's runs.
pub(super) struct Queue {
    engine: Arc<Engine>,
    handler: Arc<Handler>,
    bell: Arc<Notify>,
    runs: JoinSet<()>,
    /// Before when no run begins.
    rest: Option<Instant>,
}

impl Queue {
    pub(super) fn new(engine: Arc<Engine>, handler: Arc<Handler>, bell: Arc<Notify>) -> Self {
        Self { engine, handler, bell, runs: JoinSet::new(), rest: None }
    }

    /// Runs until the service stops, and then until what is under way has ended or is dropped.
    pub(super) async fn run(mut self) {
        let engine = Arc::clone(&self.engine);
        while !engine.stop.is_cancelled() {
            let wait = self.start_owed().await;
            tokio::select! {
                () = engine.stop.cancelled() => {}
                () = self.bell.notified() => {}
                Some(ended) = self.runs.join_next() => self.ended(ended),
                () = tokio::time::sleep(wait) => {}
            }
        }
        let ending = async {
            while let Some(ended) = self.runs.join_next().await {
                self.ended(ended);
            }
        };
        if engine.abort.run_until_cancelled(ending).await.is_none() {
            self.runs.shutdown().await;
        }
    }

    /// Takes note of the end of a run's task. A panic of its attempt is an outcome; one of the code around it leaves the run
    /// owed, and the queue rests, so that the run does not begin again at once.
    fn ended(&mut self, ended: Result<(), JoinError>) {
        let Err(error) = ended else { return };
        let handler = &self.handler.definition.name;
        tracing::error!(%handler, %error, "the task of a run ended by a panic");
        self.rest = Some(Instant::now() + HOST_PAUSE);
    }

    /// Starts as many runs as may be; returns how long until there may be more.
    async fn start_owed(&mut self) -> Duration {
        let mut wait = SWEEP;
        if let Some(rest) = self.rest.map(|until| until.saturating_duration_since(Instant::now()))
            && !rest.is_zero()
        {
            return rest;
        }
        for recipient in recipients(&self.handler) {
            // Those under way are still owed, and come first.
            let (busy, max) = (self.runs.len(), self.handler.definition.max_parallel);
            if busy >= max {
                return SWEEP;
            }
            let now = clock::now();
            // What ends while the store is read may still stand in its answer.
            let before: HashSet<_> = self.engine.under_way.lock().keys().copied().collect();
            let ask = Ask { subscription: recipient, after: EventId::NIL, fresh: max + 1, now, due: max + 1 };
            let owed = match self.engine.store.owed(ask).await {
                Ok(owed) => owed,
                Err(error) => {
                    let handler = &self.handler.definition.name;
                    tracing::warn!(%handler, %error, "the runs that are owed cannot be read now");
                    return STORE_PAUSE;
                }
            };
            if let Some(due) = owed.next_due {
                wait = wait.min(until(due, now));
            }
            for owed in owed.due.into_iter().chain(owed.fresh) {
                if self.runs.len() >= max {
                    break;
                }
                if !before.contains(&(owed.event.id, recipient)) {
                    self.start(recipient, owed);
                }
            }
        }
        wait
    }

    fn start(&mut self, recipient: SubscriptionId, owed: Owed) {
        let key = (owed.event.id, recipient);
        let meter = Arc::new(Meter::new(clock::now()));
        let mut under_way = self.engine.under_way.lock();
        if under_way.contains_key(&key) {
            return;
        }
        under_way.insert(key, Arc::clone(&meter));
        drop(under_way);
        let guard = Guard { engine: Arc::clone(&self.engine), key };
        let handler = Arc::clone(&self.handler);
        self.runs.spawn(async move {
            one(&guard.engine, &handler, recipient, owed, &meter).await;
            drop(guard);
        });
    }
}

/// Takes a run off the list when it ends or is dropped.
struct Guard {
    engine: Arc<Engine>,
    key: (EventId, SubscriptionId),
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.engine.under_way.lock().remove(&self.key);
    }
}

/// Makes one attempt and records it.
async fn one(engine: &Engine, handler: &Handler, recipient: SubscriptionId, owed: Owed, meter: &Arc<Meter>) {
    let (at, begun) = (clock::now(), Instant::now());
    let number = owed.progress.failed + 1;
    tracing::info!(handler = %handler.definition.name, event = %owed.event.id, attempt = number, "a run begins");
    let folder = Folder::of(&engine.runs, DeliveryId::of(owed.event.id, recipient));
    let attempt = Attempt { handler, logged: &owed.event, recipient, number, folder: &folder, meter };
    let Some(ended) = make(engine, &attempt).await else { return };
    let keeps = matches!(ended.failure, Some(Failure::Upload { .. } | Failure::UploadForGood(_)));
    let outcome = judge(handler, number, ended.failure);
    let name = &handler.definition.name;
    match &outcome {
        Outcome::Dead { reason } | Outcome::Retry { reason, .. } => {
            tracing::warn!(handler = %name, event = %owed.event.id, reason, "a run failed");
        }
        Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } => {
            tracing::info!(handler = %name, event = %owed.event.id, "a run is done");
        }
    }
    let progress = Progress {
        failed: number,
        first_attempt: owed.progress.first_attempt.or(Some(at)),
        ..Progress::default()
    };
    let (policy, target) = (None, None);
    let attempt = domain::Attempt { number, at, took: begun.elapsed(), policy, target, outcome };
    let finished = Finished {
        subscription: recipient,
        event: owed.event.id,
        place: owed.place,
        plugin: None,
        run: Some(Box::new(ended.run)),
        attempt,
        progress,
        prepared: false,
    };
    let is_recorded = record(engine, finished).await;
    // Only now: who finds outputs after a crash, or an end without a record, needs no second run.
    if is_recorded && !keeps {
        run::blocking(move || {
            if let Err(error) = folder.remove() {
                tracing::warn!(%error, "the folder of a run stays for now");
            }
        })
        .await;
    }
}

/// Makes an attempt, as soon as this machine has what it needs; nothing where the service stops before.
async fn make(engine: &Engine, attempt: &Attempt<'_>) -> Option<Ended> {
    let (handler, event) = (&attempt.handler.definition.name, attempt.logged.id);
    let mut pause = HOST_PAUSE;
    loop {
        let reason = match caught(Box::pin(attempt.make())).await {
            Ok(Ok(ended)) => return Some(ended),
            Ok(Err(Shortage(reason))) => reason,
            // What is left owed would panic again, and at once.
            Err(panic) => {
                tracing::error!(%handler, %event, panic, "a run panicked");
                return Some(attempt.panicked().await);
            }
        };
        tracing::error!(%handler, %event, reason, "a run cannot begin yet");
        engine.stop.run_until_cancelled(tokio::time::sleep(pause)).await?;
        pause = (2 * pause).min(HOST_PAUSE_MAX);
    }
}

fn judge(handler: &Handler, number: u32, failure: Option<Failure>) -> Outcome {
    let definition = &handler.definition;
    let (reason, schedule, failed) = match failure {
        None => return Outcome::Delivered,
        Some(Failure::UploadForGood(reason)) => return Outcome::Dead { reason },
        Some(Failure::Run(reason)) => (reason, &definition.retry_schedule, number),
        Some(Failure::Upload { reason, before }) => {
            (reason, &definition.upload_retry_schedule, number.saturating_sub(before).max(1))
        }
    };
    Outcome::after_failure(reason, schedule, failed, Duration::ZERO, clock::now(), rand::random())
}

/// Records how an attempt ended, for good: a run that is forgotten would be made again. While the disk is full it waits.
/// Tells whether it could before the service stops.
async fn record(engine: &Engine, finished: Finished) -> bool {
    loop {
        let Err(error) = engine.store.finish(finished.clone()).await else { return true };
        tracing::error!(event = %finished.event, %error, "the end of a run is not recorded yet");
        // What is damaged stays so: the next reading of what is owed makes a dead letter of it.
        if matches!(error, store::Error::Damaged { .. }) {
            return false;
        }
        if engine.stop.run_until_cancelled(tokio::time::sleep(STORE_PAUSE)).await.is_none() {
            return false;
        }
    }
}

/// Returns how long until a time, within the sweep: the wall clock may jump.
fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default().min(SWEEP)
}

#[cfg(test)]
mod tests;

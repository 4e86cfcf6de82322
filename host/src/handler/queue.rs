//! One handler's runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};

use super::folder::Folder;
use super::meter::Meter;
use super::program::Shortage;
use super::ready::Handler;
use super::run::{self, Attempt, Failure, RunResult};
use super::runs::{RunContext, recipients};
use crate::clock;
use crate::domain::{self, DeliveryId, EventId, Holder, Outcome, RecipientId};
use crate::stage::caught;
use crate::store::{
    self, Gains, HashSlot, PendingDelivery, Progress, ReadyPage, ReadyQuery, Release, Settlement, Store,
};

/// How often the store is read without a wake, in case one was lost.
const SWEEP: Duration = Duration::from_secs(30);
/// How long to wait after the store could not be read or written.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait after a panic.
const PANIC_PAUSE: Duration = Duration::from_secs(5);
/// How long a run is put off when this machine lacks something, such as a folder to run in on a full disk: at first,
/// and at most.
const HOLD: Duration = Duration::from_secs(5);
const HOLD_MAX: Duration = Duration::from_secs(5 * 60);
/// How many runs in a row may be put off before the queue rests, and how long: at first, and at most.
const SHORTAGES_MAX: u32 = 3;
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);
/// The most deliveries of a page, which grows while it has only what does not begin here.
const PAGE_MAX: usize = 1_024;

/// One handler's runs.
///
/// A run that this machine could not make for lack of a resource is put off in the store without being counted, so that
/// an event whose files do not fit on the disk does not block the others. After several such runs in a row the queue
/// rests, each time longer, and then goes on.
///
/// A run begins where its event's hash slot is ([`crate::store::Share`]), so that nodes share the runs of one handler.
pub(super) struct Queue {
    context: Arc<RunContext>,
    handler: Arc<Handler>,
    notify: Arc<Notify>,
    runs: JoinSet<End>,
    /// How many runs in a row were put off.
    shortages: u32,
    /// No run starts before this time.
    rest: Option<Instant>,
    /// Runs whose results could not be recorded. Their rows are still pending; they stay marked as taken so that this
    /// queue does not run them again in a tight loop.
    unrecorded: Vec<Guard>,
    /// By recipient, up to where all first attempts are other nodes', and how often this node had gained slots by then.
    foreign_to: HashMap<RecipientId, EventId>,
    gains: Gains,
}

/// The result of a run's task.
enum End {
    /// Its outcome is recorded.
    Settled,
    /// It is put off.
    Released,
    /// Nothing is recorded.
    Unrecorded(Guard),
}

impl Queue {
    pub(super) fn new(context: Arc<RunContext>, handler: Arc<Handler>, notify: Arc<Notify>) -> Self {
        Self {
            context,
            handler,
            notify,
            runs: JoinSet::new(),
            shortages: 0,
            rest: None,
            unrecorded: Vec::new(),
            foreign_to: HashMap::new(),
            gains: Gains::default(),
        }
    }

    /// Runs until the service stops, and then until what is in flight has ended or is dropped.
    pub(super) async fn run(mut self) {
        let context = Arc::clone(&self.context);
        let mut share = context.store.share().changed();
        while !context.stop.is_cancelled() {
            let gains = *share.borrow_and_update();
            if gains != std::mem::replace(&mut self.gains, gains) {
                self.foreign_to.clear();
            }
            let wait = self.start_owed().await;
            tokio::select! {
                () = context.stop.cancelled() => {}
                () = self.notify.notified() => {}
                Ok(()) = share.changed() => {}
                Some(ended) = self.runs.join_next() => self.ended(ended),
                () = tokio::time::sleep(wait) => {}
            }
        }
        let ending = async {
            while let Some(ended) = self.runs.join_next().await {
                self.ended(ended);
            }
        };
        if context.abort.run_until_cancelled(ending).await.is_none() {
            self.runs.shutdown().await;
        }
    }

    /// Handles the end of a run's task. A panic of the attempt is an outcome. After a panic of the code around it the
    /// run is still pending, and the queue rests so that the run does not start again at once.
    fn ended(&mut self, ended: Result<End, JoinError>) {
        match ended {
            Ok(End::Settled) => self.shortages = 0,
            Ok(End::Released) => {
                self.shortages = self.shortages.saturating_add(1);
                if let Some(beyond) = self.shortages.checked_sub(SHORTAGES_MAX) {
                    let rest = (REST * 2u32.saturating_pow(beyond.min(16))).min(REST_MAX);
                    self.rest = Some(Instant::now() + rest);
                }
            }
            Ok(End::Unrecorded(guard)) => self.unrecorded.push(guard),
            Err(error) => {
                let handler = &self.handler.definition.name;
                tracing::error!(%handler, %error, "the task of a run ended by a panic");
                self.rest = Some(Instant::now() + PANIC_PAUSE);
            }
        }
    }

    /// Starts as many runs as allowed; returns how long to wait before the next look.
    async fn start_owed(&mut self) -> Duration {
        let mut wait = SWEEP;
        if let Some(rest) = self.rest.map(|until| until.saturating_duration_since(Instant::now()))
            && !rest.is_zero()
        {
            return rest;
        }
        let context = Arc::clone(&self.context);
        for recipient in recipients(&self.handler) {
            let max = self.handler.definition.max_parallel;
            // An opened fence is told of.
            if self.runs.len() >= max || !context.store.share().may_begin() {
                return SWEEP;
            }
            let now = clock::now();
            let (pending, next_due) = match self.read(recipient, now).await {
                Ok(pending) => pending,
                Err(error) => {
                    let handler = &self.handler.definition.name;
                    tracing::warn!(%handler, %error, "the runs that are owed cannot be read now");
                    return STORE_PAUSE;
                }
            };
            if let Some(due) = next_due {
                wait = wait.min(until(due, now));
            }
            for pending in pending {
                if self.runs.len() >= max || !context.store.share().may_begin() {
                    break;
                }
                self.start(recipient, pending);
            }
        }
        wait
    }

    /// Reads this node's ready runs that are not in flight, at least as many as may begin if there are that many, and
    /// when the next one is due.
    async fn read(
        &mut self,
        recipient: RecipientId,
        now: Timestamp,
    ) -> Result<(Vec<PendingDelivery>, Option<Timestamp>), store::Error> {
        let (context, max) = (Arc::clone(&self.context), self.handler.definition.max_parallel);
        // A run that ends during the read may still be in the answer.
        let before: HashSet<_> = context.in_flight.lock().keys().copied().collect();
        let is_ours =
            |pending: &PendingDelivery| context.store.share().has(HashSlot::of_run(pending.event.id));
        let is_new =
            |pending: &PendingDelivery| is_ours(pending) && !before.contains(&(pending.event.id, recipient));
        // Runs in flight are still pending in the store, and come first in its answer.
        let most = max + 1 + self.unrecorded.len();
        let after = self.foreign_to.get(&recipient).copied().unwrap_or(EventId::NIL);
        let mut query = ReadyQuery { recipient, after, first_attempts: most, now, due: most };
        let (mut first, mut is_foreign) = (Vec::new(), true);
        loop {
            let ReadyPage { first_attempts, read_to, due, next_due } = context.store.ready(query).await?;
            let is_last = first_attempts.len() < query.first_attempts.max(1);
            let has_all_due = due.len() < query.due || query.due == PAGE_MAX;
            is_foreign &= !first_attempts.iter().any(is_ours);
            if is_foreign && !first_attempts.is_empty() {
                self.foreign_to.insert(recipient, read_to);
            }
            let mut ready: Vec<_> = due.into_iter().filter(is_new).collect();
            first.extend(first_attempts.into_iter().filter(is_new));
            if self.runs.len() + ready.len() + first.len() >= max || (is_last && has_all_due) {
                ready.extend(first);
                // What is due and did not fit into the page waits for a place.
                return Ok((ready, next_due.filter(|due| *due > now)));
            }
            let next = |page: usize| (2 * page).min(PAGE_MAX);
            query.after = read_to;
            query.first_attempts = if is_last { 0 } else { next(query.first_attempts) };
            query.due = if has_all_due { query.due } else { next(query.due) };
        }
    }

    fn start(&mut self, recipient: RecipientId, pending: PendingDelivery) {
        let key = (pending.event.id, recipient);
        let meter = Arc::new(Meter::new(clock::now()));
        let mut in_flight = self.context.in_flight.lock();
        if in_flight.contains_key(&key) {
            return;
        }
        in_flight.insert(key, Arc::clone(&meter));
        drop(in_flight);
        let guard = Guard { context: Arc::clone(&self.context), key };
        let handler = Arc::clone(&self.handler);
        self.runs.spawn(async move { one(guard, &handler, recipient, pending, &meter).await });
    }
}

/// Removes a run from the list when it ends or is dropped.
struct Guard {
    context: Arc<RunContext>,
    key: (EventId, RecipientId),
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.context.in_flight.lock().remove(&self.key);
    }
}

/// Makes one attempt and records it.
async fn one(
    guard: Guard,
    handler: &Handler,
    recipient: RecipientId,
    pending: PendingDelivery,
    meter: &Arc<Meter>,
) -> End {
    let context = &guard.context;
    let (at, begun) = (clock::now(), Instant::now());
    let number = pending.progress.failed + 1;
    let (name, event) = (&handler.definition.name, pending.event.id);
    tracing::info!(handler = %name, %event, attempt = number, "a run begins");
    let folder = Folder::of(&context.runs, DeliveryId::of(event, recipient));
    let attempt = Attempt { handler, logged: &pending.event, recipient, number, folder: &folder, meter };
    let ended = match make(&attempt).await {
        Ok(ended) => ended,
        Err(Shortage(reason)) => {
            tracing::error!(handler = %name, %event, reason, "a run cannot begin yet");
            let ending = Ending::Released(Box::new(release(recipient, &pending, reason)));
            return if record(context, event, &ending).await {
                End::Released
            } else {
                End::Unrecorded(guard)
            };
        }
    };
    let keeps = matches!(ended.failure, Some(Failure::Upload { .. } | Failure::UploadForGood(_)));
    let outcome = judge(handler, number, ended.failure);
    match &outcome {
        Outcome::Dead { reason } | Outcome::Retry { reason, .. } => {
            tracing::warn!(handler = %name, %event, reason, "a run failed");
        }
        Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } => {
            tracing::info!(handler = %name, %event, "a run is done");
        }
    }
    let progress = Progress {
        failed: number,
        first_attempt: pending.progress.first_attempt.or(Some(at)),
        ..Progress::default()
    };
    let (policy, target) = (None, None);
    let attempt = domain::Attempt { number, at, took: begun.elapsed(), policy, target, outcome };
    let settlement = Settlement {
        recipient,
        event,
        position: pending.position,
        plugin: None,
        run: Some(Box::new(ended.run)),
        attempt,
        progress,
        rendered: false,
    };
    if !record(context, event, &Ending::Settled(Box::new(settlement))).await {
        return End::Unrecorded(guard);
    }
    // The folder is removed only after the result is recorded: if the service crashes before, the next attempt finds
    // the outputs and need not run the program again.
    if !keeps {
        run::blocking(move || {
            if let Err(error) = folder.remove() {
                tracing::warn!(%error, "the folder of a run stays for now");
            }
        })
        .await;
    }
    End::Settled
}

/// Makes an attempt. A panic in it is an outcome: if the run stayed pending, it would panic again at once.
///
/// # Errors
/// When this machine lacks something that the attempt needs.
async fn make(attempt: &Attempt<'_>) -> Result<RunResult, Shortage> {
    match caught(Box::pin(attempt.make())).await {
        Ok(made) => made,
        Err(panic) => {
            let (handler, event) = (&attempt.handler.definition.name, attempt.logged.id);
            tracing::error!(%handler, %event, panic, "a run panicked");
            Ok(attempt.panicked().await)
        }
    }
}

/// Puts a run off; the wait grows with the time that it has been held.
fn release(recipient: RecipientId, pending: &PendingDelivery, reason: String) -> Release {
    let now = clock::now();
    let since = pending.progress.held.unwrap_or(now);
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let wait = waited.clamp(HOLD, HOLD_MAX).mul_f64(rand::random_range(0.9..1.1));
    let due = now.checked_add(wait).unwrap_or(Timestamp::MAX);
    // The precision of the store's keys.
    let in_micros = |at: Timestamp| Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
    Release {
        recipient,
        event: pending.event.id,
        position: pending.position,
        progress: pending.progress,
        by: Holder::Host,
        reason,
        since: in_micros(since),
        due: in_micros(due),
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

/// How an attempt ended, in the store's form.
enum Ending {
    Settled(Box<Settlement>),
    Released(Box<Release>),
}

impl Ending {
    async fn record(&self, store: &Store) -> Result<(), store::Error> {
        match self {
            Self::Settled(settlement) => store.settle(settlement.as_ref().clone()).await,
            Self::Released(release) => store.release(release.as_ref().clone()).await,
        }
    }
}

/// Records how an attempt ended, and retries while the disk is full: an unrecorded run would be repeated. Returns
/// `false` when the service stops first.
async fn record(context: &RunContext, event: EventId, ending: &Ending) -> bool {
    loop {
        let Err(error) = ending.record(&context.store).await else { return true };
        // A damaged record stays damaged: retrying does not help.
        if matches!(error, store::Error::Damaged { .. }) {
            tracing::error!(%event, %error, "the end of a run cannot be recorded: it does not begin again before the next start");
            return false;
        }
        tracing::error!(%event, %error, "the end of a run is not recorded yet");
        if context.stop.run_until_cancelled(tokio::time::sleep(STORE_PAUSE)).await.is_none() {
            return false;
        }
    }
}

/// Returns how long until a time, at most one sweep interval: the wall clock may jump.
fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default().min(SWEEP)
}

#[cfg(test)]
mod tests;

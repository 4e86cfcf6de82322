//! Sends all dead letters of a subscription again, or gives up its deliveries in a state, some at a time ([`crate::walks`]).
//!
//! The store walks the deliveries and changes them, with the progress, in one transaction, so no delivery is handled twice.
//! What is sent again waits while its subscription is disabled, and while other deliveries wait for the target. `http`
//! starts and cancels jobs.

use std::sync::Arc;

use jiff::Timestamp;

use crate::directory::Directory;
use crate::walks::{Scheduled, Turn, WAITING_MAX, Wait, Walker, Walks};
use waypost_domain::job::{Job, Kind, Work};
use waypost_domain::recovery::State;
use waypost_domain::{Action, Actor, AuditEntry, OnDead, SubscriptionId};
use waypost_runtime::clock;
use waypost_store::{self as store, Backlog, JobStep, Store};

/// The least and the most deliveries of a step, which otherwise has those of a second.
const ROWS_MIN: u32 = 16;
const ROWS_MAX: u32 = 256;

/// The jobs: a handle on their task.
pub struct Jobs(Walks<Deliveries>);

/// What jobs do.
struct Deliveries {
    store: Arc<Store>,
    directory: Arc<Directory>,
    /// How many deliveries a step has at most.
    rows: u32,
}

impl Scheduled for Job {
    type Key = (SubscriptionId, Kind);

    fn key(&self) -> Self::Key {
        (self.subscription, self.work.kind())
    }

    fn is_running(&self) -> bool {
        self.is_running()
    }
}

impl Jobs {
    /// Continues the jobs that were running, handling `rate` deliveries a second.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        store: Arc<Store>,
        directory: Arc<Directory>,
        rate: u32,
    ) -> Result<Self, store::Error> {
        let deliveries = Deliveries { store, directory, rows: rate.clamp(ROWS_MIN, ROWS_MAX) };
        Walks::start(deliveries, rate).await.map(Self)
    }

    /// Begins a job; returns `false` when another one of the kind runs for the subscription. Dropping the future does not
    /// undo it.
    ///
    /// # Errors
    /// When the store cannot write.
    pub async fn begin(&self, job: Job, by: &Actor) -> Result<bool, store::Error> {
        let store = Arc::clone(self.0.walker().store());
        let action = match job.work {
            Work::Redeliver => Action::RedeliverBegin,
            Work::Discard { .. } => Action::DiscardBegin,
        };
        let reason = match &job.work {
            Work::Redeliver => None,
            Work::Discard { reason } => Some(reason.clone()),
        };
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let note = AuditEntry::new(action, job.subscription, by, job.asked)
            .with("state", Some(job.of.name().to_owned()))
            .with("since", time(job.since))
            .with("until", time(job.until))
            .with("reason", reason);
        let beginning = async move {
            let is_new = store.begin_job(job.clone(), Some(note)).await?;
            Ok((is_new, is_new.then_some(job)))
        };
        self.0.begin(beginning).await.unwrap_or(Err(store::Error::Closed))
    }

    /// Returns a subscription's running or last job of a kind, and why it does not advance, if so.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(
        &self,
        id: SubscriptionId,
        kind: Kind,
    ) -> Result<Option<(Job, Option<Wait>)>, store::Error> {
        let found = self.0.walker().store.job(id, kind).await?;
        Ok(found.map(|job| {
            let wait = self.0.wait(&job);
            (job, wait)
        }))
    }

    /// Ends a subscription's job of a kind if it runs, and returns the last one in its new state. What it has done stays.
    ///
    /// # Errors
    /// When the store cannot be read or write.
    pub async fn cancel(
        &self,
        id: SubscriptionId,
        kind: Kind,
        at: Timestamp,
        by: &Actor,
    ) -> Result<Option<Job>, store::Error> {
        let store = &self.0.walker().store;
        let Some(job) = store.job(id, kind).await? else { return Ok(None) };
        if job.is_running() {
            let end = JobStep::End(State::Cancelled { at });
            let action = match kind {
                Kind::Redeliver => Action::RedeliverCancel,
                Kind::Discard => Action::DiscardCancel,
            };
            let note = Some(AuditEntry::new(action, id, by, at));
            if let Some(ended) = store.advance_job((id, kind), job.asked, end, at, note).await? {
                self.0.tell(ended.clone());
                return Ok(Some(ended));
            }
        }
        store.job(id, kind).await
    }

    /// Stops. The next start continues.
    pub async fn stop(&self) {
        self.0.stop().await;
    }
}

impl Walker for Deliveries {
    type Walk = Job;
    const STAGE: &str = "the jobs on deliveries";
    const NAME: &str = "job";

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn subscription(job: &Job) -> SubscriptionId {
        job.subscription
    }

    async fn running(&self) -> Result<Vec<Job>, store::Error> {
        self.store.running_jobs().await
    }

    async fn turn(&self, job: &Job) -> Result<Turn<Job>, store::Error> {
        let Some(subscription) = self.directory.get(job.subscription) else {
            return self.end(job, State::Cancelled { at: clock::now() }).await;
        };
        if job.work == Work::Redeliver {
            if !subscription.is_active() && subscription.deleted.is_none() {
                return Ok(Turn::disabled(job));
            }
            // Those behind a dead letter wait for this job.
            let stops = subscription.order.as_ref().is_some_and(|order| order.on_dead == OnDead::Stop);
            let backlog = match stops {
                true => Backlog::default(),
                false => self.store.backlog(job.subscription.into(), clock::now(), WAITING_MAX).await?,
            };
            if let Some(wait) = Turn::behind(job, backlog) {
                return Ok(wait);
            }
        }
        self.step(job, JobStep::Advance { rows: self.rows }).await
    }

    async fn end(&self, job: &Job, state: State) -> Result<Turn<Job>, store::Error> {
        self.step(job, JobStep::End(state)).await
    }
}

impl Deliveries {
    async fn step(&self, job: &Job, step: JobStep) -> Result<Turn<Job>, store::Error> {
        let Some(next) = self.store.advance_job(job.key(), job.asked, step, clock::now(), None).await? else {
            return Ok(Turn::Over);
        };
        if next.is_running() {
            let looked_at = next.looked_at - job.looked_at.min(next.looked_at);
            return Ok(Turn::More(next, looked_at));
        }
        let (kind, state, changed) = (next.work.kind().name(), next.state.name(), next.changed);
        tracing::info!(subscription = %next.subscription, kind, state, changed, "a job has ended");
        Ok(Turn::Over)
    }
}

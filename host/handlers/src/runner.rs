//! Makes the runs of handlers: the second [deliverer](Deliverer) of the worker engine.
//!
//! The workers of a handler's two recipients share `max_parallel` slots. Their window is open from the beginning,
//! because one run says little about the next and shares nothing with other handlers. They do not end when they are
//! idle, so that they read other nodes' runs only once. The senders of events take [turns](Turns).

mod turns;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::folder::Folder;
use super::meter::Meter;
use super::program::Shortage;
use super::ready::Handler;
use super::run::{self, Attempt, Failure, RunResult};
use turns::{Turn, Turns};
use waypost_domain::{DeliveryId, Holder, Outcome, RecipientId};
use waypost_engine::worker::{
    Assignment, AttemptRecord, Choice, Deliverer, Division, Effect, Next, Rules, Slots, Standing, Window,
};
use waypost_runtime::clock;
use waypost_runtime::dice;
use waypost_store::{PendingDelivery, Store, WakeSet};

/// How many waiting runs are read ahead: among these, senders take turns. Each may keep a batch of the log in memory.
const AHEAD: usize = 128;

/// The deliverer of handlers.
pub(super) struct Runner {
    /// The folder of all runs.
    runs: PathBuf,
    subjects: HashMap<RecipientId, Arc<Subject>>,
    /// Each run is one of these tasks.
    tasks: TaskTracker,
}

/// A handler, with the slots that its two recipients share.
pub(super) struct Subject {
    handler: Arc<Handler>,
    slots: Arc<Slots>,
}

/// Returns the two recipients of a handler.
pub(super) fn recipients(handler: &Handler) -> [RecipientId; 2] {
    [handler.definition.name.dispatched(), handler.definition.name.routed()]
}

impl Runner {
    pub(super) fn new(runs: PathBuf, handlers: &[Arc<Handler>], tasks: &TaskTracker) -> Arc<Self> {
        let mut subjects = HashMap::new();
        for handler in handlers {
            let slots = Slots::unreserved(handler.definition.max_parallel, tasks.clone());
            let subject = Arc::new(Subject { handler: Arc::clone(handler), slots });
            subjects.extend(recipients(handler).map(|recipient| (recipient, Arc::clone(&subject))));
        }
        Arc::new(Self { runs, subjects, tasks: tasks.clone() })
    }

    fn attempt(&self, assignment: &Assignment<'_, Self>) -> Attempt {
        Attempt {
            handler: Arc::clone(&assignment.subject.handler),
            logged: Arc::clone(&assignment.pending.event),
            recipient: assignment.recipient,
            number: assignment.pending.progress.failed + 1,
            folder: Folder::of(&self.runs, DeliveryId::of(assignment.pending.event.id, assignment.recipient)),
            meter: Arc::clone(assignment.mark),
        }
    }
}

impl Deliverer for Runner {
    const RULES: Rules = Rules {
        division: Division::ByEvent,
        linger: Duration::MAX,
        hold_min: Duration::from_secs(5),
        insists: true,
        panic_pause: Duration::from_secs(1),
    };
    type Subject = Subject;
    type Cache = Turns;
    type Permit = Turn;
    type Mark = Arc<Meter>;

    fn wakes(&self, store: &Store) -> Arc<WakeSet> {
        store.wakes().divert(self.subjects.keys().copied().collect::<HashSet<_>>())
    }

    fn standing(&self, recipient: RecipientId) -> Standing<Subject> {
        match self.subjects.get(&recipient) {
            Some(subject) => Standing::Active(Arc::clone(subject)),
            None => Standing::Inactive,
        }
    }

    fn window(&self, subject: &Subject) -> Window {
        let max = subject.handler.definition.max_parallel.max(1);
        Window { min: max, max }
    }

    fn slots<'s>(&'s self, subject: &'s Subject) -> &'s Arc<Slots> {
        &subject.slots
    }

    fn ahead(&self) -> usize {
        AHEAD
    }

    fn choose(&self, _: &Subject, waiting: &VecDeque<PendingDelivery>, turns: &Arc<Turns>) -> Choice<Turn> {
        Choice { next: turns.next(waiting), held_until: None }
    }

    fn mark(&self) -> Arc<Meter> {
        Arc::new(Meter::new(clock::now()))
    }

    async fn deliver(
        self: &Arc<Self>,
        assignment: &Assignment<'_, Self>,
        mut turn: Turn,
        record: &mut AttemptRecord,
    ) -> Next {
        turn.has_begun = true;
        let attempt = self.attempt(assignment);
        let (handler, event) = (&assignment.subject.handler.definition.name, assignment.pending.event.id);
        tracing::info!(%handler, %event, attempt = attempt.number, "a run begins");
        // A task of its own: a closure may keep its thread busy.
        let running = self.tasks.spawn(async move { attempt.make().await });
        match AbortOnDropHandle::new(running).await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(Ok(ended)) => conclude(assignment, self.attempt(assignment).folder, ended, record),
            Ok(Err(Shortage(reason))) => {
                tracing::error!(%handler, %event, reason, "a run cannot begin yet");
                Next::Held(Holder::Host, reason)
            }
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and drops this future, too.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    async fn panicked(
        self: &Arc<Self>,
        assignment: &Assignment<'_, Self>,
        record: &mut AttemptRecord,
    ) -> Next {
        let attempt = self.attempt(assignment);
        let ended = attempt.panicked().await;
        conclude(assignment, attempt.folder, ended, record)
    }
}

/// Decides what follows from the end of a run. Its folder is removed only after the end is recorded: if the service
/// crashes before, the next attempt finds the outputs and need not run the program again.
fn conclude(
    assignment: &Assignment<'_, Runner>,
    folder: Folder,
    ended: RunResult,
    record: &mut AttemptRecord,
) -> Next {
    let keeps = matches!(ended.failure, Some(Failure::Upload { .. } | Failure::UploadForGood(_)));
    let outcome = judge(&assignment.subject.handler, assignment.pending.progress.failed + 1, ended.failure);
    let (handler, event) = (&assignment.subject.handler.definition.name, assignment.pending.event.id);
    match &outcome {
        Outcome::Dead { reason } | Outcome::Retry { reason, .. } => {
            tracing::warn!(%handler, %event, reason, "a run failed");
        }
        Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } => {
            tracing::info!(%handler, %event, "a run is done");
        }
    }
    record.run = Some(Box::new(ended.run));
    if keeps {
        return Next::Over(outcome, Effect::Nothing);
    }
    let removing = run::blocking(move || {
        if let Err(error) = folder.remove() {
            tracing::warn!(%error, "the folder of a run stays for now");
        }
    });
    Next::Over(outcome, Effect::Then(Box::pin(removing)))
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
    Outcome::after_failure(reason, schedule, failed, Duration::ZERO, clock::now(), dice::fraction())
}

#[cfg(test)]
mod tests;

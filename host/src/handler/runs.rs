//! The runs of all handlers: pending ones and those in flight.
//!
//! Each handler has a **queue**: a task that reads its pending runs whenever it is woken, and keeps up to
//! `max_parallel` runs in flight. A run in flight is still pending in the store; only a list in memory marks it, so
//! that it starts again after a crash.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::definition::Definition;
use super::folder::Folder;
use super::meter::{Meter, Progress};
use super::queue::Queue;
use super::ready::{Deps, Error, Handler};
use super::run::ARGUMENTS;
use super::sweep;
use crate::directory::Directory;
use crate::domain::{Event, EventId, HandlerName, RecipientId};
use crate::intake::{self, Intake};
use crate::store::Store;

/// The prefix of the `source` of an event that was made for a run; the handler's name follows.
const DISPATCH: &str = "/dispatch/";

/// Runs in flight, with their progress.
#[derive(Default)]
pub(super) struct InFlight(Mutex<HashMap<(EventId, RecipientId), Arc<Meter>>>);

/// What all queues share.
pub(super) struct RunContext {
    pub(super) store: Arc<Store>,
    /// The folder of all runs.
    pub(super) runs: PathBuf,
    pub(super) in_flight: InFlight,
    /// No new runs.
    pub(super) stop: CancellationToken,
    /// Runs in flight are dropped, too.
    pub(super) abort: CancellationToken,
}

/// The handler stage: a handle on its tasks.
pub struct Runs {
    context: Arc<RunContext>,
    /// The handlers, in the order in which an event asks them.
    handlers: Vec<Arc<Handler>>,
    intake: Intake,
    tasks: TaskTracker,
}

/// Why `/dispatch` starts nothing.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// No handler of that name may be started by `/dispatch`.
    #[error("there is no handler `{0}` that may be dispatched (`dispatch = true` in its `[[handler]]`)")]
    Unknown(String),
    /// The store cannot write.
    #[error("failed to accept the run")]
    Accept(#[source] intake::Error),
}

impl Runs {
    /// Loads the handlers and starts their pending runs. `runs` is the folder of all runs, made when it is needed.
    ///
    /// # Errors
    /// When a handler cannot be used.
    pub async fn start(
        store: Arc<Store>,
        directory: &Directory,
        intake: Intake,
        definitions: Vec<Definition>,
        deps: &Deps,
        runs: PathBuf,
    ) -> Result<Self, Error> {
        let mut handlers = Vec::with_capacity(definitions.len());
        for definition in definitions {
            handlers.push(Arc::new(Handler::load(definition, deps).await?));
        }
        for warning in handlers.iter().flat_map(|handler| handler.definition.warnings()) {
            tracing::warn!("{warning}");
        }
        warn_of_shadows(&handlers);
        warn_of_stranded(&store, directory, &handlers).await;
        let (stop, abort) = (store.alarm().stop_token(), CancellationToken::new());
        let in_flight = InFlight::default();
        let context = Arc::new(RunContext { store, runs, in_flight, stop, abort });
        let started = Self { context, handlers, intake, tasks: TaskTracker::new() };
        if !started.handlers.is_empty() {
            let cut_short = sweep::cut_short(&started.context.runs).await;
            started.spawn(cut_short);
        }
        Ok(started)
    }

    fn spawn(&self, cut_short: Vec<Folder>) {
        let mut notifiers = HashMap::new();
        for handler in &self.handlers {
            let notify = Arc::new(Notify::new());
            for recipient in recipients(handler) {
                notifiers.insert(recipient, Arc::clone(&notify));
            }
            let queue = Queue::new(Arc::clone(&self.context), Arc::clone(handler), notify);
            self.watch(format!("the queue of handler `{}`", handler.definition.name), queue.run());
        }
        self.watch("the waking of handlers", listen(Arc::clone(&self.context), notifiers));
        let (context, abort) = (Arc::clone(&self.context), self.context.abort.clone());
        let sweeping = async move {
            abort.run_until_cancelled(sweep::sweep(context, cut_short)).await;
        };
        self.watch("the sweeping of old runs", sweeping);
    }

    fn watch(&self, stage: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) {
        let watched = self.context.store.alarm().watch(stage.into(), self.context.stop.clone(), work);
        self.tasks.spawn(watched);
    }

    /// Starts a handler with these arguments behind its own: logs an event for it and returns its id once it is on disk.
    ///
    /// # Errors
    /// When there is no such handler, or the store cannot write.
    pub async fn dispatch(
        &self,
        name: &str,
        arguments: Vec<String>,
        sender: &str,
    ) -> Result<EventId, DispatchError> {
        let is_meant =
            |handler: &&Arc<Handler>| handler.definition.dispatch && handler.definition.name.as_str() == name;
        let handler = self.handlers.iter().find(is_meant);
        let handler = handler.ok_or_else(|| DispatchError::Unknown(name.to_owned()))?;
        let event = json!({
            "specversion": "1.0",
            "id": Uuid::new_v4().to_string(),
            "source": format!("{DISPATCH}{name}"),
            "type": "waypost.dispatch",
            "data": {"handler": name, ARGUMENTS: arguments},
        });
        let event = Event::from_json(event.to_string()).expect("it has what every event has");
        let recipient = handler.definition.name.dispatched();
        self.intake.dispatch(event, recipient, sender).await.map_err(DispatchError::Accept)
    }

    /// Returns the handlers, in the order in which an event asks them.
    pub fn handlers(&self) -> impl Iterator<Item = &Definition> {
        self.handlers.iter().map(|handler| &handler.definition)
    }

    /// Returns the name of a handler by one of its recipients.
    pub fn name(&self, recipient: RecipientId) -> Option<&HandlerName> {
        let handler = self.handlers.iter().find(|handler| recipients(handler).contains(&recipient));
        handler.map(|handler| &handler.definition.name)
    }

    /// Returns the recipient of the run that [`Self::dispatch`] has made this event for. Other producers can send
    /// events with such a source; check the event's deliveries.
    pub fn dispatched_to(event: &Event) -> Option<RecipientId> {
        let name: HandlerName = event.source().strip_prefix(DISPATCH)?.parse().ok()?;
        Some(name.dispatched())
    }

    /// Returns the progress of a run in flight.
    pub fn progress(&self, event: EventId, recipient: RecipientId) -> Option<Progress> {
        self.context.in_flight.lock().get(&(event, recipient)).map(|meter| meter.progress())
    }

    /// Starts no more runs, waits for those in flight at most `grace`, and then ends them: they begin again after the
    /// next start.
    pub async fn stop(&self, grace: Duration) {
        self.context.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "runs of handlers are still under way: they will begin again after the next start"
            );
            self.context.abort.cancel();
            self.tasks.wait().await;
        }
    }
}

/// Dropping without [`Runs::stop`] aborts the runs in flight; they begin again after the next start.
impl Drop for Runs {
    fn drop(&mut self) {
        self.context.stop.cancel();
        self.context.abort.cancel();
    }
}

/// Warns about handlers that never run because an earlier one has the same filter.
fn warn_of_shadows(handlers: &[Arc<Handler>]) {
    let mut first = HashMap::new();
    for handler in handlers {
        let Definition { name, filter: Some(filter), .. } = &handler.definition else { continue };
        let known = *first.entry(&filter.text).or_insert(name);
        if known != name {
            tracing::warn!(handler = %name, first = %known, "its filter is that of an earlier handler, which gets all its events");
        }
    }
}

/// Warns about pending runs of handlers that are not configured.
async fn warn_of_stranded(store: &Store, directory: &Directory, handlers: &[Arc<Handler>]) {
    let waiting = match store.recipients_with_backlog().await {
        Ok(waiting) => waiting,
        Err(error) => return tracing::warn!(%error, "what is owed cannot be read now"),
    };
    let is_known = |id: RecipientId| {
        directory.get(id.subscription_id()).is_some()
            || handlers.iter().any(|handler| recipients(handler).contains(&id))
    };
    let missing = waiting.into_iter().filter(|id| !is_known(*id)).count();
    if missing > 0 {
        tracing::warn!(
            missing,
            "runs wait for handlers that are not in the configuration (renamed, or taken out)"
        );
    }
}

/// Returns the two recipients of a handler.
pub(super) fn recipients(handler: &Handler) -> [RecipientId; 2] {
    [handler.definition.name.dispatched(), handler.definition.name.routed()]
}

/// Notifies the queues of the recipients that the store wakes.
async fn listen(context: Arc<RunContext>, notifiers: HashMap<RecipientId, Arc<Notify>>) {
    let wakes = context.store.wakes().divert(notifiers.keys().copied().collect::<HashSet<_>>());
    // Runs that were pending before this task started are found by each queue's first read.
    notifiers.values().for_each(|notify| notify.notify_one());
    while let Some(woken) = context.stop.run_until_cancelled(wakes.drain()).await {
        for notify in woken.keys().filter_map(|recipient| notifiers.get(recipient)) {
            notify.notify_one();
        }
    }
}

impl InFlight {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<(EventId, RecipientId), Arc<Meter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

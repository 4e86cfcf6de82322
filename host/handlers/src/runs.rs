//! The handler stage: the workers of handlers, and what others ask of them.
//!
//! A run in flight is still pending in the store; only its mark in memory shows that it is in flight, so that it starts
//! again after a crash.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::task::TaskTracker;

use super::definition::Definition;
use super::dispatch::{self, DispatchError};
use super::error::Error;
use super::meter::Progress;
use super::ready::{Deps, Handler};
use super::runner::{Runner, recipients};
use super::sweep::{self, Sweep};
use waypost_domain::{EventId, HandlerName, Holder, RecipientId};
use waypost_engine::directory::Directory;
use waypost_engine::intake::Intake;
use waypost_engine::worker::Workers;
use waypost_store::Store;

/// The handler stage: a handle on its workers.
pub struct Runs {
    /// None without a handler.
    workers: Option<Workers<Runner>>,
    /// The handlers, in the order in which events are matched.
    handlers: Vec<Arc<Handler>>,
    intake: Intake,
}

impl Runs {
    /// Loads the handlers and starts their pending runs. `runs` is the folder of all runs, created when it is needed.
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
        let workers = match handlers.is_empty() {
            true => None,
            false => Some(start_workers(store, &handlers, runs).await),
        };
        Ok(Self { workers, handlers, intake })
    }

    /// Starts a handler with these arguments after its own: logs an event for it and returns its id once it is on disk.
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
        let event = dispatch::event(name, &arguments);
        let recipient = handler.definition.name.dispatched();
        self.intake.dispatch(event, recipient, sender).await.map_err(DispatchError::Accept)
    }

    /// Returns the handlers, in the order in which events are matched.
    pub fn handlers(&self) -> impl Iterator<Item = &Definition> {
        self.handlers.iter().map(|handler| &handler.definition)
    }

    /// Returns the name of a handler by one of its recipients.
    pub fn name(&self, recipient: RecipientId) -> Option<&HandlerName> {
        let handler = self.handlers.iter().find(|handler| recipients(handler).contains(&recipient));
        handler.map(|handler| &handler.definition.name)
    }

    /// Returns the progress of a run in flight.
    pub fn progress(&self, event: EventId, recipient: RecipientId) -> Option<Progress> {
        let meter = self.workers.as_ref()?.in_flight().mark(event, recipient)?;
        Some(meter.progress())
    }

    /// Returns what the runs of one of a handler's recipients are held by, and since when.
    pub fn hold(&self, recipient: RecipientId) -> Option<(Holder, Timestamp)> {
        self.workers.as_ref()?.hold(recipient)
    }

    /// Starts no more runs, waits for those in flight at most `grace`, and then ends them: they begin again after the
    /// next start.
    pub async fn stop(&self, grace: Duration) {
        if let Some(workers) = &self.workers {
            workers.stop(grace).await;
        }
    }
}

/// Starts the workers of handlers, and the removal of old folders.
async fn start_workers(store: Arc<Store>, handlers: &[Arc<Handler>], runs: PathBuf) -> Workers<Runner> {
    let (alarm, tasks) = (store.alarm(), TaskTracker::new());
    let (stop, searched) = (alarm.stop_token(), *store.share().changed().borrow());
    let cut_short = sweep::cut_short(&runs).await;
    let runner = Runner::new(runs.clone(), handlers, &tasks);
    let stage = "the dispatcher of runs";
    let workers = Workers::start(stage, Arc::clone(&store), runner, searched, stop.clone(), tasks.clone());
    let in_flight = Arc::clone(workers.in_flight());
    let (context, abort) =
        (Sweep { store, runs, in_flight, stop: stop.clone() }, workers.abort_token().clone());
    let sweeping = async move {
        abort.run_until_cancelled(sweep::sweep(Arc::new(context), cut_short)).await;
    };
    tasks.spawn(alarm.watch("the sweeping of old runs", stop, sweeping));
    workers
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
        Err(error) => return tracing::warn!(%error, "pending runs cannot be read now"),
    };
    let is_known = |id: RecipientId| {
        directory.recipient(id).is_some() || handlers.iter().any(|handler| recipients(handler).contains(&id))
    };
    let missing = waiting.into_iter().filter(|id| !is_known(*id)).count();
    if missing > 0 {
        tracing::warn!(
            missing,
            "runs wait for handlers that are not in the configuration (renamed, or taken out)"
        );
    }
}

//! Runs a handler once without a store, to try it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::definition::Definition;
use super::error::Error;
use super::folder::Folder;
use super::meter::Meter;
use super::program::Shortage;
use super::ready::{Deps, Handler};
use super::run::{Attempt, Failure};
use waypost_domain::handler::HandlerRun;
use waypost_domain::{DeliveryId, Event, EventId};
use waypost_runtime::clock;
use waypost_store::LoggedEvent;

/// The result of a run without a store.
#[derive(Clone, Debug)]
pub struct DryRun {
    /// The report of the run.
    pub run: HandlerRun,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// The run's folder, with `download/` and the outputs. The caller removes it.
    pub folder: PathBuf,
}

/// Runs a handler on an event in a new folder below `runs`. Dropping the future ends it.
///
/// # Errors
/// When the handler cannot be used.
pub async fn dry_run(
    definition: Definition,
    deps: &Deps,
    event: Event,
    runs: &Path,
    meter: &Arc<Meter>,
) -> Result<DryRun, Error> {
    let handler = Arc::new(Handler::load(definition, deps).await?);
    let (id, recipient) = (EventId::from_uuid(Uuid::now_v7()), handler.definition.name.routed());
    let received = clock::now();
    let logged = LoggedEvent { id, event, received, sender: String::new(), matched: vec![recipient] };
    let folder = Folder::of(runs, DeliveryId::of(id, recipient));
    let attempt = Attempt {
        handler: Arc::clone(&handler),
        logged: Arc::new(logged),
        recipient,
        number: 1,
        folder: folder.clone(),
        meter: Arc::clone(meter),
    };
    let made = Box::pin(attempt.make()).await;
    let short = |Shortage(reason)| Error::Shortage { name: handler.definition.name.clone(), reason };
    let ended = made.map_err(short)?;
    let failure = ended.failure.map(|failure| match failure {
        Failure::Run(reason) | Failure::Upload { reason, .. } | Failure::UploadForGood(reason) => reason,
    });
    Ok(DryRun { run: ended.run, failure, folder: folder.work() })
}

//! Removes run folders that are not needed any more: of failed uploads that were not retried for a day, of events that
//! have left the log, of handlers that are not configured any more, and of removals that a crash interrupted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::folder::{Folder, RunRecord};
use super::meter::Meter;
use super::remove::remove;
use super::run::blocking;
use waypost_domain::{DeliveryId, EventId, RecipientId, State};
use waypost_engine::worker::InFlight;
use waypost_runtime::clock;
use waypost_store::{self as store, Store};

/// The interval between two sweeps.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long the outputs of a given-up upload are kept, so that `event retry` need not run the program again.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What sweeping needs.
pub(super) struct Sweep {
    pub(super) store: Arc<Store>,
    /// The folder of all runs.
    pub(super) runs: PathBuf,
    pub(super) in_flight: Arc<InFlight<Arc<Meter>>>,
    pub(super) stop: CancellationToken,
}

/// Returns the folders whose removal was interrupted by the end of the service. Call it before the first run begins:
/// later, a folder with such a name may belong to a removal in progress.
pub(super) async fn cut_short(runs: &Path) -> Vec<Folder> {
    let runs = runs.to_owned();
    blocking(move || folders(&runs).filter(Folder::is_aside).collect()).await
}

/// Removes these folders once, and then folders that are not needed any more, until the service stops.
pub(super) async fn sweep(context: Arc<Sweep>, cut_short: Vec<Folder>) {
    blocking(move || cut_short.iter().for_each(|folder| said(folder, remove(folder.path())))).await;
    let mut interval = tokio::time::interval(INTERVAL);
    while context.stop.run_until_cancelled(interval.tick()).await.is_some() {
        let runs = context.runs.clone();
        let found: Vec<_> = blocking(move || folders(&runs).filter(is_of_a_run).collect()).await;
        for folder in found {
            if let Err(error) = look(&context, folder).await {
                tracing::warn!(%error, "the folders of old runs stay for now");
                break;
            }
        }
    }
}

/// Returns the folders in the folder of all runs.
fn folders(runs: &Path) -> impl Iterator<Item = Folder> {
    let entries = std::fs::read_dir(runs).into_iter().flatten();
    entries.filter_map(|entry| Some(Folder::found(entry.ok()?.path())))
}

fn is_of_a_run(folder: &Folder) -> bool {
    let name = folder.path().file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| Uuid::parse_str(name).is_ok())
}

/// Removes the folder of a run, unless it is still needed.
async fn look(context: &Arc<Sweep>, folder: Folder) -> Result<(), store::Error> {
    let looked = folder.clone();
    match blocking(move || looked.began()).await {
        // A folder without a record of its run was interrupted at its very beginning: it is empty.
        Ok(Some(began)) if is_needed(context, &began).await? => return Ok(()),
        Ok(_) => {}
        Err(error) => {
            said(&folder, Err(error));
            return Ok(());
        }
    }
    let context = Arc::clone(context);
    blocking(move || said(&folder, take_away(&context, &folder))).await;
    Ok(())
}

fn said(folder: &Folder, removed: io::Result<()>) {
    if let Err(error) = removed {
        tracing::warn!(%error, folder = %folder.path().display(), "the folder of a run stays for now");
    }
}

fn take_away(context: &Sweep, folder: &Folder) -> io::Result<()> {
    let aside = {
        // The lock is held so that no run begins in the folder before it is renamed.
        let in_flight = context.in_flight.lock();
        let is_there = |(event, recipient): &(EventId, RecipientId)| {
            Folder::of(&context.runs, DeliveryId::of(*event, *recipient)).path() == folder.path()
        };
        if in_flight.keys().any(is_there) {
            return Ok(());
        }
        folder.set_aside()?
    };
    aside.map_or(Ok(()), |aside| remove(&aside))
}

/// Tells whether the folder of a run may still be used: by the next attempt, or by a retry of an upload that was given
/// up.
async fn is_needed(context: &Sweep, began: &RunRecord) -> Result<bool, store::Error> {
    let Some(story) = context.store.history(began.event()).await? else { return Ok(false) };
    let recipient = began.recipient();
    let state = story.deliveries.into_iter().find(|it| it.recipient == recipient).map(|it| it.state);
    let is_old = clock::now().duration_since(began.at).unsigned_abs() > KEPT;
    Ok(match state {
        Some(State::Dead { .. }) => !is_old,
        Some(state) => !state.is_final(),
        None => false,
    })
}

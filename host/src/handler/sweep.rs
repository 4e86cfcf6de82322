//! Folders of runs that nobody needs any more: of failed uploads that nobody has tried again for a day, of events that
//! have left the log, of handlers that are gone, and of removals that a crash has cut short.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::folder::{Began, Folder};
use super::remove::remove;
use super::run::blocking;
use super::runs::Engine;
use crate::clock;
use crate::domain::{DeliveryId, State};
use crate::store;

/// How often.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long the outputs of a given-up upload are kept, so that `event retry` need not run the program again.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes what nobody needs, until the service stops.
pub(super) async fn sweep(engine: Arc<Engine>) {
    let mut interval = tokio::time::interval(INTERVAL);
    while engine.stop.run_until_cancelled(interval.tick()).await.is_some() {
        let runs = engine.runs.clone();
        for folder in blocking(move || folders(&runs)).await {
            if let Err(error) = look(&engine, folder).await {
                tracing::warn!(%error, "the folders of old runs stay for now");
                break;
            }
        }
    }
}

/// Returns what lies where runs do, but for what is not named as they are.
fn folders(runs: &Path) -> Vec<Folder> {
    let Ok(entries) = std::fs::read_dir(runs) else { return Vec::new() };
    let folders = entries.filter_map(|entry| Some(Folder::found(entry.ok()?.path())));
    folders.filter(|folder| folder.is_aside() || is_named_by_a_run(folder.path())).collect()
}

fn is_named_by_a_run(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| Uuid::parse_str(name).is_ok())
}

/// Removes a folder that nobody needs.
async fn look(engine: &Arc<Engine>, folder: Folder) -> Result<(), store::Error> {
    if !folder.is_aside() {
        let looked = folder.clone();
        match blocking(move || looked.began()).await {
            // One that says of no run is that of a run cut short at its very beginning: nothing is in it.
            Ok(Some(began)) if is_needed(engine, &began).await? => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, folder = %folder.path().display(), "the folder of a run cannot be read");
                return Ok(());
            }
        }
    }
    let engine = Arc::clone(engine);
    blocking(move || {
        if let Err(error) = take_away(&engine, &folder) {
            tracing::warn!(%error, folder = %folder.path().display(), "the folder of a run stays for now");
        }
    })
    .await;
    Ok(())
}

fn take_away(engine: &Engine, folder: &Folder) -> std::io::Result<()> {
    if folder.is_aside() {
        return remove(folder.path());
    }
    let aside = {
        // Held, so that no run begins there meanwhile.
        let under_way = engine.under_way.lock();
        let path = |(event, recipient): &(_, _)| -> PathBuf {
            Folder::of(&engine.runs, DeliveryId::of(*event, *recipient)).path().to_owned()
        };
        if under_way.keys().any(|run| path(run) == folder.path()) {
            return Ok(());
        }
        folder.set_aside()?
    };
    aside.map_or(Ok(()), |aside| remove(&aside))
}

/// Tells whether somebody may still take something from the folder of a run: its next attempt, or whoever asks for
/// an upload again that was given up.
async fn is_needed(engine: &Engine, began: &Began) -> Result<bool, store::Error> {
    let Some(story) = engine.store.story(began.event()).await? else { return Ok(false) };
    let recipient = began.recipient();
    let state =
        story.deliveries.iter().find(|(id, _)| *id == recipient).map(|(_, entries)| State::after(entries));
    let is_old = clock::now().duration_since(began.at).unsigned_abs() > KEPT;
    Ok(match state {
        Some(State::Dead { .. }) => !is_old,
        Some(state) => !state.is_final(),
        None => false,
    })
}

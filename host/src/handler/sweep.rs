//! Folders of runs that nobody needs any more: of failed uploads that nobody has tried again for a day, of events that
//! have left the log, and of handlers that are gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::folder::{Began, Folder};
use super::run::blocking;
use super::runs::Engine;
use crate::clock;
use crate::domain::State;
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
        let found = blocking(move || folders(&runs)).await;
        for (folder, began) in found {
            match is_needed(&engine, &began).await {
                Ok(true) => {}
                Ok(false) => {
                    if let Err(error) = blocking(move || folder.remove()).await {
                        tracing::warn!(%error, "the folder of a run stays for now");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the folders of old runs stay for now");
                    break;
                }
            }
        }
    }
}

/// Returns the folders of runs, with which runs they are of.
fn folders(runs: &PathBuf) -> Vec<(Folder, Began)> {
    let Ok(entries) = std::fs::read_dir(runs) else { return Vec::new() };
    let folders = entries.filter_map(|entry| Some(Folder::found(entry.ok()?.path())));
    folders.filter_map(|folder| folder.began().ok()?.map(|began| (folder, began))).collect()
}

async fn is_needed(engine: &Engine, began: &Began) -> Result<bool, store::Error> {
    let (event, recipient) = (began.event(), began.recipient());
    if engine.under_way.lock().contains_key(&(event, recipient)) {
        return Ok(true);
    }
    let Some(story) = engine.store.story(event).await? else { return Ok(false) };
    let delivery = story.deliveries.iter().find(|(id, _)| *id == recipient);
    let is_over = delivery.is_none_or(|(_, entries)| State::after(entries).is_final());
    let is_old = clock::now().duration_since(began.at).unsigned_abs() > KEPT;
    Ok(!(is_over && is_old))
}

//! Removes run folders that are not needed any more: of failed uploads that were not retried for a day, or beyond the share of
//! their sender (`user_bytes_max`), of events that have left the log, of handlers that are not configured any more, and of
//! removals that a crash interrupted.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::folder::{Folder, RunRecord};
use super::meter::Meter;
use super::remove::remove;
use super::run::blocking;
use waypost_domain::{DeliveryId, EventId, RecipientId, State};
use waypost_engine::worker::InFlight;
use waypost_runtime::clock;
use waypost_store::{self as store, Store, UserUsage};

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
        if let Err(error) = look_at_all(&context, found).await {
            tracing::warn!(%error, "the folders of old runs stay for now");
        }
    }
}

/// Removes the folders that are not needed, and of those that are kept for a retry by hand the oldest of each sender, beyond
/// the sender's share.
async fn look_at_all(context: &Arc<Sweep>, found: Vec<Folder>) -> Result<(), store::Error> {
    let mut given_up: HashMap<String, Vec<GivenUp>> = HashMap::new();
    for folder in found {
        if let Some((sender, kept)) = look(context, folder).await? {
            given_up.entry(sender).or_default().push(kept);
        }
    }
    for (sender, mut kept) in given_up {
        let UserUsage { bytes, max } = context.store.usage_of(&sender);
        let mut room = max.saturating_sub(bytes);
        kept.sort_unstable_by_key(|kept| std::cmp::Reverse(kept.began));
        for GivenUp { folder, bytes, .. } in kept {
            match room.checked_sub(bytes) {
                Some(left) => room = left,
                None => {
                    room = 0;
                    let folder_name = folder.path().display().to_string();
                    tracing::warn!(
                        folder = folder_name,
                        sender,
                        "the outputs of a failed upload go: its sender's share is full"
                    );
                    remove_if_idle(context, folder).await;
                }
            }
        }
    }
    Ok(())
}

/// A folder that is kept for a retry by hand.
struct GivenUp {
    folder: Folder,
    began: Timestamp,
    bytes: u64,
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

/// Removes the folder of a run, unless it is still needed; returns one that is kept for a retry by hand, with the sender of
/// its event.
async fn look(context: &Arc<Sweep>, folder: Folder) -> Result<Option<(String, GivenUp)>, store::Error> {
    let looked = folder.clone();
    let began = match blocking(move || looked.began()).await {
        Ok(began) => began,
        Err(error) => {
            said(&folder, Err(error));
            return Ok(None);
        }
    };
    // A folder without a record of its run was interrupted at its very beginning: it is empty.
    let need = match &began {
        Some(began) => need_of(context, began).await?,
        None => Need::None,
    };
    match (need, began) {
        (Need::NextAttempt, _) => Ok(None),
        (Need::RetryByHand { sender }, Some(RunRecord { at: began, .. })) => {
            let measured = folder.clone();
            let bytes = blocking(move || measured.bytes()).await;
            Ok(Some((sender, GivenUp { folder, began, bytes })))
        }
        (Need::None | Need::RetryByHand { .. }, _) => {
            remove_if_idle(context, folder).await;
            Ok(None)
        }
    }
}

async fn remove_if_idle(context: &Arc<Sweep>, folder: Folder) {
    let context = Arc::clone(context);
    blocking(move || said(&folder, take_away(&context, &folder))).await;
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

/// What the folder of a run is still needed for.
enum Need {
    None,
    NextAttempt,
    /// The retry of an upload that was given up, of an event of this sender.
    RetryByHand {
        sender: String,
    },
}

async fn need_of(context: &Sweep, began: &RunRecord) -> Result<Need, store::Error> {
    let Some(story) = context.store.history(began.event()).await? else { return Ok(Need::None) };
    let recipient = began.recipient();
    let state = story.deliveries.into_iter().find(|it| it.recipient == recipient).map(|it| it.state);
    let is_old = clock::now().duration_since(began.at).unsigned_abs() > KEPT;
    Ok(match state {
        Some(State::Dead { .. }) if !is_old => Need::RetryByHand { sender: story.event.sender.clone() },
        Some(state) if !state.is_final() => Need::NextAttempt,
        Some(_) | None => Need::None,
    })
}

#[cfg(test)]
mod tests {
    use waypost_domain::{Attempt, Event, Outcome};
    use waypost_store::redb::Options;
    use waypost_store::{Arrival, PendingDelivery, Progress, ReadyQuery, Settlement};

    use super::*;

    fn handler() -> RecipientId {
        RecipientId::from_uuid(Uuid::from_u128(7))
    }

    async fn log(store: &Store, id: &str, sender: &str) -> PendingDelivery {
        let json = serde_json::json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t"});
        let event = Event::from_json(json.to_string()).unwrap();
        let (sender, matched) = (sender.to_owned(), vec![handler()]);
        let arrival = Arrival { event, received: clock::now(), sender, matched, failed: Vec::new() };
        store.log(vec![arrival]).await.unwrap();
        let (recipient, after, now) = (handler(), EventId::NIL, clock::now());
        let query = ReadyQuery { recipient, after, first_attempts: 10, now, due: 0 };
        store.ready(query).await.unwrap().first_attempts.pop().unwrap()
    }

    async fn give_up(store: &Store, pending: &PendingDelivery) {
        let (at, took) = (clock::now(), Duration::ZERO);
        let outcome = Outcome::Dead { reason: "the upload failed".to_owned() };
        let attempt = Attempt { number: 1, at, took, policy: None, target: None, outcome };
        let progress = Progress { failed: 1, first_attempt: Some(at), allowed: true, ..Progress::default() };
        let (recipient, event, position) = (handler(), pending.event.id, pending.position);
        let (plugin, run, rendered) = (None, None, false);
        let ended = Settlement { recipient, event, position, plugin, run, attempt, progress, rendered };
        store.settle(ended).await.unwrap();
    }

    /// One sender's failed uploads filled the disk for a day.
    #[tokio::test]
    async fn outputs_of_failed_uploads_have_a_share_for_each_sender() {
        let (data, runs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = Options { user_bytes_max: 100_000, ..Options::default() };
        let store = Arc::new(Store::with(data.path(), options).unwrap());
        let begin = clock::now();
        let mut folders = Vec::new();
        for (age, sender, is_over) in
            [(3, "ann", true), (2, "bob", true), (1, "ann", true), (9, "ann", false)]
        {
            let pending = log(&store, &age.to_string(), sender).await;
            let folder = Folder::of(runs.path(), DeliveryId::of(pending.event.id, handler()));
            let at = begin - jiff::SignedDuration::from_mins(age);
            folder.begin((pending.event.id, handler()), at, b"{}", std::iter::once("output".into())).unwrap();
            std::fs::write(folder.work().join("output/large"), vec![0; 60_000]).unwrap();
            if is_over {
                give_up(&store, &pending).await;
            }
            folders.push(folder);
        }
        let (runs, stop) = (runs.path().to_owned(), CancellationToken::new());
        let context = Arc::new(Sweep { store, runs, in_flight: Arc::default(), stop });
        look_at_all(&context, folders.clone()).await.unwrap();
        let left: Vec<_> = folders.iter().map(|folder| folder.path().exists()).collect();
        assert_eq!(
            left,
            [false, true, true, true],
            "the oldest of ann's goes, and nothing that is under way"
        );
        context.store.close().await;
    }
}

//! Removes what is past its time: events past their retention, and deleted subscriptions that nothing refers to.
//!
//! One node does it for all: the one that has the first hash slot ([`crate::store::Share`]).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::directory::Directory;
use crate::store::{HashSlot, Purge, PurgeReport, Store};

/// How often it is done.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How many deleted subscriptions one write looks at.
const FORGET_AT_ONCE: usize = 256;

/// Removes it at the start and at intervals, until the service stops.
pub(super) async fn run(
    store: Arc<Store>,
    directory: Arc<Directory>,
    retention: Option<Duration>,
    stop: CancellationToken,
) {
    let rounds = async {
        loop {
            store.share().gained(HashSlot::FIRST).await;
            if let Some(retention) = retention {
                purge(&store, retention).await;
            }
            forget(&store, &directory).await;
            tokio::time::sleep(INTERVAL).await;
        }
    };
    // The work is many small writes, so a shutdown need not wait for the last one.
    stop.run_until_cancelled(rounds).await;
}

/// Removes events past their retention.
async fn purge(store: &Store, retention: Duration) {
    let Ok(before) = clock::now().checked_sub(retention) else { return };
    match store.purge(Purge::Expired(before)).await {
        Ok(purged) if purged.purged > 0 || purged.expired > 0 => {
            let PurgeReport { purged, kept, expired } = purged;
            tracing::info!(purged, kept, expired, "events past their retention are removed");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "events past their retention stay for now"),
    }
}

/// Forgets deleted subscriptions that nothing in the log refers to any more.
async fn forget(store: &Store, directory: &Directory) {
    let deleted = directory.deleted_before(clock::now());
    for deleted in deleted.chunks(FORGET_AT_ONCE) {
        if let Err(error) = store.forget(deleted.to_vec()).await {
            return tracing::warn!(%error, "deleted subscriptions stay for now");
        }
    }
}

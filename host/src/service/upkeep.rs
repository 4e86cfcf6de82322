//! Removes what is past its time: events past their retention, and deleted subscriptions that nothing refers to.
//!
//! One node does it for all: the one that has the first hash slot ([`waypost_store::Share`]).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use waypost_engine::directory::Directory;
use waypost_runtime::clock;
use waypost_store::{HashSlot, Purge, PurgeReport, Store};

/// How often it is done.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How often the last uses of tokens are written.
const USES_INTERVAL: Duration = Duration::from_secs(60);
/// How long a token past its end is still listed.
const SPENT_SHOWN: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many deleted subscriptions one write looks at.
const FORGET_AT_ONCE: usize = 256;

/// How long things are kept; `None` keeps them for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub(super) events: Option<Duration>,
    pub(super) audit: Option<Duration>,
}

/// Removes it at the start and at intervals, until the service stops.
pub(super) async fn run(
    store: Arc<Store>,
    directory: Arc<Directory>,
    retention: Retention,
    stop: CancellationToken,
) {
    let rounds = async {
        loop {
            store.share().gained(HashSlot::FIRST).await;
            if let Some(retention) = retention.events {
                purge(&store, retention).await;
            }
            if let Some(retention) = retention.audit {
                purge_audit(&store, retention).await;
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
    match store.purge(Purge::Expired(before), None).await {
        Ok(purged) if purged.purged > 0 || purged.expired > 0 => {
            let PurgeReport { purged, kept, expired } = purged;
            tracing::info!(purged, kept, expired, "events past their retention are removed");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "events past their retention stay for now"),
    }
}

/// Removes the oldest part of the audit.
async fn purge_audit(store: &Store, retention: Duration) {
    let Ok(before) = clock::now().checked_sub(retention) else { return };
    loop {
        match store.purge_audit(before).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::warn!(%error, "old entries of the audit stay for now"),
        }
    }
}

/// Writes when tokens were used, and removes those that are past their end, a while after it, until the service stops.
pub(super) async fn tend_tokens(store: Arc<Store>, identity: Arc<Identity>, stop: CancellationToken) {
    let rounds = async {
        loop {
            tokio::time::sleep(USES_INTERVAL).await;
            let uses = identity.tokens().take_used();
            if !uses.is_empty()
                && let Err(error) = store.tokens_used(uses).await
            {
                tracing::warn!(%error, "when tokens were last used is not written");
            }
            for id in identity.spent(clock::now() - SPENT_SHOWN) {
                if let Err(error) = store.remove_token(id, None).await {
                    tracing::warn!(%error, "a token past its end stays for now");
                }
            }
        }
    };
    stop.run_until_cancelled(rounds).await;
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

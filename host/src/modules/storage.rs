//! How long modules stay, and how much room they may take.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Error, Modules};
use crate::domain::PluginDigest;
use crate::store::{self, Module};
use crate::{chain, clock};

/// How long a module that no subscription refers to stays after its upload.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it stays in any case, also where there is no room for others: who uploads comes to refer to it soon.
pub const GRACE_WHEN_FULL: Duration = Duration::from_secs(10 * 60);
/// How often unused modules are removed.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

impl Modules {
    /// Removes unused modules now and then, until it is stopped.
    pub async fn tend(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let collected = stop.run_until_cancelled(self.collect(clock::now())).await;
            match collected {
                None => return,
                Some(Ok(0)) => {}
                Some(Ok(removed)) => tracing::info!(removed, "modules that nobody uses are removed"),
                Some(Err(error)) => {
                    tracing::warn!(error = chain::of(&error), "unused modules stay for now");
                }
            }
        }
    }

    /// Removes the modules that no subscription refers to and that were uploaded more than [`GRACE`] ago, and returns
    /// how many.
    ///
    /// # Errors
    /// When the store or a folder cannot be read or changed.
    pub async fn collect(&self, now: Timestamp) -> Result<usize, Error> {
        let _nobody_refers_now = self.referring.write().await;
        let mut kept = self.all().await?;
        let unused = self.unused(&kept, now, GRACE).await?;
        for module in &unused {
            self.remove(module.report.digest).await?;
        }
        kept.retain(|module| !unused.contains(module));
        let kept: HashSet<PluginDigest> = kept.into_iter().map(|module| module.report.digest).collect();
        let host = Arc::clone(&self.host);
        let sweeping = tokio::task::spawn_blocking(move || host.sweep(&kept, GRACE));
        sweeping.await.expect("sweeping does not panic").map_err(Error::Folder)?;
        Ok(unused.len())
    }

    /// Makes room for so many bytes: unused modules go, the oldest first.
    pub(super) async fn make_room(&self, bytes: u64, now: Timestamp) -> Result<(), Error> {
        if self.free().await? >= bytes {
            return Ok(());
        }
        let _nobody_refers_now = self.referring.write().await;
        let mut unused = self.unused(&self.all().await?, now, GRACE_WHEN_FULL).await?;
        unused.sort_by_key(|module| module.uploaded);
        for module in unused {
            tracing::info!(digest = %module.report.digest, "an unused module makes room for another one");
            self.remove(module.report.digest).await?;
            if self.free().await? >= bytes {
                return Ok(());
            }
        }
        Err(Error::Full { bytes, most: self.bytes_max })
    }

    /// Returns how many bytes modules may still take.
    async fn free(&self) -> Result<u64, Error> {
        let host = Arc::clone(&self.host);
        let counting = tokio::task::spawn_blocking(move || host.kept_bytes());
        let compiled = counting.await.expect("counting does not panic").map_err(Error::Folder)?;
        let modules: u64 = self.all().await?.iter().map(|module| module.report.bytes).sum();
        Ok(self.bytes_max.saturating_sub(modules + compiled))
    }

    async fn all(&self) -> Result<Vec<Module>, Error> {
        self.store.modules().await.map_err(Error::Store)
    }

    /// Returns those of the modules that no subscription refers to and that were uploaded more than `grace` ago.
    async fn unused(
        &self,
        modules: &[Module],
        now: Timestamp,
        grace: Duration,
    ) -> Result<Vec<Module>, Error> {
        let used = self.used().await.map_err(Error::Store)?;
        let is_old = |module: &Module| module.uploaded.checked_add(grace).is_ok_and(|until| until < now);
        let is_unused = |module: &&Module| is_old(module) && !used.contains(&module.report.digest);
        Ok(modules.iter().filter(is_unused).cloned().collect())
    }

    /// Returns the modules that subscriptions refer to, as the store has them: a change is there before anyone sees it.
    async fn used(&self) -> Result<HashSet<PluginDigest>, store::Error> {
        let subscriptions = self.store.subscriptions().await?;
        let live = subscriptions.iter().filter(|subscription| subscription.deleted.is_none());
        Ok(live.filter_map(|live| live.plugin.as_ref()).map(|plugin| plugin.digest).collect())
    }

    async fn remove(&self, digest: PluginDigest) -> Result<(), Error> {
        self.store.remove_module(digest).await.map_err(Error::Store)?;
        self.host.discard(digest).await.map_err(Error::Folder)
    }
}

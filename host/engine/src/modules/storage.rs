//! How long modules stay, and how much disk they may take.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::holders::{self, Holders};
use super::{Error, Modules, Wrong};
use waypost_domain::PluginDigest;
use waypost_runtime::chain;
use waypost_runtime::clock;
use waypost_store::{self as store, Module};

/// How long a module that no subscription refers to stays after its upload.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it stays even if the disk quota is used up: an upload is usually followed soon by a subscription that
/// refers to it.
pub const GRACE_WHEN_FULL: Duration = Duration::from_secs(10 * 60);
/// How often unused modules are removed.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How much modules may take on disk, with their machine code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All of them, in bytes.
    pub bytes_max: u64,
    /// Those of one user, in bytes: those that the user's subscriptions refer to, and recent uploads.
    pub user_bytes_max: u64,
    /// How many of these one user may have.
    pub user_modules_max: u32,
}

/// What an upload needs.
#[derive(Clone, Copy)]
pub(super) struct Need {
    /// What its user's modules take more, in bytes.
    pub(super) own: u64,
    /// What is not on disk yet.
    pub(super) more: u64,
}

impl Modules {
    /// Removes unused modules now and then, until it is stopped.
    pub async fn run_gc(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let collected = stop.run_until_cancelled(self.collect_garbage(clock::now())).await;
            match collected {
                None => return,
                Some(Ok(0)) => {}
                Some(Ok(removed)) => tracing::info!(removed, "modules that nobody uses are removed"),
                Some(Err(error)) => {
                    tracing::warn!(error = chain::text(&error), "unused modules stay for now");
                }
            }
        }
    }

    /// Removes the modules that no subscription refers to and that were uploaded more than [`GRACE`] ago, and returns
    /// how many.
    ///
    /// # Errors
    /// When the store or a folder cannot be read or changed.
    pub async fn collect_garbage(&self, now: Timestamp) -> Result<usize, Error> {
        let mut kept = self.all().await?;
        let unused = self.unused(&kept, now, GRACE).await?;
        let mut removed = HashSet::new();
        for module in &unused {
            if self.remove(module).await? {
                removed.insert(module.report.digest);
            }
        }
        kept.retain(|module| !removed.contains(&module.report.digest));
        let kept: HashSet<PluginDigest> = kept.into_iter().map(|module| module.report.digest).collect();
        let host = Arc::clone(&self.host);
        let sweeping = tokio::task::spawn_blocking(move || host.sweep(&kept, GRACE));
        sweeping.await.expect("sweeping does not panic").map_err(Error::Folder)?;
        Ok(removed.len())
    }

    /// Frees disk space for a user's module: removes unused modules, the user's own first, the oldest first.
    pub(super) async fn make_room(
        &self,
        user: &str,
        digest: PluginDigest,
        need: Need,
        now: Timestamp,
    ) -> Result<(), Error> {
        if self.has_room(user, digest, need, now).await?.is_ok() {
            return Ok(());
        }
        let all = self.all().await?;
        let mut unused = self.unused(&all, now, GRACE_WHEN_FULL).await?;
        let holders = self.referring_now().await.map_err(Error::Store)?.with_uploaders(&all, now);
        let is_others = |module: &Module| !holders.has_alone(user, module.report.digest);
        unused.retain(|module| module.report.digest != digest);
        unused.sort_by_key(|module| (is_others(module), module.uploaded));
        for module in &unused {
            let full = match self.has_room(user, digest, need, now).await? {
                Ok(()) => return Ok(()),
                Err(full) => full,
            };
            let is_own_limit = matches!(full, Error::UserFull { .. } | Error::UserTooMany { .. });
            if is_own_limit && is_others(module) {
                return Err(full);
            }
            tracing::info!(digest = %module.report.digest, "an unused module makes room for another one");
            self.remove(module).await?;
        }
        self.has_room(user, digest, need, now).await?
    }

    /// Tells whether the quotas allow it; the inner error names the one that does not.
    async fn has_room(
        &self,
        user: &str,
        digest: PluginDigest,
        need: Need,
        now: Timestamp,
    ) -> Result<Result<(), Error>, Error> {
        let all = self.all().await?;
        let holders = self.referring_now().await.map_err(Error::Store)?.with_uploaders(&all, now);
        let most = self.room.user_bytes_max;
        // One that may have all is told what all may have.
        let is_bounded = most < self.room.bytes_max;
        if is_bounded && holders.bytes_of(user, &all, digest).saturating_add(need.own) > most {
            return Ok(Err(Error::UserFull { bytes: need.own, most }));
        }
        let most = self.room.user_modules_max;
        if holders.count_of(user, &all, digest) >= u64::from(most) {
            return Ok(Err(Error::UserTooMany { most }));
        }
        let host = Arc::clone(&self.host);
        let counting = tokio::task::spawn_blocking(move || host.kept_bytes());
        let compiled = counting.await.expect("counting does not panic").map_err(Error::Folder)?;
        let modules: u64 = all.iter().map(|module| module.report.bytes).sum();
        let Need { more: bytes, .. } = need;
        let most = self.room.bytes_max;
        let is_full = bytes > 0 && modules.saturating_add(compiled).saturating_add(bytes) > most;
        Ok(if is_full { Err(Error::Full { bytes, most }) } else { Ok(()) })
    }

    /// Refuses to let a user's subscription refer to a module that would exceed the user's limit.
    pub(super) async fn afford(&self, user: &str, wanted: &Module) -> Result<(), Wrong> {
        let digest = wanted.report.digest;
        let holders = self.referring_now().await.map_err(Wrong::Store)?;
        if holders.has(user, digest) {
            return Ok(());
        }
        let all = self.store.modules().await.map_err(Wrong::Store)?;
        let (bytes, most) = (holders::bytes(wanted), self.room.user_bytes_max);
        if holders.bytes_of(user, &all, digest).saturating_add(bytes) > most {
            return Err(Wrong::UserFull { bytes, most });
        }
        let most = self.room.user_modules_max;
        let is_one_more = holders.count_of(user, &all, digest) < u64::from(most);
        if is_one_more { Ok(()) } else { Err(Wrong::UserTooMany { most }) }
    }

    /// Returns the users whose subscriptions refer to modules, read from the store: it has a change before the
    /// directory shows it.
    async fn referring_now(&self) -> Result<Holders, store::Error> {
        Ok(Holders::referring(&self.store.subscriptions().await?.1))
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
        let used = self.referring_now().await.map_err(Error::Store)?;
        let is_old = |module: &Module| module.uploaded.checked_add(grace).is_ok_and(|until| until < now);
        let is_unused = |module: &&Module| is_old(module) && !used.is_held(module.report.digest);
        Ok(modules.iter().filter(is_unused).cloned().collect())
    }

    /// Removes a module, unless it has been uploaded again since, or a subscription has come to refer to it.
    async fn remove(&self, module: &Module) -> Result<bool, Error> {
        let digest = module.report.digest;
        let removed = self.store.remove_module(digest, module.uploaded).await.map_err(Error::Store)?;
        if removed {
            self.host.discard(digest).await.map_err(Error::Folder)?;
        }
        Ok(removed)
    }
}

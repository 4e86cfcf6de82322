//! Which users hold a module, and how much disk each user's modules take.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use super::GRACE;
use waypost_domain::PluginDigest;
use waypost_store::{Module, StoredSubscription};

/// The most uploaders that are remembered for one module.
const UPLOADERS_MAX: usize = 64;

/// The users that hold each module.
pub(super) struct Holders(HashMap<PluginDigest, BTreeSet<String>>);

impl Holders {
    /// Returns the users whose subscriptions refer to modules.
    pub(super) fn referring(subscriptions: &[StoredSubscription]) -> Self {
        let mut holders: HashMap<PluginDigest, BTreeSet<String>> = HashMap::new();
        let known = subscriptions.iter().map(|stored| &stored.subscription);
        for live in known.filter(|subscription| subscription.deleted.is_none()) {
            if let Some(plugin) = &live.plugin {
                holders.entry(plugin.digest).or_default().insert(live.user.clone());
            }
        }
        Self(holders)
    }

    /// Adds the recent uploaders (within [`GRACE`]) of modules that no subscription refers to. A module in use counts
    /// only for the users whose subscriptions refer to it: uploading it again costs nothing.
    pub(super) fn with_uploaders(mut self, modules: &[Module], now: Timestamp) -> Self {
        for module in modules {
            self.0.entry(module.report.digest).or_insert_with(|| {
                module
                    .uploads
                    .iter()
                    .filter(|(_, at)| is_fresh(**at, now))
                    .map(|(user, _)| user.clone())
                    .collect()
            });
        }
        self
    }

    /// Tells whether a module is a user's.
    pub(super) fn has(&self, user: &str, digest: PluginDigest) -> bool {
        self.0.get(&digest).is_some_and(|holders| holders.contains(user))
    }

    /// Tells whether a module has a holder.
    pub(super) fn is_held(&self, digest: PluginDigest) -> bool {
        self.0.contains_key(&digest)
    }

    /// Tells whether a module has no other holder than this user.
    pub(super) fn has_alone(&self, user: &str, digest: PluginDigest) -> bool {
        self.0.get(&digest).is_none_or(|holders| holders.iter().all(|holder| holder == user))
    }

    /// Returns how many bytes a user's modules take, all but one.
    pub(super) fn bytes_of(&self, user: &str, modules: &[Module], but: PluginDigest) -> u64 {
        self.of(user, modules, but).map(bytes).sum()
    }

    /// Returns how many modules a user has, all but one.
    pub(super) fn count_of(&self, user: &str, modules: &[Module], but: PluginDigest) -> u64 {
        self.of(user, modules, but).count() as u64
    }

    fn of<'a>(
        &self,
        user: &str,
        modules: &'a [Module],
        but: PluginDigest,
    ) -> impl Iterator<Item = &'a Module> {
        let own = move |module: &&Module| module.report.digest != but && self.has(user, module.report.digest);
        modules.iter().filter(own)
    }
}

/// Returns what a module takes on disk, with its machine code.
pub(super) fn bytes(module: &Module) -> u64 {
    module.report.bytes + module.report.compiled_bytes
}

/// Records another upload of a known module. `by` stays the first uploader; uploads older than [`GRACE`] are dropped.
pub(super) fn uploaded_again(known: Module, by: &str, now: Timestamp) -> Module {
    let mut uploads: BTreeMap<_, _> =
        known.uploads.into_iter().filter(|(user, at)| user != by && is_fresh(*at, now)).collect();
    while uploads.len() >= UPLOADERS_MAX {
        let oldest = uploads.iter().min_by_key(|(_, at)| **at).map(|(user, _)| user.clone());
        let Some(oldest) = oldest else { break };
        uploads.remove(&oldest);
    }
    uploads.insert(by.to_owned(), now);
    Module { uploaded: now, uploads, ..known }
}

fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    at.checked_add(GRACE).is_ok_and(|until| now <= until)
}

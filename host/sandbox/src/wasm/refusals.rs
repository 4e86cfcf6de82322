//! Remembers which modules exceeded a limit a short while ago, so that they are not tried again at once.

use std::time::Duration;

use moka::future::Cache;

use waypost_domain::PluginDigest;

/// How long a refusal is remembered.
pub(super) const MEMORY: Duration = Duration::from_secs(10 * 60);
/// The most refusals that are remembered.
const REMEMBERED_MAX: u64 = 4096;

/// Modules that exceeded a limit, by user: the machine may just have been busy, so another user may try.
pub(super) struct Refusals(Cache<(String, PluginDigest), String>);

impl Refusals {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(MEMORY).build())
    }

    /// Returns why a user's module is refused at present, if it exceeded a limit recently.
    pub(super) async fn get(&self, user: &str, digest: PluginDigest) -> Option<String> {
        self.0.get(&(user.to_owned(), digest)).await
    }

    /// Remembers that a user's module exceeded a limit.
    pub(super) async fn remember(&self, user: &str, digest: PluginDigest, why: String) {
        self.0.insert((user.to_owned(), digest), why).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module that took too long while the machine was busy was refused to all users for ten minutes.
    #[tokio::test]
    async fn what_was_too_much_of_one_user_may_be_tried_by_another() {
        let (refusals, digest) = (Refusals::new(), PluginDigest::of(b"module"));
        refusals.remember("ann", digest, "too long".to_owned()).await;
        assert_eq!(refusals.get("ann", digest).await.as_deref(), Some("too long"));
        assert_eq!(refusals.get("bob", digest).await, None);
        assert_eq!(refusals.get("ann", PluginDigest::of(b"another")).await, None);
    }
}

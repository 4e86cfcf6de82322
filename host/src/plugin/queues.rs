//! The queues for child processes: users are served in rotation, and long tasks do not delay short ones.
//!
//! Compiling a module and checking a configuration are first tried with a short time limit. Those that exceed it are
//! tried again with the full limit, in a queue of their own.

use std::time::Duration;

use moka::future::Cache;

use crate::domain::PluginDigest;
use crate::fair_semaphore::FairSemaphore;

/// The first time that a module has to be compiled. One in Rust takes 0.1 s, QuickJS's 3 s.
pub(super) const SHORT_COMPILING: Duration = Duration::from_secs(2);
/// The largest module that is worth such a try.
pub(super) const SMALL_MODULE_BYTES: usize = 2 * 1024 * 1024;
/// The first time that a configuration has to be checked.
pub(super) const SHORT_CHECKING: Duration = Duration::from_millis(500);
/// How long it is remembered that something took too much.
pub(super) const MEMORY: Duration = Duration::from_secs(10 * 60);
/// The most configurations that are checked within a short time at once, and the most that are within a long time.
const CHECKS_MAX: usize = 2;
const LONG_CHECKS_MAX: usize = 1;
/// The most that is remembered of each kind.
const REMEMBERED_MAX: u64 = 4096;

/// The queues, and what has exceeded a limit recently.
pub(super) struct Queues {
    pub(super) uploads: FairSemaphore,
    pub(super) long_uploads: FairSemaphore,
    /// The queue of modules that are needed now and whose machine code is gone or of another version. They do not wait
    /// behind uploads.
    pub(super) uses: FairSemaphore,
    pub(super) checks: FairSemaphore,
    pub(super) long_checks: FairSemaphore,
    /// The modules that are refused from this user, and why.
    modules: Cache<(String, PluginDigest), String>,
    /// The modules whose schema took too long for a configuration of this user's, and the limit.
    schemas: Cache<(String, PluginDigest), String>,
}

impl Queues {
    pub(super) fn new() -> Self {
        let one = || FairSemaphore::new(1, 1);
        Self {
            uploads: one(),
            long_uploads: one(),
            uses: one(),
            checks: FairSemaphore::new(CHECKS_MAX, 1),
            long_checks: FairSemaphore::new(LONG_CHECKS_MAX, 1),
            modules: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(MEMORY).build(),
            schemas: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(MEMORY).build(),
        }
    }

    /// Returns why a user's module is refused at present, if it exceeded a limit recently.
    pub(super) async fn refusal(&self, user: &str, digest: PluginDigest) -> Option<String> {
        self.modules.get(&(user.to_owned(), digest)).await
    }

    /// Remembers that a user's module exceeded a limit. It counts for this user only, since a busy machine takes
    /// longer.
    pub(super) async fn refuse(&self, user: &str, digest: PluginDigest, why: String) {
        self.modules.insert((user.to_owned(), digest), why).await;
    }

    /// Returns the limit that a user's configuration of a module has exceeded lately.
    pub(super) async fn slow_schema(&self, user: &str, digest: PluginDigest) -> Option<String> {
        self.schemas.get(&(user.to_owned(), digest)).await
    }

    /// Remembers that a user's configuration of a module took too long.
    pub(super) async fn is_slow(&self, user: &str, digest: PluginDigest, limit: String) {
        self.schemas.insert((user.to_owned(), digest), limit).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module that took too long while the machine was busy was refused to all users for ten minutes.
    #[tokio::test]
    async fn what_was_too_much_of_one_user_may_be_tried_by_another() {
        let (queues, digest) = (Queues::new(), PluginDigest::of(b"module"));
        queues.refuse("ann", digest, "too long".to_owned()).await;
        assert_eq!(queues.refusal("ann", digest).await.as_deref(), Some("too long"));
        assert_eq!(queues.refusal("bob", digest).await, None);
        assert_eq!(queues.refusal("ann", PluginDigest::of(b"another")).await, None);
    }
}

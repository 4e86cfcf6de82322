//! The state of one subscription's plugin, in memory while its worker runs.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard};

use waypost_domain::Subscription;
use waypost_domain::plugin::{StateChange, StateMap, apply};
use waypost_sandbox::State;
use waypost_store::{Error, Store};

/// The cached state of one plugin. A call of the plugin holds the guard until its changes are durable, so that each
/// call sees the changes of all earlier ones.
#[derive(Default)]
pub(super) struct StateCache(Mutex<Option<CachedState>>);

/// The state as read, with the version of the subscription: removing its plugin removes the state too.
struct CachedState {
    version: Timestamp,
    state: Arc<StateMap>,
}

/// Exclusive use of the state by one delivery. If it is dropped without [`StateGuard::commit`], the next one reads the
/// store again.
pub(super) struct StateGuard<'a> {
    state_cache: MutexGuard<'a, Option<CachedState>>,
    read: CachedState,
}

impl StateCache {
    /// Waits for exclusive use, and reads the state if it is not cached.
    pub(super) async fn lock(
        &self,
        store: &Store,
        subscription: &Subscription,
    ) -> Result<StateGuard<'_>, Error> {
        let mut state_cache = self.0.lock().await;
        let version = subscription.updated;
        let read = match state_cache.take().filter(|read| read.version == version) {
            Some(read) => read,
            None => CachedState { version, state: Arc::new(store.plugin_state(subscription.id).await?) },
        };
        Ok(StateGuard { state_cache, read })
    }
}

impl StateGuard<'_> {
    /// Returns the state for one call.
    pub(super) fn state(&self) -> State {
        State::over(Arc::clone(&self.read.state))
    }

    /// Returns what a call has changed, and the removal of what has expired.
    pub(super) fn changes(&self, after: &State, now: Timestamp) -> Vec<StateChange> {
        let mut changes = after.changes();
        // An unchanged value is on disk already.
        changes.retain(|change| self.read.state.get(&change.key) != change.value.as_ref());
        let expired = self.read.state.iter().filter(|(_, value)| !value.is_alive(now));
        let gone: Vec<_> = expired
            .filter(|(key, _)| !changes.iter().any(|change| change.key == **key))
            .map(|(key, _)| StateChange { key: key.clone(), value: None })
            .collect();
        changes.extend(gone);
        changes
    }

    /// Applies changes that are durable by now.
    pub(super) fn commit(self, changes: Vec<StateChange>) {
        let Self { mut state_cache, mut read } = self;
        apply(Arc::make_mut(&mut read.state), changes);
        *state_cache = Some(read);
    }
}

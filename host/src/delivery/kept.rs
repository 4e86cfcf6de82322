//! The state of one subscription's plugin, in memory while its lane runs.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard};

use crate::domain::Subscription;
use crate::domain::plugin::{StateChange, StateMap, apply};
use crate::plugin::State;
use crate::store::{Error, Store};

/// What a plugin keeps. Whoever calls the plugin holds the turn until the changes are durable, so that each call sees
/// all earlier ones.
#[derive(Default)]
pub(super) struct Kept(Mutex<Option<Read>>);

/// What was read of the store, and how the subscription was then: taking its plugin away takes the state too.
struct Read {
    version: Timestamp,
    state: Arc<StateMap>,
}

/// One delivery's turn. A turn that ends without [`Turn::keep`] lets the next one read the store again.
pub(super) struct Turn<'a> {
    kept: MutexGuard<'a, Option<Read>>,
    read: Read,
}

impl Kept {
    /// Waits for the turn, and reads what is not in memory.
    pub(super) async fn turn(
        &self,
        store: &dyn Store,
        subscription: &Subscription,
    ) -> Result<Turn<'_>, Error> {
        let mut kept = self.0.lock().await;
        let version = subscription.updated;
        let read = match kept.take().filter(|read| read.version == version) {
            Some(read) => read,
            None => Read { version, state: Arc::new(store.plugin_state(subscription.id).await?) },
        };
        Ok(Turn { kept, read })
    }
}

impl Turn<'_> {
    /// Returns the state for one call.
    pub(super) fn state(&self) -> State {
        State::over(Arc::clone(&self.read.state))
    }

    /// Returns what a call has changed, and the removal of what has expired.
    pub(super) fn changes(&self, after: &State, now: Timestamp) -> Vec<StateChange> {
        let mut changes = after.changes();
        // What is written as it was is on disk already.
        changes.retain(|change| self.read.state.get(&change.key) != change.value.as_ref());
        let expired = self.read.state.iter().filter(|(_, value)| !value.is_alive(now));
        let gone: Vec<_> = expired
            .filter(|(key, _)| !changes.iter().any(|change| change.key == **key))
            .map(|(key, _)| StateChange { key: key.clone(), value: None })
            .collect();
        changes.extend(gone);
        changes
    }

    /// Ends the turn; the changes are durable.
    pub(super) fn keep(self, changes: Vec<StateChange>) {
        let Self { mut kept, mut read } = self;
        apply(Arc::make_mut(&mut read.state), changes);
        *kept = Some(read);
    }
}

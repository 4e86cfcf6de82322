//! A plugin's state during one call: what was kept, and what the call changes.
//!
//! The changes become durable together with the call's verdict, or not at all: a call that fails has changed nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::limits::Limits;
use crate::domain::plugin::{StateChange, StateMap, StateValue};

/// The longest key, in bytes.
pub(super) const KEY_BYTES_MAX: usize = 256;

/// A subscription's state as one call sees it.
#[derive(Clone, Debug, Default)]
pub struct State {
    kept: Arc<StateMap>,
    changes: BTreeMap<String, Option<StateValue>>,
}

/// Why a value is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Quota,
    KeyTooLong,
    ValueTooLarge,
    Conflict,
}

impl State {
    /// Begins with what is kept.
    pub fn over(kept: Arc<StateMap>) -> Self {
        Self { kept, changes: BTreeMap::new() }
    }

    /// Returns what the call changed.
    pub fn changes(&self) -> Vec<StateChange> {
        let change = |(key, value): (&String, &Option<StateValue>)| StateChange {
            key: key.clone(),
            value: value.clone(),
        };
        self.changes.iter().map(change).collect()
    }

    /// Tells whether the call changed anything.
    pub fn is_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(super) fn get(&self, key: &str, now: Timestamp) -> Option<&[u8]> {
        let value = match self.changes.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.kept.get(key),
        };
        value.filter(|value| value.is_alive(now)).map(|value| value.bytes.as_slice())
    }

    pub(super) fn set(
        &mut self,
        key: &str,
        bytes: Vec<u8>,
        ttl: Option<Duration>,
        now: Timestamp,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        if key.len() > KEY_BYTES_MAX {
            return Err(Refusal::KeyTooLong);
        }
        if key.len() + bytes.len() > limits.state_bytes {
            return Err(Refusal::ValueTooLarge);
        }
        let (keys, used) = self.used_besides(key, now);
        if keys + 1 > limits.state_keys || used + key.len() + bytes.len() > limits.state_bytes {
            return Err(Refusal::Quota);
        }
        let expires = ttl.map(|ttl| now.checked_add(ttl).unwrap_or(Timestamp::MAX));
        self.changes.insert(key.to_owned(), Some(StateValue { bytes, expires }));
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &str) {
        if self.kept.contains_key(key) {
            self.changes.insert(key.to_owned(), None);
        } else {
            self.changes.remove(key);
        }
    }

    /// Returns the keys and bytes in use, but for `key`.
    fn used_besides(&self, key: &str, now: Timestamp) -> (usize, usize) {
        let kept = self.kept.iter().filter(|(name, _)| !self.changes.contains_key(*name));
        let changed = self.changes.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        kept.chain(changed)
            .filter(|(name, value)| *name != key && value.is_alive(now))
            .fold((0, 0), |(keys, bytes), (name, value)| (keys + 1, bytes + name.len() + value.bytes.len()))
    }
}

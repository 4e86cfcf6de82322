//! The small durable state of a subscription's plugin.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// All of a subscription's state, by key.
pub type StateMap = BTreeMap<String, StateValue>;

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateValue {
    /// The value.
    pub bytes: Vec<u8>,
    /// When it expires.
    pub expires: Option<Timestamp>,
}

impl StateValue {
    /// Tells whether the value has not expired at `now`.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// One key's new value; `None` removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The key.
    pub key: String,
    /// Its new value.
    pub value: Option<StateValue>,
}

/// Changes a state.
pub fn apply(state: &mut StateMap, changes: Vec<StateChange>) {
    for StateChange { key, value } in changes {
        match value {
            Some(value) => drop(state.insert(key, value)),
            None => drop(state.remove(&key)),
        }
    }
}

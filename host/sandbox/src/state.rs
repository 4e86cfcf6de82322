//! A plugin's state during one call: what was stored, and what the call changes.
//!
//! The changes become durable together with the call's verdict, or not at all: a call that fails has changed nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::limits::Limits;
use waypost_domain::plugin::{StateChange, StateMap, StateValue};

/// The longest key, in bytes.
pub(super) const KEY_BYTES_MAX: usize = 256;

/// A subscription's state as one call sees it. A value counts with its key's bytes and its own.
#[derive(Clone, Debug, Default)]
pub struct State {
    kept: Arc<StateMap>,
    changes: BTreeMap<String, Option<StateValue>>,
    /// Counted at the first write of a call: most calls write nothing.
    used: Option<Used>,
}

/// The space that live values take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    keys: usize,
    bytes: usize,
}

/// The time and the limits of a call; both stay the same while it runs.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) now: Timestamp,
    pub(super) limits: &'a Limits,
}

/// When a written value expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    Never,
    After(Duration),
    /// When the value that it replaces would expire.
    AsBefore,
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
    /// Begins with the stored state.
    pub fn over(kept: Arc<StateMap>) -> Self {
        Self { kept, changes: BTreeMap::new(), used: None }
    }

    /// Returns what the call changed. A call that writes also removes what has expired.
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

    /// Resets the count: a new call has another time.
    pub(super) fn begin(&mut self) {
        self.used = None;
    }

    /// Returns a value that has not expired.
    pub(super) fn get(&self, key: &str, now: Timestamp) -> Option<&[u8]> {
        self.alive(key, now).map(|value| value.bytes.as_slice())
    }

    /// Writes a value. If it would exceed a quota, it is refused and nothing changes.
    pub(super) fn set(
        &mut self,
        key: &str,
        bytes: Vec<u8>,
        expiry: Expiry,
        terms: Terms<'_>,
    ) -> Result<(), Refusal> {
        let Terms { now, limits } = terms;
        if key.len() > KEY_BYTES_MAX {
            return Err(Refusal::KeyTooLong);
        }
        let size = key.len() + bytes.len();
        if size > limits.state_bytes {
            return Err(Refusal::ValueTooLarge);
        }
        let (mut used, before) = (self.used(now), self.alive(key, now));
        let expires = match expiry {
            Expiry::Never => None,
            Expiry::After(ttl) => Some(now.checked_add(ttl).unwrap_or(Timestamp::MAX)),
            Expiry::AsBefore => before.and_then(|before| before.expires),
        };
        if expires.is_some_and(|expires| expires <= now) {
            self.delete(key, now);
            return Ok(());
        }
        if let Some(before) = before {
            used.remove(key, before);
        }
        used.keys += 1;
        used.bytes += size;
        if used.keys > limits.state_keys || used.bytes > limits.state_bytes {
            return Err(Refusal::Quota);
        }
        self.used = Some(used);
        self.changes.insert(key.to_owned(), Some(StateValue { bytes, expires }));
        Ok(())
    }

    /// Removes a value, if it is there.
    pub(super) fn delete(&mut self, key: &str, now: Timestamp) {
        let mut used = self.used(now);
        if let Some(value) = self.alive(key, now) {
            used.remove(key, value);
        }
        self.used = Some(used);
        if self.kept.contains_key(key) {
            self.changes.insert(key.to_owned(), None);
        } else {
            self.changes.remove(key);
        }
    }

    /// Adds to a counter (8 bytes, little-endian), saturating at 64 bits. A value of another length is not a counter:
    /// that is a conflict. Without a time to live, the counter keeps its expiry.
    pub(super) fn increment(
        &mut self,
        key: &str,
        delta: i64,
        ttl: Option<Duration>,
        terms: Terms<'_>,
    ) -> Result<i64, Refusal> {
        let before = match self.get(key, terms.now) {
            None => 0,
            Some(bytes) => i64::from_le_bytes(bytes.try_into().map_err(|_| Refusal::Conflict)?),
        };
        let next = before.saturating_add(delta);
        let expiry = ttl.map_or(Expiry::AsBefore, Expiry::After);
        self.set(key, next.to_le_bytes().to_vec(), expiry, terms).map(|()| next)
    }

    /// Writes a value that does not expire, if the present value is `expected`.
    pub(super) fn compare_and_set(
        &mut self,
        key: &str,
        expected: Option<&[u8]>,
        bytes: Vec<u8>,
        terms: Terms<'_>,
    ) -> Result<(), Refusal> {
        if self.get(key, terms.now) != expected {
            return Err(Refusal::Conflict);
        }
        self.set(key, bytes, Expiry::Never, terms)
    }

    fn alive(&self, key: &str, now: Timestamp) -> Option<&StateValue> {
        let value = match self.changes.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.kept.get(key),
        };
        value.filter(|value| value.is_alive(now))
    }

    /// Returns the space in use. The first write of a call counts it and removes expired values: they do not count, so
    /// nothing else would keep them from piling up.
    fn used(&mut self, now: Timestamp) -> Used {
        if let Some(used) = self.used {
            return used;
        }
        for (key, _) in self.kept.iter().filter(|(_, value)| !value.is_alive(now)) {
            self.changes.entry(key.clone()).or_insert(None);
        }
        let kept = self.kept.iter().filter(|(key, _)| !self.changes.contains_key(*key));
        let changed = self.changes.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let mut used = Used::default();
        for (key, value) in kept.chain(changed).filter(|(_, value)| value.is_alive(now)) {
            used.keys += 1;
            used.bytes += key.len() + value.bytes.len();
        }
        *self.used.insert(used)
    }
}

impl Used {
    fn remove(&mut self, key: &str, value: &StateValue) {
        self.keys -= 1;
        self.bytes -= key.len() + value.bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        time: Duration::ZERO,
        memory_bytes: 0,
        output_bytes: 0,
        log_bytes: 0,
        state_bytes: 40,
        state_keys: 3,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn terms(second: i64) -> Terms<'static> {
        Terms { now: at(second), limits: &LIMITS }
    }

    fn kept(values: &[(&str, &[u8], Option<i64>)]) -> State {
        let value = |(key, bytes, end): &(&str, &[u8], Option<i64>)| {
            ((*key).to_owned(), StateValue { bytes: bytes.to_vec(), expires: end.map(at) })
        };
        State::over(Arc::new(values.iter().map(value).collect()))
    }

    #[test]
    fn a_deleted_key_can_be_set_again_and_a_new_one_leaves_no_trace() {
        let mut state = kept(&[("a", b"1", None)]);
        state.delete("a", at(0));
        assert_eq!(state.get("a", at(0)), None);
        assert_eq!(state.changes(), [StateChange { key: "a".to_owned(), value: None }]);
        state.set("a", b"2".to_vec(), Expiry::Never, terms(0)).unwrap();
        assert_eq!(state.get("a", at(0)), Some(&b"2"[..]));
        let mut state = kept(&[]);
        state.set("b", b"1".to_vec(), Expiry::Never, terms(0)).unwrap();
        state.delete("b", at(0));
        assert!(!state.is_changed());
    }

    #[test]
    fn an_expired_value_is_not_there_and_the_next_write_removes_it() {
        let mut state = kept(&[("old", b"x", Some(5)), ("b", b"", None)]);
        assert_eq!(state.get("old", at(4)), Some(&b"x"[..]));
        assert_eq!(state.get("old", at(5)), None);
        assert!(!state.is_changed());
        state.set("new", Vec::new(), Expiry::After(Duration::from_secs(1)), terms(5)).unwrap();
        let keys: Vec<_> =
            state.changes().into_iter().map(|change| (change.key, change.value.is_some())).collect();
        assert_eq!(keys, [("new".to_owned(), true), ("old".to_owned(), false)]);
        assert_eq!(state.get("new", at(6)), None);
        let ttl = Expiry::After(Duration::MAX);
        assert_eq!(state.set("for ever", Vec::new(), ttl, terms(5)), Ok(()));
    }

    #[test]
    fn what_goes_over_a_limit_is_refused_and_changes_nothing() {
        let mut state = kept(&[("a", b"", None), ("b", b"", None), ("c", b"", None)]);
        assert_eq!(state.set("d", Vec::new(), Expiry::Never, terms(0)), Err(Refusal::Quota));
        assert_eq!(state.set("a", vec![0; 39], Expiry::Never, terms(0)), Err(Refusal::Quota));
        assert_eq!(state.set("a", vec![0; 40], Expiry::Never, terms(0)), Err(Refusal::ValueTooLarge));
        assert_eq!(state.set("a", vec![0; 37], Expiry::Never, terms(0)), Ok(()));
        let key = "ü".repeat(129);
        assert_eq!(state.set(&key, Vec::new(), Expiry::Never, terms(0)), Err(Refusal::KeyTooLong));
        assert_eq!(state.changes().len(), 1);
    }

    #[test]
    fn a_counter_starts_at_nothing_stays_in_bounds_and_keeps_its_end() {
        let mut state = kept(&[("text", b"no counter", None)]);
        assert_eq!(state.increment("n", 2, Some(Duration::from_secs(9)), terms(0)), Ok(2));
        assert_eq!(state.increment("n", -5, None, terms(0)), Ok(-3));
        assert_eq!(state.get("n", at(8)), Some(&(-3i64).to_le_bytes()[..]));
        assert_eq!(state.get("n", at(9)), None);
        assert_eq!(state.increment("n", i64::MIN, None, terms(0)), Ok(i64::MIN));
        assert_eq!(state.increment("n", -1, None, terms(0)), Ok(i64::MIN));
        assert_eq!(state.increment("text", 1, None, terms(0)), Err(Refusal::Conflict));
    }

    #[test]
    fn compare_and_set_writes_only_over_what_is_expected() {
        let mut state = kept(&[("a", b"1", None), ("gone", b"1", Some(0))]);
        let mut write = |key: &str, expected: Option<&[u8]>| {
            state.compare_and_set(key, expected, b"2".to_vec(), terms(0))
        };
        assert_eq!(write("a", Some(b"0")), Err(Refusal::Conflict));
        assert_eq!(write("a", None), Err(Refusal::Conflict));
        assert_eq!(write("a", Some(b"1")), Ok(()));
        assert_eq!(write("b", Some(b"")), Err(Refusal::Conflict));
        assert_eq!(write("gone", None), Ok(()));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u8, usize, Option<u64>),
        Delete(u8),
        Increment(u8),
        Swap(u8, usize),
        NextCall(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..5u8, 0..24usize, proptest::option::of(0..4u64)).prop_map(|(k, n, ttl)| Step::Set(k, n, ttl)),
            (0..5u8).prop_map(Step::Delete),
            (0..5u8).prop_map(Step::Increment),
            (0..5u8, 0..24usize).prop_map(|(k, n)| Step::Swap(k, n)),
            (0..3i64).prop_map(Step::NextCall),
        ]
    }

    /// Counts from the start what the state counts as it goes.
    fn count(state: &State, now: Timestamp) -> Used {
        let alive = |key: &String| Some((key.len(), state.get(key, now)?.len()));
        let keys: std::collections::BTreeSet<_> = state.kept.keys().chain(state.changes.keys()).collect();
        keys.into_iter().filter_map(alive).fold(Used::default(), |used, (key, value)| Used {
            keys: used.keys + 1,
            bytes: used.bytes + key + value,
        })
    }

    proptest! {
        #[test]
        fn the_quota_holds_at_all_times(steps in proptest::collection::vec(step(), 0..60)) {
            let (mut state, mut second) = (kept(&[]), 0);
            let key = |k: u8| "ключ".chars().take(usize::from(k)).collect::<String>();
            for step in steps {
                let before = state.clone();
                let refused = match step {
                    Step::Set(k, n, ttl) => {
                        let ttl = ttl.map_or(Expiry::Never, |ttl| Expiry::After(Duration::from_secs(ttl)));
                        state.set(&key(k), vec![0; n], ttl, terms(second)).is_err()
                    }
                    Step::Delete(k) => {
                        state.delete(&key(k), at(second));
                        false
                    }
                    Step::Increment(k) => state.increment(&key(k), 1, None, terms(second)).is_err(),
                    Step::Swap(k, n) => {
                        let there = state.get(&key(k), at(second)).map(<[u8]>::to_vec);
                        state.compare_and_set(&key(k), there.as_deref(), vec![1; n], terms(second)).is_err()
                    }
                    Step::NextCall(seconds) => {
                        second += seconds;
                        // The changes are committed, and the next call begins with them.
                        let mut map = (*state.kept).clone();
                        for StateChange { key, value } in state.changes() {
                            match value {
                                Some(value) => drop(map.insert(key, value)),
                                None => drop(map.remove(&key)),
                            }
                        }
                        state = State::over(Arc::new(map));
                        false
                    }
                };
                let now = at(second);
                let used = count(&state, now);
                prop_assert!(used.keys <= LIMITS.state_keys && used.bytes <= LIMITS.state_bytes);
                if let Some(counted) = state.used {
                    prop_assert_eq!(counted, used);
                }
                if refused {
                    for k in 0..5 {
                        prop_assert_eq!(state.get(&key(k), now), before.get(&key(k), now));
                    }
                }
            }
        }
    }
}

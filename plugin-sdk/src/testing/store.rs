//! The state of a host in memory, with the rules of the real one.

use std::collections::BTreeMap;

use crate::state::Error;

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 256;

#[derive(Clone)]
pub(crate) struct Store {
    pub(super) bytes_max: usize,
    pub(super) keys_max: usize,
    kept: BTreeMap<String, Value>,
}

#[derive(Clone)]
struct Value {
    bytes: Vec<u8>,
    /// In milliseconds since 1970.
    expires: Option<u64>,
}

impl Value {
    fn is_alive(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl Store {
    pub(super) fn new() -> Self {
        Self { bytes_max: 1024 * 1024, keys_max: 1000, kept: BTreeMap::new() }
    }

    pub(crate) fn get(&self, key: &str, now: u64) -> Option<&[u8]> {
        self.kept.get(key).filter(|value| value.is_alive(now)).map(|value| value.bytes.as_slice())
    }

    pub(super) fn keys(&self, now: u64) -> Vec<String> {
        self.kept.iter().filter(|(_, value)| value.is_alive(now)).map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn set(
        &mut self,
        key: &str,
        bytes: &[u8],
        ttl_ms: Option<u64>,
        now: u64,
    ) -> Result<(), Error> {
        if key.len() > KEY_BYTES_MAX {
            return Err(Error::KeyTooLong);
        }
        let size = key.len() + bytes.len();
        if size > self.bytes_max {
            return Err(Error::ValueTooLarge);
        }
        let others = self.kept.iter().filter(|(name, value)| *name != key && value.is_alive(now));
        let (keys, used) = others
            .fold((0, 0), |(keys, used), (name, value)| (keys + 1, used + name.len() + value.bytes.len()));
        if keys + 1 > self.keys_max || used + size > self.bytes_max {
            return Err(Error::QuotaExceeded);
        }
        let expires = ttl_ms.map(|ttl| now.saturating_add(ttl));
        self.kept.insert(key.to_owned(), Value { bytes: bytes.to_vec(), expires });
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.kept.remove(key);
    }

    pub(crate) fn increment(
        &mut self,
        key: &str,
        delta: i64,
        ttl_ms: Option<u64>,
        now: u64,
    ) -> Result<i64, Error> {
        let present = match self.get(key, now) {
            None => 0,
            Some(bytes) => i64::from_le_bytes(bytes.try_into().map_err(|_| Error::Conflict)?),
        };
        let next = present.saturating_add(delta);
        self.set(key, &next.to_le_bytes(), ttl_ms, now)?;
        Ok(next)
    }

    pub(crate) fn compare_and_set(
        &mut self,
        key: &str,
        expected: Option<&[u8]>,
        bytes: &[u8],
        now: u64,
    ) -> Result<(), Error> {
        if self.get(key, now) != expected {
            return Err(Error::Conflict);
        }
        self.set(key, bytes, None, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_expires_at_its_time() {
        let mut store = Store::new();
        store.set("k", b"v", Some(10), 100).unwrap();
        assert_eq!(store.get("k", 109), Some(b"v".as_slice()));
        assert_eq!((store.get("k", 110), store.keys(110).len()), (None, 0));
    }

    #[test]
    fn quotas_hold_for_keys_and_bytes_without_expired_values() {
        let mut store = Store { bytes_max: 10, keys_max: 2, ..Store::new() };
        assert_eq!(store.set("k", &[0; 10], None, 0), Err(Error::ValueTooLarge));
        assert_eq!(store.set(&"k".repeat(257), b"", None, 0), Err(Error::KeyTooLong));
        store.set("a", &[0; 6], None, 0).unwrap();
        assert_eq!(store.set("b", &[0; 3], None, 0), Err(Error::QuotaExceeded));
        store.set("b", &[0; 2], Some(5), 0).unwrap();
        assert_eq!(store.set("c", b"", None, 0), Err(Error::QuotaExceeded));
        store.set("c", b"", None, 5).unwrap();
        store.set("a", &[0; 8], None, 5).unwrap();
    }

    #[test]
    fn a_counter_counts_and_another_value_is_a_conflict() {
        let mut store = Store::new();
        assert_eq!(store.increment("n", 2, Some(5), 0), Ok(2));
        assert_eq!(store.increment("n", -3, None, 4), Ok(-1));
        assert_eq!(store.increment("n", 1, None, 9), Ok(0));
        store.set("n", b"three", None, 0).unwrap();
        assert_eq!(store.increment("n", 1, None, 0), Err(Error::Conflict));
    }

    #[test]
    fn compare_and_set_replaces_only_the_expected_value() {
        let mut store = Store::new();
        assert_eq!(store.compare_and_set("k", Some(b"1"), b"2", 0), Err(Error::Conflict));
        store.compare_and_set("k", None, b"1", 0).unwrap();
        assert_eq!(store.compare_and_set("k", None, b"2", 0), Err(Error::Conflict));
        store.compare_and_set("k", Some(b"1"), b"2", 0).unwrap();
        assert_eq!(store.get("k", 0), Some(b"2".as_slice()));
    }
}

//! The host of a test.

use crate::log::Level;
use crate::state::Error;
use crate::testing::current;

pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
    current(|host| host.logs.write(level, message, fields));
}

pub(crate) fn log_enabled(_level: Level) -> bool {
    true
}

pub(crate) fn config() -> String {
    current(|host| host.config.to_string())
}

pub(crate) fn config_member(name: &str) -> Option<String> {
    current(|host| match host.config.get(name)? {
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    })
}

pub(crate) fn state_get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    current(|host| Ok(host.state.get(key, host.now_ms).map(<[u8]>::to_vec)))
}

pub(crate) fn state_set(key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), Error> {
    current(|host| host.state.set(key, value, ttl_ms, host.now_ms))
}

pub(crate) fn state_delete(key: &str) -> Result<(), Error> {
    current(|host| {
        host.state.delete(key);
        Ok(())
    })
}

pub(crate) fn state_increment(key: &str, delta: i64, ttl_ms: Option<u64>) -> Result<i64, Error> {
    current(|host| host.state.increment(key, delta, ttl_ms, host.now_ms))
}

pub(crate) fn state_compare_and_set(key: &str, expected: Option<&[u8]>, value: &[u8]) -> Result<(), Error> {
    current(|host| host.state.compare_and_set(key, expected, value, host.now_ms))
}

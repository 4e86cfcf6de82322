//! The host outside the sandbox.

use crate::bindings::imports::waypost::plugin::{config, log, state};
use crate::log::Level;
use crate::state::Error;

fn level(level: Level) -> log::Level {
    match level {
        Level::Trace => log::Level::Trace,
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    }
}

pub(crate) fn log(severity: Level, message: &str, fields: &[(String, String)]) {
    log::write(level(severity), message, fields);
}

pub(crate) fn log_enabled(severity: Level) -> bool {
    log::enabled(level(severity))
}

pub(crate) fn config() -> String {
    config::all()
}

pub(crate) fn config_member(name: &str) -> Option<String> {
    config::get(name)
}

fn error(error: state::StateError) -> Error {
    match error {
        state::StateError::QuotaExceeded => Error::QuotaExceeded,
        state::StateError::KeyTooLong => Error::KeyTooLong,
        state::StateError::ValueTooLarge => Error::ValueTooLarge,
        state::StateError::Conflict => Error::Conflict,
        state::StateError::Unavailable(message) => Error::Unavailable(message),
    }
}

pub(crate) fn state_get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    state::get(key).map_err(error)
}

pub(crate) fn state_set(key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), Error> {
    state::set(key, value, ttl_ms).map_err(error)
}

pub(crate) fn state_delete(key: &str) -> Result<(), Error> {
    state::delete(key).map_err(error)
}

pub(crate) fn state_increment(key: &str, delta: i64, ttl_ms: Option<u64>) -> Result<i64, Error> {
    state::increment(key, delta, ttl_ms).map_err(error)
}

pub(crate) fn state_compare_and_set(key: &str, expected: Option<&[u8]>, value: &[u8]) -> Result<(), Error> {
    state::compare_and_set(key, expected, value).map_err(error)
}

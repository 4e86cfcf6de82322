//! Small durable state, with one namespace for each subscription.
//!
//! The changes of a call become durable together with its verdict, or not at all: a call that fails changes nothing.
//! Calls of one subscription run one after the other, so each sees what the earlier ones wrote. The limits are 1000 keys
//! and 1 MiB for keys and values together; a key has at most 256 bytes.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host;

/// Why the state was not read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Keys and values together would exceed the limit.
    QuotaExceeded,
    /// The key has more than 256 bytes.
    KeyTooLong,
    /// The value alone exceeds the limit for the whole state.
    ValueTooLarge,
    /// The value is not the expected one, or not a counter.
    Conflict,
    /// The host cannot access the state now.
    Unavailable(String),
    /// The stored value does not have the requested form, or the given one cannot be written in it.
    Format(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QuotaExceeded => {
                f.write_str("the state's quota is exceeded: delete keys, or give them a time to live")
            }
            Self::KeyTooLong => f.write_str("the key of the state has more than 256 bytes"),
            Self::ValueTooLarge => f.write_str("the value is larger than the whole state may be"),
            Self::Conflict => f.write_str("the value in the state is another one than was expected"),
            Self::Unavailable(message) => write!(f, "the state is unavailable: {message}"),
            Self::Format(message) => write!(f, "the value in the state has another form: {message}"),
        }
    }
}

impl std::error::Error for Error {}

/// Returns a value.
///
/// # Errors
/// When the host cannot access the state.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    host::state_get(key)
}

/// Sets a value, which expires after `ttl`.
///
/// # Errors
/// When it exceeds a limit.
pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Error> {
    host::state_set(key, value, ttl.map(ms))
}

/// Returns a value that [`set_json`] wrote.
///
/// # Errors
/// [`Error::Format`] when the value is not JSON of this shape.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    let Some(bytes) = get(key)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Format(error.to_string()))
}

/// Sets a value as JSON, which expires after `ttl`.
///
/// # Errors
/// When it exceeds a limit, or the value cannot be written as JSON.
pub fn set_json(key: &str, value: &(impl Serialize + ?Sized), ttl: Option<Duration>) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::Format(error.to_string()))?;
    set(key, &bytes, ttl)
}

/// Deletes a value.
///
/// # Errors
/// When the host cannot access the state.
pub fn delete(key: &str) -> Result<(), Error> {
    host::state_delete(key)
}

/// Adds to a counter, and returns its new value. A missing counter is 0; each call sets the time to live again.
///
/// # Errors
/// [`Error::Conflict`] when the value is not a counter (8 bytes, little-endian); when it exceeds a limit.
pub fn increment(key: &str, delta: i64, ttl: Option<Duration>) -> Result<i64, Error> {
    host::state_increment(key, delta, ttl.map(ms))
}

/// Sets a value, without a time to live, if the current one is `expected`; `None` means that there is none.
///
/// # Errors
/// [`Error::Conflict`] when the current value is another; when it exceeds a limit.
pub fn compare_and_set(key: &str, expected: Option<&[u8]>, value: &[u8]) -> Result<(), Error> {
    host::state_compare_and_set(key, expected, value)
}

fn ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

//! A small durable state: one name space for each subscription.
//!
//! What a call changes becomes durable together with its verdict, or not at all: a call that fails has changed nothing.
//! Calls of one subscription go one after the other, so that each sees what those before it wrote. The limits are 1000
//! keys and 1 MiB for keys and values together; a key has at most 256 bytes.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host;

/// Why the state was not read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// All keys and values together would be above the limit.
    QuotaExceeded,
    /// The key has more than 256 bytes.
    KeyTooLong,
    /// The value alone is above the limit of all.
    ValueTooLarge,
    /// The value is not the expected one, or no counter.
    Conflict,
    /// The host cannot say now.
    Unavailable(String),
    /// The value does not have the form that was asked for, or cannot have it.
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
/// When the host cannot say.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    host::state_get(key)
}

/// Sets a value, which is gone after `ttl`.
///
/// # Errors
/// When it goes over a limit.
pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Error> {
    host::state_set(key, value, ttl.map(ms))
}

/// Returns a value that [`set_json`] wrote.
///
/// # Errors
/// [`Error::Format`] when it is no such value.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    let Some(bytes) = get(key)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Format(error.to_string()))
}

/// Sets a value as JSON, which is gone after `ttl`.
///
/// # Errors
/// When it goes over a limit, or the value has no form in JSON.
pub fn set_json(key: &str, value: &(impl Serialize + ?Sized), ttl: Option<Duration>) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::Format(error.to_string()))?;
    set(key, &bytes, ttl)
}

/// Takes a value away.
///
/// # Errors
/// When the host cannot say.
pub fn delete(key: &str) -> Result<(), Error> {
    host::state_delete(key)
}

/// Adds to a counter, and returns its new value. A missing one counts as 0; each call sets its time to live anew.
///
/// # Errors
/// [`Error::Conflict`] when the value is no counter (8 bytes, the lowest first); when it goes over a limit.
pub fn increment(key: &str, delta: i64, ttl: Option<Duration>) -> Result<i64, Error> {
    host::state_increment(key, delta, ttl.map(ms))
}

/// Sets a value, without a time to live, if the present one is `expected`; `None` is none.
///
/// # Errors
/// [`Error::Conflict`] when it is another; when it goes over a limit.
pub fn compare_and_set(key: &str, expected: Option<&[u8]>, value: &[u8]) -> Result<(), Error> {
    host::state_compare_and_set(key, expected, value)
}

fn ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

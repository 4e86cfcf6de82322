//! Why a call failed, and what the host does about it.

use std::fmt;
use std::time::Duration;

use crate::state;

/// What a call of a plugin returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. The host reacts to each case in one way; [the crate's documentation](crate#errors) has the table.
///
/// `?` turns any [`std::error::Error`] into [`Error::Internal`], except for the errors of the crate's own functions:
/// [`Event::data`](crate::Event::data) fails with [`Error::InvalidEvent`],
/// [`Context::config`](crate::Context::config) with [`Error::InvalidConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// This event can never be processed: its delivery becomes a dead letter, without a retry.
    InvalidEvent(String),
    /// The configuration is wrong: the subscription is disabled, and its `error` has this text.
    InvalidConfig(String),
    /// Something that the plugin needs is unavailable: the delivery is retried on its schedule.
    Unavailable {
        /// What is unavailable.
        message: String,
        /// The shortest wait until the next attempt.
        retry_after: Option<Duration>,
    },
    /// Any other failure: the subscription's `on_error` says what follows, and the circuit breaker counts it.
    Internal(String),
}

impl Error {
    /// Returns [`Error::InvalidEvent`].
    pub fn invalid_event(message: impl Into<String>) -> Self {
        Self::InvalidEvent(message.into())
    }

    /// Returns [`Error::InvalidConfig`].
    pub fn invalid_config(message: impl Into<String>) -> Self {
        Self::InvalidConfig(message.into())
    }

    /// Returns [`Error::Unavailable`] that leaves the time of the retry to the delivery's schedule.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into(), retry_after: None }
    }

    /// Returns [`Error::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidEvent(message) => write!(f, "invalid event: {message}"),
            Self::InvalidConfig(message) => write!(f, "invalid configuration: {message}"),
            Self::Unavailable { message, .. } => write!(f, "unavailable: {message}"),
            Self::Internal(message) => write!(f, "internal error: {message}"),
        }
    }
}

/// `Error` does not implement `std::error::Error`: otherwise this would conflict with `From<T> for T`.
impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let mut whole = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            whole = format!("{whole}: {cause}");
            source = cause.source();
        }
        let any: &dyn std::error::Error = &error;
        match any.downcast_ref() {
            Some(state::Error::Unavailable(_)) => Self::unavailable(whole),
            _ => Self::Internal(whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_error_becomes_an_internal_one_with_its_causes() {
        #[derive(Debug)]
        struct Outer(std::num::ParseIntError);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("failed to read the year")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let year = |text: &str| -> Result<u16> { Ok(text.parse().map_err(Outer)?) };
        assert_eq!(year("1984"), Ok(1984));
        let expected = Error::internal("failed to read the year: invalid digit found in string");
        assert_eq!(year("x"), Err(expected));
    }

    #[test]
    fn unavailable_state_is_retried() {
        let away = Error::from(state::Error::Unavailable("the disk is full".to_owned()));
        assert_eq!(away, Error::unavailable("the state is unavailable: the disk is full"));
        assert!(matches!(Error::from(state::Error::QuotaExceeded), Error::Internal(_)));
    }
}

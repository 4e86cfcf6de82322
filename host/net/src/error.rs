//! Why a request has no answer.

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use hyper_util::client::legacy;

use super::addresses::Special;
use super::pattern::TargetPattern;
use super::proxy::ProxyFailure;
use waypost_runtime::shortage;

/// Why there is no connection, as connectors report it.
pub(super) type Failure = Box<dyn StdError + Send + Sync>;

/// Why a request has no answer. The variant tells which side caused it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It must not go there: the sender's fault.
    #[error("the request was not sent")]
    Refused(#[source] Refused),
    /// This machine is short of something, such as file descriptors or memory for a socket: our own fault.
    #[error("this machine has no more connections to give")]
    Shortage(#[source] io::Error),
    /// The operator's proxy does not do its work: nobody's fault who sends through it.
    #[error("the request was not sent")]
    Proxy(#[source] legacy::Error),
    /// There is no address, no connection, or no TLS.
    #[error("the target cannot be reached")]
    Unreachable(#[source] legacy::Error),
    /// There was no answer in time.
    #[error("the target did not answer within {} ms", waited.as_millis())]
    TimedOut {
        /// How long it had.
        waited: Duration,
    },
    /// The target does not speak HTTP.
    #[error("the target's answer is no HTTP: it begins with `{begin}`")]
    NotHttp {
        /// Its first bytes, as text.
        begin: String,
    },
    /// The connection ended before there was an answer.
    #[error("the target gave no answer")]
    BrokenOff(#[source] legacy::Error),
}

/// Why a request must not be sent where it leads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It leads to the service that would send it, at this address.
    #[error("{0} is this Waypost itself, which is no target")]
    Own(String),
    /// It leads to an address that is not public.
    #[error(
        "the address {address} is not public ({special}), and the setting allow_targets does not open it"
    )]
    NotPublic {
        /// The address.
        address: IpAddr,
        /// What it is instead.
        special: Special,
    },
    /// The operator does not want it to.
    #[error("{what} is refused by `{pattern}` in the setting deny_targets")]
    Denied {
        /// The name or the address, and the port.
        what: String,
        /// The entry that has it.
        pattern: TargetPattern,
    },
    /// Its host cannot be one, so nobody knows where it leads.
    #[error("`{0}` cannot be a host")]
    NoHost(String),
}

impl Error {
    /// Tells whether this machine or the operator's proxy is at fault rather than the target.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Shortage(_) | Self::Proxy(_))
    }

    /// Judges why no connection came about.
    pub(super) fn unconnected(error: legacy::Error) -> Self {
        if let Some(refused) = find::<Refused>(&error) {
            return Self::Refused(refused.clone());
        }
        match shortage::find(&error) {
            Some(source) => Self::Shortage(source),
            None if find(&error).is_some_and(ProxyFailure::is_operators) => Self::Proxy(error),
            None => Self::Unreachable(error),
        }
    }

    /// Judges why a connection gave no answer.
    pub(super) fn broken_off(error: legacy::Error) -> Self {
        match shortage::named(&error) {
            Some(source) => Self::Shortage(source),
            None => Self::BrokenOff(error),
        }
    }
}

/// Finds an error of a type among a chain of causes.
pub(super) fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

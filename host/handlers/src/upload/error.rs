//! Why an upload ended early.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

use super::{CHAIN_ATTRIBUTE, CHAIN_MAX};
use crate::work::Stopped;
use waypost_domain::event::DecodeError;
use waypost_engine::intake;
use waypost_net::SetUpError;

/// Why an output was not uploaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A password or a certificate cannot be read.
    #[error("failed to read the {what} in {path}")]
    Secret {
        /// `password of the ingest service`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This program was built without the client of ingest services.
    #[error("this program cannot upload to an ingest service: it was built without the feature `pacifica`")]
    NoIngest,
    /// The HTTP client cannot be made.
    #[error("failed to set up the HTTP client for uploads")]
    Client(#[source] SetUpError),
    /// A file of the output cannot be read.
    #[error("failed to read {path} for its upload")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the output has changed since the program ended.
    #[error(
        "{path} was changed while it was uploaded: something that the handler started still writes to it"
    )]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// The destination cannot be written.
    #[error("failed to write the upload at {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A note for the next try cannot be written, or that of an earlier try cannot be read.
    #[error("failed to keep the notes of an upload at {path}")]
    Notes {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The service did not answer.
    #[error("the ingest service did not answer at {url}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The service ended the upload before the bundle was complete. Its reason is lost if it closed the connection at
    /// once.
    #[error(
        "the connection to the ingest service at {url} broke after {sent} of {size} bytes: if this repeats, its \
         log may say why it refused them"
    )]
    BrokenOff {
        /// Where.
        url: String,
        /// How many bytes were on their way.
        sent: u64,
        /// How many there were to send.
        size: u64,
        /// What happened to the connection.
        source: reqwest::Error,
    },
    /// The service stopped reading, or did not answer once it had everything.
    #[error("the ingest service at {url} made no progress for {waited:?}")]
    Idle {
        /// Where.
        url: String,
        /// For how long.
        waited: Duration,
    },
    /// The service answered with an unexpected status.
    #[error("the ingest service answered {status} at {url}: {answer}")]
    Refused {
        /// Where.
        url: String,
        /// The status.
        status: StatusCode,
        /// Its body; a long one is cut in the middle.
        answer: String,
    },
    /// The service's answer cannot be read.
    #[error("the ingest service's answer at {url} is not a {expected}: {answer}")]
    Answer {
        /// Where.
        url: String,
        /// What it should be: `{"job_id": …}`.
        expected: &'static str,
        /// Its body; a long one is cut in the middle.
        answer: String,
    },
    /// The service took the bundle, but could not ingest it.
    #[error("ingest job {job} failed at {url}: {answer}")]
    Failed {
        /// Where its state is asked for.
        url: String,
        /// Its id.
        job: String,
        /// At which task and for what reason, in the service's words; a long text is cut in the middle.
        answer: String,
        /// Whether the service rejected the bundle itself, so that the same bundle would fail again.
        is_lasting: bool,
    },
    /// The service does not know a job that it has begun.
    #[error("the ingest service knows no job {job} at {url}: {answer}")]
    UnknownJob {
        /// Where its state is asked for.
        url: String,
        /// Its id.
        job: String,
        /// The answer that says so; a long one is cut in the middle.
        answer: String,
    },
    /// The service took the bundle, but is not done with it.
    #[error(
        "ingest job {job} was not done within {} ms (`timeout` of the handler's `upload`); last, {url} said: \
         {answer}",
        timeout.as_millis()
    )]
    Timeout {
        /// Where its state is asked for.
        url: String,
        /// Its id.
        job: String,
        /// The limit.
        timeout: Duration,
        /// The last answer; a long one is cut in the middle.
        answer: String,
        /// Why there was no answer the last time, where there was none.
        source: Option<Box<Self>>,
    },
    /// Handlers trigger each other in an endless chain.
    #[error(
        "the follow-up event would be number {chain} of a chain, and {CHAIN_MAX} is the most \
         (`{CHAIN_ATTRIBUTE}`): a handler that triggers itself, by way of others too, needs a filter that ends this"
    )]
    Chain {
        /// Which it would be.
        chain: u32,
    },
    /// The follow-up event is not a valid event.
    #[error("the follow-up event is not valid")]
    Event(#[source] DecodeError),
    /// The follow-up event was refused.
    #[error("the follow-up event was not accepted")]
    NotAccepted(#[source] Refusal),
    /// The work was ended.
    #[error("the upload was ended before it was done")]
    Stopped,
}

impl From<Stopped> for Error {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Why a follow-up event was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Intake did not accept it.
    #[error(transparent)]
    Intake(#[from] intake::Error),
    /// The replacement for intake did not accept it.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Tells whether the cause is a shortage of this service, such as no room in the store, and not the destination or
    /// the program.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::NotAccepted(Refusal::Intake(error)) => error.is_shortage(),
            Self::NotAccepted(Refusal::Other(_)) => false,
            Self::NoIngest | Self::Secret { .. } | Self::Client(_) | Self::Chain { .. } | Self::Event(_) => {
                false
            }
            Self::Read { .. } | Self::Changed { .. } | Self::Write { .. } | Self::Notes { .. } => false,
            Self::Unreachable { .. } | Self::BrokenOff { .. } | Self::Idle { .. } => false,
            Self::Refused { .. } | Self::Answer { .. } | Self::Failed { .. } => false,
            Self::UnknownJob { .. } | Self::Timeout { .. } | Self::Stopped => false,
        }
    }

    /// Tells whether a retry would fail in the same way unless the configuration of this service or the other changes.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::NoIngest | Self::Secret { .. } | Self::Client(_) | Self::Chain { .. } | Self::Event(_) => {
                true
            }
            Self::Refused { status, .. } => !is_passing(*status),
            Self::Read { .. } | Self::Changed { .. } | Self::Write { .. } | Self::Notes { .. } => false,
            Self::Unreachable { .. } | Self::BrokenOff { .. } | Self::Idle { .. } => false,
            Self::Answer { .. } => false,
            Self::Failed { is_lasting, .. } => *is_lasting,
            Self::UnknownJob { .. } | Self::Timeout { .. } => false,
            Self::NotAccepted(_) | Self::Stopped => false,
        }
    }
}

/// Tells whether a status is about the service's present state rather than about the request.
pub(super) fn is_passing(status: StatusCode) -> bool {
    let is_busy = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    status.is_server_error() || is_busy
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_store as store;

    fn not_accepted(source: store::Error) -> Error {
        Error::NotAccepted(intake::Error::Log { source }.into())
    }

    /// The shortage was counted as a failure: after 75 minutes of a full disk, uploads were dead letters.
    #[test]
    fn a_store_that_is_away_or_full_is_our_own_shortage_and_a_refusal_of_the_event_is_not() {
        let quota = store::Error::Quota { user: "ann".to_owned(), kept: 1, bytes: 1, max: 1 };
        let away = store::Error::Unavailable { reason: "no space left on device".to_owned() };
        for error in [quota, away, store::Error::Busy { max: 1 }, store::Error::Closed] {
            let error = not_accepted(error);
            assert!(error.is_shortage() && !error.is_lasting(), "{error:?}");
        }
        assert!(Error::NotAccepted(intake::Error::Busy { max: 1 }.into()).is_shortage());
        assert!(!Error::NotAccepted(intake::Error::TooMuch { max: 1 }.into()).is_shortage());
        assert!(!not_accepted(store::Error::Damaged { table: "seen", reason: String::new() }).is_shortage());
        assert!(!Error::NotAccepted(Refusal::Other("no".to_owned())).is_shortage());
    }
}

//! Handlers: programs that run on an event's files. A run is a delivery whose recipient is a handler.
//!
//! The store knows recipients by a [`RecipientId`] alone. A handler has two, both derived from its name: one for events
//! that its route chooses, one for runs that `/dispatch` starts. Because they differ, an argument that was given on
//! `/dispatch` can be told from one that an event only claims.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::RecipientId;
use crate::retry::format_duration;

/// The most bytes of stdout and of stderr that the history keeps: their ends.
pub const TAIL_BYTES_MAX: usize = 64 * 1024;
/// The longest name of a handler, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// The name space of the ids of handlers.
const NAMESPACE: Uuid = Uuid::from_u128(0x5f0d_8f1c_2a3b_4c5e_9d7f_6a1b_3c2d_4e5f);

/// A handler's name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandlerName(String);

/// Why a text is no name of a handler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a handler: write 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`, beginning with a \
     letter or digit"
)]
pub struct NameError(String);

impl HandlerName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the recipient of the events that the handler's route chooses.
    pub fn routed(&self) -> RecipientId {
        self.recipient("route")
    }

    /// Returns the recipient of the runs that `/dispatch` starts.
    pub fn dispatched(&self) -> RecipientId {
        self.recipient("dispatch")
    }

    fn recipient(&self, way: &str) -> RecipientId {
        RecipientId::from_uuid(Uuid::new_v5(&NAMESPACE, format!("{way}/{}", self.0).as_bytes()))
    }
}

impl FromStr for HandlerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
        let is_name = text.len() <= NAME_BYTES_MAX
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(is_plain);
        if is_name { Ok(Self(text.to_owned())) } else { Err(NameError(text.to_owned())) }
    }
}

impl fmt::Display for HandlerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run as the history keeps it.
///
/// Its serde form is that of `ran.json` in the folder of a run, from which a later attempt goes on with the upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerRun {
    /// Which handler.
    pub handler: String,
    /// What it began with.
    pub start: RunStart,
    /// What was fetched, if the fetch was completed.
    pub fetched: Option<FetchSummary>,
    /// How the program ended, where it was started.
    pub program: Option<ProgramEnd>,
    /// What was uploaded, in the order of the outputs.
    pub uploads: Vec<UploadSummary>,
}

/// What a run began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunStart {
    /// A fresh folder.
    Fresh,
    /// A fresh folder, since an earlier run was cut short by the end of the service.
    Again {
        /// When the run that was cut short began.
        #[serde(with = "jiff::fmt::serde::timestamp::microsecond::required")]
        interrupted: Timestamp,
    },
    /// The outputs of an earlier attempt's program: only the upload is tried again.
    Upload {
        /// When that program ended.
        #[serde(with = "jiff::fmt::serde::timestamp::microsecond::required")]
        ran: Timestamp,
    },
}

/// What was fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchSummary {
    /// How many files.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramEnd {
    /// Its exit.
    pub exit: Exit,
    /// How long it ran.
    pub took: Duration,
    /// What it wrote to stdout.
    pub stdout: StreamTail,
    /// What it wrote to stderr.
    pub stderr: StreamTail,
}

/// Why a program does not run any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It ended by itself: 0 is success.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It was ended because of a limit, which is named.
    Limit(String),
    /// It could not be started, or trapped, or the closure returned an error, with the reason.
    Failed(String),
}

/// What a program wrote to one of its streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamTail {
    /// The end of it as text, at most [`TAIL_BYTES_MAX`] bytes.
    pub tail: String,
    /// How many bytes it wrote.
    pub bytes: u64,
    /// How many of the first of them are in the file that is uploaded: fewer where a limit cut it off.
    pub kept: u64,
}

/// One output that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadSummary {
    /// The output's name.
    pub output: String,
    /// How many files.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where they are now: a folder, an ingest job, an event.
    pub place: String,
}

impl HandlerRun {
    /// Returns about how many bytes it takes in the history.
    pub fn size(&self) -> usize {
        let said = |program: &ProgramEnd| program.stdout.tail.len() + program.stderr.tail.len();
        let uploads = self.uploads.iter().map(|upload| 64 + upload.output.len() + upload.place.len());
        128 + self.program.as_ref().map_or(0, said) + uploads.sum::<usize>()
    }

    /// Shortens what the program wrote to each of its streams to the last bytes, as many as these or a few fewer.
    pub fn keep_end(&mut self, bytes: usize) {
        let streams = self.program.iter_mut().flat_map(|program| [&mut program.stdout, &mut program.stderr]);
        for StreamTail { tail, .. } in streams {
            let cut = tail.len().saturating_sub(bytes);
            tail.drain(..tail.ceil_char_boundary(cut));
            tail.shrink_to_fit();
        }
    }
}

impl Exit {
    /// Returns the exit of a program that took longer than this.
    pub fn timed_out(time: Duration) -> Self {
        Self::Limit(format!("timeout of {} (timeout)", format_duration(time)))
    }

    /// Tells whether the program succeeded.
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "the program ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "the program was ended by signal {signal}"),
            Self::Limit(limit) => write!(f, "the program was ended: {limit}"),
            Self::Failed(reason) => write!(f, "the program failed: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_gives_two_lasting_recipients() {
        let name: HandlerName = "sha512sum".parse().unwrap();
        assert_ne!(name.routed(), name.dispatched());
        assert_ne!(name.routed(), "sha512".parse::<HandlerName>().unwrap().routed());
        assert_eq!(name.routed().to_string(), "a5821ada-fd56-5369-bfc6-45487a9b3808", "rows on disk have it");
        for bad in ["", ".", "-a", "a/b", "..", "a b", "ä", &"a".repeat(65)] {
            assert!(bad.parse::<HandlerName>().is_err(), "{bad}");
        }
    }
}

//! Why files were not fetched.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

use super::hash;
use crate::work::Stopped;
use waypost_domain::parts::{FilePath, PathError};
use waypost_net::SetUpError;

/// Why files were not fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The event has too many files.
    #[error("the event has {files} files, more than `download_files_max` = {limit}")]
    TooManyFiles {
        /// How many.
        files: usize,
        /// The limit.
        limit: usize,
    },
    /// The files are too large.
    #[error("the event's files have {bytes} bytes together, more than `download_bytes_max` = {limit}")]
    TooManyBytes {
        /// How many, as far as that is known.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The event names a hash algorithm that is not supported.
    #[error("`{path}`: the hash type `{kind}` is not known: the known types are {}", hash::known())]
    UnknownHash {
        /// The file.
        path: FilePath,
        /// What the event says.
        kind: String,
    },
    /// The event's hash sum has the wrong form for its algorithm.
    #[error("`{path}`: a {kind} sum has {digits} hexadecimal digits, and the event says `{sum}`")]
    HashLength {
        /// The file.
        path: FilePath,
        /// The hash type.
        kind: &'static str,
        /// How many digits it has.
        digits: usize,
        /// What the event says.
        sum: String,
    },
    /// A file has another size than the event says.
    #[error("`{path}` has {found} bytes, and the event says {expected}")]
    Size {
        /// The file.
        path: FilePath,
        /// What the event says.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// A file has another hash sum than the event says.
    #[error("`{path}` has the {kind} sum {found}, and the event says {expected}")]
    Hash {
        /// The file.
        path: FilePath,
        /// The hash type.
        kind: &'static str,
        /// What the event says.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A file cannot be created in the run's folder.
    #[error("cannot create `{path}` in the run's folder")]
    Create {
        /// The file.
        path: FilePath,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written in the run's folder.
    #[error("cannot write `{path}` in the run's folder")]
    Write {
        /// The file.
        path: FilePath,
        /// Why.
        source: io::Error,
    },
    /// The fetch was dropped.
    #[error("the fetch was stopped")]
    Stopped,
    /// This program was built without the client of cart services.
    #[error("this program cannot fetch from a cart service: it was built without the feature `pacifica`")]
    NoCarts,
    /// From a local folder.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// From a cart service.
    #[error(transparent)]
    Cart(#[from] CartError),
    /// What a cart service sent.
    #[error(transparent)]
    Tar(#[from] TarError),
}

impl From<Stopped> for Error {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Why a file was not copied from a local folder.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The folder cannot be used.
    #[error("cannot use the folder `{}` that files are fetched from", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read, or is not there.
    #[error("cannot read `{path}` in `{}`", folder.display())]
    Read {
        /// The file.
        path: FilePath,
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link leads out of the folder.
    #[error("`{path}` leads out of `{}` by a link, to `{}`", folder.display(), place.display())]
    Outside {
        /// The file.
        path: FilePath,
        /// The folder.
        folder: PathBuf,
        /// Where it leads.
        place: PathBuf,
    },
    /// It is a folder, a device, a named pipe or a socket.
    #[error("`{path}` in `{}` is not a regular file", folder.display())]
    NotRegular {
        /// The file.
        path: FilePath,
        /// The folder.
        folder: PathBuf,
    },
    /// It changed while it was copied.
    #[error("`{path}` in `{}` was changed while it was copied", folder.display())]
    Changed {
        /// The file.
        path: FilePath,
        /// The folder.
        folder: PathBuf,
    },
}

/// Why a cart service gave no files.
#[derive(Debug, thiserror::Error)]
pub enum CartError {
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] SetUpError),
    /// Carts cannot be made below the URL.
    #[error("`{0}` is not the URL of a cart service: write it as `http://host:port`")]
    Url(String),
    /// The event lacks something that a cart service needs.
    #[error("`{path}`: a cart service must know its {field}, and the event gives none")]
    Unknown {
        /// The file.
        path: FilePath,
        /// What is missing.
        field: &'static str,
    },
    /// No answer.
    #[error("the cart service gave no answer to {method} {url}")]
    NoAnswer {
        /// What was asked.
        method: &'static str,
        /// Where.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The answer does not follow the protocol.
    #[error("the cart service answered {method} {url} with {status}: {message}")]
    Refused {
        /// What was asked.
        method: &'static str,
        /// Where.
        url: String,
        /// What it answered.
        status: StatusCode,
        /// Its explanation.
        message: String,
    },
    /// The files were not there in time.
    #[error(
        "the cart was not ready after {timeout:?}, which is the longest that staging may take: it was `{state}`"
    )]
    NotReady {
        /// The limit.
        timeout: Duration,
        /// What the service said last.
        state: String,
    },
}

/// What is wrong with the tar that a cart service sent.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// A member is neither file nor folder.
    #[error("the cart's tar has {kind}, `{member}`: only files and folders are taken")]
    Kind {
        /// What it is.
        kind: &'static str,
        /// Its path.
        member: String,
    },
    /// A member's path does not stay below a folder.
    #[error("the cart's tar has `{member}`, which is refused")]
    Path {
        /// The path.
        member: String,
        /// Why.
        source: PathError,
    },
    /// A member's path is not text.
    #[error("the cart's tar has `{member}`, whose path is not UTF-8")]
    Encoding {
        /// The path, with invalid UTF-8 replaced.
        member: String,
    },
    /// A member does not lie below `data/`.
    #[error("the cart's tar has `{member}`, which does not lie below `data/`")]
    Elsewhere {
        /// Its path.
        member: String,
    },
    /// A member is not one of the event's files.
    #[error("the cart's tar has `{member}`, which the event does not name")]
    Unasked {
        /// Its path.
        member: String,
    },
    /// A member comes a second time.
    #[error("the cart's tar has `{member}` twice")]
    Twice {
        /// Its path.
        member: String,
    },
    /// Files of the event are missing.
    #[error("the cart's tar has no `{first}`{}", more(*.count))]
    Missing {
        /// The first that is missing.
        first: FilePath,
        /// How many are missing.
        count: usize,
    },
    /// The headers of members are too large.
    #[error("the cart's tar has more than {limit} bytes {place} that are not in a file")]
    Headers {
        /// Where.
        place: ArchivePosition,
        /// How many are allowed.
        limit: u64,
    },
    /// It is not a tar, or is damaged.
    #[error("the cart's tar cannot be read {place}")]
    Malformed {
        /// Where.
        place: ArchivePosition,
        /// Why.
        source: io::Error,
    },
    /// It ends too early.
    #[error("the cart's tar ends {place}, before its end mark")]
    Truncated {
        /// Where.
        place: ArchivePosition,
    },
    /// Something follows its end.
    #[error("the cart's tar goes on after its end mark")]
    Trailing,
    /// The connection broke.
    #[error("the connection to the cart service broke {place}")]
    Broken {
        /// Where.
        place: ArchivePosition,
        /// Why.
        source: io::Error,
    },
}

/// A place in a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchivePosition {
    /// Before the first member.
    Begin,
    /// In a member.
    In(String),
    /// Between a member and the next.
    After(String),
}

impl fmt::Display for ArchivePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("at its beginning"),
            Self::In(member) => write!(f, "in `{member}`"),
            Self::After(member) => write!(f, "after `{member}`"),
        }
    }
}

fn more(count: usize) -> String {
    if count > 1 { format!(" (and {} more of the event's files)", count - 1) } else { String::new() }
}

//! Plans a fetch: checks the list of files before any of them is fetched.

use super::hash::Algorithm;
use super::{Error, FetchLimits};
use waypost_domain::parts::{File, FilePath};

/// The files that are wanted.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) wanted: Vec<Wanted>,
    /// The sizes of all of them together, as far as the event says them.
    pub(super) bytes: u64,
}

/// A file that is wanted, and how it is verified.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) path: FilePath,
    pub(super) size: Option<u64>,
    pub(super) hash: Option<Expected>,
}

/// The hash sum that a file must have.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) algorithm: &'static Algorithm,
    pub(super) sum: String,
}

impl Plan {
    /// Plans to fetch an event's files.
    pub(super) fn of(files: &[File], limits: FetchLimits) -> Result<Self, Error> {
        if files.len() > limits.files_max {
            return Err(Error::TooManyFiles { files: files.len(), limit: limits.files_max });
        }
        let bytes = files.iter().filter_map(|file| file.size).fold(0, u64::saturating_add);
        if bytes > limits.bytes_max {
            return Err(Error::TooManyBytes { bytes, limit: limits.bytes_max });
        }
        Ok(Self { wanted: files.iter().map(Wanted::of).collect::<Result<_, _>>()?, bytes })
    }
}

impl Wanted {
    fn of(file: &File) -> Result<Self, Error> {
        let path = file.path.clone();
        let hash = match &file.hash {
            None => None,
            Some(hash) => {
                let Some(algorithm) = Algorithm::named(&hash.kind) else {
                    return Err(Error::UnknownHash { path, kind: hash.kind.clone() });
                };
                let (kind, digits, sum) = (algorithm.name, algorithm.digits, hash.sum.clone());
                if sum.len() != digits {
                    return Err(Error::HashLength { path, kind, digits, sum });
                }
                Some(Expected { algorithm, sum })
            }
        };
        Ok(Self { path, size: file.size, hash })
    }
}

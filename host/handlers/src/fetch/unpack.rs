//! Unpacks the tar of a cart while it is received. Blocks on the disk and the network. The cart may be hostile.

use std::collections::HashMap;
use std::io::{self, Read as _};

use tar::{Archive, Entry};

use super::copy::{Copier, CopyError};
use super::error::ArchivePosition;
use super::member::{self, Folders, Member};
use super::plan::Wanted;
use super::stream::{Incoming, State};
use super::{Error, TarError};

/// The most bytes between two files: headers, long names, padding. The tar crate may hold all of them in memory.
const HEADERS_BYTES_MAX: u64 = 256 * 1024;
/// The most bytes of a tar outside of files: this many, plus some for each file.
const OVERHEAD_BYTES_MAX: u64 = 1024 * 1024;
const OVERHEAD_BYTES_PER_FILE: u64 = 64 * 1024;

/// Extracts the wanted files from a tar, each exactly once and nothing else.
pub(super) fn unpack(
    incoming: &Incoming,
    folders: &Folders,
    wanted: &[Wanted],
    copier: &mut Copier,
) -> Result<(), Error> {
    let mut unpacking = Unpacking {
        incoming,
        folders,
        wanted: wanted.iter().enumerate().map(|(i, wanted)| (wanted.path.as_str(), (i, wanted))).collect(),
        is_taken: vec![false; wanted.len()],
        overhead: OVERHEAD_BYTES_MAX + OVERHEAD_BYTES_PER_FILE.saturating_mul(wanted.len() as u64),
        place: ArchivePosition::Begin,
    };
    unpacking.members(copier)?;
    unpacking.check_missing(wanted)?;
    unpacking.rest()?;
    Ok(())
}

struct Unpacking<'a> {
    incoming: &'a Incoming,
    folders: &'a Folders,
    wanted: HashMap<&'a str, (usize, &'a Wanted)>,
    is_taken: Vec<bool>,
    /// How many more bytes outside of files are allowed.
    overhead: u64,
    place: ArchivePosition,
}

impl Unpacking<'_> {
    /// Reads all members up to the end mark.
    fn members(&mut self, copier: &mut Copier) -> Result<(), Error> {
        let mut archive = Archive::new(self.incoming);
        let mut entries = archive.entries().map_err(|error| self.explain(error))?;
        loop {
            let granted = self.overhead.min(HEADERS_BYTES_MAX);
            self.incoming.allow(granted);
            let next = entries.next();
            self.overhead -= granted - self.incoming.allowed();
            match next {
                Some(Ok(mut entry)) => self.member(&mut entry, copier)?,
                Some(Err(error)) => return Err(self.explain(error).into()),
                // The end of the stream does not replace the end mark.
                None if self.incoming.state() == State::Ended => return Err(self.truncated().into()),
                None => return Ok(()),
            }
        }
    }

    fn member(&mut self, entry: &mut Entry<'_, &Incoming>, copier: &mut Copier) -> Result<(), Error> {
        let name = member::shown(&entry.path_bytes());
        let path = match Member::of(entry, self.folders)? {
            Member::File(path) => path,
            Member::Other => {
                self.place = ArchivePosition::After(name);
                return Ok(());
            }
        };
        let Some((i, wanted)) = self.wanted.get(path.as_str()).copied() else {
            return Err(TarError::Unasked { member: name }.into());
        };
        if std::mem::replace(&mut self.is_taken[i], true) {
            return Err(TarError::Twice { member: name }.into());
        }
        self.place = ArchivePosition::In(name.clone());
        let size = entry.size();
        self.incoming.allow(size);
        copier.copy(wanted, size, entry).map_err(|error| match error {
            CopyError::Read(source) => self.explain(source).into(),
            CopyError::Length => self.truncated().into(),
            CopyError::Other(error) => error,
        })?;
        self.place = ArchivePosition::After(name);
        Ok(())
    }

    fn check_missing(&self, wanted: &[Wanted]) -> Result<(), TarError> {
        let mut missing = wanted.iter().zip(&self.is_taken).filter(|(_, is_taken)| !**is_taken);
        match missing.next() {
            None => Ok(()),
            Some((first, _)) => {
                Err(TarError::Missing { first: first.path.clone(), count: 1 + missing.count() })
            }
        }
    }

    /// Reads what follows the end mark: zeros, which pad a tar to a round number of blocks.
    fn rest(&mut self) -> Result<(), TarError> {
        let (mut incoming, mut buffer) = (self.incoming, [0; 4096]);
        incoming.allow(self.overhead);
        loop {
            match incoming.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) if buffer[..count].iter().all(|byte| *byte == 0) => {}
                Ok(_) => return Err(TarError::Trailing),
                Err(error) => return Err(self.explain(error)),
            }
        }
    }

    /// Explains why the tar cannot be read further.
    fn explain(&self, source: io::Error) -> TarError {
        let place = self.place.clone();
        match self.incoming.state() {
            State::Open => TarError::Malformed { place, source },
            State::Ended => TarError::Truncated { place },
            State::Broken => TarError::Broken { place, source },
            State::Refused => TarError::Headers { place, limit: self.overhead.min(HEADERS_BYTES_MAX) },
        }
    }

    fn truncated(&self) -> TarError {
        TarError::Truncated { place: self.place.clone() }
    }
}

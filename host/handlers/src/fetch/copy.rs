//! Writes one file after another into the run's folder, and hashes each on the way. Blocks on the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use super::plan::Wanted;
use super::{Error, FetchLimits};
use crate::meter::Meter;
use crate::work::Stop;

/// How much is read, hashed and written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes files into a folder.
pub(super) struct Copier {
    download: PathBuf,
    bytes_max: u64,
    meter: Arc<Meter>,
    stop: Stop,
    buffer: Vec<u8>,
    bytes: u64,
}

/// Why a file was not copied.
pub(super) enum CopyError {
    /// It cannot be read.
    Read(io::Error),
    /// It has more or fewer bytes than were announced.
    Length,
    /// The cause does not depend on the source.
    Other(Error),
}

impl Copier {
    pub(super) fn new(download: PathBuf, limits: FetchLimits, meter: Arc<Meter>, stop: &Stop) -> Self {
        Self {
            download,
            bytes_max: limits.bytes_max,
            meter,
            stop: stop.clone(),
            buffer: vec![0; BUFFER_BYTES],
            bytes: 0,
        }
    }

    /// Returns how many bytes were copied so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copies one file that is announced to have `size` bytes, and verifies it.
    pub(super) fn copy(&mut self, wanted: &Wanted, size: u64, from: impl Read) -> Result<(), CopyError> {
        self.admit(wanted, size)?;
        let mut sum = wanted.hash.as_ref().map(|expected| expected.algorithm.begin());
        let mut file = self.create(wanted)?;
        // One byte more than announced is read, to detect a file that has grown.
        let mut from = from.take(size.saturating_add(1));
        let mut copied = 0;
        loop {
            self.stop.check().map_err(Error::from)?;
            let count = fill(&mut from, &mut self.buffer).map_err(CopyError::Read)?;
            let bytes = &self.buffer[..count];
            if let Some(sum) = &mut sum {
                sum.update(bytes);
            }
            file.write_all(bytes).map_err(|source| Error::Write { path: wanted.path.clone(), source })?;
            copied += count as u64;
            self.meter.add_bytes(count as u64);
            if count < self.buffer.len() {
                break;
            }
        }
        if copied != size {
            return Err(CopyError::Length);
        }
        if let (Some(sum), Some(expected)) = (sum, &wanted.hash) {
            let (found, kind) = (sum.hex(), expected.algorithm.name);
            if found != expected.sum {
                let (path, expected) = (wanted.path.clone(), expected.sum.clone());
                return Err(Error::Hash { path, kind, expected, found }.into());
            }
        }
        self.bytes += copied;
        self.meter.file_done();
        Ok(())
    }

    /// Checks an announced size before any of the file is read.
    fn admit(&self, wanted: &Wanted, found: u64) -> Result<(), Error> {
        if let Some(expected) = wanted.size.filter(|size| *size != found) {
            return Err(Error::Size { path: wanted.path.clone(), expected, found });
        }
        let bytes = self.bytes.saturating_add(found);
        if bytes > self.bytes_max {
            return Err(Error::TooManyBytes { bytes, limit: self.bytes_max });
        }
        Ok(())
    }

    /// Creates a file that must not exist yet, so that nothing is overwritten and no link is followed.
    fn create(&self, wanted: &Wanted) -> Result<File, Error> {
        let place = wanted.path.below(&self.download);
        let new = || OpenOptions::new().write(true).create_new(true).open(&place);
        let made = match new() {
            // Most files are in the same folder as the one before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_folders(wanted).and_then(|()| new())
            }
            made => made,
        };
        made.map_err(|source| Error::Create { path: wanted.path.clone(), source })
    }

    /// Creates the folders of a file, but not the download folder itself: if that was removed, the fetch was dropped.
    fn make_folders(&self, wanted: &Wanted) -> io::Result<()> {
        let mut folder = self.download.clone();
        for name in wanted.path.folder().split('/').filter(|name| !name.is_empty()) {
            folder.push(name);
            match std::fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl From<Error> for CopyError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Reads until the buffer is full or the input ends. Writes are then fewer and larger than the pieces as received.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

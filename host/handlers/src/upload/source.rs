//! Reads an output's files for an upload: hashes them, and checks that they have not changed since they were collected.

use std::fs::File;
use std::io::{self, Read as _};

use data_encoding::HEXLOWER;
use sha1::{Digest as _, Sha1};

use super::Error;
use crate::meter::Meter;
use crate::output::OutputFile;
use crate::work::{PIECE_BYTES, Stop};

/// One file, open.
pub(super) struct Source<'a> {
    file: &'a OutputFile,
    open: File,
    left: u64,
    hash: Sha1,
    stop: &'a Stop,
    meter: &'a Meter,
}

impl<'a> Source<'a> {
    /// Opens a file.
    pub(super) fn open(file: &'a OutputFile, stop: &'a Stop, meter: &'a Meter) -> Result<Self, Error> {
        stop.check()?;
        // The path may have been replaced by something that blocks when it is opened, such as a named pipe.
        let metadata = file.place.symlink_metadata().map_err(|source| failed(file, source))?;
        if !metadata.is_file() || metadata.len() != file.size {
            return Err(changed(file));
        }
        let open = File::open(&file.place).map_err(|source| failed(file, source))?;
        Ok(Self { file, open, left: file.size, hash: Sha1::new(), stop, meter })
    }

    /// Fills `piece` up to [`PIECE_BYTES`] with the next bytes, and tells whether there were any.
    pub(super) fn read(&mut self, piece: &mut Vec<u8>) -> Result<bool, Error> {
        self.stop.check()?;
        let before = piece.len();
        let most = self.left.min((PIECE_BYTES - before) as u64);
        let read = self.open.by_ref().take(most).read_to_end(piece);
        read.map_err(|source| failed(self.file, source))?;
        let fresh = &piece[before..];
        if (fresh.len() as u64) < most {
            return Err(changed(self.file));
        }
        self.hash.update(fresh);
        self.left -= most;
        self.meter.add_bytes(most);
        Ok(most > 0)
    }

    /// Ends after the last byte, and returns the file's SHA-1 in hexadecimal.
    pub(super) fn finish(mut self) -> Result<String, Error> {
        let more = self.open.read(&mut [0]).map_err(|source| failed(self.file, source))?;
        let now = self.open.metadata().and_then(|metadata| metadata.modified());
        let now = now.map_err(|source| failed(self.file, source))?;
        if self.left > 0 || more > 0 || now != self.file.modified {
            return Err(changed(self.file));
        }
        self.meter.file_done();
        Ok(HEXLOWER.encode(&self.hash.finalize()))
    }
}

fn failed(file: &OutputFile, source: io::Error) -> Error {
    Error::Read { path: file.place.clone(), source }
}

fn changed(file: &OutputFile) -> Error {
    Error::Changed { path: file.place.clone() }
}

//! Notes from one try of an upload for the next: small files that are written atomically.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::mark;

/// One note, by its name in the folder of notes.
#[derive(Clone, Debug)]
pub(super) struct Note {
    folder: PathBuf,
    name: &'static str,
}

impl Note {
    /// Refers to a note, which need not exist.
    pub(super) fn new(folder: &Path, name: &'static str) -> Self {
        Self { folder: folder.to_owned(), name }
    }

    /// Reads it; `None` if it is absent or of another form. Blocks on the disk.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        mark::read(&self.path()).map_err(|error| self.failed(error))
    }

    /// Writes it; when this returns, it survives a crash. Blocks on the disk.
    pub(super) fn write(&self, value: &impl Serialize) -> Result<(), Error> {
        let written = fs::create_dir_all(&self.folder).and_then(|()| mark::write(&self.path(), value));
        written.map_err(|error| self.failed(error))
    }

    fn path(&self) -> PathBuf {
        self.folder.join(self.name)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Notes { path: self.path(), source }
    }
}

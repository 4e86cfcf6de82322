//! What one try of an upload leaves for the next: small files that are whole or not there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;

/// One note, by its name in the folder of notes.
#[derive(Clone, Debug)]
pub(super) struct Note {
    folder: PathBuf,
    name: &'static str,
}

impl Note {
    /// Names a note.
    pub(super) fn new(folder: &Path, name: &'static str) -> Self {
        Self { folder: folder.to_owned(), name }
    }

    /// Reads it; nothing where there is none, or one of another form. Blocks on the disk.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        match fs::read(self.folder.join(self.name)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Writes it; when this returns, it outlasts a crash. Blocks on the disk.
    pub(super) fn write(&self, value: &impl Serialize) -> Result<(), Error> {
        let write = || {
            fs::create_dir_all(&self.folder)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&serde_json::to_vec(value)?)?;
            file.as_file().sync_all()?;
            file.persist(self.folder.join(self.name))?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Notes { path: self.folder.join(self.name), source }
    }
}

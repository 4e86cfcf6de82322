//! What a program has made: the files of one output folder, with the key-values that it wrote for them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::domain::parts::{FilePath, KeyValue};

/// The file in an output folder with its key-values: rows `key,value`, no header. It is not uploaded itself.
pub const KEY_VALUES_FILE: &str = "kvp.csv";

/// One output folder, looked through.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name in the configuration, which is its path in the run's folder: `output`.
    pub name: String,
    /// Its files, sorted by their paths.
    pub files: Vec<OutputFile>,
    /// What its [`KEY_VALUES_FILE`] says.
    pub key_values: Vec<KeyValue>,
}

/// One file of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Its path below the output folder.
    pub path: FilePath,
    /// Where it is now.
    pub place: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// When it was changed last.
    pub modified: SystemTime,
    /// When it was made, or changed last where that is not known.
    pub created: SystemTime,
    /// Its media type, guessed by its extension: `application/octet-stream` where nothing is known.
    pub mimetype: String,
}

/// Why an output cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {}

impl Output {
    /// Looks through an output folder. `more` are files that lie elsewhere and belong to it too (path below the output,
    /// place); one that the program has made itself goes before them. Blocks on the disk.
    ///
    /// # Errors
    /// When it holds a link, a device or anything else that is no file or folder, a name that is no UTF-8, more than
    /// `files_max` files or `bytes_max` bytes, or a [`KEY_VALUES_FILE`] that is none.
    pub fn collect(
        name: &str,
        folder: &Path,
        key_values: &str,
        more: &[(FilePath, PathBuf)],
        limits: OutputLimits,
    ) -> Result<Self, OutputError> {
        let _ = (name, folder, key_values, more, limits);
        unimplemented!()
    }
}

/// How much one output may be.
#[derive(Clone, Copy, Debug)]
pub struct OutputLimits {
    /// The most files.
    pub files_max: usize,
    /// The most bytes.
    pub bytes_max: u64,
}

//! What a program has made: the files of one output folder, with the key-values that it wrote for them.
//!
//! The program is not trusted: its output may hold links that lead out of the folder, named pipes that block a reader,
//! or endless files. Only the key-values file is opened here.

mod key_values;
#[cfg(test)]
mod tests;

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use walkdir::WalkDir;

use waypost_domain::DeliveryId;
use waypost_domain::parts::{FilePath, KeyValue};

/// How many folders are open at once while an output is looked through.
const FOLDERS_OPEN_MAX: usize = 16;

/// The content of one output folder.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its place in the configuration: 0 is the first.
    pub place: usize,
    /// Its name in the configuration, which is its path in the run's folder: `output`.
    pub name: String,
    /// Its files, sorted by their paths.
    pub files: Vec<OutputFile>,
    /// What its file with key-values says.
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
    /// Its media type, guessed by its extension: `application/octet-stream` where the extension is unknown or
    /// Pacifica's metadata service refuses the type.
    pub mimetype: String,
}

/// The top levels of the media types that Pacifica's metadata service knows. With another, such as that of `.cif`
/// (`chemical/x-cif`), it refuses a whole upload, after all files are archived.
const TOP_LEVELS: [&str; 10] =
    ["application", "audio", "font", "example", "image", "message", "model", "multipart", "text", "video"];

/// Guesses a media type by a file's extension. That of Python is the one that Pacifica's own services use.
fn mimetype(path: &FilePath) -> String {
    if path.name().rsplit_once('.').is_some_and(|(_, extension)| extension == "py") {
        return "text/x-python".to_owned();
    }
    let guessed = mime_guess::from_path(path.as_str()).first_or_octet_stream();
    match TOP_LEVELS.contains(&guessed.type_().as_str()) {
        true => guessed.to_string(),
        false => mime_guess::mime::APPLICATION_OCTET_STREAM.to_string(),
    }
}

/// The limits of one output.
#[derive(Clone, Copy, Debug)]
pub struct OutputLimits {
    /// The most files (`output_files_max`).
    pub files_max: usize,
    /// The most bytes (`output_bytes_max`).
    pub bytes_max: u64,
}

/// Why an output cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It cannot be read from the disk.
    #[error("failed to look through the output at {path}")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is neither a file nor a folder.
    #[error("{path} is {kind}: an output may hold plain files and folders only")]
    Kind {
        /// Where.
        path: PathBuf,
        /// What it is: `a link`.
        kind: &'static str,
    },
    /// A name cannot be uploaded.
    #[error("the name of {path} cannot be uploaded: {reason}")]
    Name {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There are too many files.
    #[error("output `{output}` holds more than {limit} files (`output_files_max`)")]
    Files {
        /// The output's name.
        output: String,
        /// The limit.
        limit: usize,
    },
    /// There are too many bytes.
    #[error("output `{output}` holds more than {limit} bytes (`output_bytes_max`): {path} exceeds that")]
    Bytes {
        /// The output's name.
        output: String,
        /// The limit.
        limit: u64,
        /// The file that exceeds it.
        path: PathBuf,
    },
    /// The key-values cannot be read.
    #[error("{path} holds no key-values: {reason}")]
    KeyValues {
        /// Where.
        path: PathBuf,
        /// Which line is wrong, and what it should be.
        reason: String,
    },
}

impl Output {
    /// Looks through the output folder `name` in the run's folder; `place` counts outputs from 0. `more` are files from
    /// elsewhere that belong to it too (path below the output, place). They do not count against its limits, and a file
    /// that the program has made at the same path takes precedence. Blocks on the disk.
    /// # Errors
    /// When it holds a link, a device or anything else that is not a file or folder, a name that is not UTF-8, more
    /// than `files_max` files or `bytes_max` bytes, or a file `key_values_file` that does not hold key-values.
    pub fn collect(
        place: usize,
        name: &str,
        folder: &Path,
        key_values_file: &str,
        more: &[(FilePath, PathBuf)],
        limits: OutputLimits,
    ) -> Result<Self, OutputError> {
        check_folder(name, folder)?;
        let key_values_place = folder.join(key_values_file);
        let mut output = Self { place, name: name.to_owned(), files: Vec::new(), key_values: Vec::new() };
        let mut bytes = 0_u64;
        for entry in WalkDir::new(folder).follow_root_links(false).max_open(FOLDERS_OPEN_MAX).min_depth(1) {
            let entry = entry.map_err(|error| walk_error(folder, error))?;
            let kind = entry.file_type();
            let is_key_values = entry.path() == key_values_place;
            if kind.is_dir() && !is_key_values {
                continue;
            }
            if !kind.is_file() {
                return Err(OutputError::Kind { path: entry.into_path(), kind: name_of(kind) });
            }
            if is_key_values {
                output.key_values = key_values::read(entry.path())?;
                continue;
            }
            let metadata = entry.metadata().map_err(|error| walk_error(folder, error))?;
            let path = relative(folder, entry.path())?;
            let file = OutputFile::new(path, entry.into_path(), &metadata)?;
            bytes = bytes.saturating_add(file.size);
            if bytes > limits.bytes_max {
                return Err(OutputError::Bytes {
                    output: output.name,
                    limit: limits.bytes_max,
                    path: file.place,
                });
            }
            if output.files.len() == limits.files_max {
                return Err(OutputError::Files { output: output.name, limit: limits.files_max });
            }
            output.files.push(file);
        }
        output.add(more)?;
        output.files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(output)
    }

    /// Returns how many bytes its files have.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Returns the name of the upload of a run's output, where it needs one: the run's id, and for further outputs also
    /// their names, with `/` as `-`.
    pub fn label(&self, run: DeliveryId) -> String {
        match self.place {
            0 => run.to_string(),
            _ => format!("{run}-{}", self.name.replace('/', "-")),
        }
    }

    fn add(&mut self, more: &[(FilePath, PathBuf)]) -> Result<(), OutputError> {
        for (path, place) in more {
            let folder = format!("{}/", path.as_str());
            let is_taken =
                |file: &OutputFile| file.path == *path || file.path.as_str().starts_with(folder.as_str());
            if self.files.iter().any(is_taken) {
                continue;
            }
            let metadata = place
                .symlink_metadata()
                .map_err(|source| OutputError::Read { path: place.clone(), source })?;
            self.files.push(OutputFile::new(path.clone(), place.clone(), &metadata)?);
        }
        Ok(())
    }
}

impl OutputFile {
    fn new(path: FilePath, place: PathBuf, metadata: &Metadata) -> Result<Self, OutputError> {
        let modified = match metadata.modified() {
            Ok(modified) => modified,
            Err(source) => return Err(OutputError::Read { path: place, source }),
        };
        let mimetype = mimetype(&path);
        let created = metadata.created().unwrap_or(modified);
        Ok(Self { path, place, size: metadata.len(), modified, created, mimetype })
    }
}

/// Checks that a folder is the one that the run has made: a program may have replaced it, or a folder above it, with a
/// link.
fn check_folder(name: &str, folder: &Path) -> Result<(), OutputError> {
    for place in folder.ancestors().take(Path::new(name).components().count().max(1)) {
        let metadata = place
            .symlink_metadata()
            .map_err(|source| OutputError::Read { path: place.to_owned(), source })?;
        if !metadata.is_dir() {
            return Err(OutputError::Kind { path: place.to_owned(), kind: name_of(metadata.file_type()) });
        }
    }
    Ok(())
}

fn walk_error(folder: &Path, error: walkdir::Error) -> OutputError {
    let path = error.path().unwrap_or(folder).to_owned();
    let source = error.into_io_error().unwrap_or_else(|| io::Error::other("a folder leads to itself"));
    OutputError::Read { path, source }
}

/// Returns a file's path below the output folder.
fn relative(folder: &Path, place: &Path) -> Result<FilePath, OutputError> {
    let name = |reason: String| OutputError::Name { path: place.to_owned(), reason };
    let below = place.strip_prefix(folder).unwrap_or(place);
    let text = below.to_str().ok_or_else(|| name("it is not UTF-8".to_owned()))?;
    FilePath::parse(text).map_err(|error| name(error.to_string()))
}

#[cfg(unix)]
fn name_of(kind: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;

    match kind {
        kind if kind.is_symlink() => "a link",
        kind if kind.is_dir() => "a folder",
        kind if kind.is_file() => "a file",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn name_of(kind: std::fs::FileType) -> &'static str {
    match kind {
        kind if kind.is_symlink() => "a link",
        kind if kind.is_dir() => "a folder",
        kind if kind.is_file() => "a file",
        _ => "not a file",
    }
}

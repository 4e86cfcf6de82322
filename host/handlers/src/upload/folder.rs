//! A folder that appears atomically with all of its content, synced to disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Error;
use super::source::Source;
use crate::meter::Meter;
use crate::output::Output;
use crate::work::{PIECE_BYTES, Stop};

/// The subfolder for unfinished folders, beside the finished ones.
const UNFINISHED: &str = ".waypost";

/// How many files are synced side by side.
const SYNC_THREADS: usize = 8;

/// A folder that is being filled. If it is dropped before [`Self::finish`], it never appears.
pub(super) struct Folder {
    /// Where it is now.
    work: TempDir,
    /// What belongs to it while it is not finished.
    stage: PathBuf,
    /// Where it will be.
    target: PathBuf,
    /// The files and folders that are not synced yet, folders after their content.
    unsynced: Vec<PathBuf>,
}

impl Folder {
    /// Begins the folder `name` in `parent`, and removes what an earlier try has left of it.
    pub(super) fn begin(parent: &Path, name: &str) -> Result<Self, Error> {
        let stage = parent.join(UNFINISHED).join(name);
        // A thread of the earlier try may still be writing there; files that cannot be removed are not in the way.
        drop(fs::remove_dir_all(&stage));
        fs::create_dir_all(&stage).map_err(|source| failed(&stage, source))?;
        let work = temporary(&stage).map_err(|source| failed(&stage, source))?;
        Ok(Self { work, stage, target: parent.join(name), unsynced: Vec::new() })
    }

    /// Copies an output's files to `below` in the folder, and returns their hash sums.
    pub(super) fn copy(
        &mut self,
        output: &Output,
        below: &str,
        stop: &Stop,
        meter: &Meter,
    ) -> Result<Vec<String>, Error> {
        let base = self.work.path().join(below);
        let mut made = base.clone();
        self.make_folders(&base)?;
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut sums = Vec::with_capacity(output.files.len());
        for file in &output.files {
            let to = base.join(file.path.as_str());
            if let Some(parent) = to.parent().filter(|parent| *parent != made) {
                self.make_folders(parent)?;
                made = parent.to_owned();
            }
            let mut from = Source::open(file, stop, meter)?;
            let mut open = File::create_new(&to).map_err(|source| failed(&to, source))?;
            while from.read(&mut piece)? {
                open.write_all(&piece).map_err(|source| failed(&to, source))?;
                piece.clear();
            }
            sums.push(from.finish()?);
            open.set_modified(file.modified).map_err(|source| failed(&to, source))?;
            self.unsynced.push(to);
        }
        Ok(sums)
    }

    /// Writes a file.
    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.work.path().join(name);
        fs::write(&path, bytes).map_err(|source| failed(&path, source))?;
        self.unsynced.push(path);
        Ok(())
    }

    /// Syncs it and then moves it to its final path, in place of an existing folder.
    pub(super) fn finish(mut self, stop: &Stop) -> Result<PathBuf, Error> {
        self.sync(stop)?;
        stop.check()?;
        let moved = self.replace();
        moved.map_err(|source| failed(&self.target, source))?;
        let parent = self.target.parent().unwrap_or(Path::new("."));
        sync(parent).map_err(|source| failed(parent, source))?;
        drop(fs::remove_dir_all(&self.stage));
        Ok(self.target)
    }

    /// Syncs only after everything is written: by then the disk has begun to write the first files. Files that are
    /// synced in parallel share commits of the file system's journal.
    fn sync(&mut self, stop: &Stop) -> Result<(), Error> {
        let (mut folders, files): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|path| path.is_dir());
        folders.push(self.work.path().to_owned());
        folders.sort_unstable();
        folders.dedup();
        let sync_all = &|paths: &[PathBuf]| -> Result<(), Error> {
            paths.iter().try_for_each(|path| {
                stop.check()?;
                sync(path).map_err(|source| failed(path, source))
            })
        };
        std::thread::scope(|scope| {
            let shares = files.chunks(files.len().div_ceil(SYNC_THREADS).max(1));
            let threads: Vec<_> = shares.map(|share| scope.spawn(move || sync_all(share))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        folders.reverse();
        sync_all(&folders)
    }

    fn replace(&self) -> io::Result<()> {
        let Err(error) = fs::rename(self.work.path(), &self.target) else { return Ok(()) };
        if !matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) {
            return Err(error);
        }
        // A rename replaces an empty folder, but no other.
        let old = temporary(&self.stage)?;
        fs::rename(&self.target, old.path())?;
        let moved = fs::rename(self.work.path(), &self.target);
        if moved.is_err() {
            fs::rename(old.path(), &self.target)?;
        }
        moved
    }

    fn make_folders(&mut self, path: &Path) -> Result<(), Error> {
        fs::create_dir_all(path).map_err(|source| failed(path, source))?;
        let base = self.work.path().to_owned();
        self.unsynced.extend(path.ancestors().take_while(|folder| *folder != base).map(Path::to_owned));
        Ok(())
    }
}

/// Makes a folder that others may read, as far as the process's umask allows.
fn temporary(parent: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    let builder = {
        use std::os::unix::fs::PermissionsExt as _;

        builder.permissions(fs::Permissions::from_mode(0o777))
    };
    builder.tempdir_in(parent)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Write { path: path.to_owned(), source }
}

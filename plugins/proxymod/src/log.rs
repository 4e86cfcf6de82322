//! Logs in the form of Python's `logging`: one for each model, and all of them in `stdout.log`. Times are UTC.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Clock, Error, model};

/// `stdout.log` and `stderr.log` in the output folder, which the original uploads.
pub(crate) struct StandardLogs {
    stdout: File,
    path: PathBuf,
}

/// A model's log, which is copied to `stdout.log`.
pub(crate) struct Log<'a> {
    file: File,
    path: PathBuf,
    all: &'a mut StandardLogs,
    clock: &'a dyn Clock,
}

#[derive(Clone, Copy)]
pub(crate) enum Level {
    Info,
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "INFO",
            Self::Error => "ERROR",
        })
    }
}

impl StandardLogs {
    /// Creates both files. The built-in models write nothing to `stderr.log`.
    pub(crate) fn create(output: &Path) -> Result<Self, Error> {
        let [path, stderr] = ["stdout.log", "stderr.log"].map(|name| output.join(name));
        let create =
            |path: &PathBuf| File::create(path).map_err(|source| Error::Write { path: path.clone(), source });
        create(&stderr)?;
        Ok(Self { stdout: create(&path)?, path })
    }

    /// Writes a line that belongs to no model.
    pub(crate) fn info(&mut self, clock: &dyn Clock, message: &str) -> Result<(), Error> {
        let written = self.stdout.write_all(line(clock, Level::Info, message).as_bytes());
        written.map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}

impl<'a> Log<'a> {
    /// Opens the log of a model that starts now. Models that start in the same second share a file.
    pub(crate) fn open(
        folder: &Path,
        model: &str,
        all: &'a mut StandardLogs,
        clock: &'a dyn Clock,
    ) -> Result<Self, model::Error> {
        let path = folder.join(format!("{model}_{}.log", clock.now().strftime("%Y-%m-%d_%Hh%Mm%Ss")));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| model::Error::Write { path: path.clone(), source })?;
        Ok(Self { file, path, all, clock })
    }

    /// Writes a line.
    pub(crate) fn write(&mut self, level: Level, message: &str) -> Result<(), model::Error> {
        let line = line(self.clock, level, message);
        let failed = |path: &Path, source: io::Error| model::Error::Write { path: path.to_owned(), source };
        self.file.write_all(line.as_bytes()).map_err(|error| failed(&self.path, error))?;
        self.all.stdout.write_all(line.as_bytes()).map_err(|error| failed(&self.all.path, error))
    }
}

fn line(clock: &dyn Clock, level: Level, message: &str) -> String {
    let time = clock.now().strftime("%Y-%m-%d %H:%M:%S,%3f").to_string();
    format!("{time} - proxymod_logger - {level} - {message}\n")
}

//! One run of the proxy model: it waits, takes the square root of one year's values, and writes both tables.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::Clock;
use crate::log::{Level, Log, StandardLogs};
use crate::plan::Run;
use crate::table::{self, Table};

/// Why a model cannot be run, or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its name is not that of a built-in coupling.
    #[error(
        "'{name}' is no built-in coupling, which are {known}: \
         run other models with the native variant (plugins/proxymod/native/run.py)"
    )]
    UnknownCoupling {
        /// Its name.
        name: String,
        /// The names of the built-in couplings.
        known: String,
    },
    /// A file's path leads out of the download.
    #[error("'{0}' leaves the download folder")]
    Leaves(String),
    /// A file was not downloaded.
    #[error("File does not exist: {}", .0.display())]
    NoFile(PathBuf),
    /// A configured input is not one of the event's files.
    #[error("File does not exist: the event has no text/csv file '{name}' in '{dir}'")]
    NoInput {
        /// Its folder.
        dir: String,
        /// Its name.
        name: String,
    },
    /// A configuration lacks a section that this model needs.
    #[error("Missing [{section}] node in {config}.ini")]
    Node {
        /// The section.
        section: &'static str,
        /// The configuration.
        config: String,
    },
    /// The configuration told it to fail.
    #[error("You raised an error on purpose.")]
    OnPurpose,
    /// A table is wrong.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// The model's folder or log cannot be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Run {
    /// Runs the model.
    pub(crate) fn execute(&self, logs: &mut StandardLogs, clock: &dyn Clock) -> Result<(), Error> {
        let unmade = |source| Error::Write { path: self.out_dir.clone(), source };
        fs::create_dir_all(&self.out_dir).map_err(unmade)?;
        let mut log = Log::open(&self.out_dir, &self.name, logs, clock)?;
        log.write(Level::Info, &format!("Starting {}", self.name))?;
        for (parameter, value) in self.parameters() {
            log.write(Level::Info, &format!("CONFIG: [PARAMETER] {parameter} -- [VALUE] {value}"))?;
        }
        clock.wait(self.project.runtime);
        let ran = self.advance();
        if let Err(error) = &ran {
            log.write(Level::Error, &error.to_string())?;
        }
        log.write(Level::Info, &format!("Completed {}", self.name))?;
        ran
    }

    fn parameters(&self) -> Vec<(&'static str, String)> {
        let shown = |path: &PathBuf| path.display().to_string();
        let mut parameters: Vec<_> = self.in_dir.iter().map(|dir| ("in_dir", shown(dir))).collect();
        parameters.push(("in_file_one", shown(&self.inputs[0])));
        parameters.push(("in_file_two", shown(&self.inputs[1])));
        parameters.push(("model_name", self.name.clone()));
        parameters.push(("out_dir", shown(&self.out_dir)));
        parameters
    }

    fn advance(&self) -> Result<(), Error> {
        if self.project.failure {
            return Err(Error::OnPurpose);
        }
        let mut tables = Vec::with_capacity(self.inputs.len());
        for path in &self.inputs {
            tables.push(Table::read(path, self.years)?);
        }
        for (table, path) in tables.iter_mut().zip(&self.inputs) {
            table.take_root(self.years.advanced(), path)?;
        }
        for (table, path) in tables.iter().zip(&self.outputs) {
            table.write(path)?;
        }
        Ok(())
    }
}

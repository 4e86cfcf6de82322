//! Runs the couplings of proxy models that an event asks for, as Pacifica's Proxymod dispatcher does.
//!
//! A run has these steps: `event` reads the rows of `event.json`, `config` makes the configurations from its key-values,
//! `coupling` says which models follow each other, `plan` finds each model's tables, and `model` runs one: it waits,
//! takes a root and writes (`table`, `log`). Everything but the numbers in the tables is checked before the first model
//! waits. The program is `main.rs`.

mod config;
mod coupling;
mod event;
mod log;
mod model;
mod plan;
mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use self::log::StandardLogs;
use self::plan::Plan;

/// The clock by which models wait and logs are dated.
pub trait Clock {
    /// Returns the current time.
    fn now(&self) -> Timestamp;
    /// Waits for this time.
    fn wait(&self, time: Duration);
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the program's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn wait(&self, time: Duration) {
        thread::sleep(time);
    }
}

/// Why a run failed. Texts with `proxymod` are the original's, followed by their cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The event cannot be read.
    #[error("failed to read event.json")]
    Event(#[source] event::Error),
    /// The number of configurations is missing or wrong.
    #[error(transparent)]
    Count(config::CountError),
    /// A configuration has no key-values.
    #[error("proxymod configuration '{config}' not found")]
    ConfigNotFound {
        /// Its name.
        config: String,
    },
    /// A configuration is invalid.
    #[error("proxymod configuration '{config}' is invalid")]
    InvalidConfig {
        /// Its name.
        config: String,
        /// Why.
        source: config::Problem,
    },
    /// There is nothing to run.
    #[error("proxymod model not found: the event has no text/x-python file in 'models/'")]
    NoModel,
    /// A model cannot be run, or fails.
    #[error("proxymod model for file '{}' is invalid", file.replace('\'', "\\'"))]
    InvalidModel {
        /// Its file.
        file: String,
        /// Why.
        source: model::Error,
    },
    /// An output file cannot be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs all models of the event in a run's folder: `event.json`, `download/` and `output/`.
///
/// # Errors
/// The error of the first model that fails; the outputs of earlier ones stay.
pub fn run(folder: &Path, clock: &dyn Clock) -> Result<(), Error> {
    let event = event::read(&folder.join("event.json")).map_err(Error::Event)?;
    let configs = config::read(&event.key_values)?;
    let plans = Plan::all(folder, &event.files, &configs)?;
    let output = folder.join("output");
    for config in &configs {
        let path = output.join(format!("{}.ini", config.id));
        fs::write(&path, config.ini()).map_err(|source| Error::Write { path, source })?;
    }
    let mut logs = StandardLogs::create(&output)?;
    for plan in &plans {
        let failed = |source| Error::InvalidModel { file: plan.file.clone(), source };
        logs.info(clock, &format!("Running the built-in {} for {}", plan.coupling, plan.file))?;
        for run in &plan.runs {
            run.execute(&mut logs, clock).map_err(failed)?;
        }
    }
    Ok(())
}

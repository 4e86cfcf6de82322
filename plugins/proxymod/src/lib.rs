//! Runs the couplings of proxy models that an event asks for, as Pacifica's Proxymod dispatcher does.
//!
//! A run is one way: `event` reads the rows of `event.json`, `config` makes the configurations of its key-values,
//! `coupling` says which models follow each other, `plan` finds each model's tables, and `model` runs one: it waits,
//! takes a root and writes (`table`, `log`). All but the tables' numbers is checked before the first model waits. The
//! program is `main.rs`.

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

/// The time that models wait in and logs name.
pub trait Clock {
    /// Returns what time it is.
    fn now(&self) -> Timestamp;
    /// Lets this time pass.
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

/// How a run fails. Texts with `proxymod` are the original's, followed by their cause.
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
    /// A configuration is not as it must be.
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
/// The first that fails; the outputs of earlier models stay.
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

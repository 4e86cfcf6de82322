//! The progress of a run, for REST and the terminal. In memory only.

use std::sync::Mutex;
use std::sync::PoisonError;

use jiff::Timestamp;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It fetches the event's files.
    Fetching,
    /// The program runs.
    Running,
    /// It uploads the outputs.
    Uploading,
}

impl Phase {
    /// Returns the phase's name, as REST and the terminal show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Running => "running",
            Self::Uploading => "uploading",
        }
    }
}

/// The progress of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// How many files this phase has done.
    pub files_done: u64,
    /// How many files this phase has to do; 0 for a phase without files.
    pub files: u64,
    /// How many bytes this phase has done.
    pub bytes_done: u64,
    /// How many bytes this phase has to do, as far as that is known; else 0.
    pub bytes: u64,
}

/// Counts the progress of a run. Shared by the run, its threads, and its readers.
#[derive(Debug)]
pub struct Meter(Mutex<Progress>);

impl Meter {
    /// Makes the meter of a run that begins now, with fetching.
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new(Progress {
            phase: Phase::Fetching,
            since: now,
            files_done: 0,
            files: 0,
            bytes_done: 0,
            bytes: 0,
        }))
    }

    /// Begins a phase that has this much to do.
    pub fn enter(&self, phase: Phase, since: Timestamp, files: u64, bytes: u64) {
        self.change(|progress| {
            *progress = Progress { phase, since, files_done: 0, files, bytes_done: 0, bytes };
        });
    }

    /// Counts bytes that are done.
    pub fn add_bytes(&self, bytes: u64) {
        self.change(|progress| progress.bytes_done += bytes);
    }

    /// Counts a file that is done.
    pub fn file_done(&self) {
        self.change(|progress| progress.files_done += 1);
    }

    /// Returns the progress of the run.
    pub fn progress(&self) -> Progress {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Time, words};

/// How far the run of a handler has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// Since when.
    pub since: Time,
    /// How many files are done.
    #[serde(default)]
    pub files_done: u64,
    /// Of how many; 0 where it has no files.
    #[serde(default)]
    pub files: u64,
    /// How many bytes are done.
    #[serde(default)]
    pub bytes_done: u64,
    /// Of how many; 0 where it has no files.
    #[serde(default)]
    pub bytes: u64,
}

words! {
    /// What the run of a handler does.
    Phase {
        /// It fetches files.
        Fetching = "fetching",
        /// Its program runs.
        Running = "running",
        /// It uploads results.
        Uploading = "uploading",
    }
}

/// What a handler did in an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HandlerRun {
    /// The handler.
    pub handler: String,
    /// What it began with.
    pub start: Start,
    /// What was fetched; null if that was not completed.
    pub fetched: Option<FetchSummary>,
    /// How the program ended; null if it was not started.
    pub program: Option<Program>,
    /// What was uploaded, in the order of the outputs.
    #[serde(default)]
    pub uploads: Vec<Upload>,
}

/// What a run began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Start {
    /// With what.
    pub from: StartFrom,
    /// When the run began that the end of the service has interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub interrupted: Option<Time>,
    /// When the program ran whose outputs are uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ran: Option<Time>,
}

words! {
    /// What a run begins with.
    StartFrom {
        /// An empty folder.
        Fresh = "fresh",
        /// The outputs of an attempt before: only the upload is tried again.
        Upload = "upload",
    }
}

/// What was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FetchSummary {
    /// How many files.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Program {
    /// In words.
    pub exit: String,
    /// Its exit code; negative for a signal; null if a limit ended it, or it could not be started.
    pub exit_code: Option<i32>,
    /// How long it ran, in milliseconds.
    #[serde(default)]
    pub took_ms: u64,
    /// What it wrote to stdout.
    pub stdout: Stream,
    /// What it wrote to stderr.
    pub stderr: Stream,
}

/// What a program wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stream {
    /// The end of it.
    pub tail: String,
    /// How many bytes it wrote.
    #[serde(default)]
    pub bytes: u64,
    /// How many of the first of them are in the file that is uploaded.
    #[serde(default)]
    pub kept: u64,
}

/// One output that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upload {
    /// Its name.
    pub output: String,
    /// How many files.
    pub files: u64,
    /// How many bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Where they are: a folder, an ingest job, an event.
    pub place: String,
}

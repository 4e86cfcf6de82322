//! Programs that run on an event's data files: fetch, run, collect, upload.
//!
//! The operator's configuration names handlers ([`Definition`]); an event goes to the first whose filter matches. A run
//! is a delivery: pending durably, recorded in the event's story, repeated after a crash. It has the same workers as a
//! delivery to a target (`host/engine/src/worker`).
//!
//! - `definition`: an operator's definition of a handler; `router`: the same for a program that embeds Waypost, with Rust
//!   closures.
//! - [`Runs`]: the handle of the stage; `runner`: makes its runs, for the workers; `run`: one of them, from the fetch to
//!   the upload.
//! - `folder`: where a run happens, and which files survive a crash; `remove`: deletes it; `sweep`: deletes folders
//!   that are left over.
//! - [`fetch`]: the event's files into `download/`. `program`: native commands, components, closures; `capture` keeps
//!   what they write. `output`: what they made. [`upload`]: to its destination.
//! - `work`: threads that end when their future does; `meter`: the progress of a run; `excerpt`: what an error shows of a
//!   service's text.
//!
//! Absent on purpose: policy, which is about what subscribers may see, and handlers that are uploaded over REST: a
//! program runs only because the operator's configuration says so.

pub mod fetch;
pub mod upload;

mod capture;
mod definition;
mod dry_run;
mod excerpt;
mod folder;
mod mark;
mod meter;
mod output;
mod program;
mod ready;
mod remove;
mod router;
mod run;
mod runner;
mod runs;
mod sweep;
mod warnings;
mod work;

pub use capture::Capture;
pub use definition::{Definition, HandlerLimits, OutputFolder, Program, SCRIPT_FILTER, Selection};
pub use dry_run::{DryRun, dry_run};
pub use meter::{Meter, Phase, Progress};
pub use output::{KEY_VALUES_FILE, Output, OutputError, OutputFile, OutputLimits};
pub use program::{
    Answer, COMPONENT_MEMORY_BYTES, Call, CallLimits, Closure, Component, Native, ProgramResult, Run,
    Shortage, Supervision, Supervisors, become_main, fork_server_main, supervise_main,
};
pub use ready::{Deps, Error, check, routes};
pub use router::Router;
pub use runs::{DispatchError, Runs};

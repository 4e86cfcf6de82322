//! Programs that run on an event's data files: fetch, run, collect, upload.
//!
//! The operator's configuration names handlers ([`Definition`]); an event goes to the first whose filter matches. A run
//! is a delivery: pending durably, recorded in the event's story, repeated after a crash. It has the same workers as a
//! delivery to a target (`host/engine/src/worker`).
//!
//! - `definition`: an operator's definition of a handler; `places`: where its files come from and go to; `router`: the same for a program that embeds Waypost, with Rust
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
//! Without the feature `programs`, definitions are only read (`absent`); without `pacifica`, there are no clients of carts and
//! of ingest services.
//!
//! Absent on purpose: policy, which is about what subscribers may see, and handlers that are uploaded over REST: a
//! program runs only because the operator's configuration says so.

#![cfg_attr(
    not(feature = "pacifica"),
    allow(
        dead_code,
        unused_variables,
        reason = "only programs and the clients of Pacifica's services use the rest"
    )
)]

#[cfg(feature = "programs")]
pub mod fetch;
#[cfg(feature = "programs")]
pub mod upload;

mod definition;
mod dispatch;
mod error;
mod meter;
mod places;

#[cfg(not(feature = "programs"))]
mod absent;

#[cfg(feature = "programs")]
mod capture;
#[cfg(feature = "programs")]
mod dry_run;
#[cfg(feature = "programs")]
mod excerpt;
#[cfg(feature = "programs")]
mod folder;
#[cfg(feature = "programs")]
mod mark;
#[cfg(feature = "programs")]
mod output;
#[cfg(feature = "programs")]
mod program;
#[cfg(feature = "programs")]
mod ready;
#[cfg(feature = "programs")]
mod remove;
#[cfg(feature = "programs")]
mod router;
#[cfg(feature = "programs")]
mod run;
#[cfg(feature = "programs")]
mod runner;
#[cfg(feature = "programs")]
mod runs;
#[cfg(feature = "programs")]
mod sweep;
#[cfg(feature = "programs")]
mod warnings;
#[cfg(feature = "programs")]
mod work;

#[cfg(not(feature = "programs"))]
pub use absent::Runs;
#[cfg(feature = "programs")]
pub use capture::Capture;
pub use definition::{
    Definition, HandlerLimits, KEY_VALUES_FILE, OutputFolder, Program, SCRIPT_FILTER, Selection, routes,
};
pub use dispatch::{DispatchError, dispatched_to};
#[cfg(feature = "programs")]
pub use dry_run::{DryRun, dry_run};
pub use error::Error;
pub use meter::{Meter, Phase, Progress};
#[cfg(feature = "programs")]
pub use output::{Output, OutputError, OutputFile, OutputLimits};
pub use places::{Destination, IngestAuth, Source};
#[cfg(feature = "programs")]
pub use program::{
    Answer, COMPONENT_MEMORY_BYTES, Call, CallLimits, Closure, Component, Native, ProgramResult, Run,
    Shortage, Supervision, Supervisors, become_main, fork_server_main, supervise_main,
};
#[cfg(feature = "programs")]
pub use ready::{Deps, check};
#[cfg(feature = "programs")]
pub use router::Router;
#[cfg(feature = "programs")]
pub use runs::Runs;

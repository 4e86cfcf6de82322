//! Runs a program in a run's folder.

mod closure;
mod component;
mod native;
mod supervise;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use waypost_domain::handler::{Exit, StreamTail};
use waypost_runtime::chain;
use waypost_runtime::shortage;

pub use closure::{Answer, Closure, Run};
pub use component::{COMPONENT_MEMORY_BYTES, Component};
pub use native::{Native, Supervisors};
pub use supervise::{Supervision, become_main, fork_server_main, supervise_main};

/// Where a native program's name is looked up, and its own `PATH`, unless its environment says otherwise.
pub(super) const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The text that replaces a stream's content when it cannot be kept.
const UNKEPT: &str = "failed to store the program's output (is the disk full?)";

/// What a program is started with.
#[derive(Clone, Debug)]
pub struct Call {
    /// The run's folder: the working directory, with `event.json`, `download/` and the outputs.
    pub folder: PathBuf,
    /// The handler's name.
    pub name: String,
    /// The arguments, without the program's own name.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// The output folders, which it may write: paths below `folder`.
    pub outputs: Vec<String>,
    /// Where its stdout goes: a file that is created with the first byte.
    pub stdout: PathBuf,
    /// The same for stderr.
    pub stderr: PathBuf,
    /// How much it may use.
    pub limits: CallLimits,
}

/// How much a program may use.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// The longest it may run (`timeout`).
    pub time: Duration,
    /// The most bytes that its output folders hold, all together (`output_bytes_max`).
    pub output_bytes: u64,
    /// The most files that its output folders hold, all together (`output_files_max`).
    pub output_files: usize,
    /// The most memory (`memory_bytes`): a component's linear memory, a native program's address space where it is set.
    pub memory_bytes: Option<u64>,
    /// The most bytes of stdout and of stderr that are kept whole (`log_bytes_max`).
    pub log_bytes: u64,
}

/// How a program ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct ProgramResult {
    /// Its exit.
    pub exit: Exit,
    /// What it wrote to stdout.
    pub stdout: StreamTail,
    /// What it wrote to stderr.
    pub stderr: StreamTail,
}

impl ProgramResult {
    /// Makes the result of a program that could not be started, or was ended by a limit, without output.
    pub(super) fn silent(exit: Exit) -> Self {
        Self { exit, stdout: StreamTail::default(), stderr: StreamTail::default() }
    }
}

/// What this machine lacks to run a program, such as memory for its process. It is not the program's failure: the
/// program can run once the shortage has passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage(pub String);

/// Why a program did not run, or not to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// This machine lacks something.
    Shortage(Shortage),
    /// The program or the configuration is at fault.
    Failure(String),
}

impl Fault {
    /// Classifies an error, and names what failed.
    fn of(what: &str, error: &(dyn Error + 'static)) -> Self {
        let reason = format!("{what}: {}", chain::text(error));
        if shortage::is_behind(error) { Self::Shortage(Shortage(reason)) } else { Self::Failure(reason) }
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Failure(reason)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::*;

    /// A shortage of descriptors, processes or disk failed the run, for good where it had no schedule.
    #[test]
    fn a_shortage_of_descriptors_processes_memory_or_disk_is_not_the_programs_fault() {
        for ours in [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM, Errno::NOSPC] {
            let fault = Fault::of("it failed", &io::Error::from(ours));
            let Fault::Shortage(Shortage(reason)) = &fault else { panic!("{ours:?}: {fault:?}") };
            assert!(reason.starts_with("it failed: "), "{reason}");
        }
        for other in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC] {
            let fault = Fault::of("it failed", &io::Error::from(other));
            assert!(matches!(fault, Fault::Failure(_)), "{other:?}: {fault:?}");
        }
    }
}

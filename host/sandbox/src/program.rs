//! What goes into a run of a program, and what comes out of it.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use waypost_domain::handler::Exit;
use waypost_domain::plugin::AllowHost;

/// What a program is started with.
pub struct CommandCall {
    /// The folder that it sees as `.` and cannot change, with `event.json`, its stdin, and `download`.
    pub folder: PathBuf,
    /// Those folders below it that the program may change: their paths, as they are in `.`.
    pub outputs: Vec<String>,
    /// The program's name, then its arguments.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Where its stdout goes. What this fails to take, the program fails to write.
    pub stdout: Box<dyn Write + Send>,
    /// The same for its stderr. The host adds lines here about HTTP requests that it refused.
    pub stderr: Box<dyn Write + Send>,
    /// The hosts that it may call by HTTP.
    pub allow_hosts: Arc<[AllowHost]>,
    /// How much it may use.
    pub limits: CommandLimits,
}

/// How much a program may use.
#[derive(Clone, Copy, Debug)]
pub struct CommandLimits {
    /// The longest it may run by the clock.
    pub time: Duration,
    /// The most bytes of linear memories and tables, all together.
    pub memory_bytes: usize,
    /// The most bytes that its outputs hold, all together.
    pub output_bytes: u64,
    /// The most files, folders and links that its outputs hold, all together.
    pub output_files: usize,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandEnd {
    /// Its exit.
    pub exit: Exit,
    /// The most memory that it had, in bytes.
    pub memory_bytes: u64,
}

impl CommandEnd {
    /// Returns the end of a run that could not begin or go on.
    pub(super) fn failed(reason: String) -> Self {
        Self { exit: Exit::Failed(reason), memory_bytes: 0 }
    }
}

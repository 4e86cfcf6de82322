//! Why the sandbox fails, and why it refuses a module.

use std::path::PathBuf;

use waypost_domain::plugin::Report;

/// Why the sandbox itself does not work here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine cannot be made.
    #[error("failed to start the WebAssembly engine: {reason}")]
    Engine {
        /// What wasmtime said.
        reason: String,
    },
    /// Its threads cannot be started.
    #[error("failed to start the threads of plugins")]
    Threads(#[source] std::io::Error),
    /// The folder of compiled modules cannot be used.
    #[error("failed to use {} (is the disk full?)", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// This program was built without the sandbox (the feature `wasm`).
    #[error("this program was built without the feature `plugins` of the crate `waypost`")]
    Absent,
    /// The bytes of a module cannot be read now.
    #[error("the module cannot be read: {reason}")]
    Bytes {
        /// Why not.
        reason: String,
    },
    /// There is no program that compiles.
    #[error("no compiler is configured: set `plugin_compiler` to the path of the waypost program")]
    NoCompiler,
    /// The program that compiles cannot be run.
    #[error("failed to run the compiler {}", path.display())]
    Compiler {
        /// The program.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

#[cfg(feature = "wasm")]
impl Error {
    /// Wraps an error of wasmtime's engine or linker.
    pub(super) fn engine(error: wasmtime::Error) -> Self {
        Self::Engine { reason: format!("{error:#}") }
    }
}

/// Why a module is not accepted. Its author can do something about it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is not a WebAssembly component.
    #[error("{0}")]
    NotAComponent(String),
    /// It is larger than modules may be.
    #[error("it has {bytes} bytes, the most are {most} (the setting plugin_bytes_max)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// It is precompiled: only wasm is accepted.
    #[error("this is compiled machine code, which is never run: upload the .wasm component itself")]
    Precompiled,
    /// It does not compile.
    #[error("it does not compile: {0}")]
    Invalid(String),
    /// Compiling it takes too much; a sentence with the limit.
    #[error("compiling it exceeds the {0}")]
    TooExpensive(String),
    /// Validating a configuration against its schema takes too much; the limit.
    #[error("its `metadata` failed: the manifest's `config-schema` exceeds the {0}")]
    SchemaTooExpensive(String),
    /// It exceeded a limit when it was tried a short while ago; which one.
    #[error("{why} (found within the last {minutes} minutes; for that long, it is not tried again)")]
    TriedLately {
        /// Why it was refused then.
        why: String,
        /// How long that is remembered.
        minutes: u64,
    },
    /// It does not fit: it exports nothing of use, imports what is not offered or too much, or does not link.
    #[error("{reason}")]
    DoesNotFit {
        /// What does not fit, in one sentence.
        reason: String,
        /// The report, with what was wanted and what is offered.
        report: Box<Report>,
    },
    /// It compiles and links, but cannot be loaded: it is larger than a slot of the pool, for example.
    #[error("it does not load: {0}")]
    DoesNotLoad(String),
    /// No instance of it can be made.
    #[error("it does not start: {0}")]
    DoesNotStart(String),
    /// It fails when it is asked about itself.
    #[error("its `metadata` failed: {0}")]
    Metadata(String),
    /// The sandbox failed.
    #[error(transparent)]
    Host(#[from] Error),
}

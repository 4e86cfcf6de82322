//! What a program's store holds, which is all that it can reach.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use wasmtime::Engine;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::cli::InputFile;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::HANDLES_MAX;
use super::files;
use super::memory::MemoryLimiter;
use super::quota::Quota;
use super::stream::StdStream;
use crate::program::CommandCall;
use crate::wasm::guest::FIELDS_BYTES_MAX;
use crate::wasm::http::Outbound;
use crate::wasm::web::Web;

/// The data of a program's store.
pub(super) struct CommandState {
    pub(super) memory: MemoryLimiter,
    pub(super) quota: Arc<Mutex<Quota>>,
    stderr: StdStream,
    outbound: Outbound,
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
}

/// A folder or file of a run that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to open {} for the program", path.display())]
pub(super) struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// The run's folder, and what in it a program may not change.
const FOLDER: &str = ".";
const DOWNLOAD: &str = "download";
const EVENT: &str = "event.json";

impl CommandState {
    pub(super) fn new(call: CommandCall, web: Arc<Web>) -> Result<Self, OpenError> {
        let CommandCall { folder, outputs, arguments, environment, stdout, stderr, allow_hosts, limits } =
            call;
        let event = folder.join(EVENT);
        let stdin = File::open(&event).map_err(|source| OpenError { path: event, source })?;
        let stderr = StdStream::new(stderr);
        let mut wasi = WasiCtx::builder();
        // Blocking is fine, since the thread is the program's own. Folders that are added later remember this.
        wasi.allow_blocking_current_thread(true)
            .args(&arguments)
            .envs(&environment)
            .stdin(InputFile::new(stdin))
            .stdout(StdStream::new(stdout))
            .stderr(stderr.clone());
        for name in [FOLDER, DOWNLOAD] {
            open(&mut wasi, &folder, name, FsPerms::ReadOnly)?;
        }
        for name in &outputs {
            open(&mut wasi, &folder, name, FsPerms::ReadWrite)?;
        }
        let outputs = outputs.iter().map(|name| folder.join(name)).collect();
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS_BYTES_MAX);
        Ok(Self {
            memory: MemoryLimiter::new(limits.memory_bytes),
            quota: Arc::new(Mutex::new(Quota::new(outputs, limits.output_bytes, limits.output_files))),
            stderr,
            outbound: Outbound::of_program(allow_hosts, web),
            table,
            wasi: wasi.build(),
            http,
        })
    }

    /// Adds the host's notes about the program's requests to stderr.
    pub(super) fn say_notes(&mut self) {
        for note in self.outbound.notes() {
            // If stderr takes no more of the program's own lines, these are dropped as well.
            drop(self.stderr.say(format!("waypost: {}\n", note.message).as_bytes()));
        }
    }
}

fn open(wasi: &mut WasiCtxBuilder, folder: &Path, name: &str, perms: FsPerms) -> Result<(), OpenError> {
    let path = folder.join(name);
    match wasi.preopened_dir(&path, name, perms) {
        Ok(_) => Ok(()),
        Err(error) => Err(OpenError { path, source: error.downcast().unwrap_or_else(io::Error::other) }),
    }
}

impl WasiView for CommandState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for CommandState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}

/// Links what a program is offered: WASI unchanged, except for the files.
pub(super) fn link(engine: &Engine) -> Result<Linker<CommandState>, wasmtime::Error> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    files::link(&mut linker)?;
    linker.allow_shadowing(false);
    Ok(linker)
}

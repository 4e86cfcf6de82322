//! Programs: WASI 0.2 commands (`wasi:cli/run`), which run in a folder.
//!
//! A program is a component like a plugin, and is compiled and kept as one. It runs otherwise: in an engine without the
//! plugins' pool, since it may need more memory than the pool's places have; on a thread of its own with its files read
//! and written there, so that it takes no thread from plugins; and for as long as its caller says.
//!
//! - `state`: what its store holds: folders, streams, clocks, the way to `wasi:http`.
//! - `files`: the file system's functions, asking `quota` before anything grows; `stream`: writing to files and stdio.
//! - `memory`: memory and tables. `end`: how it came to an end, in words.

mod end;
mod files;
mod memory;
mod quota;
mod state;
mod stream;

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use wasmtime::component::Linker;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::p2::bindings::CommandPre;

use self::end::Ending;
use self::state::CommandState;
use super::compile::{self, Reason};
use super::engine::{self, Ticker};
use super::error::{Error, Refused};
use super::host::{self, Host};
use super::report;
use super::text;
use super::web::Web;
use crate::chain;
use crate::domain::PluginDigest;
use crate::domain::handler::Exit;
use crate::domain::plugin::AllowHost;

/// How often a running program is checked for its deadline and for cancellation.
const TICK: Duration = Duration::from_millis(5);
/// The most handles and host resources that a program has at once: an open file is one, and so is each of its streams.
const HANDLES_MAX: usize = 1024;
/// The most threads that read ahead for one program, where it asks for that.
const READERS_MAX: usize = 4;

/// A program that is ready to run.
pub struct Command {
    pre: CommandPre<CommandState>,
    web: Arc<Web>,
}

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
    /// The hosts that it may call by HTTP, whatever their addresses are.
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

/// Where programs run, started at the first one.
pub(super) struct Commands {
    engine: Engine,
    linker: Linker<CommandState>,
    web: Arc<Web>,
    /// Held while a program is made ready: one that comes twice is compiled once.
    turn: tokio::sync::Mutex<()>,
    /// The modules whose machine code `sweep` keeps.
    loaded: Mutex<HashSet<PluginDigest>>,
    _ticker: Ticker,
}

impl Commands {
    fn start() -> Result<Self, Error> {
        let failed = |error: wasmtime::Error| Error::Engine { reason: format!("{error:#}") };
        let engine = engine::compiler().map_err(failed)?;
        let linker = state::link(&engine).map_err(failed)?;
        let ticker = Ticker::start(engine.clone(), TICK).map_err(Error::Threads)?;
        let (web, turn, loaded) = (Arc::new(Web::of_programs()), Default::default(), Mutex::default());
        Ok(Self { engine, linker, web, turn, loaded, _ticker: ticker })
    }
}

impl Host {
    /// Makes a program ready to run: compiles it, unless it is in the cache.
    ///
    /// # Errors
    /// When it is not accepted, or cannot be compiled here.
    pub async fn load_command(self: &Arc<Self>, wasm: Bytes) -> Result<Arc<Command>, Refused> {
        compile::recognise(&wasm, self.settings.compile.module_bytes)?;
        let looked_at = wasm.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let digest = PluginDigest::of(&looked_at);
            report::outline_of_command(digest, &looked_at).map(|()| digest)
        });
        let digest = looking.await.expect("hashing and parsing do not panic")?;
        let _turn = self.commands()?.turn.lock().await;
        let loaded = self.loaded_command(digest, wasm).await;
        if loaded.is_err()
            && let Err(error) = self.discard(digest).await
        {
            tracing::warn!(error = chain::of(&error), "the machine code of a refused program stays");
        }
        loaded
    }

    async fn loaded_command(
        self: &Arc<Self>,
        digest: PluginDigest,
        wasm: Bytes,
    ) -> Result<Arc<Command>, Refused> {
        let commands = self.commands()?;
        let component = match self.fetched(digest, &commands.engine).await? {
            Some(found) => found.component,
            None => {
                self.compile(digest, wasm, Reason::Use).await?;
                let fetched = self.fetched(digest, &commands.engine).await?;
                fetched.ok_or_else(host::gone)?.component
            }
        };
        let pre = commands.linker.instantiate_pre(&component).and_then(CommandPre::new);
        let pre = pre.map_err(|error| Refused::DoesNotLoad(text::of(&error)))?;
        commands.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        Ok(Arc::new(Command { pre, web: Arc::clone(&commands.web) }))
    }

    /// Tells whether this is a program that has been loaded.
    pub(super) fn is_command(&self, digest: PluginDigest) -> bool {
        let is_loaded = |commands: &Commands| {
            commands.loaded.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest)
        };
        self.commands.get().is_some_and(is_loaded)
    }

    fn commands(&self) -> Result<&Commands, Error> {
        if let Some(commands) = self.commands.get() {
            return Ok(commands);
        }
        // Two may come at once: one of their engines is dropped.
        let commands = Commands::start()?;
        Ok(self.commands.get_or_init(|| commands))
    }

    /// Runs a program on a thread of its own. When this returns, only what the program wrote is left of it. Dropping
    /// the future ends the program soon.
    pub async fn run_command(&self, command: &Arc<Command>, call: CommandCall) -> CommandEnd {
        let cancelled = CancellationToken::new();
        let _ends_with_this = cancelled.clone().drop_guard();
        let (tell, told) = oneshot::channel();
        let command = Arc::clone(command);
        let running = move || {
            host::give_precedence();
            // The receiver is gone if the run was cancelled.
            drop(tell.send(run(&command, call, &cancelled)));
        };
        if let Err(error) = std::thread::Builder::new().name("handler".to_owned()).spawn(running) {
            return CommandEnd::failed(format!("failed to start its thread: {error}"));
        }
        let panicked = || CommandEnd::failed("the host failed: see the service's own stderr".to_owned());
        told.await.unwrap_or_else(|_| panicked())
    }
}

impl CommandEnd {
    fn failed(reason: String) -> Self {
        Self { exit: Exit::Failed(reason), memory_bytes: 0 }
    }
}

/// Runs a program on this thread.
fn run(command: &Command, call: CommandCall, cancelled: &CancellationToken) -> CommandEnd {
    let limits = call.limits;
    let state = match CommandState::new(call, Arc::clone(&command.web)) {
        Ok(state) => state,
        Err(error) => return CommandEnd::failed(chain::of(&error)),
    };
    // For its clocks and its HTTP requests; it ends with the run, and they with it.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(READERS_MAX).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return CommandEnd::failed(format!("failed to start its clock: {error}")),
    };
    let end = runtime.block_on(async {
        let mut store = store(command.pre.engine(), state);
        let ending = tokio::select! {
            biased;
            () = cancelled.cancelled() => Ending::Cancelled,
            () = tokio::time::sleep(limits.time) => Ending::Late,
            ended = main(command, &mut store) => Ending::Itself(ended),
        };
        let mut state = store.into_data();
        state.say_notes();
        CommandEnd { exit: end::exit(ending, &state, limits), memory_bytes: state.memory.most_bytes() }
    });
    runtime.shutdown_background();
    end
}

/// Calls `wasi:cli/run`, and returns what that returns.
async fn main(command: &Command, store: &mut Store<CommandState>) -> wasmtime::Result<Result<(), ()>> {
    let instance = command.pre.instantiate_async(&mut *store).await?;
    instance.wasi_cli_run().call_run(store).await
}

/// Makes a store whose program yields at every tick, so that it can be ended.
fn store(engine: &Engine, state: CommandState) -> Store<CommandState> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_max_component_handles(HANDLES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))));
    store
}

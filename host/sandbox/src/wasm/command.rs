//! Programs: WASI 0.2 commands (`wasi:cli/run`), which run in a folder.
//!
//! A program is a component, compiled and stored like a plugin, but it runs differently: in an engine without the
//! plugins' pool, since it may need more memory than a slot of the pool has; on its own thread, which also reads and
//! writes its files, so that it takes no thread from plugins; and for as long as its caller allows.
//!
//! - `state`: what its store holds: folders, streams, clocks, access to `wasi:http`.
//! - `files`: the file system's functions, which ask `quota` before anything grows; `stream`: writing to files and stdio.
//! - `memory`: memory and tables. `end`: how it came to an end, in words.

mod end;
mod files;
mod memory;
mod quota;
mod state;
mod stream;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{MutexGuard, oneshot};
use tokio_util::sync::CancellationToken;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::p2::bindings::CommandPre;

use self::end::Ending;
use self::state::CommandState;
use super::engine::{self, Ticker};
use super::error::{Error, Refused};
use super::program::{CommandCall, CommandEnd};
use super::runner::give_precedence;
use super::text;
use super::web::Web;
use waypost_domain::PluginDigest;
use waypost_net::Guard;
use waypost_runtime::chain;

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
    ticker: Arc<Ticker>,
}

/// Where programs run: an engine without a pool.
pub(super) struct Commands {
    engine: Engine,
    linker: Linker<CommandState>,
    web: Arc<Web>,
    ticker: Arc<Ticker>,
    loading: tokio::sync::Mutex<()>,
    /// The modules that have been loaded.
    loaded: Mutex<HashSet<PluginDigest>>,
}

impl Commands {
    /// Starts the engine.
    pub(super) fn start(guard: Arc<Guard>) -> Result<Self, Error> {
        let engine = engine::compiler().map_err(Error::engine)?;
        let linker = state::link(&engine).map_err(Error::engine)?;
        let ticker = Arc::new(Ticker::start(engine.clone(), TICK).map_err(Error::Threads)?);
        let (loading, loaded) = Default::default();
        Ok(Self { engine, linker, web: Arc::new(Web::of_programs(guard)), ticker, loading, loaded })
    }

    /// Returns the engine that machine code is loaded into.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Waits for the permit to load a program.
    pub(super) async fn loading(&self) -> MutexGuard<'_, ()> {
        self.loading.lock().await
    }

    /// Makes a component ready to run.
    pub(super) fn link(&self, digest: PluginDigest, component: &Component) -> Result<Arc<Command>, Refused> {
        let pre = self.linker.instantiate_pre(component).and_then(CommandPre::new);
        let pre = pre.map_err(|error| Refused::DoesNotLoad(text::of(&error)))?;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        Ok(Arc::new(Command { pre, web: Arc::clone(&self.web), ticker: Arc::clone(&self.ticker) }))
    }

    /// Tells whether this is a program that has been loaded.
    pub(super) fn has(&self, digest: PluginDigest) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest)
    }
}

impl Command {
    /// Runs the program on a thread of its own, which ends soon after the future is dropped.
    pub(super) async fn run(command: &Arc<Self>, call: CommandCall) -> CommandEnd {
        let cancelled = CancellationToken::new();
        let _ends_with_this = cancelled.clone().drop_guard();
        let (sender, receiver) = oneshot::channel();
        let command = Arc::clone(command);
        let running = move || {
            give_precedence();
            // The receiver is gone if the run was cancelled.
            drop(sender.send(run(&command, call, &cancelled)));
        };
        if let Err(error) = std::thread::Builder::new().name("handler".to_owned()).spawn(running) {
            return CommandEnd::failed(format!("failed to start its thread: {error}"));
        }
        let panicked = || CommandEnd::failed("the host failed: see the service's own stderr".to_owned());
        receiver.await.unwrap_or_else(|_| panicked())
    }
}

/// Runs a program on this thread.
fn run(command: &Command, call: CommandCall, cancelled: &CancellationToken) -> CommandEnd {
    let (limits, _ticking) = (call.limits, command.ticker.tick());
    let state = match CommandState::new(call, Arc::clone(&command.web)) {
        Ok(state) => state,
        Err(error) => return CommandEnd::failed(chain::text(&error)),
    };
    // Drives the program's clocks and HTTP requests, and ends with the run.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(READERS_MAX).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return CommandEnd::failed(format!("failed to start its runtime: {error}")),
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

//! Where plugins run: one engine, its pool, its threads, and the modules that are loaded.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;
use moka::future::Cache;
use tokio::runtime::Runtime;
use wasmtime::Engine;
use wasmtime::component::Linker;

use super::artefacts::Artefact;
use super::command::Commands;
use super::compile::{self, CompileLimits, Compiled, Compiler, Reason};
use super::engine::{self, MEMORY_BYTES_MAX, Ticker};
use super::error::{Error, Refused};
use super::guest::Guest;
use super::imports;
use super::limits::Limits;
use super::loaded::Plugin;
use super::outline::Outline;
use super::queues::{self, Queues};
use super::report;
use super::schedule::{Schedule, Seat};
use super::text;
use super::web::Web;
use crate::chain;
use crate::domain::PluginDigest;
use crate::domain::plugin::Report;
use crate::fair_semaphore::{FairPermit, FairSemaphore};
use crate::net::Guard;

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
    pub compiler: Option<Compiler>,
    /// Networks that are not public and that plugins may call all the same.
    pub networks: Vec<IpNet>,
    /// What plugins may not say, and where they may not go, whatever else is allowed.
    pub guard: Arc<Guard>,
    /// The most linear memory of all calls at once, in bytes.
    pub memory_total_bytes: usize,
    /// How many threads run plugins.
    pub threads: usize,
}

/// Runs plugins. Nothing is started before the first module comes.
pub struct Host {
    pub(super) settings: Settings,
    running: OnceLock<Running>,
    pub(super) commands: OnceLock<Commands>,
    loaded: Cache<PluginDigest, Loaded>,
    pub(super) queues: Queues,
    /// The hash of what machine code depends on.
    pub(super) version: OnceLock<u64>,
    /// Held while the key of the folder is read or made.
    pub(super) key: Mutex<()>,
}

/// A module in memory, with how much of that it takes.
#[derive(Clone)]
struct Loaded {
    plugin: Arc<Plugin>,
    bytes: u64,
}

pub(super) struct Running {
    pub(super) engine: Engine,
    pub(super) linker: Linker<Guest>,
    /// One for each instance that the pool has.
    pub(super) calls: FairSemaphore,
    /// The bytes of linear memory of all calls.
    memory: FairSemaphore,
    schedule: Schedule,
    pub(super) web: Arc<Web>,
    runtime: Option<Runtime>,
    _ticker: Ticker,
}

impl Host {
    /// Makes a host that has started nothing yet.
    pub fn new(mut settings: Settings) -> Self {
        // The pool allows no more.
        settings.limits.memory_bytes = settings.limits.memory_bytes.min(MEMORY_BYTES_MAX);
        let weight = |_: &PluginDigest, loaded: &Loaded| u32::try_from(loaded.bytes).unwrap_or(u32::MAX);
        let loaded = Cache::builder().max_capacity(LOADED_BYTES_MAX).weigher(weight).build();
        Self {
            settings,
            running: OnceLock::new(),
            commands: OnceLock::new(),
            loaded,
            queues: Queues::new(),
            version: OnceLock::new(),
            key: Mutex::new(()),
        }
    }

    /// Returns the limits of each call.
    pub fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// Compiles a module that a user uploads, unless it is in the cache, and returns its report. A refused module
    /// leaves nothing behind. One that exceeded a limit is refused for a while without another try.
    ///
    /// # Errors
    /// When it is not accepted, or cannot be compiled here.
    pub async fn admit(self: &Arc<Self>, user: &str, wasm: Bytes) -> Result<Report, Refused> {
        compile::recognise(&wasm, self.settings.compile.module_bytes)?;
        let looked_at = wasm.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let digest = PluginDigest::of(&looked_at);
            Ok::<_, Refused>((digest, report::outline(digest, &looked_at)?))
        });
        let (digest, outline) = looking.await.expect("hashing and parsing do not panic")?;
        if let Some(why) = self.queues.refusal(user, digest).await {
            return Err(Refused::TriedLately { why, minutes: queues::MEMORY.as_secs() / 60 });
        }
        let reported = self.reported(user, digest, wasm, &outline).await;
        let Err(refused) = &reported else { return reported };
        if let Refused::TooExpensive(_) | Refused::SchemaTooExpensive(_) = refused {
            self.queues.refuse(user, digest, refused.to_string()).await;
        }
        if let Err(error) = self.discard(digest).await {
            tracing::warn!(error = chain::of(&error), "the machine code of a refused module stays");
        }
        reported
    }

    async fn reported(
        self: &Arc<Self>,
        user: &str,
        digest: PluginDigest,
        wasm: Bytes,
        outline: &Outline,
    ) -> Result<Report, Refused> {
        let bytes = wasm.len() as u64;
        let (component, compiled) = match self.fetched(digest, self.engine()?).await? {
            Some(found) => (found.component, Compiled { took: Duration::ZERO, bytes: found.code_bytes }),
            None => {
                let compiled = self.compile(digest, wasm, Reason::Upload { user }).await?;
                let fetched = self.fetched(digest, self.engine()?).await?;
                (fetched.ok_or_else(gone)?.component, compiled)
            }
        };
        report::of(self, user, digest, bytes, outline, &component, compiled).await
    }

    /// Returns a module ready to run. `wasm` is asked for its bytes where no compiled form is on disk.
    ///
    /// # Errors
    /// When there are no bytes, or they are not accepted any more.
    pub async fn load(
        self: &Arc<Self>,
        digest: PluginDigest,
        wasm: impl Future<Output = Result<Bytes, Refused>> + Send,
    ) -> Result<Arc<Plugin>, Arc<Refused>> {
        let loading = async {
            let found = match self.fetched(digest, self.engine()?).await? {
                Some(found) => found,
                None => {
                    self.compile(digest, wasm.await?, Reason::Use).await?;
                    self.fetched(digest, self.engine()?).await?.ok_or_else(gone)?
                }
            };
            let linker = &self.running()?.linker;
            let plugin = Plugin::link(digest, linker, &found.component);
            let plugin = plugin.map_err(|error| Refused::DoesNotLoad(text::of(&error)))?;
            Ok(Loaded { plugin: Arc::new(plugin), bytes: found.loaded_bytes.max(LOADED_BYTES_MIN) })
        };
        Ok(self.loaded.try_get_with(digest, loading).await?.plugin)
    }

    /// Returns a module's machine code, ready to be linked in this engine, if it is in the cache.
    pub(super) async fn fetched(
        self: &Arc<Self>,
        digest: PluginDigest,
        engine: &Engine,
    ) -> Result<Option<Artefact>, Refused> {
        let (host, engine) = (Arc::clone(self), engine.clone());
        let fetching = tokio::task::spawn_blocking(move || host.fetch(digest, &engine));
        fetching.await.expect("fetching does not panic")
    }

    /// Forgets a loaded module. Calls that run go on.
    pub(super) async fn forget(&self, digest: PluginDigest) {
        self.loaded.invalidate(&digest).await;
    }

    /// Returns the engine of plugins.
    fn engine(&self) -> Result<&Engine, Error> {
        Ok(&self.running()?.engine)
    }

    /// Returns what runs plugins, started at the first use.
    pub(super) fn running(&self) -> Result<&Running, Error> {
        if let Some(running) = self.running.get() {
            return Ok(running);
        }
        // Two may come at once: one of their engines is dropped.
        let running = Running::start(&self.settings)?;
        Ok(self.running.get_or_init(|| running))
    }
}

/// The most memory that loaded modules take, in bytes, and what each counts at the least.
const LOADED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const LOADED_BYTES_MIN: u64 = 256 * 1024;

/// Machine code that was there a moment ago.
pub(super) fn gone() -> Refused {
    Refused::DoesNotLoad("its machine code has just been removed: try again".to_owned())
}

/// The most names that are resolved at once.
const LOOKUPS_MAX: usize = 64;
/// By how much plugins and programs are nicer than the threads that accept and acknowledge events.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Lets other threads go before this one. Where that cannot be done, all are equal.
pub(super) fn give_precedence() {
    // Linux has a priority for each thread; elsewhere this would be the whole process's.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "the threads of plugins have the same priority as all others");
    }
}

/// A user's permits for one call of a plugin.
pub(super) struct Admission {
    /// Kept until the call's instance is dropped.
    pub(super) call: FairPermit,
    /// The memory that it may have at once.
    pub(super) memory: FairPermit,
    /// The guest's place in the schedule of the threads.
    pub(super) seat: Seat,
}

impl Running {
    fn start(settings: &Settings) -> Result<Self, Error> {
        let failed = |error: wasmtime::Error| Error::Engine { reason: format!("{error:#}") };
        let engine = engine::runner().map_err(failed)?;
        let linker = link(&engine).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(settings.threads)
            .thread_name("plugin")
            // Where names are resolved.
            .max_blocking_threads(LOOKUPS_MAX)
            .on_thread_start(give_precedence)
            .enable_all()
            .build()
            .map_err(Error::Threads)?;
        let ticker = Ticker::start(engine.clone(), engine::TICK).map_err(Error::Threads)?;
        let calls = FairSemaphore::new(engine::CALLS_MAX as usize, engine::CALLS_MAX as usize);
        let memory = FairSemaphore::new(settings.memory_total_bytes, engine::CALLS_MAX as usize);
        let web = Arc::new(Web::of_plugins(Arc::clone(&settings.guard), &settings.networks));
        let interrupted = engine.clone();
        let schedule = Schedule::new(settings.threads, move || interrupted.increment_epoch());
        Ok(Self { engine, linker, calls, memory, schedule, web, runtime: Some(runtime), _ticker: ticker })
    }

    /// Waits for a user's permits for one call of a plugin: for a place, and for the memory that the call is expected
    /// to need.
    pub(super) async fn admit(&self, user: &str, plugin: &Plugin) -> Admission {
        let call = self.calls.take(user, 1).await;
        let memory = self.memory.take(user, plugin.expected_bytes()).await;
        Admission { call, memory, seat: self.schedule.seat(user) }
    }

    /// Runs a future on the threads of plugins.
    pub(super) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.as_ref().expect("it goes only when this is dropped").spawn(future)
    }
}

/// Dropping a runtime blocks, and panics inside another runtime, where this may be dropped. So it is not waited for.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Links what the host offers.
pub(super) fn link(engine: &Engine) -> Result<Linker<Guest>, wasmtime::Error> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    imports::link(&mut linker)?;
    Ok(linker)
}

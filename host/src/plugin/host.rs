//! Where plugins run: one engine, its pool, its threads, and the modules that are loaded.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;
use moka::future::Cache;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::command::Commands;
use super::compile::{self, CompileLimits, Compiled, Compiler, Reason, Turns};
use super::engine::{self, MEMORY_BYTES_MAX, Ticker};
use super::error::{Error, Refused};
use super::guest::Guest;
use super::imports;
use super::limits::Limits;
use super::loaded::Plugin;
use super::report;
use super::text;
use super::web::Web;
use crate::chain;
use crate::domain::PluginDigest;
use crate::domain::plugin::Report;
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
    /// How many threads run plugins.
    pub threads: usize,
}

/// Where plugins run. Nothing is started before the first module comes.
pub struct Host {
    pub(super) settings: Settings,
    running: OnceLock<Running>,
    pub(super) commands: OnceLock<Commands>,
    loaded: Cache<PluginDigest, Loaded>,
    pub(super) compiling: Turns,
    /// The hash of what machine code depends on.
    pub(super) version: OnceLock<u64>,
    /// Held while the key of the folder is read or made.
    pub(super) key: Mutex<()>,
}

/// A module in memory, with the size of its machine code.
#[derive(Clone)]
struct Loaded {
    plugin: Arc<Plugin>,
    bytes: u64,
}

pub(super) struct Running {
    pub(super) engine: Engine,
    pub(super) linker: Linker<Guest>,
    /// One for each instance that the pool has.
    pub(super) calls: Arc<Semaphore>,
    /// What one user's deliveries may have of them; by the user's hash, which nobody can foresee.
    shares: [Arc<Semaphore>; SHARES],
    users: RandomState,
    pub(super) web: Arc<Web>,
    runtime: Option<Runtime>,
    _ticker: Ticker,
}

impl Host {
    /// Makes a host that has started nothing yet.
    pub fn new(mut settings: Settings) -> Self {
        // The pool has no room for more.
        settings.limits.memory_bytes = settings.limits.memory_bytes.min(MEMORY_BYTES_MAX);
        let weight = |_: &PluginDigest, loaded: &Loaded| u32::try_from(loaded.bytes).unwrap_or(u32::MAX);
        let loaded = Cache::builder().max_capacity(LOADED_BYTES_MAX).weigher(weight).build();
        Self {
            settings,
            running: OnceLock::new(),
            commands: OnceLock::new(),
            loaded,
            compiling: Turns::new(),
            version: OnceLock::new(),
            key: Mutex::new(()),
        }
    }

    /// Returns the limits of each call.
    pub fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// Compiles a module, unless it is in the cache, and says what it is. What is refused leaves nothing behind.
    ///
    /// # Errors
    /// When it is not accepted, or cannot be compiled here.
    pub async fn admit(self: &Arc<Self>, wasm: Bytes) -> Result<Report, Refused> {
        compile::recognise(&wasm, self.settings.compile.module_bytes)?;
        let (looked_at, bytes) = (wasm.clone(), wasm.len() as u64);
        let looking = tokio::task::spawn_blocking(move || {
            let digest = PluginDigest::of(&looked_at);
            Ok::<_, Refused>((digest, report::outline(digest, &looked_at)?))
        });
        let (digest, outline) = looking.await.expect("hashing and parsing do not panic")?;
        let reported = async {
            let (component, compiled) = match self.fetched(digest, self.engine()?).await? {
                Some((component, bytes)) => (component, Compiled { took: Duration::ZERO, bytes }),
                None => {
                    let compiled = self.compile(digest, wasm, Reason::Upload).await?;
                    let (component, _) = self.fetched(digest, self.engine()?).await?.ok_or_else(gone)?;
                    (component, compiled)
                }
            };
            report::of(self, digest, bytes, &outline, &component, compiled).await
        };
        let reported: Result<Report, Refused> = reported.await;
        if reported.is_err()
            && let Err(error) = self.discard(digest).await
        {
            tracing::warn!(error = chain::of(&error), "the machine code of a refused module stays");
        }
        reported
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
            let (component, bytes) = match self.fetched(digest, self.engine()?).await? {
                Some(found) => found,
                None => {
                    self.compile(digest, wasm.await?, Reason::Use).await?;
                    self.fetched(digest, self.engine()?).await?.ok_or_else(gone)?
                }
            };
            let linker = &self.running()?.linker;
            let plugin = Plugin::link(digest, linker, &component);
            let plugin = plugin.map_err(|error| Refused::DoesNotLoad(text::of(&error)))?;
            Ok(Loaded { plugin: Arc::new(plugin), bytes: bytes.max(LOADED_BYTES_MIN) })
        };
        Ok(self.loaded.try_get_with(digest, loading).await?.plugin)
    }

    /// Returns a module's machine code, ready to be linked in this engine, if it is in the cache, and its size.
    pub(super) async fn fetched(
        self: &Arc<Self>,
        digest: PluginDigest,
        engine: &Engine,
    ) -> Result<Option<(Component, u64)>, Refused> {
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

/// The most machine code that is kept loaded, in bytes, and what a module counts at the least.
const LOADED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const LOADED_BYTES_MIN: u64 = 256 * 1024;

/// Machine code that was there a moment ago.
pub(super) fn gone() -> Refused {
    Refused::DoesNotLoad("its machine code has just been removed: try again".to_owned())
}

/// The most calls of one user at once: plugins that wait leave others half of the places. It is as many as one
/// subscription has attempts by default.
const USER_CALLS_MAX: usize = engine::CALLS_MAX as usize / 2;
/// Among how many shares users are spread.
const SHARES: usize = 64;
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
        let calls = Arc::new(Semaphore::new(engine::CALLS_MAX as usize));
        let shares = std::array::from_fn(|_| Arc::new(Semaphore::new(USER_CALLS_MAX)));
        let (users, web) =
            (RandomState::new(), Arc::new(Web::of_plugins(Arc::clone(&settings.guard), &settings.networks)));
        Ok(Self { engine, linker, calls, shares, users, web, runtime: Some(runtime), _ticker: ticker })
    }

    /// Returns what a user's deliveries may have of the calls.
    pub(super) fn share_of(&self, user: &str) -> Arc<Semaphore> {
        let place = self.users.hash_one(user) % self.shares.len() as u64;
        Arc::clone(&self.shares[usize::try_from(place).unwrap_or_default()])
    }

    /// Runs a future on the threads of plugins.
    pub(super) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.as_ref().expect("it goes only when this is dropped").spawn(future)
    }
}

/// A runtime must not be waited for where it may be dropped, inside another one.
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

//! Where plugins run: one engine, its pool, its threads, and the modules that are loaded.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ipnet::IpNet;
use moka::future::Cache;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Linker;

use super::compile::{CompileLimits, Compiler};
use super::engine::{self, MEMORY_BYTES_MAX, Ticker};
use super::error::{Error, Refused};
use super::guest::Guest;
use super::imports;
use super::limits::Limits;
use super::loaded::Plugin;
use super::web::Web;
use crate::domain::PluginDigest;
use crate::domain::plugin::Report;

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
    /// How many threads run plugins.
    pub threads: usize,
}

/// Where plugins run. Nothing is started before the first module comes.
pub struct Host {
    pub(super) settings: Settings,
    running: OnceLock<Running>,
    loaded: Cache<PluginDigest, Arc<Plugin>>,
    /// Compilations at once: one.
    pub(super) compiling: Semaphore,
}

pub(super) struct Running {
    pub(super) engine: Engine,
    pub(super) linker: Linker<Guest>,
    /// One for each instance that the pool has.
    pub(super) calls: Arc<Semaphore>,
    pub(super) web: Arc<Web>,
    runtime: Option<Runtime>,
    _ticker: Ticker,
}

impl Host {
    /// Makes a host that has started nothing yet.
    pub fn new(mut settings: Settings) -> Self {
        // The pool has no room for more.
        settings.limits.memory_bytes = settings.limits.memory_bytes.min(MEMORY_BYTES_MAX);
        let loaded = Cache::builder().max_capacity(LOADED_MAX).build();
        Self { settings, running: OnceLock::new(), loaded, compiling: Semaphore::new(1) }
    }

    /// Compiles a module, unless it is in the cache, and says what it is.
    ///
    /// # Errors
    /// When it is not accepted, or cannot be compiled here.
    pub async fn admit(self: &Arc<Self>, wasm: Bytes) -> Result<Report, Refused> {
        let digest = PluginDigest::of(&wasm);
        let compiled = self.compile(digest, wasm.clone()).await?;
        super::report::of(self, digest, &wasm, compiled).await
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
            let component = match self.cached(digest).await? {
                Some(component) => component,
                None => {
                    self.compile(digest, wasm.await?).await?;
                    let missing = || Refused::Invalid("its compiled form is gone".to_owned());
                    self.cached(digest).await?.ok_or_else(missing)?
                }
            };
            let linker = &self.running()?.linker;
            let plugin = Plugin::link(digest, linker, &component);
            plugin.map(Arc::new).map_err(|error| Refused::Invalid(format!("{error:#}")))
        };
        self.loaded.try_get_with(digest, loading).await
    }

    /// Returns the engine, started at the first use.
    pub(super) fn running(&self) -> Result<&Running, Error> {
        if let Some(running) = self.running.get() {
            return Ok(running);
        }
        // Two may come at once: one of their engines is dropped.
        let running = Running::start(&self.settings)?;
        Ok(self.running.get_or_init(|| running))
    }
}

/// The most modules that are kept loaded.
const LOADED_MAX: u64 = 512;
/// The most names that are resolved at once.
const LOOKUPS_MAX: usize = 64;
/// By how much plugins are nicer than the threads that accept and acknowledge events.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Lets other threads go before this one. Where that cannot be done, all are equal.
fn give_precedence() {
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
        let ticker = Ticker::start(engine.clone()).map_err(Error::Threads)?;
        let calls = Arc::new(Semaphore::new(engine::CALLS_MAX as usize));
        let web = Arc::new(Web::new(&settings.networks));
        Ok(Self { engine, linker, calls, web, runtime: Some(runtime), _ticker: ticker })
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

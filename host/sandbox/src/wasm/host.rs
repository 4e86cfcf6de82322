//! The sandbox as others use it: [`Host`] composes its parts, and holds the modules that are loaded.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use moka::future::Cache;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use wasmtime::Engine;

use super::artefacts::{Artefact, Artefacts};
use super::call::{Call, CallResult, blank};
use super::command::{Command, Commands};
use super::compile::{self, Compiler, Reason};
use super::component::Plugin;
use super::configuration::{self, SchemaChecks};
use super::engine::MEMORY_BYTES_MAX;
use super::error::{Error, Refused};
use super::limits::Limits;
use super::metadata::{Answer, Question};
use super::outline::Outline;
use super::problem::Problem;
use super::program::{CommandCall, CommandEnd};
use super::refusals::{self, Refusals};
use super::report;
use super::runner::Runner;
use super::settings::Settings;
use super::text;
use waypost_domain::PluginDigest;
use waypost_domain::plugin::{Failure, Manifest, Report, Verdict};
use waypost_runtime::chain;

/// Runs plugins and programs. Nothing is started until the first module arrives.
pub struct Host {
    pub(super) settings: Settings,
    pub(super) artefacts: Artefacts,
    compiler: Compiler,
    schemas: SchemaChecks,
    /// The uploads that exceeded a limit.
    refusals: Refusals,
    runner: OnceCell<Runner>,
    commands: OnceCell<Commands>,
    loaded: Cache<PluginDigest, CacheEntry>,
}

/// A module in memory, and how many bytes it takes.
#[derive(Clone)]
struct CacheEntry {
    plugin: Arc<Plugin>,
    bytes: u64,
}

/// The most memory that loaded modules take together, in bytes, and the least that each counts.
const LOADED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const LOADED_BYTES_MIN: u64 = 256 * 1024;

impl Host {
    /// Makes a host that has started nothing yet.
    pub fn new(mut settings: Settings) -> Self {
        // The pool allows no more.
        settings.limits.memory_bytes = settings.limits.memory_bytes.min(MEMORY_BYTES_MAX);
        let weight = |_: &PluginDigest, entry: &CacheEntry| u32::try_from(entry.bytes).unwrap_or(u32::MAX);
        Self {
            artefacts: Artefacts::new(settings.folder.clone(), settings.compile),
            compiler: Compiler::new(settings.compiler.clone(), settings.compile),
            schemas: SchemaChecks::new(settings.compiler.clone()),
            refusals: Refusals::new(),
            runner: OnceCell::new(),
            commands: OnceCell::new(),
            loaded: Cache::builder().max_capacity(LOADED_BYTES_MAX).weigher(weight).build(),
            settings,
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
    pub fn admit<'a>(&'a self, user: &'a str, wasm: Bytes) -> BoxFuture<'a, Result<Report, Refused>> {
        Box::pin(async move {
            let (digest, outline) = self.outline(&wasm, report::outline).await?;
            if let Some(why) = self.refusals.get(user, digest).await {
                return Err(Refused::TriedLately { why, minutes: refusals::MEMORY.as_secs() / 60 });
            }
            let reported = self.report(user, digest, wasm, &outline).await;
            let Err(refused) = &reported else { return reported };
            if let Refused::TooExpensive(_) | Refused::SchemaTooExpensive(_) = refused {
                self.refusals.remember(user, digest, refused.to_string()).await;
            }
            if let Err(error) = self.discard(digest).await {
                tracing::warn!(error = chain::text(&error), "the machine code of a refused module stays");
            }
            reported
        })
    }

    /// Looks at a module before it is compiled.
    async fn outline<T: Send + 'static>(
        &self,
        wasm: &Bytes,
        look: impl FnOnce(PluginDigest, &[u8]) -> Result<T, Refused> + Send + 'static,
    ) -> Result<(PluginDigest, T), Refused> {
        compile::recognise(wasm, self.settings.compile.module_bytes)?;
        let wasm = wasm.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let digest = PluginDigest::of(&wasm);
            Ok((digest, look(digest, &wasm)?))
        });
        looking.await.expect("hashing and parsing do not panic")
    }

    async fn report(
        &self,
        user: &str,
        digest: PluginDigest,
        wasm: Bytes,
        outline: &Outline,
    ) -> Result<Report, Refused> {
        let (runner, bytes) = (self.runner().await?, wasm.len() as u64);
        let wasm = async { Ok(wasm) };
        let (found, compile_time) =
            self.artefact(digest, wasm, Reason::Upload { user }, runner.engine()).await?;
        let blank = report::blank(digest, bytes, outline);
        let report = Report { compile_time, compiled_bytes: found.code_bytes, ..blank };
        report::complete(report, outline, &found.component, runner, &self.schemas, user).await
    }

    /// Returns a module ready to run. `wasm` is awaited for its bytes if no machine code is on disk.
    ///
    /// # Errors
    /// When there are no bytes, or they are not accepted any more.
    pub async fn load(
        &self,
        digest: PluginDigest,
        wasm: impl Future<Output = Result<Bytes, Refused>> + Send,
    ) -> Result<Arc<Plugin>, Arc<Refused>> {
        let loading = async {
            let runner = self.runner().await?;
            let (found, _) = self.artefact(digest, wasm, Reason::Use, runner.engine()).await?;
            let plugin = runner.link(digest, &found.component);
            let plugin = plugin.map_err(|error| Refused::DoesNotLoad(text::of(&error)))?;
            Ok(CacheEntry { plugin: Arc::new(plugin), bytes: found.loaded_bytes.max(LOADED_BYTES_MIN) })
        };
        Ok(self.loaded.try_get_with(digest, loading).await?.plugin)
    }

    /// Returns a module's machine code for an engine, which is compiled if none is stored. Also returns how long
    /// compiling it took; zero when it was stored.
    async fn artefact(
        &self,
        digest: PluginDigest,
        wasm: impl Future<Output = Result<Bytes, Refused>> + Send,
        reason: Reason<'_>,
        engine: &Engine,
    ) -> Result<(Artefact, Duration), Refused> {
        if let Some(found) = self.artefacts.get(digest, engine).await? {
            return Ok((found, Duration::ZERO));
        }
        let (code, took) = self.compiler.compile(wasm.await?, reason).await?;
        tracing::info!(%digest, ?took, bytes = code.bytes.len(), "a module is compiled");
        self.artefacts.put(digest, code).await?;
        let gone = || Refused::DoesNotLoad("its machine code has just been removed: try again".to_owned());
        Ok((self.artefacts.get(digest, engine).await?.ok_or_else(gone)?, took))
    }

    /// Calls a plugin in a fresh instance. Dropping the future ends the call.
    pub fn run(&self, plugin: Arc<Plugin>, call: Call) -> BoxFuture<'_, CallResult> {
        Box::pin(async move {
            match self.runner().await {
                Ok(runner) => runner.run(plugin, call).await,
                Err(error) => {
                    let verdict = Verdict::Failed(Failure::Host(chain::text(&error)));
                    let run = blank(plugin.digest(), call.attempt, call.now, Duration::ZERO, verdict);
                    CallResult { run, outputs: Vec::new(), state: call.state }
                }
            }
        })
    }

    /// Calls a plugin as [`Self::run`] does, but on the caller's thread and without waiting for a permit: for a program
    /// that has threads of its own for plugins. Needs a tokio runtime with time and input/output.
    ///
    /// # Errors
    /// When the engine cannot be started.
    pub fn run_here<'a>(
        &'a self,
        plugin: &'a Plugin,
        call: Call,
    ) -> BoxFuture<'a, Result<CallResult, Error>> {
        Box::pin(async move { Ok(self.runner().await?.run_here(plugin, call).await) })
    }

    /// Checks a configuration that a user asks for: first against the manifest's JSON Schema, then by the plugin
    /// itself.
    ///
    /// # Errors
    /// When the plugin fails to say.
    pub fn check_config<'a>(
        &'a self,
        user: &'a str,
        plugin: &'a Arc<Plugin>,
        manifest: Option<&'a Manifest>,
        config: &'a Map<String, Value>,
    ) -> BoxFuture<'a, Result<Vec<Problem>, Failure>> {
        Box::pin(async move {
            let config = Value::Object(config.clone());
            let text = match configuration::text_of(&config) {
                Ok(text) => text,
                Err(problem) => return Ok(vec![problem]),
            };
            if let Some(schema) = manifest.and_then(|manifest| manifest.config_schema.as_ref()) {
                let problems = self.schemas.check(user, plugin.digest(), schema, config).await?;
                if !problems.is_empty() {
                    return Ok(problems);
                }
            }
            let runner = self.runner().await.map_err(|error| Failure::Host(chain::text(&error)))?;
            match runner.ask(user, plugin, Question::CheckConfig(text)).await.0? {
                Answer::Problems(problems) => Ok(problems),
                Answer::Nothing | Answer::Manifest(_) => Ok(Vec::new()),
            }
        })
    }

    /// Makes a program ready to run: compiles it, unless it is in the cache.
    ///
    /// # Errors
    /// When it is not accepted, or cannot be compiled here.
    pub fn load_command(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<Command>, Refused>> {
        Box::pin(async move {
            let (digest, ()) = self.outline(&wasm, report::outline_of_command).await?;
            let commands = self.commands().await?;
            // Two loads of the same program at once compile it only once.
            let _permit = commands.loading().await;
            let loading = async {
                let wasm = async { Ok(wasm) };
                let (found, _) = self.artefact(digest, wasm, Reason::Use, commands.engine()).await?;
                commands.link(digest, &found.component)
            };
            let loaded = loading.await;
            if loaded.is_err()
                && let Err(error) = self.discard(digest).await
            {
                tracing::warn!(error = chain::text(&error), "the machine code of a refused program stays");
            }
            loaded
        })
    }

    /// Runs a program on a thread of its own. When this returns, only what the program wrote is left of it. Dropping
    /// the future ends the program soon.
    pub fn run_command<'a>(
        &'a self,
        command: &'a Arc<Command>,
        call: CommandCall,
    ) -> BoxFuture<'a, CommandEnd> {
        Box::pin(async move { Command::run(command, call).await })
    }

    /// Removes the machine code of modules that are not in `wanted`, unless it was used within `grace` or belongs to a
    /// command that this host has loaded. Also removes what other versions have left. Blocks on the disk.
    ///
    /// # Errors
    /// When the folder cannot be read or a file cannot be removed.
    pub fn sweep(&self, wanted: &HashSet<PluginDigest>, grace: Duration) -> Result<(), Error> {
        let is_command = |digest| self.commands.get().is_some_and(|commands| commands.has(digest));
        self.artefacts.sweep(|digest| wanted.contains(&digest) || is_command(digest), grace)
    }

    /// Removes a module's machine code, and forgets the module. Running calls continue.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub async fn discard(&self, digest: PluginDigest) -> Result<(), Error> {
        self.loaded.invalidate(&digest).await;
        self.artefacts.evict(digest).await
    }

    /// Returns how many bytes of disk the machine code takes. Blocks on the disk.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn kept_bytes(&self) -> Result<u64, Error> {
        self.artefacts.kept_bytes()
    }

    /// Tells whether a module's machine code is stored.
    pub fn has(&self, digest: PluginDigest) -> bool {
        self.artefacts.has(digest)
    }

    /// Returns what runs plugins; the first use starts it.
    pub(super) async fn runner(&self) -> Result<&Runner, Error> {
        match self.runner.get() {
            Some(runner) => Ok(runner),
            None => {
                let settings = self.settings.clone();
                self.runner.get_or_try_init(|| start(move || Runner::start(&settings))).await
            }
        }
    }

    /// Returns what runs programs; the first use starts it.
    async fn commands(&self) -> Result<&Commands, Error> {
        let guard = Arc::clone(&self.settings.guard);
        self.commands.get_or_try_init(|| start(move || Commands::start(guard))).await
    }
}

/// Starts a part on a blocking thread: making an engine, its linker and its threads would hold up a thread of the
/// runtime.
async fn start<T: Send + 'static>(
    start: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(start).await.expect("starting an engine does not panic")
}

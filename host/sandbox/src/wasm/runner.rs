//! Where plugins run: one engine with its pool, threads of their own, the permits of users, and the schedule.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::{Component, Instance, Linker};
use wasmtime::{Engine, Store};

use super::call::{Call, CallResult, Purpose, blank};
use super::component::Plugin;
use super::engine::{self, Ticker};
use super::error::Error;
use super::guest::Guest;
use super::http::Outbound;
use super::instance::ask_fresh;
use super::limits::Limits;
use super::metadata::{self, Answer, Question};
use super::schedule::{Schedule, Seat};
use super::settings::Settings;
use super::state::State;
use super::steps::{self, Answers};
use super::timer::Timer;
use super::web::Web;
use super::{imports, text};
use waypost_domain::plugin::{Failure, PluginRun, Verdict};
use waypost_domain::{PluginDigest, PluginUse};
use waypost_runtime::clock;
use waypost_runtime::fair_semaphore::{FairPermit, FairSemaphore};

/// The most threads for what blocks.
const BLOCKING_MAX: usize = 2;
/// By how much plugins and programs are nicer than the threads that accept and acknowledge events.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Runs calls.
pub(super) struct Runner {
    engine: Engine,
    linker: Linker<Guest>,
    limits: Limits,
    /// One for each instance that the pool has.
    calls: FairSemaphore,
    /// The bytes of linear memory of all calls.
    memory: FairSemaphore,
    schedule: Schedule,
    web: Arc<Web>,
    ticker: Ticker,
    runtime: Option<Runtime>,
}

/// A call's part of what calls share.
struct CallShare {
    /// The memory that it may have at once.
    memory: FairPermit,
    /// The guest's place in the schedule of the threads.
    seat: Seat,
}

impl Runner {
    /// Starts the engine and its threads.
    pub(super) fn start(settings: &Settings) -> Result<Self, Error> {
        let engine = engine::runner().map_err(Error::engine)?;
        let linker = link(&engine).map_err(Error::engine)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(settings.threads)
            .thread_name("plugin")
            // For making HTTP clients.
            .max_blocking_threads(BLOCKING_MAX)
            .on_thread_start(give_precedence)
            .enable_all()
            .build()
            .map_err(Error::Threads)?;
        let ticker = Ticker::start(engine.clone(), engine::TICK).map_err(Error::Threads)?;
        let interrupted = engine.clone();
        Ok(Self {
            linker,
            limits: settings.limits,
            calls: FairSemaphore::new(engine::CALLS_MAX as usize, engine::CALLS_MAX as usize),
            memory: FairSemaphore::new(settings.memory_total_bytes, engine::CALLS_MAX as usize),
            schedule: Schedule::new(settings.threads, move || interrupted.increment_epoch()),
            web: Arc::new(Web::of_plugins(Arc::clone(&settings.guard))),
            ticker,
            runtime: Some(runtime),
            engine,
        })
    }

    /// Returns the engine that machine code is loaded into.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Makes a component ready to be instantiated.
    pub(super) fn link(&self, digest: PluginDigest, component: &Component) -> wasmtime::Result<Plugin> {
        Plugin::link(digest, &self.linker, component)
    }

    /// Calls a plugin in a fresh instance. Dropping the future ends the call.
    pub(super) async fn run(&self, plugin: Arc<Plugin>, call: Call) -> CallResult {
        let begun = Instant::now();
        let (digest, attempt, now, state) = (plugin.digest(), call.attempt, call.now, call.state.clone());
        let (subscription, limits) =
            (Arc::clone(&call.subscription), self.limits.lowered(&call.plugin.limits));
        let (called, web) = (Arc::clone(&plugin), Arc::clone(&self.web));
        let ended = self.with_share(&subscription.user, &plugin, |share| async move {
            call_fresh(&called, call, limits, web, Some(share)).await
        });
        ended.await.unwrap_or_else(|error| CallResult {
            run: blank(digest, attempt, now, begun.elapsed(), Verdict::Failed(unended(error))),
            outputs: Vec::new(),
            state,
        })
    }

    /// Calls a plugin as [`Self::run`] does, but on the caller's thread and without waiting for a permit.
    pub(super) async fn run_here(&self, plugin: &Plugin, call: Call) -> CallResult {
        let limits = self.limits.lowered(&call.plugin.limits);
        let _ticking = self.ticker.tick();
        call_fresh(plugin, call, limits, Arc::clone(&self.web), None).await
    }

    /// Asks a fresh instance about itself, with the usual limits and no grants. An instance is made even if the plugin
    /// exports no `metadata`. Also returns its linear memory at the end, in bytes.
    pub(super) async fn ask(
        &self,
        user: &str,
        plugin: &Arc<Plugin>,
        question: Question,
    ) -> (Result<Answer, Failure>, u64) {
        let (asked, limits, web) = (Arc::clone(plugin), self.limits, Arc::clone(&self.web));
        let ended = self.with_share(user, plugin, |CallShare { memory, seat }| async move {
            let granted = Arc::new(PluginUse::new(asked.digest()));
            let outbound = Outbound::new(Arc::clone(&granted), Purpose::Try, web);
            let guest = Guest::new(granted, limits, clock::now(), State::default(), outbound, Some(memory));
            let timer = Timer::start(limits.time);
            let ask = async |store: &mut Store<Guest>, instance: Instance| {
                metadata::put(&asked, store, instance, question).await
            };
            ask_fresh(&asked, guest, &timer, Some(seat), ask).await
        });
        match ended.await {
            Ok((answer, guest)) => (answer, guest.meter.memory_bytes as u64),
            Err(_) => (Err(Failure::Host("the host failed while it asked".to_owned())), 0),
        }
    }

    /// Runs something on the threads of plugins, with a user's permits for one call: for an instance, and for the
    /// memory that it is expected to need. Dropping the future ends it.
    async fn with_share<F>(
        &self,
        user: &str,
        plugin: &Plugin,
        work: impl FnOnce(CallShare) -> F,
    ) -> Result<F::Output, JoinError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let instance = self.calls.take(user, 1).await;
        let memory = self.memory.take(user, plugin.expected_bytes()).await;
        let (ticking, seat) = (self.ticker.tick(), self.schedule.seat(user));
        let work = work(CallShare { memory, seat });
        let runtime = self.runtime.as_ref().expect("it goes only when this is dropped");
        let task = runtime.spawn(async move {
            let done = work.await;
            // The instance has been dropped.
            drop((instance, ticking));
            done
        });
        AbortOnDropHandle::new(task).await
    }

    /// Returns the permits for instances.
    #[cfg(test)]
    pub(super) fn calls(&self) -> &FairSemaphore {
        &self.calls
    }
}

/// Shuts the runtime down without waiting: dropping it would block, and would panic inside another runtime, where a
/// runner may be dropped.
impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Makes one call in a fresh instance.
async fn call_fresh(
    plugin: &Plugin,
    call: Call,
    limits: Limits,
    web: Arc<Web>,
    share: Option<CallShare>,
) -> CallResult {
    let (memory, seat) = share.map(|CallShare { memory, seat }| (memory, seat)).unzip();
    let timer = Timer::start(limits.time);
    let Call { event, subscription, plugin: used, attempt, now, state, steps, purpose } = call;
    let outbound = Outbound::new(Arc::clone(&used), purpose, web);
    let guest = Guest::new(used, limits, now, state, outbound, memory);
    let mut answers = Answers::default();
    let input = steps::Input { event: &event, subscription: &subscription, attempt, steps, timer: &timer };
    let ask = async |store: &mut Store<Guest>, instance: Instance| {
        steps::ask(plugin, store, instance, &input, &mut answers).await
    };
    let (answer, guest) = ask_fresh(plugin, guest, &timer, seat, ask).await;
    let verdict = answer.flatten().unwrap_or_else(Verdict::Failed);
    let mut logs = guest.logs.lines;
    logs.extend(guest.outbound.notes());
    let run = PluginRun {
        answered: answers.interfaces,
        logs,
        logs_dropped: guest.logs.dropped,
        stderr: guest.tail.text(),
        memory_bytes: guest.meter.memory_bytes as u64,
        ..blank(plugin.digest(), attempt, now, timer.passed(), verdict)
    };
    CallResult { run, outputs: answers.outputs, state: guest.state }
}

/// Explains why a call's task ended without a result. A panic of the host's own code fails only that call. It counts
/// as an attempt, since the same call would panic again.
fn unended(error: JoinError) -> Failure {
    let Ok(panic) = error.try_into_panic() else {
        return Failure::Host("the host is shutting down".to_owned());
    };
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::Trap(format!("the host failed: {}", text::clean(text.unwrap_or("a panic without a text"), 512)))
}

/// Links what the host offers to plugins.
pub(super) fn link(engine: &Engine) -> Result<Linker<Guest>, wasmtime::Error> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    imports::link(&mut linker)?;
    Ok(linker)
}

/// Lowers the priority of this thread. If that fails, all threads have the same priority.
pub(super) fn give_precedence() {
    // Linux has a priority for each thread; elsewhere this would be the whole process's.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "the threads of plugins have the same priority as all others");
    }
}

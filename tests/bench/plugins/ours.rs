//! A call through all of Waypost's host code, on the caller's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use waypost_domain::event::Canonical;
use waypost_domain::plugin::{PluginLimits, PluginRun, Verdict};
use waypost_domain::{Event, PluginUse, Subscription};
use waypost_sandbox::{
    Call, CompileLimits, CompilerProcess, Host, Limits, Plugin, Purpose, Settings, State, Steps,
};

use crate::count;
use crate::stopwatch::processor_time;

const EVENT: &[u8] = include_bytes!("../src/event.json");

/// A host with the module loaded several times, each time as another module.
pub(crate) struct Ours {
    host: Arc<Host>,
    plugins: Vec<Arc<Plugin>>,
    subscription: Arc<Subscription>,
    used: Arc<PluginUse>,
    _folder: TempDir,
}

/// Returns the event as a guest sees it.
pub(crate) fn event() -> Canonical<'static> {
    static PARSED: std::sync::OnceLock<Event> = std::sync::OnceLock::new();
    PARSED.get_or_init(parse).into()
}

fn parse() -> Event {
    Event::from_json(EVENT).expect("it is an event")
}

/// Makes a module with the same behaviour and another digest: a custom section holds its number.
fn variant(wasm: &[u8], n: usize) -> Vec<u8> {
    let name = format!("{n:08}");
    [wasm, &[0, 9, 8], name.as_bytes()].concat()
}

fn load(host: &Arc<Host>, wasm: Vec<u8>) -> Arc<Plugin> {
    let wasm = bytes::Bytes::from(wasm);
    runtime().block_on(async {
        let report = host.admit("u", wasm.clone()).await.expect("it is accepted");
        host.load(report.digest, async { Ok(wasm) }).await.expect("it loads")
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

impl Ours {
    pub(crate) fn new(wasm: &[u8], modules: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let host = Arc::new(Host::new(Settings {
            limits: Limits::default(),
            compile: CompileLimits::default(),
            folder: folder.path().join("compiled"),
            compiler: Some(CompilerProcess::InProcess),
            guard: Arc::default(),
            memory_total_bytes: 1 << 30,
            threads: 2,
        }));
        let plugins: Vec<_> = (0..modules).map(|n| variant(wasm, n)).map(|wasm| load(&host, wasm)).collect();
        let target = "http://localhost:1/".parse().expect("a URL");
        let now = waypost_runtime::clock::now();
        let subscription = Subscription::new("u".to_owned(), "n".to_owned(), "$".to_owned(), target, now);
        let used = PluginUse::new(plugins[0].digest());
        Self { host, plugins, subscription: Arc::new(subscription), used: Arc::new(used), _folder: folder }
    }

    /// Returns a caller that runs calls on the thread that uses it.
    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller { ours: self, used: Arc::clone(&self.used), event: parse(), runtime: runtime(), calls: 0 }
    }

    /// Returns how many calls a second this many threads make.
    pub(crate) fn rate(&self, threads: usize, length: Duration) -> f64 {
        let begin = Instant::now();
        let calls: usize = std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut caller = self.caller();
                        count(length, || caller.call())
                    })
                })
                .collect();
            all.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
        });
        calls as f64 / begin.elapsed().as_secs_f64()
    }
}

/// The results of calls that compete with threads that only spin.
pub(crate) struct Crowded {
    /// The processor time of one call, and its limit.
    pub(crate) takes: Duration,
    pub(crate) limit: Duration,
    /// How many of the calls ended in time, and how many took longer than the limit in wall-clock time.
    pub(crate) in_time: usize,
    pub(crate) late: usize,
}

impl Ours {
    /// Calls the first module `calls` times with a large event, beside this many threads that spin.
    pub(crate) fn crowded(&self, threads: usize, calls: usize) -> Crowded {
        let row = r#"{"destinationTable":"Files","name":"foo.txt","size":128,"subdir":"a/b/"}"#;
        let data = [row; 10_000].join(",");
        let event = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","data":[{data}]}}"#);
        let event = Event::from_json(event).expect("it is an event");
        let mut caller = Caller { event, ..self.caller() };
        caller.call();
        let begun = processor_time();
        caller.call();
        let takes = processor_time() - begun;
        let limit = 3 * takes;
        let limits = PluginLimits { time: Some(limit), ..PluginLimits::default() };
        caller.used = Arc::new(PluginUse { limits, ..PluginUse::clone(&self.used) });
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let runs: Vec<_> = (0..calls).map(|_| caller.run()).collect();
            is_over.store(true, Ordering::Relaxed);
            Crowded {
                takes,
                limit,
                in_time: runs.iter().filter(|run| run.verdict == Verdict::Deliver).count(),
                late: runs.iter().filter(|run| run.took > limit).count(),
            }
        })
    }
}

/// Calls the modules in turn with one event.
pub(crate) struct Caller<'o> {
    ours: &'o Ours,
    used: Arc<PluginUse>,
    event: Event,
    runtime: Runtime,
    calls: usize,
}

impl Caller<'_> {
    pub(crate) fn call(&mut self) -> usize {
        assert_eq!(self.run().verdict, Verdict::Deliver);
        1
    }

    fn run(&mut self) -> PluginRun {
        let call = Call {
            event: self.event.clone(),
            subscription: Arc::clone(&self.ours.subscription),
            plugin: Arc::clone(&self.used),
            attempt: 1,
            now: waypost_runtime::clock::now(),
            state: State::default(),
            steps: Steps::All,
            purpose: Purpose::Deliver,
        };
        let plugin = &self.ours.plugins[self.calls % self.ours.plugins.len()];
        self.calls += 1;
        self.runtime.block_on(self.ours.host.run_here(plugin, call)).expect("it runs").run
    }
}

//! The sandbox with real guests.

mod admitting;
mod commands;
mod fetching;
mod hostile;
mod plugins;
mod running;
mod sharing;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::*;
use crate::*;
use waypost_domain::plugin::{Failure, Output, Verdict};
use waypost_domain::{Event, PluginDigest, PluginUse, Subscription};
use waypost_net::{Guard, Rules};
use waypost_runtime::clock;

/// A host in a folder of its own.
struct Sandbox {
    host: Arc<Host>,
    loaded: Mutex<HashMap<String, Arc<Plugin>>>,
    _folder: TempDir,
}

/// What most tests share while they run side by side, so that a guest is compiled once.
static SHARED: std::sync::Mutex<Weak<Sandbox>> = std::sync::Mutex::new(Weak::new());

impl Sandbox {
    /// Returns a sandbox with the default limits.
    fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let sandbox = Arc::new(Self::new());
            *shared = Arc::downgrade(&sandbox);
            sandbox
        })
    }

    /// Makes one of its own, with the default limits.
    fn new() -> Self {
        Self::with(&[], Limits::default())
    }

    /// Opens networks to guests, and sets the limits.
    fn with(networks: &[&str], limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let allow = networks.iter().map(|network| network.parse().unwrap()).collect();
        let settings = Settings {
            limits,
            compile: CompileLimits::default(),
            folder: folder.path().join("compiled"),
            compiler: Some(CompilerProcess::InProcess),
            guard: Arc::new(Guard::default().with(Rules { allow, ..Rules::default() })),
            memory_total_bytes: 1 << 30,
            threads: 2,
        };
        Self { host: Arc::new(Host::new(settings)), loaded: Mutex::default(), _folder: folder }
    }

    /// Makes a sandbox whose calls share so much memory.
    fn sharing(memory_total_bytes: usize) -> Self {
        let sandbox = Self::new();
        let settings = Settings { memory_total_bytes, ..sandbox.host.settings.clone() };
        Self { host: Arc::new(Host::new(settings)), ..sandbox }
    }

    /// Loads a guest as a delivery does: some of them would not be taken at an upload.
    async fn load(&self, path: &str) -> Arc<Plugin> {
        let mut loaded = self.loaded.lock().await;
        if let Some(plugin) = loaded.get(path) {
            return Arc::clone(plugin);
        }
        let wasm: bytes::Bytes = std::fs::read(path).unwrap().into();
        let plugin = self.host.load(PluginDigest::of(&wasm), async { Ok(wasm) }).await.unwrap();
        loaded.insert(path.to_owned(), Arc::clone(&plugin));
        plugin
    }

    async fn run(&self, plugin: &Arc<Plugin>, config: Value) -> CallResult {
        self.host.run(Arc::clone(plugin), call(plugin, config)).await
    }

    /// Runs a guest while a neighbour is called again and again, and checks that the neighbour notices little of it.
    async fn beside_a_neighbour(&self, path: &str, config: Value) -> CallResult {
        let (guest, neighbour) = (self.load(path).await, self.load(waypost_guests::PROBE).await);
        let guests = async {
            // Both threads have one to run.
            let both = tokio::join!(self.run(&guest, config.clone()), self.run(&guest, config));
            both.0
        };
        tokio::pin!(guests);
        let (mut answered, mut slowest) = (0, Duration::ZERO);
        loop {
            let asked = Instant::now();
            tokio::select! {
                biased;
                ran = self.run(&neighbour, json!({"filter": "no: too small"})) => {
                    assert_eq!(ran.run.verdict, Verdict::Skipped { reason: "too small".to_owned() });
                    slowest = slowest.max(asked.elapsed());
                    answered += 1;
                }
                ran = &mut guests => {
                    // Generous, since the machine has other tests to run. A guest that does not give way keeps a thread
                    // for its 250 ms, in which its neighbour would be answered once at most.
                    let is_long = matches!(&ran.run.verdict, Verdict::Failed(Failure::Limit(limit)) if limit.starts_with("time"));
                    assert!(!is_long || answered >= 3, "a neighbour was answered {answered} times");
                    assert!(slowest < Duration::from_secs(25), "a neighbour waited for {slowest:?}");
                    return ran;
                }
            }
        }
    }
}

fn call(plugin: &Plugin, config: Value) -> Call {
    call_of("u", plugin, config)
}

fn call_of(user: &str, plugin: &Plugin, config: Value) -> Call {
    let target = "http://localhost:1/".parse().unwrap();
    let subscription =
        Subscription::new(user.to_owned(), "n".to_owned(), "$".to_owned(), target, clock::now());
    let event = r#"{"specversion": "1.0", "type": "t", "source": "/s", "id": "1", "data": {"a": "b"}}"#;
    Call {
        event: Event::from_json(event).unwrap(),
        subscription: Arc::new(subscription),
        plugin: Arc::new(PluginUse {
            config: config.as_object().unwrap().clone(),
            ..PluginUse::new(plugin.digest())
        }),
        attempt: 1,
        now: clock::now(),
        state: State::default(),
        steps: Steps::All,
        purpose: Purpose::Deliver,
    }
}

/// Returns a failure's sentence, or what there was instead.
fn failure(ran: &CallResult) -> String {
    match &ran.run.verdict {
        Verdict::Failed(failure) => failure.reason(),
        verdict => format!("{verdict:?}"),
    }
}

/// Returns the reason of a guest that answered.
fn skipped(ran: &CallResult) -> &str {
    match &ran.run.verdict {
        Verdict::Skipped { reason } => reason,
        verdict => panic!("{verdict:?}"),
    }
}

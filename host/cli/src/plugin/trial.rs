//! Runs a module from a file in its own sandbox: does with it what the server does for an upload and a delivery.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tempfile::TempDir;
use waypost_domain::plugin::{AllowHost, Report, StateMap};
use waypost_domain::{Event, PluginUse, Subscription};
use waypost_runtime::clock;
use waypost_runtime::foreign;
use waypost_sandbox::{
    Call, CallResult, CompileLimits, CompilerProcess, Host, Limits, Plugin, Problem, Purpose, Refused,
    Settings, State, Steps,
};

use super::grants::Grants;
use crate::{input, own_program};

/// The target of the trial's subscription: the address on which `waypost listen` listens.
const TARGET: &str = "http://127.0.0.1:8071/";
/// The default owner of the trial's subscription: the server's default user.
pub(super) const USER: &str = "anonymous";

/// The sandbox, with the server's default limits and rules.
pub(super) struct Sandbox {
    host: Arc<Host>,
    pub(super) limits: Limits,
    /// Holds the compiled module until the sandbox is dropped.
    _folder: TempDir,
}

/// A module that is ready to be tried.
pub(super) struct Trial {
    pub(super) sandbox: Sandbox,
    pub(super) report: Report,
    plugin: Arc<Plugin>,
}

/// One delivery to run.
pub(super) struct Delivery {
    pub(super) event: Event,
    pub(super) config: Map<String, Value>,
    pub(super) user: String,
    pub(super) allow_hosts: Vec<AllowHost>,
    pub(super) state: Arc<StateMap>,
    /// The time that the plugin sees; `None` is the current time.
    pub(super) now: Option<Timestamp>,
}

impl Sandbox {
    /// Sets up a sandbox whose plugins reach public addresses and the granted networks.
    pub(super) fn new(grants: &Grants) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
        let limits = Limits::default();
        let settings = Settings {
            limits,
            compile: CompileLimits::default(),
            folder: folder.path().join("compiled"),
            compiler: own_program().map(CompilerProcess::Program),
            guard: Arc::new(grants.guard()),
            memory_total_bytes: limits.memory_bytes,
            threads: 1,
        };
        Ok(Self { host: Arc::new(Host::new(settings)), limits, _folder: folder })
    }

    /// Does what an upload does.
    pub(super) async fn admit(&self, wasm: Bytes) -> Result<Report, Refused> {
        self.host.admit(USER, wasm).await
    }
}

/// Reads a module.
pub(super) fn read(file: &Path) -> anyhow::Result<Bytes> {
    input::read(file).map(Bytes::from)
}

impl Trial {
    /// Admits and loads a module.
    pub(super) async fn open(file: &Path, grants: &Grants) -> anyhow::Result<Self> {
        let (wasm, sandbox) = (read(file)?, Sandbox::new(grants)?);
        let refused = || format!("{} is refused", input::name(file));
        let report = sandbox.admit(wasm.clone()).await.with_context(refused)?;
        let plugin = sandbox.host.load(report.digest, async { Ok(wasm) }).await.with_context(refused)?;
        Ok(Self { sandbox, report, plugin })
    }

    /// Returns what is wrong with a configuration.
    pub(super) async fn problems(&self, config: &Map<String, Value>) -> Result<Vec<Problem>, String> {
        let manifest = self.report.manifest.as_ref();
        let checked = self.sandbox.host.check_config(USER, &self.plugin, manifest, config).await;
        checked.map_err(|failure| failure.reason())
    }

    /// Runs the plugin as a delivery's first attempt would.
    pub(super) async fn run(&self, delivery: &Delivery) -> CallResult {
        let now = delivery.now.unwrap_or_else(clock::now);
        let target = TARGET.parse().expect("it is a URL");
        let (user, name) = (delivery.user.clone(), "trial".to_owned());
        let subscription = Subscription::new(user, name, "$".to_owned(), target, now);
        let plugin = PluginUse {
            config: delivery.config.clone(),
            allow_hosts: delivery.allow_hosts.clone(),
            ..PluginUse::new(self.report.digest)
        };
        let call = Call {
            event: delivery.event.clone(),
            subscription: Arc::new(subscription),
            plugin: Arc::new(plugin),
            attempt: 1,
            now,
            state: State::over(Arc::clone(&delivery.state)),
            steps: Steps::All,
            purpose: Purpose::Deliver,
        };
        self.sandbox.host.run(Arc::clone(&self.plugin), call).await
    }
}

/// Writes what is wrong with a configuration, a line for each problem.
pub(super) fn told(problems: &[Problem]) -> String {
    let lines = problems.iter().map(|Problem { at, message }| match at.as_str() {
        "" => format!("\n  {}", foreign::line(message)),
        at => format!("\n  {}: {}", foreign::line(at), foreign::line(message)),
    });
    format!("the configuration is wrong:{}", lines.collect::<String>())
}

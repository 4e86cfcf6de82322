//! The stage of a scenario: a fresh data folder, the release binary, the sink, the subscriptions and the ledger.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::StatusCode;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::ledger::{Fan, Ledger};
use crate::process::{Process, Usage};
use crate::producer::{self, Load, Pace, Sent};
use crate::rest::{self, Rest};
use crate::sink::{Gate, Sink};

/// How long no delivery may arrive before the missing ones count as lost: longer than the first two retries.
const STILL_MAX: Duration = Duration::from_secs(60);
/// How many connections create subscriptions at once.
const MAKERS: usize = 64;
/// The configuration file's name.
const CONFIG: &str = "waypost.toml";
const READY_MAX: Duration = Duration::from_secs(120);

/// The settings of all scenarios of a run.
pub(crate) struct Settings {
    pub(crate) binary: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) server_args: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) seconds: Option<u64>,
    pub(crate) events: usize,
    pub(crate) gigabytes: u64,
    pub(crate) files: usize,
    pub(crate) mebibytes: usize,
    pub(crate) soak: SoakSettings,
}

/// The settings of a soak.
pub(crate) struct SoakSettings {
    pub(crate) length: Duration,
    /// How many events a second.
    pub(crate) rate: u32,
    /// The mean time between two kills; zero kills never.
    pub(crate) kills: Duration,
}

/// A set stage. Fields are dropped in this order: the server is killed before its folder goes.
pub(crate) struct Stage {
    server: Option<Process>,
    pub(crate) sink: Sink,
    pub(crate) ledger: Arc<Ledger>,
    /// The token that producers send with each request.
    pub(crate) token: Option<String>,
    binary: PathBuf,
    server_args: Vec<String>,
    folder: TempDir,
}

impl Stage {
    /// Starts an empty Waypost, and a sink with its gate at `gate`; there are no subscriptions yet.
    pub(crate) async fn set(settings: &Settings, fan: Fan, capacity: usize, gate: Gate) -> Result<Self> {
        Self::configured(settings, fan, capacity, gate, "").await
    }

    /// The same with this configuration file.
    pub(crate) async fn configured(
        settings: &Settings,
        fan: Fan,
        capacity: usize,
        gate: Gate,
        config: &str,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("waypost-bench-").tempdir_in(&settings.data_dir)?;
        fs::write(folder.path().join(CONFIG), config)?;
        let ledger = Arc::new(Ledger::new(fan, capacity));
        let sink = Sink::start(Arc::clone(&ledger), gate)?;
        let (binary, server_args) = (settings.binary.clone(), settings.server_args.clone());
        let mut stage = Self { server: None, sink, ledger, token: None, binary, server_args, folder };
        stage.start_server().await?;
        Ok(stage)
    }

    /// Starts the server on the stage's folder; returns how long it took until it listened, and until it was ready.
    pub(crate) async fn start_server(&mut self) -> Result<(Duration, Duration)> {
        let log = File::options().create(true).append(true).open(self.folder.path().join("server.log"))?;
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn"]);
        // The audit reads all events, not only those of its own subscriptions.
        command.args(["--admin-users", rest::USER]);
        // A held attempt must not time out and be repeated: the bench itself holds it back.
        command.args(["--attempt-timeout-ms", "600000", "--config"]).arg(self.folder.path().join(CONFIG));
        command.arg("--data").arg(self.data()).args(&self.server_args).stderr(log);
        let started = Instant::now();
        let server = match Process::start(command).await {
            Ok(server) => self.server.insert(server),
            Err(error) => return Err(error.context(format!("the server's log: {}", self.log()))),
        };
        let listening = started.elapsed();
        let mut rest = Rest::connect(server.address()).await?;
        while rest.get("/readyz").await? != StatusCode::OK {
            if started.elapsed() > READY_MAX {
                bail!("/readyz does not become 200; the server's log: {}", self.log());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok((listening, started.elapsed()))
    }

    /// Kills the server (SIGKILL).
    pub(crate) fn kill_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    /// Creates the ledger's subscriptions; `filter` gives each its filter.
    pub(crate) async fn subscribe(&self, filter: impl Fn(usize) -> String) -> Result<()> {
        let mut rest = self.rest().await?;
        for n in 0..self.ledger.fan().subscriptions() {
            rest.subscribe(&format!("bench {n}"), &filter(n), &self.sink.url(n)).await?;
        }
        Ok(())
    }

    /// Creates `count` more subscriptions on several connections; the ledger knows nothing of them.
    pub(crate) async fn subscribe_others(&self, count: usize, filter: fn(usize) -> String) -> Result<()> {
        let mut makers = JoinSet::new();
        for maker in 0..MAKERS {
            let (mut rest, url) = (self.rest().await?, self.sink.url(0));
            makers.spawn(async move {
                for n in (maker..count).step_by(MAKERS) {
                    rest.subscribe(&format!("other {n}"), &filter(n), &url).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(made) = makers.join_next().await {
            made??;
        }
        Ok(())
    }

    /// Loads the server from the stage's own ledger until the pace ends.
    pub(crate) async fn load(&self, connections: usize, pace: Pace) -> Result<Sent> {
        self.load_from(&self.ledger, connections, pace).await
    }

    /// Loads the server from another ledger.
    pub(crate) async fn load_from(
        &self,
        ledger: &Arc<Ledger>,
        connections: usize,
        pace: Pace,
    ) -> Result<Sent> {
        let sent = self.start_load(ledger, connections, pace)?.await?;
        if sent.accepted == 0 {
            let why = sent.first_failure.as_deref().unwrap_or("nothing was sent");
            bail!("no event was accepted: {why}; the server's log: {}", self.log());
        }
        Ok(sent)
    }

    /// Starts a load that may outlive the server; the future ends with it.
    pub(crate) fn start_load(
        &self,
        ledger: &Arc<Ledger>,
        connections: usize,
        pace: Pace,
    ) -> Result<impl Future<Output = Result<Sent>> + use<>> {
        producer::start(Load {
            target: self.server()?.address(),
            connections,
            pace,
            ledger: Arc::clone(ledger),
            token: self.token.clone(),
        })
    }

    /// Waits until all pending deliveries have arrived, or nothing arrives any more.
    pub(crate) async fn drained(&self) {
        let (mut seen, mut moved) = (self.ledger.arrived(), Instant::now());
        // After a crash, events without an answer may arrive too, so that only the audit shows that nothing is missing.
        while self.ledger.arrived() < self.ledger.owed() || self.ledger.audit().lost > 0 {
            sleep(Duration::from_millis(10)).await;
            let arrived = self.ledger.arrived();
            if arrived > seen {
                (seen, moved) = (arrived, Instant::now());
            } else if moved.elapsed() > STILL_MAX {
                return;
            }
        }
        // A delivery that was taken twice would repeat at once.
        sleep(Duration::from_millis(300)).await;
    }

    /// Reads what the server has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        self.server()?.usage()
    }

    /// Resets the server's peak memory.
    pub(crate) fn forget_peak(&self) -> Result<()> {
        self.server()?.forget_peak()
    }

    /// Returns where the server listens.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.server()?.address())
    }

    /// Connects to the server.
    pub(crate) async fn rest(&self) -> Result<Rest> {
        Rest::connect(self.server()?.address()).await
    }

    /// Returns the size of the server's files.
    pub(crate) fn data_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(self.data()).context("failed to read the data folder")? {
            bytes += entry?.metadata()?.len();
        }
        Ok(bytes)
    }

    /// Returns the end of the server's log.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn server(&self) -> Result<&Process> {
        self.server.as_ref().context("the server is not running")
    }
}

/// Returns whether `folder` is in memory, where an fsync costs nothing and measures nothing.
pub(crate) fn is_in_memory(folder: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::statfs(folder).is_ok_and(|it| it.f_type == TMPFS_MAGIC)
}

/// Returns how many bytes are free on the file system of `folder`.
pub(crate) fn free_bytes(folder: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

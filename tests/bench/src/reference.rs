//! The machine's own limits, measured beside each scenario: a bare hyper echo and grouped fsync.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::event::EVENT_BYTES;
use crate::ledger::{Fan, Ledger};
use crate::percentile::Latency;
use crate::process::{self, Process};
use crate::producer::{self, Load, Pace};

/// The hidden first argument that makes this program the echo.
pub(crate) const ECHO_COMMAND: &str = "__echo";

const ECHO_ANSWER: &[u8; 36] = b"01234567-89ab-7def-8123-456789abcdef";
const ECHO_TIME: Duration = Duration::from_secs(2);
const FSYNC_TIME: Duration = Duration::from_secs(1);
/// Events in one group of the fsync reference.
const GROUP: usize = 64;
/// The reference's file is truncated at this size.
const FSYNC_BYTES_MAX: u64 = 256 << 20;

/// The most that the machine can do, in events a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Reference {
    pub(crate) echo_per_s: f64,
    pub(crate) fsync_per_s: f64,
    /// Cores that other programs kept busy meanwhile: above 0.1 the machine is not quiet, and the figures are unreliable.
    pub(crate) others_cores: f64,
}

impl Reference {
    /// Returns the mean of what was measured before and after a scenario.
    pub(crate) fn mean(self, other: Self) -> Self {
        Self {
            echo_per_s: f64::midpoint(self.echo_per_s, other.echo_per_s),
            fsync_per_s: f64::midpoint(self.fsync_per_s, other.fsync_per_s),
            others_cores: self.others_cores.max(other.others_cores),
        }
    }
}

/// The echo process.
pub(crate) struct Echo(Process);

impl Echo {
    /// Starts this program again as the echo.
    pub(crate) async fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ECHO_COMMAND);
        Ok(Self(Process::start(command).await.context("failed to start the echo")?))
    }

    /// Measures both limits now, with files in `folder`.
    pub(crate) async fn measure(&self, connections: usize, folder: &Path) -> Result<Reference> {
        let file = tempfile::tempfile_in(folder).context("failed to create the fsync reference's file")?;
        let fsync = tokio::task::spawn_blocking(move || grouped_fsync(file));
        let fsync_per_s = fsync.await?.context("failed to measure fsync")?;
        let ledger = Arc::new(Ledger::new(Fan::All(0), 500_000));
        let load =
            Load { target: self.0.address(), connections, pace: Pace::For(ECHO_TIME), ledger, token: None };
        let (before, started) = (self.others_user_time()?, Instant::now());
        let echo_per_s = producer::start(load)?.await.context("failed to load the echo")?.per_second();
        let others = self.others_user_time()?.saturating_sub(before);
        Ok(Reference {
            echo_per_s,
            fsync_per_s,
            others_cores: others.as_secs_f64() / started.elapsed().as_secs_f64(),
        })
    }

    /// Returns the machine's user time that is neither the echo's nor this process's.
    fn others_user_time(&self) -> Result<Duration> {
        let (all, own) = process::user_times()?;
        Ok(all.saturating_sub(own + self.0.usage()?.user))
    }

    /// Measures the round trip of one connection at a steady pace: the lower bound of an ack.
    pub(crate) async fn round_trip(&self, every: Duration) -> Result<Option<Latency>> {
        let ledger = Arc::new(Ledger::new(Fan::All(0), 10_000));
        let pace = Pace::Every { every, length: ECHO_TIME };
        let load =
            Load { target: self.0.address(), connections: 1, pace, ledger: Arc::clone(&ledger), token: None };
        producer::start(load)?.await.context("failed to load the echo")?;
        Ok(Latency::of(ledger.ack_nanos()))
    }
}

/// Appends groups of events and makes each group durable; returns events a second.
fn grouped_fsync(mut file: File) -> Result<f64> {
    let group = vec![b'x'; GROUP * EVENT_BYTES];
    let (started, mut events, mut bytes) = (Instant::now(), 0, 0);
    while started.elapsed() < FSYNC_TIME {
        if bytes > FSYNC_BYTES_MAX {
            file.set_len(0)?;
            std::io::Seek::rewind(&mut file)?;
            bytes = 0;
        }
        file.write_all(&group)?;
        file.sync_data()?;
        events += GROUP;
        bytes += group.len() as u64;
    }
    Ok(events as f64 / started.elapsed().as_secs_f64())
}

/// Runs the echo, with two worker threads: it answers each request with 36 bytes after reading its body. Never returns.
pub(crate) fn serve_echo(print_address: impl FnOnce(std::net::SocketAddr)) -> Result<()> {
    // The echo ends with the bench, also when that is killed by SIGKILL.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        print_address(listener.local_addr()?);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _peer) = accepted?;
                    stream.set_nodelay(true)?;
                    connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo)));
                }
                Some(_closed) = connections.join_next() => {}
            }
        }
    })
}

async fn echo(request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    request.into_body().collect().await?;
    Ok(Response::new(Full::new(Bytes::from_static(ECHO_ANSWER))))
}

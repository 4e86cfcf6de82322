//! Starts supervisors through a fork server, which the service starts with the first program.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::Native;
use crate::Capture;
use crate::program::supervise::{Ends, Supervision, send};
use crate::program::{Call, DEFAULT_PATH, Fault};

/// The longest that the fork server may take to read an order.
const ORDER_TIME: Duration = Duration::from_secs(10);

/// Starts supervisors. Clones share one fork server, which ends with the last of them. Supervisors do not end with it.
#[derive(Clone)]
pub struct Supervisors(Arc<Shared>);

struct Shared {
    waypost: PathBuf,
    server: Mutex<Option<Server>>,
}

struct Server {
    orders: UnixStream,
    /// Reaped by the runtime when this is dropped.
    _process: Child,
}

/// A program's stdout and stderr, each with what captures it.
pub(super) type Streams = ((pipe::Receiver, Capture), (pipe::Receiver, Capture));

impl From<PathBuf> for Supervisors {
    /// Takes the path of the `waypost` program.
    fn from(waypost: PathBuf) -> Self {
        Self(Arc::new(Shared { waypost, server: Mutex::default() }))
    }
}

impl From<&str> for Supervisors {
    fn from(waypost: &str) -> Self {
        PathBuf::from(waypost).into()
    }
}

impl fmt::Debug for Supervisors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Supervisors").field(&self.0.waypost).finish()
    }
}

impl Supervisors {
    /// Starts a supervisor, or returns why that is not possible. Also returns our end of its socket.
    pub(super) async fn start(
        &self,
        native: &Native,
        call: &Call,
    ) -> Result<(tokio::net::UnixStream, Streams), Fault> {
        let (own, native, call) = (self.clone(), native.clone(), call.clone());
        // If the future is dropped meanwhile, the supervisor finds its socket closed.
        let starting = tokio::task::spawn_blocking(move || own.start_now(&native, &call));
        starting.await.unwrap_or_else(|_| Err(Fault::Failure("the service is ending".to_owned())))
    }

    fn start_now(&self, native: &Native, call: &Call) -> Result<(tokio::net::UnixStream, Streams), Fault> {
        let failed = |error: io::Error| {
            let program = self.0.waypost.display();
            Fault::of(&format!("failed to start `{program} supervise`"), &error)
        };
        let supervision = supervision(native, call)?;
        let connected = || -> io::Result<_> {
            let (control, far_control) = UnixStream::pair()?;
            control.set_nonblocking(true)?;
            let (stdout, far_stdout) = io::pipe()?;
            let (stderr, far_stderr) = io::pipe()?;
            let receiver = |from: io::PipeReader| pipe::Receiver::from_owned_fd(OwnedFd::from(from));
            let ends = Ends { control: far_control, stdout: far_stdout, stderr: far_stderr };
            self.order(&supervision, &ends)?;
            Ok((tokio::net::UnixStream::from_std(control)?, receiver(stdout)?, receiver(stderr)?))
        };
        let (control, stdout, stderr) = connected().map_err(failed)?;
        let capture = |path: &Path| Capture::new(path.to_owned(), call.limits.log_bytes);
        Ok((control, ((stdout, capture(&call.stdout)), (stderr, capture(&call.stderr)))))
    }

    /// Sends an order to the server, which is started if there is none, or again if it has ended.
    fn order(&self, supervision: &Supervision, ends: &Ends<UnixStream, io::PipeWriter>) -> io::Result<()> {
        let mut server = self.0.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*server {
            match send(&known.orders, supervision, ends) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(%error, "the fork server has ended, and is started again"),
            }
        }
        // A server that has read part of an order cannot go on.
        *server = None;
        let started = Server::start(&self.0.waypost)?;
        send(&started.orders, supervision, ends)?;
        *server = Some(started);
        Ok(())
    }
}

impl Server {
    fn start(waypost: &Path) -> io::Result<Self> {
        let (orders, stdin) = UnixStream::pair()?;
        orders.set_write_timeout(Some(ORDER_TIME))?;
        let process = Command::new(waypost)
            .args(["supervise", "--fork-server"])
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(stdin))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { orders, _process: process })
    }
}

/// Returns what a supervisor needs to know.
fn supervision(native: &Native, call: &Call) -> Result<Supervision, Fault> {
    let mut command = Vec::new();
    if let [program, rest @ ..] = &native.command[..] {
        let program =
            absolute(program).map_err(|error| Fault::of(&format!("failed to find `{program}`"), &error))?;
        command.push(program.into_os_string());
        command.extend(rest.iter().chain(&call.arguments).map(Into::into));
    }
    // Later variables override earlier ones.
    let mut environment = std::collections::BTreeMap::from([("PATH", DEFAULT_PATH)]);
    let named = native.environment.iter().chain(&call.environment);
    environment.extend(named.map(|(name, value)| (name.as_str(), value.as_str())));
    let texts = native.command.iter().chain(&call.arguments).map(String::as_str);
    let mut texts = texts.chain(environment.iter().flat_map(|(name, value)| [*name, *value]));
    if texts.any(|text| text.contains('\0')) {
        return Err("an argument or the environment holds a zero byte: remove it".to_owned().into());
    }
    Ok(Supervision {
        folder: std::path::absolute(&call.folder)
            .map_err(|error| Fault::of("failed to find the run's folder", &error))?
            .into_os_string(),
        time: call.limits.time,
        output_bytes: call.limits.output_bytes,
        memory_bytes: call.limits.memory_bytes,
        command,
        environment: environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
    })
}

/// Returns the path of a program as seen from any folder; a bare name stays one.
fn absolute(program: &str) -> io::Result<PathBuf> {
    if program.contains('/') { std::path::absolute(program) } else { Ok(program.into()) }
}

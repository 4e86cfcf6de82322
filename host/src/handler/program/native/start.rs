//! Starting the supervisor of one program.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::handler::Capture;
use crate::handler::program::{Call, CallLimits, DEFAULT_PATH, Fault};

use super::Native;

/// A supervisor.
pub(super) struct Process {
    pub(super) child: Child,
    /// Our end of its stdin.
    pub(super) control: tokio::net::UnixStream,
}

/// What a program says, and what takes it.
pub(super) type Streams = ((ChildStdout, Capture), (ChildStderr, Capture));

/// Starts a supervisor, or returns why that is not possible.
pub(super) async fn start(native: &Native, call: &Call) -> Result<(Process, Streams), Fault> {
    let (native, call) = (native.clone(), call.clone());
    // Starting a process waits for the disk. If the future is dropped during that, the process finds its stdin closed.
    let starting = tokio::task::spawn_blocking(move || start_now(&native, &call));
    starting.await.unwrap_or_else(|_| Err(Fault::Failure("the service is ending".to_owned())))
}

fn start_now(native: &Native, call: &Call) -> Result<(Process, Streams), Fault> {
    let capture = |path: &Path| Capture::new(path.to_owned(), call.limits.log_bytes);
    let (stdout, stderr) = (capture(&call.stdout), capture(&call.stderr));
    let (program, folder) = (native.waypost.display(), call.folder.display());
    let (mut child, control) = spawn(native, call).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => {
            Fault::Failure("an argument or the environment holds a zero byte: remove it".to_owned())
        }
        _ => Fault::of(&format!("failed to start `{program} supervise` in `{folder}`"), &error),
    })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = (out.expect("it is piped"), err.expect("it is piped"));
    Ok((Process { child, control }, ((out, stdout), (err, stderr))))
}

fn spawn(native: &Native, call: &Call) -> io::Result<(Child, tokio::net::UnixStream)> {
    let (control, stdin) = UnixStream::pair()?;
    control.set_nonblocking(true)?;
    let control = tokio::net::UnixStream::from_std(control)?;
    let mut command = Command::new(&native.waypost);
    command.arg("supervise").args(arguments(call.limits)).arg("--");
    if let [program, rest @ ..] = &native.command[..] {
        command.arg(place(program)?).args(rest);
    }
    command
        .args(&call.arguments)
        .env_clear()
        .env("PATH", DEFAULT_PATH)
        .envs(native.environment.iter().map(|(name, value)| (name, value)))
        .envs(call.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&call.folder)
        .stdin(OwnedFd::from(stdin))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok((command.spawn()?, control))
}

fn arguments(limits: CallLimits) -> Vec<String> {
    let time = u64::try_from(limits.time.as_millis()).unwrap_or(u64::MAX);
    let mut arguments = vec![format!("--time-ms={time}"), format!("--output-bytes={}", limits.output_bytes)];
    arguments.extend(limits.memory_bytes.map(|bytes| format!("--memory-bytes={bytes}")));
    arguments
}

/// Returns the path of a program as seen from any folder; a bare name stays one.
fn place(program: &str) -> io::Result<std::path::PathBuf> {
    if program.contains('/') { std::path::absolute(program) } else { Ok(program.into()) }
}

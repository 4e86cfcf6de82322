//! Implements `waypost supervise`: starts one native program, and ends it together with every process that it started.
//!
//! The supervisor is a process of its own for two reasons. A process can adopt orphaned descendants only for all of its
//! children together. And it outlives the service by a moment: it has a socket whose other end the service holds. When
//! that end is closed, or the service is killed, the supervisor ends the program. It writes [`Report`]s to the socket,
//! one line of JSON each. [`super::native`] is the other side, and `server` is where it gets supervisors from.

mod family;
mod order;
mod program;
mod server;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, nice, setrlimit, setsid};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use waypost_domain::handler::Exit;
use waypost_runtime::chain;
use waypost_runtime::process;

use super::{Fault, Shortage};
use family::Family;
pub(super) use family::end_session;
pub(super) use order::{Ends, send};
use server::Part;

/// The time between asking a program to end and ending it.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// The longest wait for killed processes to end.
pub(super) const KILLING: Duration = Duration::from_secs(10);
/// Programs have a lower priority than the service when the machine is busy, as plugins do.
const NICENESS: i32 = 5;
/// How many files a program may have open, unless it asks for more: what Linux gives by default.
const FILES: u64 = 1024;
/// The exit code when even the report cannot be written.
const FAILED: u8 = 1;
/// A shell's exit code for a program that cannot be started.
const NOT_STARTED: u8 = 126;

/// The command to start, where, and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// The run's folder, which is the program's working directory.
    pub folder: OsString,
    /// The longest it may run.
    pub time: Duration,
    /// The largest file that it may write.
    pub output_bytes: u64,
    /// The most address space.
    pub memory_bytes: Option<u64>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The program's whole environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// The program's stdout and stderr; the supervisor's own if absent.
type Streams = Option<(OwnedFd, OwnedFd)>;

/// A report to the service.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// There is a supervisor, with this process id.
    Supervised(i32),
    /// The program runs, with this number as its process id and its process group.
    Started(i32),
    /// The program has ended, and so have all processes that it started.
    Ended(End),
    /// The program was not started because this machine lacks something that it needs.
    Short(Shortage),
    /// The supervisor itself ended, in this way.
    Lost(String),
}

impl Report {
    /// Makes the last report of a supervisor.
    fn of(ended: Result<End, Fault>) -> Self {
        match ended {
            Ok(end) => Self::Ended(end),
            Err(Fault::Shortage(shortage)) => Self::Short(shortage),
            Err(Fault::Failure(reason)) => Self::Ended(End { exit: Exit::Failed(reason), left: None }),
        }
    }
}

/// The end of a program.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// How it ended.
    pub(super) exit: Exit,
    /// The processes that could not be ended, as far as they are known.
    pub(super) left: Option<Vec<i32>>,
}

/// Runs a program to its end. `stdin` must be a socket.
pub fn supervise_main(supervision: Supervision) -> ExitCode {
    let control = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    exit_code(control.and_then(|control| run(supervision, control, None)))
}

/// Starts supervisors as the service orders them. `stdin` must be a socket.
pub fn fork_server_main() -> ExitCode {
    exit_code(server::serve().and_then(|part| match part {
        Part::End => Ok(()),
        Part::Supervise(supervision, Ends { control, stdout, stderr }, held) => {
            let done = run(supervision, control, Some((stdout, stderr)));
            drop(held);
            match done {
                // The run was dropped, and its program has been ended.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                done => done,
            }
        }
    }))
}

fn exit_code(done: io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("waypost supervise is for waypost serve, which talks to its stdin: {error}");
            drop(writeln!(io::stderr().lock(), "{text}"));
            ExitCode::from(FAILED)
        }
    }
}

fn run(supervision: Supervision, control: UnixStream, streams: Streams) -> io::Result<()> {
    control.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut orders, mut reports) = tokio::net::UnixStream::from_std(control)?.into_split();
        let ended = supervise(supervision, streams, &mut orders, &mut reports).await;
        reports.write_all(&line(&Report::of(ended))?).await
    })
}

/// Returns a report as it is written.
fn line(report: &Report) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    Ok(line)
}

/// Resolves when the service sends anything, which means that everything must end, or closes the socket.
async fn order(orders: &mut OwnedReadHalf) {
    drop(orders.read(&mut [0]).await);
}

/// Starts the program and returns how it ended, once none of its processes runs any more.
async fn supervise(
    supervision: Supervision,
    streams: Streams,
    orders: &mut OwnedReadHalf,
    reports: &mut OwnedWriteHalf,
) -> Result<End, Fault> {
    let failed = |error: io::Error| Fault::of("failed to prepare the program's process", &error);
    // These signals are ignored: the service ends its programs itself, and may want to wait for them first.
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        drop(signal(kind).map_err(failed)?);
    }
    let children = signal(SignalKind::child()).map_err(failed)?;
    std::env::set_current_dir(&supervision.folder).map_err(failed)?;
    family::adopt()?;
    limit(&supervision).map_err(|error| failed(error.into()))?;
    // When memory runs out, the kernel kills the program before the service; this process survives to report it.
    let before = process::end_before_others(process::EARLY);
    let program = program::start(&supervision, streams);
    if let Some(Err(error)) = before.map(process::set_score) {
        tracing::debug!(%error, "this supervisor may end before its program when memory runs out");
    }
    let program = program?;
    let mut family = Family::new(program, children);
    // A failed write means that the service is gone; `order` below sees that too.
    let started = line(&Report::Started(program.as_raw_nonzero().get())).map_err(failed)?;
    drop(reports.write_all(&started).await);
    let is_late = tokio::select! {
        biased;
        () = family.program_ended() => false,
        () = order(orders) => false,
        () = sleep(supervision.time) => true,
    };
    if is_late {
        family.ask();
        tokio::select! {
            () = family.all_ended() => (),
            () = order(orders) => (),
            () = sleep(GRACE) => (),
        }
    }
    let left = family.end_all(KILLING).await;
    let exit = if is_late {
        Exit::timed_out(supervision.time)
    } else {
        family.exit().unwrap_or_else(|| Exit::Failed("it could not be ended".to_owned()))
    };
    Ok(End { exit, left })
}

/// Sets the limits and privileges of this process, which the program inherits.
fn limit(supervision: &Supervision) -> Result<(), rustix::io::Errno> {
    // A new session has no terminal: Ctrl-C is for the service, and the program cannot prompt the user.
    setsid()?;
    // The program and its children cannot gain privileges: sudo and the like do not work in it.
    process::gain_no_privileges()?;
    nice(NICENESS)?;
    restrict(Resource::Core, 0)?;
    // The service has raised its own soft limit to the maximum. The program gets a lower one: some programs loop over
    // all descriptors up to the limit, or keep a bit for each.
    let files = getrlimit(Resource::Nofile);
    let current = Some(files.maximum.map_or(FILES, |maximum| maximum.min(FILES)));
    setrlimit(Resource::Nofile, Rlimit { current, ..files })?;
    // One byte more than allowed, so that the quota check can tell that the output is too large.
    restrict(Resource::Fsize, supervision.output_bytes.saturating_add(1))
}

fn restrict(resource: Resource, most: u64) -> Result<(), rustix::io::Errno> {
    let most = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
}

/// Limits this process and becomes the program: an address space cannot be limited from outside in time, and this
/// program's own would not fit into it. Returns only when that fails.
pub fn become_main(memory_bytes: u64, command: &[OsString]) -> ExitCode {
    let error = match (restrict(Resource::As, memory_bytes), command) {
        (Ok(()), [program, arguments @ ..]) => Command::new(program).args(arguments).exec(),
        (Ok(()), []) => io::Error::from(io::ErrorKind::InvalidInput),
        (Err(error), _) => error.into(),
    };
    drop(writeln!(io::stderr().lock(), "failed to start {command:?}: {}", chain::text(&error)));
    ExitCode::from(NOT_STARTED)
}

/// Returns how a process ended.
fn exit_of(status: rustix::process::WaitStatus) -> Option<Exit> {
    let signal = status.terminating_signal().map(|signal| match Signal::from_named_raw(signal) {
        Some(Signal::XFSZ) => {
            Exit::Limit("a file of more bytes than all output may have (output_bytes_max)".to_owned())
        }
        Some(_) | None => Exit::Signal(signal),
    });
    signal.or_else(|| status.exit_status().map(Exit::Code))
}

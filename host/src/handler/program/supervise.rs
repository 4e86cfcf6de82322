//! What `waypost supervise` does: it starts one native program, and ends it and everything that came of it.
//!
//! A process of its own, because a process can adopt what its program leaves behind only as a whole, and because it
//! outlives the service by a moment: its stdin is a socket whose other end the service holds, and when that end is gone
//! (closed, or the service killed) there is nobody to run for. To it go the [`Report`]s, one line of JSON each.
//! [`super::native`] is the other side.

mod family;
mod program;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
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

use crate::domain::handler::Exit;
use crate::{chain, process};

use super::{Fault, Shortage};
use family::Family;
pub(super) use family::end_session;

/// The time between asking a program to end and ending it.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// The longest that is waited for what was killed.
pub(super) const KILLING: Duration = Duration::from_secs(10);
/// Programs come after the router itself when the machine is busy, as plugins do.
const NICENESS: i32 = 5;
/// How many files a program may have open, unless it asks for more: what Linux gives by default.
const FILES: u64 = 1024;
/// The exit code of what could not even report.
const FAILED: u8 = 1;
/// The exit code of a shell for a program that could not be started.
const NOT_STARTED: u8 = 126;

/// What is to be started, within which limits. The working directory is the run's folder, and the environment is the
/// program's.
#[derive(Debug)]
pub struct Supervision {
    /// The longest it may run.
    pub time: Duration,
    /// The largest file that it may write.
    pub output_bytes: u64,
    /// The most address space.
    pub memory_bytes: Option<u64>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// What the service is told.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The program runs, as this process and as a group of this number.
    Started(i32),
    /// It has ended, and what it had started has too.
    Ended(End),
    /// It was not started, as this machine has not what it needs.
    Short(Shortage),
}

/// The end of a program.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// How it ended.
    pub(super) exit: Exit,
    /// Where not all of its processes could be ended: those that are known.
    pub(super) left: Option<Vec<i32>>,
}

/// Runs a program to its end. `stdin` must be a socket.
pub fn supervise_main(supervision: Supervision) -> ExitCode {
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(supervise(supervision)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("waypost supervise is for waypost serve, which talks to its stdin: {error}");
            drop(writeln!(io::stderr().lock(), "{text}"));
            ExitCode::from(FAILED)
        }
    }
}

async fn supervise(supervision: Supervision) -> io::Result<()> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    control.set_nonblocking(true)?;
    let (mut orders, mut reports) = tokio::net::UnixStream::from_std(control)?.into_split();
    let last = match rule(supervision, &mut orders, &mut reports).await {
        Ok(end) => Report::Ended(end),
        Err(Fault::Shortage(shortage)) => Report::Short(shortage),
        Err(Fault::Failure(reason)) => Report::Ended(End { exit: Exit::Failed(reason), left: None }),
    };
    report(&mut reports, &last).await
}

async fn report(reports: &mut OwnedWriteHalf, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    reports.write_all(&line).await
}

/// Resolves as soon as the service says anything, which is that all must end, or is gone.
async fn order(orders: &mut OwnedReadHalf) {
    drop(orders.read(&mut [0]).await);
}

/// Starts the program and returns how it ended, when nothing of it runs any more.
async fn rule(
    supervision: Supervision,
    orders: &mut OwnedReadHalf,
    reports: &mut OwnedWriteHalf,
) -> Result<End, Fault> {
    let failed = |error: io::Error| Fault::of("failed to prepare the program's process", &error);
    // Whoever ends the service ends its programs through it: it may want to wait for them.
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        drop(signal(kind).map_err(failed)?);
    }
    let children = signal(SignalKind::child()).map_err(failed)?;
    family::adopt()?;
    limit(&supervision).map_err(|error| failed(error.into()))?;
    // The program ends before the service when memory runs out, and this process stays to say so.
    let before = process::end_before_others(process::EARLY);
    let program = program::start(&supervision.command, supervision.memory_bytes);
    if let Some(Err(error)) = before.map(process::set_score) {
        tracing::debug!(%error, "this supervisor may end before its program when memory runs out");
    }
    let program = program?;
    let mut family = Family::new(program, children);
    // That nobody listens is seen at once, as an order.
    drop(report(reports, &Report::Started(program.as_raw_nonzero().get())).await);
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

/// Makes this process, and by that the program, what they should be.
fn limit(supervision: &Supervision) -> Result<(), rustix::io::Errno> {
    // No terminal: neither its Ctrl-C, which is for the service, nor questions to whoever sits there.
    setsid()?;
    // Neither the program nor what it starts becomes more than this user: sudo and the like do not work in it.
    process::gain_no_privileges()?;
    nice(NICENESS)?;
    restrict(Resource::Core, 0)?;
    // The service has raised its own limit as far as it may. Some programs look at each descriptor up to the limit, or keep
    // a bit for each.
    let files = getrlimit(Resource::Nofile);
    let current = Some(files.maximum.map_or(FILES, |maximum| maximum.min(FILES)));
    setrlimit(Resource::Nofile, Rlimit { current, ..files })?;
    // One more, so that whoever measures sees that it was too much.
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
    drop(writeln!(io::stderr().lock(), "failed to start {command:?}: {}", chain::of(&error)));
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

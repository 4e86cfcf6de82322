//! The fork server: a process that starts supervisors for the service, each as a copy of itself.
//!
//! Starting this program takes 3 ms, most of which the system's loader needs to relocate it; copying a running process
//! takes a tenth of that. The copies share nothing: each has only its run's descriptors, and outlives the server.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, setsid, waitpid};

use super::order::{self, Ends};
use super::{Fault, Report, Supervision, line};
use waypost_runtime::process;

/// A supervisor that runs.
struct Supervisor {
    pid: Pid,
    /// Ends when the supervisor does.
    lives: UnixStream,
    control: UnixStream,
}

/// What this process is to do.
pub(super) enum Part {
    /// Supervise a program. The socket closes with this process, which tells the server that it has ended.
    Supervise(Supervision, Ends<UnixStream, OwnedFd>, UnixStream),
    /// End: the service has gone.
    End,
}

/// Takes orders from stdin, which is a socket, until the service has gone. Returns in each copy too.
pub(super) fn serve() -> io::Result<Part> {
    let orders = UnixStream::from(process::take_stdin()?);
    // Ctrl-C is for the service.
    setsid()?;
    let mut supervisors: Vec<Supervisor> = Vec::new();
    loop {
        let is_ordered = wait(&orders, &mut supervisors)?;
        if !is_ordered {
            continue;
        }
        let Some((supervision, ends)) = order::receive(&orders)? else { return Ok(Part::End) };
        let (lives, held) = UnixStream::pair()?;
        match process::fork() {
            // The other runs' descriptors are dropped here: held by this process, they would outlive their supervisors.
            Ok(None) => return Ok(Part::Supervise(supervision, ends, held)),
            Ok(Some(pid)) => {
                report(&ends.control, &Report::Supervised(pid.as_raw_nonzero().get()));
                supervisors.push(Supervisor { pid, lives, control: ends.control });
            }
            Err(error) => {
                let fault = Fault::of("failed to start a supervisor", &error);
                report(&ends.control, &Report::of(Err(fault)));
            }
        }
    }
}

/// Waits for an order or the end of supervisors, whose status it collects. Tells whether there is an order.
fn wait(orders: &UnixStream, supervisors: &mut Vec<Supervisor>) -> io::Result<bool> {
    let mut polled = vec![PollFd::new(orders, PollFlags::IN)];
    polled.extend(supervisors.iter().map(|supervisor| PollFd::new(&supervisor.lives, PollFlags::IN)));
    match poll(&mut polled, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut are_ready =
        polled.iter().map(|polled| !polled.revents().is_empty()).collect::<Vec<_>>().into_iter();
    let is_ordered = are_ready.next().unwrap_or_default();
    supervisors.retain(|supervisor| {
        let has_ended = are_ready.next().unwrap_or_default();
        if has_ended {
            supervisor.collect();
        }
        !has_ended
    });
    Ok(is_ordered)
}

impl Supervisor {
    /// Collects the status of a supervisor that is just ending, and reports it to the service unless it is a success:
    /// then the supervisor has reported itself.
    fn collect(&self) {
        let Ok(Some((_, status))) = waitpid(Some(self.pid), WaitOptions::empty()) else { return };
        let status = ExitStatus::from_raw(status.as_raw());
        if !status.success() {
            report(&self.control, &Report::Lost(status.to_string()));
        }
    }
}

/// Writes a report. If that fails, the service has gone or no longer needs the run.
fn report(mut control: &UnixStream, report: &Report) {
    drop(line(report).and_then(|line| control.write_all(&line)));
}

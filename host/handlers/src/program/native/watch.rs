//! Watches a program from the service's side: until its supervisor reports the end, or until there is a reason to end
//! it.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::program::supervise::{End, GRACE, KILLING, Report, end_session};
use crate::program::{Call, Shortage};
use waypost_domain::handler::Exit;

use super::quota;

/// How late a supervisor may be at most.
const SLACK: Duration = Duration::from_secs(5);

/// Waits for the end of a program, or ends it.
///
/// # Errors
/// When this machine lacks what is needed to start the program.
pub(super) async fn watch(
    control: UnixStream,
    call: &Call,
    broken: &CancellationToken,
) -> Result<Exit, Shortage> {
    let (reports, orders) = control.into_split();
    let mut reports = Reports::new(reports);
    let outputs: Vec<_> = call.outputs.iter().map(|output| call.folder.join(output)).collect();
    let limits = call.limits;
    let (mut ended, mut reason) = (None, None);
    tokio::select! {
        biased;
        said = reports.ended() => ended = said,
        () = broken.cancelled() => (),
        excess = quota::exceeded(&outputs, limits) => reason = Some(Exit::Limit(excess)),
        // The supervisor enforces the time limit.
        () = sleep(limits.time.saturating_add(GRACE + SLACK)) => reason = Some(Exit::timed_out(limits.time)),
    }
    // Any byte on its stdin, or its closing, tells a supervisor to end everything.
    drop(orders);
    if ended.is_none() {
        ended = timeout(KILLING + SLACK, reports.ended()).await.ok().flatten();
    }
    let exit = match ended {
        Some(ended) => {
            let ended = ended?;
            if let Some(left) = ended.left {
                tracing::warn!(handler = call.name, ?left, "processes of a run could not be ended");
            }
            ended.exit
        }
        None => reports.lost().await?,
    };
    Ok(match reason.unwrap_or(exit) {
        Exit::Limit(limit) => Exit::Limit(limit),
        // The program's last writes may have exceeded a limit, and may have failed because of that.
        exit @ (Exit::Code(_) | Exit::Signal(_) | Exit::Failed(_)) => {
            quota::excess(outputs, limits).await.map_or(exit, Exit::Limit)
        }
    })
}

/// The reports of a supervisor.
struct Reports {
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// The supervisor, once there is one.
    supervisor: Option<Pid>,
    /// The program, once it is started.
    program: Option<Pid>,
    /// How the supervisor itself ended, where it did so without a report.
    lost: Option<String>,
    /// Whether the supervisor's end of the socket is closed.
    is_closed: bool,
}

impl Reports {
    fn new(reports: OwnedReadHalf) -> Self {
        let lines = BufReader::new(reports).lines();
        Self { lines, supervisor: None, program: None, lost: None, is_closed: false }
    }

    /// Waits for the last report; `None` when there will be none. Cancel safe.
    async fn ended(&mut self) -> Option<Result<End, Shortage>> {
        loop {
            let line = self.lines.next_line().await.ok().flatten();
            self.is_closed = line.is_none();
            match serde_json::from_str(&line?).ok()? {
                Report::Supervised(supervisor) => self.supervisor = Pid::from_raw(supervisor),
                Report::Started(program) => self.program = Pid::from_raw(program),
                Report::Lost(how) => self.lost = Some(how),
                Report::Ended(end) => return Some(Ok(end)),
                Report::Short(shortage) => return Some(Err(shortage)),
            }
        }
    }

    /// Kills the processes that can be found of a program whose supervisor failed.
    ///
    /// # Errors
    /// When there was no supervisor, so that nothing was started.
    async fn lost(self) -> Result<Exit, Shortage> {
        let Some(supervisor) = self.supervisor else {
            return Err(Shortage("the fork server, which starts supervisors, ended".to_owned()));
        };
        // This reads the list of all processes several times.
        drop(tokio::task::spawn_blocking(move || end_session(supervisor)).await);
        if let Some(program) = self.program {
            let _ = kill_process_group(program, Signal::KILL);
        }
        if !self.is_closed {
            let _ = kill_process(supervisor, Signal::KILL);
        }
        let how = self.lost.unwrap_or_else(|| "no answer".to_owned());
        Ok(Exit::Failed(format!("its supervisor, `waypost supervise`, ended without a report: {how}")))
    }
}

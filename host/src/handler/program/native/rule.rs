//! Watches a program from the service's side: until its supervisor reports the end, or until there is a reason to end
//! it.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::unix::OwnedReadHalf;
use tokio::process::Child;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::handler::Exit;
use crate::handler::program::supervise::{End, GRACE, KILLING, Report, end_session};
use crate::handler::program::{Call, Shortage};

use super::quota;
use super::start::Process;

/// How late a supervisor may be at most.
const SLACK: Duration = Duration::from_secs(5);

/// Waits for the end of a program, or ends it.
///
/// # Errors
/// When this machine lacks what it takes to start the program.
pub(super) async fn rule(
    process: Process,
    call: &Call,
    broken: &CancellationToken,
) -> Result<Exit, Shortage> {
    let Process { mut child, control } = process;
    let (reports, orders) = control.into_split();
    let mut reports = Reports { lines: BufReader::new(reports).lines(), program: None };
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
            drop(timeout(SLACK, child.wait()).await);
            let ended = ended?;
            if let Some(left) = ended.left {
                tracing::warn!(handler = call.name, ?left, "processes of a run could not be ended");
            }
            ended.exit
        }
        None => lost(&mut child, reports.program).await,
    };
    Ok(match reason.unwrap_or(exit) {
        Exit::Limit(limit) => Exit::Limit(limit),
        // The program's last writes may have exceeded a limit, and may have failed because of that.
        exit @ (Exit::Code(_) | Exit::Signal(_) | Exit::Failed(_)) => {
            quota::excess(outputs, limits).await.map_or(exit, Exit::Limit)
        }
    })
}

/// Kills the processes that can be found of a program whose supervisor failed.
async fn lost(supervisor: &mut Child, program: Option<Pid>) -> Exit {
    if let Some(pid) = supervisor.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
        // This reads the list of all processes several times.
        drop(tokio::task::spawn_blocking(move || end_session(pid)).await);
    }
    // If the supervisor ended by itself, its status tells how.
    let ended = timeout(SLACK, supervisor.wait()).await;
    if let Some(program) = program {
        let _ = kill_process_group(program, Signal::KILL);
    }
    drop(supervisor.start_kill());
    let how = match ended {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    drop(timeout(SLACK, supervisor.wait()).await);
    Exit::Failed(format!("`waypost supervise`, which watches over it, ended without a report: {how}"))
}

/// What a supervisor says.
struct Reports {
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// The program, once it is started.
    program: Option<Pid>,
}

impl Reports {
    /// Waits for the last report; `None` when there will be none. Cancel safe.
    async fn ended(&mut self) -> Option<Result<End, Shortage>> {
        loop {
            let line = self.lines.next_line().await.ok()??;
            match serde_json::from_str(&line).ok()? {
                Report::Started(program) => self.program = Pid::from_raw(program),
                Report::Ended(end) => return Some(Ok(end)),
                Report::Short(shortage) => return Some(Err(shortage)),
            }
        }
    }
}

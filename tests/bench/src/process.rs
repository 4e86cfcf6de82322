//! A child process that serves on loopback: started, measured through /proc, and killed by id however the bench ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a child may take until it prints its address.
const START_MAX: Duration = Duration::from_secs(60);

/// A child that is killed (SIGKILL) and reaped when dropped.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    /// Kept open: with a closed pipe, the child's next write would fail.
    _stdout: BufReader<ChildStdout>,
}

/// The memory and the processor time that a process has used.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: u64,
    pub(crate) peak_rss_bytes: u64,
    /// User and system time.
    pub(crate) cpu: Duration,
    /// User time alone.
    pub(crate) user: Duration,
    /// User and system time of its ended descendants.
    pub(crate) children: Duration,
}

struct KillOnDrop(Option<Child>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    child.kill().ok();
    child.wait().ok();
}

impl Process {
    /// Starts `command` and waits for its first line, which ends with its address.
    pub(crate) async fn start(mut command: Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = KillOnDrop(Some(child.with_context(|| format!("failed to start {program}"))?));
        let stdout = child.0.as_mut().and_then(|child| child.stdout.take()).context("no stdout")?;
        let (said, line) = oneshot::channel();
        // A thread, because a read of a pipe has no timeout; it ends with the child.
        std::thread::spawn(move || {
            let (mut stdout, mut line) = (BufReader::new(stdout), String::new());
            said.send(stdout.read_line(&mut line).map(|_bytes| (line, stdout))).ok();
        });
        let first =
            timeout(START_MAX, line).await.map_err(|_| anyhow!("{program} says nothing on stdout"))??;
        let (line, stdout) = first.with_context(|| format!("failed to read what {program} says"))?;
        let address = line.trim_end().rsplit(['/', ' ']).next().and_then(|address| address.parse().ok());
        let address =
            address.with_context(|| format!("{program}: expected `listening on …`, got {line:?}"))?;
        let child = child.0.take().context("no child")?;
        Ok(Self { child, address, _stdout: stdout })
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it with SIGKILL and waits for its end.
    pub(crate) fn kill(mut self) {
        end(&mut self.child);
    }

    /// Reads what it has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let id = self.child.id();
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        let kilobytes = |field| status_field(&status, field).context("no memory figures in /proc");
        let [user, system, children_user, children_system] = cpu_ticks(&stat).context("no times in /proc")?;
        Ok(Usage {
            rss_bytes: kilobytes("VmRSS:")? * 1024,
            peak_rss_bytes: kilobytes("VmHWM:")? * 1024,
            cpu: ticks(user + system),
            user: ticks(user),
            children: ticks(children_user + children_system),
        })
    }

    /// Resets `peak_rss_bytes` to the current value (proc_pid_clear_refs(5)).
    pub(crate) fn forget_peak(&self) -> Result<()> {
        let file = format!("/proc/{}/clear_refs", self.child.id());
        fs::write(&file, "5").with_context(|| format!("failed to write {file}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn status_field(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

/// User and system time, and those of the children: fields 14 to 17 of proc_pid_stat(5), counted from the end of the name,
/// which may contain spaces.
fn cpu_ticks(stat: &str) -> Option<[u64; 4]> {
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    fields.map(|field| field.parse().ok()).collect::<Option<Vec<_>>>()?.try_into().ok()
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Returns the user time of the whole machine and of this process so far.
pub(crate) fn user_times() -> Result<(Duration, Duration)> {
    let (all, own) = (fs::read_to_string("/proc/stat")?, fs::read_to_string("/proc/self/stat")?);
    let all = status_field(&all, "cpu ").context("no times in /proc/stat")?;
    Ok((ticks(all), ticks(cpu_ticks(&own).context("no times in /proc/self/stat")?[0])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        assert_eq!(status_field("Name:\tx\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1234));
        assert_eq!(status_field("Name:\tx\n", "VmRSS:"), None);
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 17 5 0 0 20 0 1 0 100";
        assert_eq!(cpu_ticks(stat), Some([17, 5, 0, 0]));
        assert_eq!(cpu_ticks("42 (a"), None);
    }
}

//! A program and all processes that it has started, found by their ancestry.
//!
//! This process adopts orphaned descendants (`PR_SET_CHILD_SUBREAPER`), so that they are found even after `setsid` or a
//! double fork. On systems without that, the family is the program's process group.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use tokio::signal::unix::Signal as Signals;
use tokio::time::sleep;

use waypost_domain::handler::Exit;

/// The pause between two scans for survivors.
const STEP: Duration = Duration::from_millis(20);

/// Makes this process adopt orphaned descendants.
pub(super) fn adopt() -> Result<(), String> {
    #[cfg(target_os = "linux")]
    {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).map_err(|error| {
            format!("failed to adopt the processes that the program leaves behind: {error}")
        })?;
        // Without `/proc`, adopted processes could not be found.
        if !std::path::Path::new(linux::PROCESSES).join("self").exists() {
            return Err(format!(
                "there is no {} to find a program's processes in: mount it",
                linux::PROCESSES
            ));
        }
    }
    Ok(())
}

/// Kills all processes in the session of a supervisor that has ended, except the supervisor itself: its program may
/// have killed it before it could report the program's process id.
#[cfg(target_os = "linux")]
pub(in crate::program) fn end_session(supervisor: Pid) {
    // A process may start another just before it ends, so look again.
    for _ in 0..10 {
        let mut left = linux::processes();
        left.retain(|process| process.session == supervisor && process.pid != supervisor);
        if left.is_empty() {
            return;
        }
        for process in left {
            let _ = rustix::process::kill_process(process.pid, Signal::KILL);
        }
    }
}

/// Does nothing on systems without a list of processes.
#[cfg(not(target_os = "linux"))]
pub(in crate::program) fn end_session(_supervisor: Pid) {}

/// A program's processes.
pub(super) struct Family {
    program: Pid,
    exit: Option<Exit>,
    /// Whether no child is left, neither own nor adopted.
    is_alone: bool,
    children: Signals,
}

impl Family {
    /// Watches over a child, which leads a process group. `children` has been listening since before its start.
    pub(super) fn new(program: Pid, children: Signals) -> Self {
        Self { program, exit: None, is_alone: false, children }
    }

    /// Returns how the program ended.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.exit.clone()
    }

    /// Waits for the program's end.
    pub(super) async fn program_ended(&mut self) {
        self.reap();
        while self.exit.is_none() {
            self.children.recv().await;
            self.reap();
        }
    }

    /// Waits for the end of all processes.
    pub(super) async fn all_ended(&mut self) {
        self.reap();
        while !self.is_alone {
            self.children.recv().await;
            self.reap();
        }
    }

    /// Asks the program and its group to end.
    pub(super) fn ask(&self) {
        self.signal_group(Signal::TERM);
    }

    /// Kills all processes; returns those that are known and still run after this time.
    pub(super) async fn end_all(&mut self, time: Duration) -> Option<Vec<i32>> {
        let end = Instant::now() + time;
        self.reap();
        if cfg!(not(target_os = "linux")) {
            // There is no adoption on this system: without a child left, members of the group may still run.
            let _ = kill_process_group(self.program, Signal::KILL);
        }
        while !self.is_alone {
            if Instant::now() > end {
                return Some(self.left());
            }
            self.kill();
            tokio::select! {
                _ = self.children.recv() => (),
                () = sleep(STEP) => (),
            }
            self.reap();
        }
        None
    }

    /// Reaps all children that have ended.
    fn reap(&mut self) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.program => self.exit = super::exit_of(status),
                Ok(Some(_)) | Err(Errno::INTR) => (),
                Ok(None) => return,
                Err(_) => {
                    self.is_alone = true;
                    return;
                }
            }
        }
    }

    /// Signals the program's group. Once the program has ended, its process id may be reused.
    fn signal_group(&self, signal: Signal) {
        if self.exit.is_none() {
            let _ = kill_process_group(self.program, signal);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn kill(&self) {
        self.signal_group(Signal::KILL);
    }

    #[cfg(not(target_os = "linux"))]
    fn left(&self) -> Vec<i32> {
        vec![self.program.as_raw_nonzero().get()]
    }

    #[cfg(target_os = "linux")]
    fn kill(&self) {
        self.signal_group(Signal::KILL);
        let members = linux::descendants();
        // A group is killed as a whole; killing process by process could miss one that forks.
        let own = rustix::process::getpgrp();
        let groups: std::collections::HashSet<_> = members.iter().map(|member| member.group).collect();
        for group in groups.into_iter().filter(|group| *group != own) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        for member in members {
            let _ = rustix::process::kill_process(member.pid, Signal::KILL);
        }
    }

    #[cfg(target_os = "linux")]
    fn left(&self) -> Vec<i32> {
        linux::descendants().into_iter().map(|member| member.pid.as_raw_nonzero().get()).collect()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashSet;

    use rustix::process::{Pid, getpid};

    /// The folder of all processes.
    pub(super) const PROCESSES: &str = "/proc";

    /// A process.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Member {
        pub(super) pid: Pid,
        pub(super) parent: Pid,
        pub(super) group: Pid,
        pub(super) session: Pid,
    }

    /// Returns the processes that descend from this one. This reads all of the system's processes (`/proc/*/stat`),
    /// because not every kernel lists a process's children; but only if a program has left processes behind.
    pub(super) fn descendants() -> Vec<Member> {
        below(getpid(), processes())
    }

    /// Returns all of the system's processes.
    pub(super) fn processes() -> Vec<Member> {
        let Ok(entries) = std::fs::read_dir(PROCESSES) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let pids = names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit()));
        // A process that has ended since has no file.
        let stats = pids.filter_map(|pid| std::fs::read(format!("{PROCESSES}/{pid}/stat")).ok());
        stats.filter_map(|stat| member(&String::from_utf8_lossy(&stat))).collect()
    }

    fn below(ancestor: Pid, mut others: Vec<Member>) -> Vec<Member> {
        let (mut known, mut found) = (HashSet::from([ancestor]), Vec::new());
        loop {
            let (more, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|member| known.contains(&member.parent));
            if more.is_empty() {
                return found;
            }
            known.extend(more.iter().map(|member| member.pid));
            found.extend(more);
            others = rest;
        }
    }

    /// Reads `pid (name) state parent group session …` (proc_pid_stat(5)); a name may hold anything.
    fn member(stat: &str) -> Option<Member> {
        let (begin, end) = (stat.split(' ').next()?, stat.rsplit_once(')')?.1);
        let mut fields = end.split_ascii_whitespace().skip(1);
        let number = |text: Option<&str>| Pid::from_raw(text?.parse().ok()?);
        let pid = number(Some(begin))?;
        let (parent, group) = (number(fields.next())?, number(fields.next())?);
        Some(Member { pid, parent, group, session: number(fields.next())? })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn pid(number: i32) -> Pid {
            Pid::from_raw(number).unwrap()
        }

        #[test]
        fn a_name_cannot_pretend_to_be_the_rest_of_the_line() {
            let read = member("7 (a) R 1 1 (b) S 3 5 5 0 -1 4194560").unwrap();
            assert_eq!(read, Member { pid: pid(7), parent: pid(3), group: pid(5), session: pid(5) });
            assert_eq!(member("1 (init) S 0 1 1"), None, "it has no parent");
        }

        #[test]
        fn grandchildren_descend_and_neighbours_do_not() {
            let member = |number, parent| {
                let (pid, parent) = (pid(number), pid(parent));
                Member { pid, parent, group: pid, session: pid }
            };
            let all = vec![member(5, 4), member(4, 2), member(2, 1), member(3, 1), member(6, 5)];
            let mut found: Vec<_> = below(pid(2), all).iter().map(|member| member.pid).collect();
            found.sort_by_key(|pid| pid.as_raw_nonzero());
            assert_eq!(found, [pid(4), pid(5), pid(6)]);
        }
    }
}

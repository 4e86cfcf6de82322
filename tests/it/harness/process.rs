//! The binary as a process: started, read, and ended through its handle.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

use super::wait_until;

/// The binary under test.
pub(crate) const WAYPOST: &str = env!("CARGO_BIN_EXE_waypost");

/// A running process whose output goes to files, so that it never waits for a reader.
pub(crate) struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `folder`.
    pub(crate) fn spawn(command: &mut Command, folder: &Path) -> Self {
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::options().create(true).append(true).open(&stderr).unwrap())
            .spawn()
            .unwrap();
        Self { child, stdout, stderr }
    }

    /// Starts `waypost` with `arguments`.
    pub(crate) fn waypost(arguments: &[&str], folder: &Path) -> Self {
        Self::spawn(Command::new(WAYPOST).args(arguments).current_dir(folder), folder)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits for the first complete line on stdout.
    ///
    /// # Panics
    /// When the process ends first.
    pub(crate) async fn first_line(&mut self) -> String {
        wait_until("there is a first line on stdout", async || {
            if let Some((line, _)) = self.stdout().split_once('\n') {
                return Some(line.to_owned());
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended with {status} before its first line: {}", self.stderr());
            }
            None
        })
        .await
    }

    /// Returns the address of the first line, `listening on http://127.0.0.1:PORT` (or `https`). An unspecified address is
    /// replaced with loopback.
    pub(crate) async fn address(&mut self) -> String {
        let line = self.first_line().await;
        let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("first line: {line}"));
        let url = url.replacen("//0.0.0.0:", "//127.0.0.1:", 1);
        let at = url.strip_prefix("https://").or(url.strip_prefix("http://"));
        assert!(at.is_some_and(|at| at.starts_with("127.0.0.1:")), "first line: {line}");
        url
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until the process ends.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        wait_until("the process ends", async || self.child.try_wait().unwrap()).await
    }

    /// Kills the process at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the server said")]
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let stderr = self.stderr();
            let from = stderr.len().saturating_sub(4000);
            eprintln!(
                "--- stderr of the process (its end)\n{}",
                String::from_utf8_lossy(&stderr.as_bytes()[from..])
            );
        }
    }
}

/// The output of a command.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `waypost` with `arguments` and `stdin` until it ends, in a folder of its own.
pub(crate) async fn run(arguments: &[&str], stdin: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    run_in(folder.path(), arguments, &[], stdin).await
}

/// Runs `waypost` until it ends, in `folder` and with these environment variables.
pub(crate) async fn run_in(folder: &Path, arguments: &[&str], env: &[(&str, &str)], stdin: &str) -> Output {
    let mut command = Command::new(WAYPOST);
    command.args(arguments).envs(env.iter().copied()).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    // On a separate thread: the command may talk to a target in this runtime.
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // A command that does not read its stdin may close it first.
        drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
        child.wait_with_output().unwrap()
    });
    let output = tokio::time::timeout(std::time::Duration::from_secs(30), run).await;
    let output = output.unwrap_or_else(|_| panic!("waypost {arguments:?} does not end")).unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

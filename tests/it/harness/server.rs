//! `waypost serve` in a folder of its own.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::process::WAYPOST;
use super::{Api, Process};

/// How the binary is started.
#[derive(Clone, Copy)]
pub(crate) enum Launch {
    /// Without changes.
    Plain,
    /// With SIGXFSZ ignored, so that a write past `RLIMIT_FSIZE` fails with an error, like one on a full disk.
    FileSizeErrors,
    /// With at most this many open files.
    OpenFiles(u64),
}

/// A running server. It dereferences to the [`Api`] of the default user.
pub(crate) struct Server {
    process: Process,
    api: Api,
    launch: Launch,
    listen: String,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    folder: TempDir,
}

impl Server {
    /// Starts a server with defaults.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a server with these further flags.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        Self::launch(Launch::Plain, flags, &[]).await
    }

    /// Starts a server with these further flags and environment variables.
    pub(crate) async fn launch(launch: Launch, flags: &[&str], env: &[(&str, &str)]) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), LOOPBACK, launch, flags, env).await
    }

    /// Starts a server that listens to other machines too, and that believes the user header from this machine.
    pub(crate) async fn wide(flags: &[&str]) -> Self {
        let flags = [&["--trusted-proxies", "127.0.0.1"], flags].concat();
        let server =
            Self::in_folder(tempfile::tempdir().unwrap(), "0.0.0.0:0", Launch::Plain, &flags, &[]).await;
        // A server that listens to other machines has no default user.
        Self { api: server.api.user("anonymous"), ..server }
    }

    async fn in_folder(
        folder: TempDir,
        listen: &str,
        launch: Launch,
        flags: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let env: Vec<_> = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let listen = listen.to_owned();
        let mut process = spawn(launch, &listen, &flags, &env, folder.path());
        let api = Api::new(process.address().await);
        Self { process, api, launch, listen, flags, env, folder }
    }

    /// Starts a server with this configuration file; `prepare` puts the files that it names into its folder.
    pub(crate) async fn configured(config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        std::fs::write(folder.path().join("waypost.toml"), config).unwrap();
        Self::in_folder(folder, LOOPBACK, Launch::Plain, &["--config", "waypost.toml"], &[]).await
    }

    /// Returns the working directory.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Returns the peak memory of the process, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let status = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Returns the whole log, with that of earlier runs in this folder.
    pub(crate) fn log(&self) -> String {
        self.process.stderr()
    }

    /// Ends the process with SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.process.kill();
    }

    /// Asks the process to end (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for the end of the process.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        self.process.exited().await
    }

    /// Sets the address to listen on from the next start.
    pub(crate) fn move_to(&mut self, address: &str) {
        address.clone_into(&mut self.listen);
    }

    /// Starts the server again on the same data; kills it first if it still runs.
    pub(crate) async fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.launch, &self.listen, &self.flags, &self.env, self.folder.path());
        self.api = Api::new(self.process.address().await);
    }
}

impl Deref for Server {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// Returns a shell that runs a command and then the binary.
fn shell(first: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first}; exec \"$0\" \"$@\""), WAYPOST]);
    shell
}

/// Where a server listens by default.
const LOOPBACK: &str = "127.0.0.1:0";
/// The attempt timeout unless a test sets it. The service's default is about as long as a test waits, and would end requests
/// that must hang.
const ATTEMPT_TIMEOUT: [&str; 2] = ["--attempt-timeout-ms", "600000"];

fn spawn(launch: Launch, listen: &str, flags: &[String], env: &[(String, String)], folder: &Path) -> Process {
    let mut command = match launch {
        Launch::Plain => Command::new(WAYPOST),
        Launch::FileSizeErrors => shell("trap '' XFSZ"),
        Launch::OpenFiles(most) => shell(&format!("ulimit -n {most}")),
    };
    command.args(["serve", "--listen", listen, "--log-format", "json", "--data"]);
    command.arg(folder.join("data")).args(flags).envs(env.iter().cloned()).current_dir(folder);
    if !flags.iter().any(|flag| flag == ATTEMPT_TIMEOUT[0]) {
        command.args(ATTEMPT_TIMEOUT);
    }
    Process::spawn(&mut command, folder)
}

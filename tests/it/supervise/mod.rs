//! Native programs of handlers: how they are started, and ended with everything that they start.

mod ending;
mod limits;
mod starting;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use waypost_handlers::{Call, CallLimits, Native, ProgramResult};

use crate::harness::{WAYPOST, wait_until};

/// A run's folder, and the program that runs in it.
struct Run {
    folder: TempDir,
    native: Native,
    call: Call,
}

impl Run {
    /// Prepares the run of a command.
    fn of(command: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        std::fs::create_dir_all(run.join("output")).unwrap();
        std::fs::write(run.join("event.json"), r#"{"id": "7"}"#).unwrap();
        let native = Native {
            waypost: WAYPOST.into(),
            command: command.iter().copied().map(str::to_owned).collect(),
            environment: Vec::new(),
        };
        let call = Call {
            name: "test".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            outputs: vec!["output".to_owned()],
            stdout: folder.path().join("stdout"),
            stderr: folder.path().join("stderr"),
            limits: CallLimits {
                time: Duration::from_secs(60),
                output_bytes: 1 << 30,
                output_files: 1000,
                memory_bytes: None,
                log_bytes: 1 << 20,
            },
            folder: run,
        };
        Self { folder, native, call }
    }

    /// Prepares the run of a shell script.
    fn script(script: &str) -> Self {
        Self::of(&["/bin/sh", "-c", script])
    }

    async fn ended(&self) -> ProgramResult {
        self.native.run(&self.call).await.unwrap()
    }

    fn place(&self, path: &str) -> PathBuf {
        self.call.folder.join(path)
    }

    /// Waits until the program has written a process id to a file, and returns it.
    async fn pid(&self, path: &str) -> i32 {
        wait_until(&format!("a process is in {path}"), async || pid_in(&self.place(path))).await
    }
}

/// Returns the number in a file, once its line is complete.
fn pid_in(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok()
}

/// Returns whether a process exists, also as a zombie.
fn is_there(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until a process has ended and was reaped.
async fn gone(pid: i32) {
    wait_until(&format!("{pid} is gone"), async || (!is_there(pid)).then_some(())).await;
}

//! Runs a component: a WASI command, in the sandbox of [`waypost_sandbox`].

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Call, Fault, ProgramResult, Shortage, UNKEPT};
use crate::Capture;
use waypost_domain::handler::{Exit, StreamTail};
use waypost_domain::plugin::AllowHost;
use waypost_sandbox::{Command, CommandCall, CommandLimits, Host, Refused};

/// The most memory of a component where the configuration does not say: 1 GiB.
pub const COMPONENT_MEMORY_BYTES: u64 = 1024 * 1024 * 1024;

/// A component that is ready to run.
#[derive(Clone)]
pub struct Component {
    host: Arc<Host>,
    command: Arc<Command>,
    allow_hosts: Arc<[AllowHost]>,
}

impl Component {
    /// Loads a component, which may call only the hosts of `allow_hosts` over HTTP.
    ///
    /// # Errors
    /// When it is not a WASI command, or cannot be compiled here.
    pub async fn load(host: Arc<Host>, wasm: Bytes, allow_hosts: &[AllowHost]) -> Result<Self, Refused> {
        let command = host.load_command(wasm).await?;
        Ok(Self { host, command, allow_hosts: allow_hosts.into() })
    }

    /// Runs it. Its own failures are an exit, not an error. Dropping the future ends it.
    ///
    /// # Errors
    /// When it failed, and this machine lacks what is needed to store its output.
    pub async fn run(&self, call: &Call) -> Result<ProgramResult, Shortage> {
        let (stdout, stderr) = (captured(&call.stdout, call), captured(&call.stderr, call));
        let memory_bytes = call.limits.memory_bytes.unwrap_or(COMPONENT_MEMORY_BYTES);
        let command_call = CommandCall {
            folder: call.folder.clone(),
            outputs: call.outputs.clone(),
            arguments: std::iter::once(&call.name).chain(&call.arguments).cloned().collect(),
            environment: call.environment.clone(),
            stdout: Box::new(stdout.clone()),
            stderr: Box::new(stderr.clone()),
            allow_hosts: Arc::clone(&self.allow_hosts),
            limits: CommandLimits {
                time: call.limits.time,
                memory_bytes: usize::try_from(memory_bytes).unwrap_or(usize::MAX),
                output_bytes: call.limits.output_bytes,
                output_files: call.limits.output_files,
            },
        };
        let end = self.host.run_command(&self.command, command_call).await;
        match stdout.shortage().or_else(|| stderr.shortage()) {
            // A program that exceeded a limit may itself have used up what is missing.
            Some(shortage) if !end.exit.is_success() && !matches!(end.exit, Exit::Limit(_)) => Err(shortage),
            Some(_) | None => {
                Ok(ProgramResult { exit: end.exit, stdout: stdout.said(), stderr: stderr.said() })
            }
        }
    }
}

fn captured(path: &Path, call: &Call) -> Shared {
    let capture = Capture::new(path.to_owned(), call.limits.log_bytes);
    Shared(Arc::new(Mutex::new(Stream { capture, shortage: None })))
}

/// A stream of the program's.
struct Stream {
    capture: Capture,
    /// Why part of it could not be kept, if that is a shortage of this machine. The program only sees that its write
    /// failed.
    shortage: Option<Shortage>,
}

/// A stream that the program's thread writes to, and that is read once that thread has ended.
#[derive(Clone)]
struct Shared(Arc<Mutex<Stream>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> StreamTail {
        self.lock().capture.said()
    }

    fn shortage(&self) -> Option<Shortage> {
        self.lock().shortage.clone()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self.lock();
        let written = stream.capture.write(bytes);
        if let Err(error) = &written
            && let Fault::Shortage(shortage) = Fault::of(UNKEPT, error)
        {
            stream.shortage = Some(shortage);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().capture.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::CallLimits;
    use waypost_sandbox::{CompileLimits, CompilerProcess, Limits, Settings};

    fn host(folder: &Path) -> Arc<Host> {
        Arc::new(Host::new(Settings {
            limits: Limits::default(),
            compile: CompileLimits::default(),
            folder: folder.join("compiled"),
            compiler: Some(CompilerProcess::InProcess),
            guard: Arc::default(),
            memory_total_bytes: 1 << 30,
            threads: 1,
        }))
    }

    fn call(folder: &Path, arguments: &[&str]) -> Call {
        Call {
            folder: folder.join("run"),
            name: "me".to_owned(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            environment: vec![("A".to_owned(), "b".to_owned())],
            outputs: vec!["output".to_owned(), "results/deep".to_owned()],
            stdout: folder.join("stdout"),
            stderr: folder.join("stderr"),
            limits: CallLimits {
                time: Duration::from_secs(60),
                output_bytes: 1000,
                output_files: 100,
                memory_bytes: None,
                log_bytes: 10,
            },
        }
    }

    #[tokio::test]
    async fn a_component_runs_and_what_it_said_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        for made in ["output", "results/deep", "download/sub"] {
            std::fs::create_dir_all(folder.path().join("run").join(made)).unwrap();
        }
        std::fs::write(folder.path().join("run/event.json"), "{}").unwrap();
        std::fs::write(folder.path().join("run/download/sub/data.txt"), "data").unwrap();
        let host = host(folder.path());
        let wasm = std::fs::read(waypost_guests::TOOL).unwrap();
        let component = Component::load(host, wasm.into(), &[]).await.unwrap();
        let run = async |arguments: &[&str]| component.run(&call(folder.path(), arguments)).await.unwrap();
        let shown = run(&["show"]).await;
        assert_eq!(shown.exit, Exit::Code(0), "{}", shown.stderr.tail);
        assert!(shown.stdout.tail.starts_with("arguments: [\"me\", \"show\"]"), "{}", shown.stdout.tail);
        assert_eq!((shown.stdout.kept, shown.stderr.tail.as_str()), (10, "done\n"));
        assert_eq!(std::fs::read_to_string(folder.path().join("stdout")).unwrap(), "arguments:");
        let panicked = run(&["panic"]).await;
        assert!(matches!(panicked.exit, Exit::Failed(_)));
        assert!(panicked.stderr.tail.contains("oh no"), "{}", panicked.stderr.tail);
        // Its output cannot be written anywhere.
        let nowhere = Call { stdout: folder.path().join("no/stdout"), ..call(folder.path(), &["show"]) };
        assert!(!component.run(&nowhere).await.unwrap().exit.is_success());
        // A full disk failed the run, for good where it had no schedule.
        let full = Call { stdout: "/dev/full".into(), ..call(folder.path(), &["show"]) };
        component.run(&full).await.unwrap_err();
    }
}

//! The child process for work whose cost an attacker can drive up: compiling a module, loading the result, and
//! validating a configuration against a schema.
//!
//! The child limits its own memory and processor time ([`super::worker`]). The parent sends the input, and kills the
//! child when its time is over.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use super::error::Error;
use super::limits::size;
use super::text;
use super::worker::{FAILED, LIMITED, TEXT_BYTES_MAX, Task};

/// What a child may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The longest time by the clock.
    pub(super) time: Duration,
    /// The most address space, in bytes.
    pub(super) memory_bytes: u64,
    /// The most output, in bytes.
    pub(super) output_bytes: usize,
    /// The name of the work, which the limits' names begin with: `compile`.
    pub(super) what: &'static str,
}

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChildEnd {
    /// With its output.
    Done(Vec<u8>),
    /// It failed, and said why.
    Failed(String),
    /// When its time was over; the limit's name and value.
    Late(String),
    /// At another limit, which is named with its value.
    Limit(String),
}

/// Runs a task in a child process. Dropping the future ends the child.
pub(super) async fn run(program: &Path, task: Task, bounds: Bounds, input: &[u8]) -> Result<ChildEnd, Error> {
    let failed = |source| Error::Compiler { path: program.to_owned(), source };
    let mut child = spawn(program, task, bounds).map_err(failed)?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let talked = tokio::time::timeout(bounds.time, talk(&mut child, &mut stdin, input, bounds)).await;
    let ended = match talked {
        Ok(talked) => match talked.map_err(failed)? {
            Some(output) => return Ok(ended(output, task, bounds)),
            None => ChildEnd::Limit(format!("{} output limit of {}", bounds.what, size(bounds.output_bytes))),
        },
        Err(_) => ChildEnd::Late(bounds.time_limit()),
    };
    child.kill().await.map_err(failed)?;
    Ok(ended)
}

fn spawn(program: &Path, task: Task, bounds: Bounds) -> std::io::Result<Child> {
    let task = match task {
        Task::Compile => "compile",
        Task::Load => "load",
        Task::Check => "check",
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    // Each thread may take all of the time.
    let cpu_seconds = bounds.time.as_secs().saturating_add(1).saturating_mul(threads);
    Command::new(program)
        .args(["compile", "--task", task])
        .args(["--memory-bytes", &bounds.memory_bytes.to_string()])
        .args(["--cpu-seconds", &cpu_seconds.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// The status and the output of a child that has ended.
struct ChildOutput {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

/// Writes the input, reads the output, and waits for the child's end; `None` where there is too much output.
///
/// `stdin` stays open: the child exits when its stdin ends, since that means that the parent has gone.
async fn talk(
    child: &mut Child,
    stdin: &mut ChildStdin,
    input: &[u8],
    bounds: Bounds,
) -> std::io::Result<Option<ChildOutput>> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = (stdout.expect("it is piped"), stderr.expect("it is piped"));
    let feed = async {
        let fed = async {
            stdin.write_all(&(input.len() as u64).to_le_bytes()).await?;
            stdin.write_all(input).await?;
            stdin.flush().await
        };
        // A child that ended early says why itself.
        drop(fed.await);
    };
    let ((), stdout, stderr) =
        tokio::join!(feed, read(stdout, bounds.output_bytes), tail(stderr, 8 * TEXT_BYTES_MAX));
    let (Some(stdout), stderr) = (stdout?, stderr?) else { return Ok(None) };
    let (status, stderr) = (child.wait().await?, String::from_utf8_lossy(&stderr).into_owned());
    Ok(Some(ChildOutput { status, stdout, stderr }))
}

/// Reads everything; `None` when it is more than `most` bytes.
async fn read(from: impl AsyncRead + Unpin, most: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(most as u64 + 1).read_to_end(&mut bytes).await?;
    Ok((bytes.len() <= most).then_some(bytes))
}

/// Reads everything, and keeps the last `most` bytes, because the reason of a failure comes last.
async fn tail(mut from: impl AsyncRead + Unpin, most: usize) -> std::io::Result<Vec<u8>> {
    let (mut kept, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        match from.read(&mut bytes).await? {
            0 => return Ok(kept),
            read => kept.extend_from_slice(&bytes[..read]),
        }
        kept.drain(..kept.len().saturating_sub(most));
    }
}

fn ended(output: ChildOutput, task: Task, bounds: Bounds) -> ChildEnd {
    let ChildOutput { status, stdout, stderr } = output;
    if status.success() {
        return ChildEnd::Done(stdout);
    }
    let signal = status.signal().and_then(Signal::from_named_raw);
    if signal == Some(Signal::XCPU) {
        return ChildEnd::Late(bounds.time_limit());
    }
    // The system itself kills with KILL when memory runs out before the limit is reached.
    if signal == Some(Signal::KILL) || NO_MEMORY.iter().any(|text| stderr.contains(text)) {
        return ChildEnd::Limit(bounds.memory_limit());
    }
    let said = text::clean(&stderr, TEXT_BYTES_MAX);
    match status.code() {
        Some(code) if code == i32::from(FAILED) && !said.is_empty() => return ChildEnd::Failed(said),
        Some(code) if code == i32::from(LIMITED) => return ChildEnd::Limit(said),
        Some(_) | None => {}
    }
    if status.code() == Some(PANICKED) {
        let who = match task {
            Task::Compile => "the compiler",
            Task::Load => "the loading of machine code",
            Task::Check => "the check of the configuration",
        };
        let words = text::last_words(&stderr).unwrap_or_else(|| "it said nothing".to_owned());
        return ChildEnd::Failed(format!("{who} ended with a panic, which is a bug in Waypost: {words}"));
    }
    ChildEnd::Failed(format!("the child process ended with {status}"))
}

/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// What Rust, the system and a thread that cannot start report when memory has run out.
const NO_MEMORY: [&str; 3] = ["memory allocation of", "Cannot allocate memory", "failed to start a thread"];

impl Bounds {
    fn time_limit(&self) -> String {
        let time = self.time;
        let time = if time.subsec_millis() == 0 {
            format!("{} s", time.as_secs())
        } else {
            format!("{} ms", time.as_millis())
        };
        format!("{} time limit of {time}", self.what)
    }

    fn memory_limit(&self) -> String {
        let most = usize::try_from(self.memory_bytes).unwrap_or(usize::MAX);
        format!("{} memory limit of {}", self.what, size(most))
    }
}

//! Terminals: shells in process groups of their own, and what they show.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// The most that is kept of what a terminal shows; the rest is read and dropped.
const SHOWN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a terminal may take to end before Ctrl-C is pressed again; `serve` gives attempts under way ten seconds.
const END_TIME_MAX: Duration = Duration::from_secs(20);
/// Encloses the shell's report on a block; no program of the pages prints it.
const MARK: char = '\u{1e}';
/// Records the first command of a block that fails: its exit code, its line within the block, and its text.
const PROLOGUE: &str = "trap '__failed=\"${__failed:-$?:$LINENO:$BASH_COMMAND}\"' ERR\n";

/// Runs a script that keeps running. The runner holds the other end of stdin: when that closes, because the runner was
/// killed, everything in the terminal is killed too.
const RUNNING: &str = r#"trap '' INT
{ cat; kill -KILL 0; } <&0 >/dev/null 2>&1 &
trap - INT
. "$0" </dev/null"#;

/// One terminal. Everything in it is killed when it is dropped.
pub(crate) struct Terminal {
    child: Child,
    group: Pid,
    /// Where commands are typed; open as long as the terminal.
    input: Option<ChildStdin>,
    screen: Arc<Screen>,
    /// How many bytes of the output have been read.
    read: usize,
}

#[derive(Default)]
struct Screen {
    shown: Mutex<Shown>,
    changed: Condvar,
}

#[derive(Default)]
struct Shown {
    bytes: Vec<u8>,
    /// Whether all processes that could print have ended.
    is_over: bool,
}

/// The result of a block that was typed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) shown: String,
    /// The first command that failed.
    pub(crate) failed: Option<Failed>,
    /// The terminal's working directory after it.
    pub(crate) folder: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) code: i32,
    /// Its line within the block, from 1, if it is known.
    pub(crate) line: Option<usize>,
}

impl Terminal {
    /// Opens a terminal in which blocks are typed one after the other.
    pub(crate) fn shell(folder: &Path, set_up: &dyn Fn(&mut Command)) -> Result<Self> {
        let mut terminal = Self::open(&[], folder, set_up)?;
        terminal.say(PROLOGUE)?;
        Ok(terminal)
    }

    /// Opens a terminal in which a script keeps running.
    pub(crate) fn running(script: &Path, folder: &Path, set_up: &dyn Fn(&mut Command)) -> Result<Self> {
        Self::open(&[Path::new("-c"), Path::new(RUNNING), script], folder, set_up)
    }

    fn open(arguments: &[&Path], folder: &Path, set_up: &dyn Fn(&mut Command)) -> Result<Self> {
        let (reader, writer) = io::pipe().context("failed to make a pipe")?;
        // A runner that was started in the background may ignore Ctrl-C; a terminal must not.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", "bash"]).args(arguments).current_dir(folder);
        command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        set_up(&mut command);
        let mut child = command.spawn().context("failed to start bash")?;
        // The command holds the pipe open until it is dropped.
        drop(command);
        let (group, input) = (Pid::from_child(&child), child.stdin.take());
        let screen = Arc::new(Screen::default());
        let writing = Arc::clone(&screen);
        // The thread ends with the last process that could print.
        thread::spawn(move || writing.fill(reader));
        Ok(Self { child, group, input, screen, read: 0 })
    }

    fn say(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().context("this terminal takes no commands")?;
        input.write_all(text.as_bytes()).context("failed to type: the shell has ended")
    }

    /// Types the commands of a file and waits for their end.
    pub(crate) fn type_file(&mut self, file: &Path, bound: Duration) -> Result<Outcome> {
        let report = r#"printf '\036%s\037%s\036\n' "$__failed" "$PWD""#;
        self.say(&format!("__failed=; . '{}' </dev/null; {report}\n", file.display()))?;
        let ended = self.wait(bound, |shown, is_over| {
            let mut parts = shown.split(MARK);
            match (parts.next(), parts.next(), parts.next()) {
                (Some(shown), Some(report), Some(_)) => Some(Some((shown.to_owned(), report.to_owned()))),
                _ if is_over => Some(None),
                _ => None,
            }
        });
        let report = ended.with_context(|| format!("it did not end in {} s", bound.as_secs()))?;
        let (shown, report) = report.context("the shell has ended")?;
        self.look();
        let (failed, folder) = report.split_once('\u{1f}').context("the shell says something else")?;
        Ok(Outcome { shown, failed: Failed::read(failed), folder: folder.into() })
    }

    /// Returns the output since the last look.
    pub(crate) fn unread(&self) -> String {
        let shown = self.screen.lock();
        String::from_utf8_lossy(&shown.bytes[self.read..]).into_owned()
    }

    /// Returns all output.
    pub(crate) fn all(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().bytes).into_owned()
    }

    /// Marks all output so far as read.
    pub(crate) fn look(&mut self) {
        let length = self.screen.lock().bytes.len();
        self.read = length;
    }

    /// Waits until `find` finds something in the output since the last look; `find` is told whether more may come. Returns
    /// `None` if it finds nothing within the bound.
    pub(crate) fn wait<T>(
        &self,
        bound: Duration,
        mut find: impl FnMut(&str, bool) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + bound;
        let mut shown = self.screen.lock();
        loop {
            let (unread, is_over) = (shown.bytes[self.read..].to_owned(), shown.is_over);
            drop(shown);
            let found = find(&String::from_utf8_lossy(&unread), is_over);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || is_over || left.is_zero() {
                return found;
            }
            let length = self.read + unread.len();
            let is_same = |shown: &mut Shown| shown.bytes.len() == length && !shown.is_over;
            let waited = self.screen.changed.wait_timeout_while(self.screen.lock(), left, is_same);
            shown = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Presses Ctrl-C and waits until everything in the terminal has ended.
    pub(crate) fn interrupt(mut self) -> Result<ExitStatus> {
        // A program that is just being started may miss the first Ctrl-C.
        for _ in 0..2 {
            kill_process_group(self.group, Signal::INT).context("it has ended already")?;
            if self.wait(END_TIME_MAX, |_, is_over| is_over.then_some(())).is_some() {
                return self.child.wait().context("failed to wait for the shell");
            }
        }
        bail!("it did not end within {} s after Ctrl-C", 2 * END_TIME_MAX.as_secs())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The group exists until the shell is reaped, so its id cannot belong to another group.
        kill_process_group(self.group, Signal::KILL).ok();
        self.child.wait().ok();
    }
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, mut reader: io::PipeReader) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match reader.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(count) => count,
                Err(_) => 0,
            };
            let mut shown = self.lock();
            let room = SHOWN_BYTES_MAX.saturating_sub(shown.bytes.len());
            shown.bytes.extend_from_slice(&buffer[..count.min(room)]);
            shown.is_over = count == 0;
            drop(shown);
            self.changed.notify_all();
            if count == 0 {
                return;
            }
        }
    }
}

impl Failed {
    /// Reads `CODE:LINE:COMMAND`.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let code = parts.next()?.parse().ok()?;
        let line = parts.next().and_then(|line| line.parse().ok());
        // If the block's last command fails after `&&`, only the block as a whole has an exit code.
        let is_block = parts.next().is_some_and(|command| command.starts_with(". '"));
        Some(Self { code, line: line.filter(|_| !is_block) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(60);

    fn shell() -> (tempfile::TempDir, Terminal) {
        let folder = tempfile::tempdir().unwrap();
        let terminal = Terminal::shell(folder.path(), &|_| {}).unwrap();
        (folder, terminal)
    }

    fn typed(folder: &Path, terminal: &mut Terminal, commands: &str) -> Outcome {
        let file = folder.join("block.sh");
        std::fs::write(&file, commands).unwrap();
        terminal.type_file(&file, BOUND).unwrap()
    }

    #[test]
    fn a_shell_keeps_variables_and_folder_from_block_to_block() {
        let (folder, mut terminal) = shell();
        let first =
            typed(folder.path(), &mut terminal, "a=7; mkdir inner && cd inner\necho out; echo err >&2\n");
        assert_eq!((first.shown.as_str(), first.failed), ("out\nerr\n", None));
        assert!(first.folder.ends_with("inner"));
        assert_eq!(typed(folder.path(), &mut terminal, "echo $a; cat\n").shown, "7\n");
    }

    #[test]
    fn the_first_command_that_fails_is_reported_with_its_line() {
        let (folder, mut terminal) = shell();
        let mut failed = |commands: &str| typed(folder.path(), &mut terminal, commands).failed;
        assert_eq!(failed("true\n(exit 3)\nfalse\ntrue\n"), Some(Failed { code: 3, line: Some(2) }));
        assert_eq!(failed("true\ntrue && (exit 4)\n"), Some(Failed { code: 4, line: Some(2) }));
        assert_eq!(failed("false && true\n").map(|failed| failed.code), Some(1));
        assert_eq!(failed("id=$(exit 5)\n"), Some(Failed { code: 5, line: Some(1) }));
        assert_eq!(failed("if false; then true; fi; false || true\n"), None);
    }

    /// Runs a script in a terminal of its own until it shows that it is ready.
    fn running(commands: &str) -> (tempfile::TempDir, Terminal) {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("block.sh");
        std::fs::write(&script, commands).unwrap();
        let terminal = Terminal::running(&script, folder.path(), &|_| {}).unwrap();
        terminal.wait(BOUND, |shown, _| shown.contains("ready").then_some(())).unwrap();
        (folder, terminal)
    }

    #[test]
    fn ctrl_c_ends_a_script_and_everything_that_it_started() {
        let (_folder, mut terminal) = running("sleep 600 & trap 'kill $!; exit 7' INT; echo ready; wait\n");
        terminal.look();
        assert_eq!(terminal.unread(), "");
        assert_eq!(terminal.interrupt().unwrap().code(), Some(7));
    }

    #[test]
    fn a_script_is_killed_when_its_stdin_is_closed() {
        let (_folder, mut terminal) = running("trap '' INT TERM HUP; echo ready; sleep 600; sleep 600\n");
        drop(terminal.input.take());
        terminal.wait(BOUND, |_, is_over| is_over.then_some(())).unwrap();
    }

    #[test]
    fn a_wait_ends_at_its_bound_or_with_the_shell() {
        let (folder, mut terminal) = shell();
        assert_eq!(terminal.wait(Duration::from_millis(1), |_, _| None::<()>), None);
        std::fs::write(folder.path().join("block.sh"), "exit 3\n").unwrap();
        assert!(terminal.type_file(&folder.path().join("block.sh"), BOUND).is_err());
    }
}

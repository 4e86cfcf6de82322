//! Starts the program: finds it, and explains why it cannot be started and what to do.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::process::Pid;

use super::{Streams, Supervision};
use crate::program::Fault;

/// The longest first line of a script that a kernel reads.
const LINE_BYTES_MAX: u64 = 256;

/// Starts the command in a process group of its own, with the event on stdin.
pub(super) fn start(supervision: &Supervision, streams: Streams) -> Result<Pid, Fault> {
    let [name, arguments @ ..] = &supervision.command[..] else {
        return Err("the command is empty: name a program".to_owned().into());
    };
    let event = File::open("event.json").map_err(|error| Fault::of("failed to open event.json", &error))?;
    let path =
        supervision.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let program = find(name, path.unwrap_or_default())?;
    let started = (|| {
        let mut command = match supervision.memory_bytes {
            None => {
                let mut command = Command::new(&program);
                command.arg0(name).args(arguments);
                command
            }
            Some(bytes) => {
                refuse_plain_text(&program)?;
                let mut command = Command::new(own_path()?);
                command.args(["supervise", "--become", "--memory-bytes", &bytes.to_string(), "--"]);
                command.arg(&program).args(arguments);
                command
            }
        };
        command.env_clear().envs(supervision.environment.iter().map(|(name, value)| (name, value)));
        if let Some((stdout, stderr)) = streams {
            command.stdout(stdout).stderr(stderr);
        }
        let child = command.stdin(event).process_group(0).spawn()?;
        Ok(Pid::from_child(&child))
    })();
    started.map_err(|error| not_started(&program, &error))
}

/// Classifies why a program was not started.
fn not_started(program: &Path, error: &io::Error) -> Fault {
    match Fault::of(&format!("failed to start `{}`", program.display()), error) {
        Fault::Shortage(shortage) => Fault::Shortage(shortage),
        Fault::Failure(_) => refusal(program, error).into(),
    }
}

/// Returns the file of the running program, even if a newer one has replaced it since.
fn own_path() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// Finds a program: by its path, or by its name in the folders of `PATH`.
fn find(name: &OsStr, path: &OsStr) -> Result<PathBuf, String> {
    if name.as_bytes().contains(&b'/') {
        return Ok(name.into());
    }
    let is_executable = |place: &PathBuf| {
        place.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|folder| folder.join(name)).find(is_executable).ok_or_else(|| {
        format!(
            "the program `{}` is in none of the folders of PATH, `{}`: give its whole path, or set PATH in the \
             handler's `env`",
            name.display(),
            path.display()
        )
    })
}

/// Fails for a script without a `#!` line, as its start would: the standard library would pass it to a shell instead.
fn refuse_plain_text(program: &Path) -> io::Result<()> {
    let mut begin = Vec::new();
    // The program may be executable without being readable.
    let Ok(file) = File::open(program) else { return Ok(()) };
    file.take(LINE_BYTES_MAX).read_to_end(&mut begin)?;
    if begin.starts_with(b"#!") || begin.contains(&0) { Ok(()) } else { Err(Errno::NOEXEC.into()) }
}

/// Says why a program was not started, and what to do.
fn refusal(program: &Path, error: &io::Error) -> String {
    let name = program.display();
    let Ok(meta) = program.metadata() else {
        return match error.kind() {
            io::ErrorKind::NotFound => format!("the program `{name}` does not exist: correct its path"),
            _ => format!("failed to start `{name}`: {error}"),
        };
    };
    if meta.is_dir() {
        return format!("`{name}` is a folder: name a program");
    }
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => match interpreter(program) {
            Some(interpreter) if interpreter.ends_with('\r') => {
                format!("`{name}` has Windows line endings: save it with Unix line endings")
            }
            Some(interpreter) => {
                format!(
                    "the first line of `{name}` names `{interpreter}`, which does not exist: correct the line or install it"
                )
            }
            None => format!("`{name}` was built for another system: its loader does not exist"),
        },
        Some(Errno::ACCESS) if meta.permissions().mode() & 0o111 == 0 => {
            format!("`{name}` is not executable: run `chmod +x` on it")
        }
        Some(Errno::NOEXEC) => format!(
            "`{name}` is neither a program for this machine nor a script that names its interpreter: begin a script \
             with a line such as `#!/bin/sh`"
        ),
        _ => format!("failed to start `{name}`: {error}"),
    }
}

/// What separates the words of a script's first line.
const BLANKS: [char; 2] = [' ', '\t'];

/// Returns the interpreter that a script names in its first line.
fn interpreter(program: &Path) -> Option<String> {
    let mut line = Vec::new();
    BufReader::new(File::open(program).ok()?.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    // A carriage return is part of the name, as the kernel reads it.
    let words = line.strip_prefix("#!")?.trim_end_matches('\n').trim_start_matches(BLANKS);
    words.split(BLANKS).next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_the_given_folders_and_a_path_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        for place in [&one, &two] {
            std::fs::create_dir(place).unwrap();
            std::fs::write(place.join("tool"), "#!/bin/sh\n").unwrap();
        }
        std::fs::set_permissions(two.join("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::join_paths([&one, &two]).unwrap();
        assert_eq!(find(OsStr::new("tool"), &path), Ok(two.join("tool")), "the other is not executable");
        assert_eq!(find(OsStr::new("./tool"), &path), Ok("./tool".into()));
        let refused = find(OsStr::new("other"), &path).unwrap_err();
        assert!(refused.contains("`other`") && refused.contains("/two`"), "{refused}");
    }

    /// The machine had no process or memory left for the program: its run failed.
    #[test]
    fn a_program_that_was_started_too_soon_is_put_off_and_one_that_is_not_there_fails() {
        let place = Path::new("/no/such/program");
        for ours in [Errno::AGAIN, Errno::NOMEM, Errno::NFILE] {
            let fault = not_started(place, &ours.into());
            assert!(matches!(fault, Fault::Shortage(_)), "{fault:?}");
        }
        let fault = not_started(place, &Errno::NOENT.into());
        assert!(matches!(&fault, Fault::Failure(reason) if reason.contains("does not exist")), "{fault:?}");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode| {
            let place = folder.path().join(name);
            std::fs::write(&place, text).unwrap();
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).unwrap();
            place
        };
        for (program, error, said) in [
            (folder.path().join("absent"), Errno::NOENT, "does not exist"),
            (folder.path().to_owned(), Errno::ACCESS, "is a folder"),
            (write("closed", "#!/bin/sh\n", 0o644), Errno::ACCESS, "chmod +x"),
            (write("plain", "echo hello\n", 0o755), Errno::NOEXEC, "#!/bin/sh"),
            (write("strange", "#!/no/such/python -u\n", 0o755), Errno::NOENT, "`/no/such/python`"),
            (write("windows", "#!/bin/sh\r\necho\r\n", 0o755), Errno::NOENT, "Windows line endings"),
            (write("foreign", "\u{7f}ELF\0", 0o755), Errno::NOENT, "another system"),
            (write("long", "#!/bin/sh\n", 0o755), Errno::TOOBIG, "rgument list too long"),
        ] {
            let text = refusal(&program, &error.into());
            assert!(text.contains(said) && text.contains(&*program.to_string_lossy()), "{text}");
        }
        assert_eq!(
            Errno::from_io_error(&refuse_plain_text(&folder.path().join("plain")).unwrap_err()),
            Some(Errno::NOEXEC)
        );
        assert!(refuse_plain_text(&folder.path().join("closed")).is_ok());
    }
}

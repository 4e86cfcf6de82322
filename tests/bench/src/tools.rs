//! Measures `tar` and `sha1sum` on this machine, doing the work of a handler's fetch and upload.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::files::Files;

/// How much is read from a pipe at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// How long the tools took.
pub(crate) struct Took {
    /// One after the other.
    pub(crate) in_turn: Duration,
    /// Both at once.
    pub(crate) at_once: Duration,
}

/// The measurements.
pub(crate) struct Measured {
    /// `tar x` of a tar from a pipe, and `sha1sum` of its files; at once: of the bytes of the tar.
    pub(crate) fetch: Took,
    /// `sha1sum` of the files, and `tar c` into a pipe that is read.
    pub(crate) upload: Took,
    /// The files' sums.
    pub(crate) sums: Vec<String>,
}

/// Measures in a temporary folder below `folder`. Blocks.
pub(crate) fn measure(files: &Files, folder: &Path) -> Result<Measured> {
    let folder = tempfile::Builder::new().prefix("waypost-bench-tools-").tempdir_in(folder)?;
    let place = |name: &str| -> Result<PathBuf> {
        let place = folder.path().join(name);
        fs::create_dir(&place)?;
        Ok(place)
    };
    let (one, other) = (place("one")?, place("other")?);
    rustix::fs::sync();
    let extracting = timed(|| extract(files, &one, None))?;
    let data = one.join("data");
    let mut sums = Vec::new();
    let summing = timed(|| {
        sums = sum_up(files, &data)?;
        Ok(())
    })?;
    rustix::fs::sync();
    let both = timed(|| extract(files, &other, Some(tool("sha1sum", &other))))?;
    fs::remove_dir_all(&other)?;
    let fetch = Took { in_turn: extracting + summing, at_once: both };

    rustix::fs::sync();
    let summing = timed(|| sum_up(files, &data).map(drop))?;
    let packing = timed(|| pack(&one))?;
    let both = timed(|| {
        thread::scope(|scope| {
            let summing = scope.spawn(|| sum_up(files, &data));
            pack(&one)?;
            summing.join().expect("it does not panic").map(drop)
        })
    })?;
    Ok(Measured { fetch, upload: Took { in_turn: summing + packing, at_once: both }, sums })
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

fn tool(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn start(command: &mut Command) -> Result<Child> {
    let program = command.get_program().to_owned();
    command.spawn().with_context(|| format!("failed to start {}", program.display()))
}

fn end(mut child: Child) -> Result<()> {
    let status = child.wait()?;
    ensure!(status.success(), "a tool failed: {status}");
    Ok(())
}

/// Extracts the tar into a folder, and gives the same bytes to another tool if there is one.
fn extract(files: &Files, folder: &Path, other: Option<Command>) -> Result<()> {
    let mut children = vec![start(tool("tar", folder).arg("x").stdin(Stdio::piped()))?];
    if let Some(mut other) = other {
        children.push(start(other.stdin(Stdio::piped()).stdout(Stdio::null()))?);
    }
    let mut pipes: Vec<_> = children.iter_mut().filter_map(|child| child.stdin.take()).collect();
    for piece in files.tar() {
        for pipe in &mut pipes {
            pipe.write_all(&piece)?;
        }
    }
    drop(pipes);
    children.into_iter().try_for_each(end)
}

/// Returns the SHA-1 sums of all files.
fn sum_up(files: &Files, folder: &Path) -> Result<Vec<String>> {
    let output = tool("sha1sum", folder).args(files.paths()).output().context("failed to start sha1sum")?;
    ensure!(output.status.success(), "sha1sum failed: {}", output.status);
    let lines = String::from_utf8(output.stdout)?;
    let sums: Vec<_> = lines.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
    ensure!(sums.len() == files.count(), "sha1sum said {} sums", sums.len());
    Ok(sums)
}

/// Packs a folder into a pipe: GNU tar does not even read the files when its output is /dev/null.
fn pack(folder: &Path) -> Result<()> {
    let mut child = start(tool("tar", folder).args(["c", "data"]))?;
    let (mut stdout, mut buffer) = (child.stdout.take().context("no stdout")?, vec![0; BUFFER_BYTES]);
    while stdout.read(&mut buffer)? > 0 {}
    end(child)
}

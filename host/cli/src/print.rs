//! The one place that writes to stdout (data) and stderr (notices).
//!
//! Texts from outside cannot control the terminal: control characters and the like are escaped here ([`foreign`]). The
//! callers, which build the lines, make sure that no such text looks like a line of ours.
//!
//! `println!` panics when stdout is closed; here that is an [`Error::Closed`], which ends the command quietly.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;
use waypost_runtime::foreign;

use crate::pretty;

/// Why writing to stdout failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The reader has closed the pipe.
    #[error("stdout is closed")]
    Closed,
    /// Anything else, such as a full disk.
    #[error("failed to write to stdout")]
    Write(#[source] io::Error),
}

/// Writes exactly one line to stdout, whatever the text contains.
pub(super) fn line(line: impl Display) -> Result<(), Error> {
    write(&format!("{}\n", foreign::line(&line.to_string())))
}

/// Writes lines to stdout in one piece and flushes, so that a reader sees them now.
pub(super) fn text(text: &str) -> Result<(), Error> {
    write(&foreign::lines(text))
}

/// Writes JSON to stdout unchanged, except that some characters in its strings become equivalent escapes.
pub(super) fn json_text(json: &str) -> Result<(), Error> {
    write(&format!("{}\n", foreign::json(json)))
}

/// Writes a value to stdout as JSON that people can read.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    write(&format!("{}\n", pretty::value(value)?))?;
    Ok(())
}

/// Writes output for programs to stdout, unchanged.
pub(super) fn raw(text: &str) -> Result<(), Error> {
    write(text)
}

fn write(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Error::Closed,
        _ => Error::Write(error),
    })
}

/// Writes a notice to stderr, which may be closed. Lines after the first are indented, so that none of them can pass
/// for the beginning of another notice.
pub(super) fn notice(notice: &str) {
    let mut lines = notice.lines();
    let mut shown = foreign::lines(lines.next().unwrap_or_default()).into_owned();
    for further in lines {
        let mark = if further.starts_with("  ") { "" } else { "  | " };
        shown.extend(["\n", mark, &*foreign::lines(further)]);
    }
    notices(&shown);
}

/// Writes our own lines to stderr; texts from outside in them are already on one line.
pub(super) fn notices(lines: &str) {
    drop(writeln!(io::stderr().lock(), "{}", foreign::lines(lines)));
}

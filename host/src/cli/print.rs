//! The one place that writes to stdout (data) and stderr (notices).
//!
//! Foreign text cannot steer the terminal: control characters and the like are escaped here ([`foreign`]). That no line
//! of it passes for one of ours is up to the callers, which build the lines.
//!
//! `println!` panics when the reader has gone; here that is an [`Error::Closed`], which ends the command quietly.

use std::fmt::Display;
use std::io::{self, Write};

use crate::foreign;
use serde::Serialize;

use crate::cli::pretty;

/// Why stdout takes nothing more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The reader has gone.
    #[error("stdout is closed")]
    Closed,
    /// Anything else, such as a full disk.
    #[error("failed to write to stdout")]
    Write(#[source] io::Error),
}

/// Writes one line to stdout, whatever is in it.
pub(super) fn line(line: impl Display) -> Result<(), Error> {
    write(&format!("{}\n", foreign::line(&line.to_string())))
}

/// Writes lines to stdout in one piece and flushes, so that a reader sees them now.
pub(super) fn text(text: &str) -> Result<(), Error> {
    write(&foreign::lines(text))
}

/// Writes JSON to stdout as it is, but for escapes in its strings that say the same.
pub(super) fn json_text(json: &str) -> Result<(), Error> {
    write(&format!("{}\n", foreign::json(json)))
}

/// Writes a value to stdout as JSON that people can read.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    write(&format!("{}\n", pretty::value(value)?))?;
    Ok(())
}

/// Writes to stdout what is meant for a program: as it is.
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

/// Writes a notice to stderr, where nobody may be listening. Of several lines, those behind the first are indented: a
/// line that is not begins a notice of ours.
pub(super) fn notice(notice: &str) {
    let mut lines = notice.lines();
    let mut shown = foreign::lines(lines.next().unwrap_or_default()).into_owned();
    for further in lines {
        let mark = if further.starts_with("  ") { "" } else { "  | " };
        shown.extend(["\n", mark, &*foreign::lines(further)]);
    }
    notices(&shown);
}

/// Writes lines of ours to stderr; what others have said in them is on one line.
pub(super) fn notices(lines: &str) {
    drop(writeln!(io::stderr().lock(), "{}", foreign::lines(lines)));
}

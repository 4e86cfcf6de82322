//! The one place that writes to stdout (data) and stderr (notices).
//!
//! `println!` panics when the reader has gone; here that is an [`Error::Closed`], which ends the command quietly.

use std::fmt::Display;
use std::io::{self, Write};

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

/// Writes one line to stdout.
pub(super) fn line(line: impl Display) -> Result<(), Error> {
    text(&format!("{line}\n"))
}

/// Writes a text to stdout in one piece and flushes, so that a reader sees it now.
pub(super) fn text(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Error::Closed,
        _ => Error::Write(error),
    })
}

/// Writes one line to stderr, where nobody may be listening. What others have said in it does not steer the terminal.
pub(super) fn notice(notice: &str) {
    drop(writeln!(io::stderr().lock(), "{}", pretty::printable(notice)));
}

//! Reads a command's input: a file, or stdin for `-`.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context;
use waypost_domain::json;

/// Reads the whole input, without a leading byte order mark.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if is_stdin(path) {
        io::stdin().lock().read_to_end(&mut bytes).context("failed to read stdin")?;
    } else {
        bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    }
    let mark = bytes.len() - json::without_mark(&bytes).len();
    bytes.drain(..mark);
    Ok(bytes)
}

/// Returns the input's name for messages.
pub(super) fn name(path: &Path) -> Cow<'_, str> {
    if is_stdin(path) { "stdin".into() } else { path.to_string_lossy() }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

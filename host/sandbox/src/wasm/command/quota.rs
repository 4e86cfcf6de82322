//! The quota of a program's outputs.
//!
//! Growth is counted before it happens, to the byte: the thread that asks is the one that writes. Truncation is
//! subtracted. Files that a program deletes or replaces are not tracked. If the count would exceed the quota, the
//! outputs are measured by a walk, and counting continues from that result. So the count is never less than what is on
//! disk.
//!
//! A file counts once for each of its names, as often as it will be uploaded, and with its whole length, holes
//! included. A file without a name counts while it is open, because it still takes disk space.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use rustix::io::Errno;
use walkdir::WalkDir;

use crate::limits::size;

/// The count, and its limits.
pub(super) struct Quota {
    outputs: Vec<PathBuf>,
    most: Usage,
    held: Usage,
    /// Whether the outputs may hold less than is counted.
    may_be_less: bool,
    /// Files that a program opened: it may delete them and keep them open.
    opened: Vec<Weak<File>>,
    refused: Option<String>,
}

/// What outputs hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bytes: u64,
    /// Files, folders and links.
    pub(super) entries: usize,
}

/// The outputs are full.
#[derive(Debug)]
pub(super) struct Full;

impl From<Full> for io::Error {
    fn from(_: Full) -> Self {
        // A system error number, because wasmtime looks for one.
        Errno::NOSPC.into()
    }
}

/// One more file, folder or link.
pub(super) const ENTRY: Usage = Usage { bytes: 0, entries: 1 };
/// How many files are opened before the closed ones among them are dropped from the list.
const OPENED_MAX: usize = 2 * super::HANDLES_MAX;

impl Quota {
    /// Begins with outputs that are empty.
    pub(super) fn new(outputs: Vec<PathBuf>, bytes_max: u64, entries_max: usize) -> Self {
        Self {
            outputs,
            most: Usage { bytes: bytes_max, entries: entries_max },
            held: Usage::default(),
            may_be_less: false,
            opened: Vec::new(),
            refused: None,
        }
    }

    /// Returns the limit that refused a growth last, with its value. The program may have handled the refusal.
    pub(super) fn refused(&self) -> Option<String> {
        self.refused.clone()
    }

    /// Counts usage before it happens.
    pub(super) fn charge(&mut self, more: Usage) -> Result<(), Full> {
        if let Err(limit) = self.room_for(more) {
            let measured = if self.may_be_less { self.measure().map_err(|_| limit) } else { Err(limit) };
            if let Err(limit) = measured.and_then(|()| self.room_for(more)) {
                self.refused = Some(limit.text(self.most));
                return Err(Full);
            }
        }
        self.held = self.held.plus(more);
        Ok(())
    }

    /// Counts a file's growth to at least `end` bytes.
    pub(super) fn grow(&mut self, file: &Metadata, end: u64) -> Result<Usage, Full> {
        let more = end.saturating_sub(file.len()).saturating_mul(names(file));
        let more = Usage { bytes: more, entries: 0 };
        self.charge(more)?;
        Ok(more)
    }

    /// Subtracts what was counted and did not happen, or what was certainly removed.
    pub(super) fn give_back(&mut self, less: Usage) {
        self.held.bytes = self.held.bytes.saturating_sub(less.bytes);
        self.held.entries = self.held.entries.saturating_sub(less.entries);
    }

    /// Subtracts what a truncated file has lost.
    pub(super) fn shrunk(&mut self, file: &Metadata, end: u64) {
        let bytes = file.len().saturating_sub(end).saturating_mul(names(file));
        self.give_back(Usage { bytes, entries: 0 });
    }

    /// Notes that something was deleted, or was not written completely.
    pub(super) fn may_be_less(&mut self) {
        self.may_be_less = true;
    }

    /// Remembers a file that was opened.
    pub(super) fn opened(&mut self, file: &Arc<File>) {
        if self.opened.len() >= OPENED_MAX {
            self.opened.retain(|file| file.strong_count() > 0);
        }
        self.opened.push(Arc::downgrade(file));
    }

    fn room_for(&self, more: Usage) -> Result<(), Limit> {
        let held = self.held.plus(more);
        if held.bytes > self.most.bytes && more.bytes > 0 {
            return Err(Limit::Bytes);
        }
        if held.entries > self.most.entries && more.entries > 0 {
            return Err(Limit::Entries);
        }
        Ok(())
    }

    /// Measures the outputs again. Where something cannot be read, such as folders nested deeper than a path may be
    /// long, the count stays unchanged.
    fn measure(&mut self) -> io::Result<()> {
        let (mut held, mut nameless) = (Usage::default(), false);
        for output in &self.outputs {
            let is_within = |other: &PathBuf| other != output && output.starts_with(other);
            if self.outputs.iter().any(is_within) {
                continue;
            }
            for entry in WalkDir::new(output).min_depth(1).follow_root_links(false) {
                let metadata = entry?.metadata()?;
                let bytes = if metadata.is_dir() { 0 } else { metadata.len() };
                held = held.plus(Usage { bytes, entries: 1 });
            }
        }
        self.opened.retain(|file| file.strong_count() > 0);
        for file in self.opened.iter().filter_map(Weak::upgrade) {
            let metadata = file.metadata()?;
            if metadata.nlink() == 0 {
                held = held.plus(Usage { bytes: metadata.len(), entries: 0 });
                nameless = true;
            }
        }
        // The space of files without a name is freed when they are closed, which is not reported to the quota.
        (self.held, self.may_be_less) = (held, nameless);
        Ok(())
    }
}

/// Returns how many files a file counts as.
fn names(file: &Metadata) -> u64 {
    file.nlink().max(1)
}

impl Usage {
    fn plus(self, more: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(more.bytes),
            entries: self.entries.saturating_add(more.entries),
        }
    }
}

/// Which limit refuses a growth.
#[derive(Clone, Copy)]
enum Limit {
    Bytes,
    Entries,
}

impl Limit {
    fn text(self, most: Usage) -> String {
        match self {
            Self::Bytes => {
                let bytes = usize::try_from(most.bytes).unwrap_or(usize::MAX);
                format!("output quota of {} (output_bytes_max)", size(bytes))
            }
            Self::Entries => {
                format!("output quota of {} files, folders and links (output_files_max)", most.entries)
            }
        }
    }
}

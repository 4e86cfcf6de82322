//! Whether the pages of the storage engine are whole: `waypost db check` asks, and the store itself after a panic in it.
//!
//! redb gives each page a checksum, and reads it only when it repairs a file: a bit that has flipped on the disk lets it
//! panic elsewhere, or miss rows. An examination reads all pages, and leaves the file as it is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend, StorageError};

use super::handle::builder;
use waypost_runtime::stage::panic_text;

/// How far a repair says it has come when it gives up the last commit: it has read all of it, the first of three times.
pub(super) const GIVES_UP_COMMIT: std::ops::Range<f64> = 0.1..0.5;

/// What an examination has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// All pages are as they were written.
    Whole,
    /// The last commit is not, and the one before it is: a power cut may have torn it before it was acknowledged.
    LastCommitTorn,
    /// A page is not, or the header.
    Damaged {
        /// What the storage engine says.
        reason: String,
    },
}

/// Reads all pages of a file that nobody writes to. `look` is shown the database first.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn examine<T>(
    file: impl StorageBackend,
    look: impl FnOnce(&Database) -> T,
) -> Result<(Option<T>, Condition), redb::Error> {
    let (torn, mut looked) = (Arc::new(AtomicBool::new(false)), None);
    let tears = Arc::clone(&torn);
    let mut builder = builder();
    builder.set_repair_callback(move |repair| {
        if GIVES_UP_COMMIT.contains(&repair.progress()) {
            tears.store(true, Ordering::Relaxed);
        }
    });
    let examined = catch_unwind(AssertUnwindSafe(|| {
        let mut database = builder.create_with_backend(file)?;
        let is_clean = database.check_integrity()?;
        if is_clean {
            looked = Some(look(&database));
        }
        Ok::<_, DatabaseError>(is_clean)
    }));
    let condition = match examined {
        Ok(Ok(true)) if torn.load(Ordering::Relaxed) => Condition::LastCommitTorn,
        Ok(Ok(true)) => Condition::Whole,
        Ok(Ok(false)) => {
            Condition::Damaged { reason: "the checksums of its last commit are wrong".to_owned() }
        }
        Ok(Err(error)) => {
            let error = redb::Error::from(error);
            let Some(reason) = reason_of(&error) else { return Err(error) };
            Condition::Damaged { reason }
        }
        Err(panic) => {
            Condition::Damaged { reason: format!("the storage engine panicked: {}", panic_text(&*panic)) }
        }
    };
    Ok((looked, condition))
}

/// Returns what an error says of the file, if that is damaged.
pub(super) fn reason_of(error: &redb::Error) -> Option<String> {
    match error {
        redb::Error::Corrupted(reason) => Some(reason.clone()),
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Some("it names a page behind its end".to_owned())
        }
        _ => None,
    }
}

/// Returns what is wrong with a file whose last commit was acknowledged, if anything is; nothing, too, if it cannot be read.
pub(super) fn damage_of(path: &Path) -> Option<String> {
    let file = File::open(path).ok().and_then(|file| Overlay::of(file).ok())?;
    damage(file)
}

/// See [`damage_of`].
pub(super) fn damage(file: impl StorageBackend) -> Option<String> {
    match examine(file, |_| ()) {
        Ok((_, Condition::Damaged { reason })) => Some(reason),
        Ok((_, Condition::LastCommitTorn)) => Some("the checksums of its last commit are wrong".to_owned()),
        Ok((_, Condition::Whole)) => None,
        Err(error) => {
            tracing::warn!(%error, "whether the database is damaged cannot be found out");
            None
        }
    }
}

/// A file that is only read: what is written to it stays in memory.
#[derive(Debug)]
pub(super) struct Overlay {
    file: FileBackend,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    bytes: u64,
    /// Each by where it begins.
    blocks: HashMap<u64, Box<[u8]>>,
}

/// The unit in which what is written is kept: a page of redb.
const BLOCK: usize = 4096;

impl Overlay {
    pub(super) fn of(file: File) -> Result<Self, DatabaseError> {
        let file = FileBackend::new(file)?;
        let bytes = file.len().map_err(StorageError::from)?;
        Ok(Self { file, written: Mutex::new(Written { bytes, blocks: HashMap::new() }) })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is in the file; what is beyond its end is zero.
    fn read_file(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = self.file.len()?.saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        out[there..].fill(0);
        if there == 0 { Ok(()) } else { self.file.read(offset, &mut out[..there]) }
    }
}

/// Returns the parts of a range in each block: where the block begins, and where they begin in it, in the range, and how long
/// they are.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = usize::try_from(at % BLOCK as u64).expect("a block fits into memory");
        let part = (BLOCK - within).min(len - done);
        let begun = done;
        done += part;
        (part > 0).then_some((at - within as u64, within, begun, part))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset + out.len() as u64 > written.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(offset, out)?;
        for (block, within, begun, part) in parts(offset, out.len()) {
            if let Some(bytes) = written.blocks.get(&block) {
                out[begun..begun + part].copy_from_slice(&bytes[within..within + part]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written().bytes = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        for (block, within, begun, part) in parts(offset, data.len()) {
            let bytes = match written.blocks.entry(block) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let mut bytes = vec![0; BLOCK].into_boxed_slice();
                    self.read_file(block, &mut bytes)?;
                    new.insert(bytes)
                }
            };
            bytes[within..within + part].copy_from_slice(&data[begun..begun + part]);
        }
        Ok(())
    }
}

//! How much of the disk the file takes, how much of that is needed, and giving back what is not.
//!
//! The engine reuses the pages of what was removed, and never gives them back: after a burst, a file stays as large as it ever
//! was. [`crate::Store::compact`] moves what is left to the beginning and cuts the rest off. Nothing else is read or written
//! meanwhile, which takes about six seconds for each gigabyte that is left (`cargo bench --bench deliveries -- steady`).

use std::path::Path;

use redb::{ReadableTable as _, ReadableTableMetadata as _};

use super::deliveries::{FRESH, WAITING};
use super::handle::Fault;
use super::pieces;
use super::read::Reader;
use super::schema::{LOG_BYTES_KEY, META, Tables};
use crate::DiskUse;

/// What a row takes besides a large record: its key, a small value, and its part of the pages above.
const ROW_BYTES: u64 = 64;

/// See [`crate::Store::disk`].
pub(super) fn disk(reader: &Reader, of_users: u64) -> Result<DiskUse, Fault> {
    reader.handle.read(|txn| {
        let records = txn.open_table(META)?.get(LOG_BYTES_KEY)?.map_or(0, |bytes| bytes.value());
        let mut rows = 0;
        for table in txn.list_tables()? {
            rows += txn.open_untyped_table(table)?.len()?;
        }
        let waiting = txn.open_table(FRESH)?.len()? + txn.open_table(WAITING)?.len()?;
        Ok(DiskUse { file: reader.handle.bytes(), live: records + of_users + rows * ROW_BYTES, waiting })
    })
}

/// Counts the records of a file whose Waypost did not.
pub(super) fn count(tables: &mut Tables<'_>) -> Result<(), Fault> {
    let mut bytes = 0;
    for row in tables.log.batches.iter()? {
        bytes += pieces::bytes(row?.1.value());
    }
    for row in tables.history.iter()? {
        bytes += pieces::bytes(row?.1.value());
    }
    tables.meta.insert(LOG_BYTES_KEY, bytes)?;
    Ok(())
}

/// Returns how many bytes of the disk a file takes; one that has holes is longer than that.
#[cfg(unix)]
pub(super) fn bytes_on_disk(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    path.metadata().map_or(0, |file| file.blocks() * 512)
}

/// Returns how many bytes of the disk a file takes.
#[cfg(not(unix))]
pub(super) fn bytes_on_disk(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.len())
}

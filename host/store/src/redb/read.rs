//! The reading side of the file: short read transactions, never held longer than one answer takes. What is read of a table
//! stands with it.

use std::sync::Arc;

use bytes::Bytes;
use redb::ReadTransaction;

use super::damage::{Marks, apart};
use super::group::Settings;
use super::handle::{Fault, Handle};
use super::log::{BATCH_PIECES, BATCHES};
use super::pieces;
use super::recent::Recent;
use super::record::{self, Batch};
use super::schema::{DEDUP_WINDOW_KEY, META, POSITION_KEY, USER_BYTES_KEY};
use super::tail::Tails;
use crate::Position;

/// The reading side of the file.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) handle: Arc<Handle>,
    pub(super) recent: Arc<Recent>,
    pub(super) tails: Arc<Tails>,
    pub(super) marks: Marks,
}

impl Reader {
    /// Reads a batch; one that is not there has no events.
    pub(super) fn batch(&self, txn: &ReadTransaction, key: u128) -> Result<Arc<Batch>, Fault> {
        if let Some(batch) = self.recent.get(key) {
            return Ok(batch);
        }
        let batches = txn.open_table(BATCHES)?;
        let Some(row) = batches.get(key)? else { return Ok(Arc::default()) };
        let record = apart(pieces::read(&txn.open_table(BATCH_PIECES)?, row.value()))?;
        self.marked(key, record.and_then(|record| record::decode_batch(&Bytes::from(record.into_owned()))))
    }

    /// Reads the events of a batch that `is_wanted` by place and id; the places of others may be empty. A batch that cannot be
    /// read has none, and is marked.
    pub(super) fn wanted(
        &self,
        txn: &ReadTransaction,
        key: u128,
        is_wanted: impl Fn(u32, u128) -> bool,
    ) -> Result<Arc<Batch>, Fault> {
        if let Some(batch) = self.recent.get(key) {
            return Ok(batch);
        }
        let Some(row) = txn.open_table(BATCHES)?.get(key)? else { return Ok(Arc::default()) };
        let record = apart(pieces::read(&txn.open_table(BATCH_PIECES)?, row.value()))?;
        let batch = record.and_then(|record| record::decode_wanted(&record, is_wanted));
        let batch = readable(self.marked(key, batch))?;
        Ok(batch.unwrap_or_default())
    }

    /// Marks what of a batch could not be read.
    fn marked(&self, key: u128, read: Result<Batch, record::Error>) -> Result<Arc<Batch>, Fault> {
        match read {
            Ok(batch) => {
                for index in &batch.damaged {
                    self.marks.mark("batches", (key, index), &record::Error::Checksum);
                }
                Ok(Arc::new(batch))
            }
            Err(reason) => {
                self.marks.mark("batches", key, &reason);
                Err(Fault::Damaged { table: "batches", reason })
            }
        }
    }

    /// Reads a batch; `None` for one that cannot be read, which is marked.
    pub(super) fn readable_batch(
        &self,
        txn: &ReadTransaction,
        key: u128,
    ) -> Result<Option<Arc<Batch>>, Fault> {
        readable(self.batch(txn, key))
    }

    /// Returns the position of the last group.
    pub(super) fn position(&self) -> Result<Position, Fault> {
        self.handle.read(position)
    }

    /// Returns the settings that the last writer had.
    pub(super) fn settings(&self) -> Result<Option<Settings>, Fault> {
        self.handle.read(|txn| {
            let meta = txn.open_table(META)?;
            let number = |key: &str| Ok::<_, Fault>(meta.get(key)?.map(|number| number.value()));
            let (dedup_window_ms, user_bytes_max) = (number(DEDUP_WINDOW_KEY)?, number(USER_BYTES_KEY)?);
            Ok(dedup_window_ms
                .zip(user_bytes_max)
                .map(|(dedup_window_ms, user_bytes_max)| Settings { dedup_window_ms, user_bytes_max }))
        })
    }
}

/// Returns the position of the last group that a transaction sees.
pub(super) fn position(txn: &ReadTransaction) -> Result<Position, Fault> {
    let position = txn.open_table(META)?.get(POSITION_KEY)?;
    Ok(Position(position.map_or(0, |position| position.value())))
}

/// Returns what was read; `None` where a record is damaged, which has been marked: the others can be shown.
pub(super) fn readable<T>(read: Result<T, Fault>) -> Result<Option<T>, Fault> {
    Ok(apart(read)?.ok())
}

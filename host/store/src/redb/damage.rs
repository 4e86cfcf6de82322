//! Records that cannot be read: they are marked and skipped, and deliveries that depend on one become dead letters
//! (`apply::bury`), so that everything else goes on.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use super::handle::Fault;
use super::record;

/// The most records that are remembered, so that each is logged once.
const MARKS_MAX: usize = 10_000;

/// The damaged records that were met since the start. A cheap handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(Arc<Mutex<BTreeSet<String>>>);

impl Marks {
    /// Returns the record; marks it if it cannot be read.
    pub(super) fn pass<T>(
        &self,
        table: &'static str,
        key: impl Debug,
        read: Result<T, record::Error>,
    ) -> Option<T> {
        read.map_err(|reason| self.mark(table, key, &reason)).ok()
    }

    /// Marks a damaged record, and logs it the first time.
    pub(super) fn mark(&self, table: &'static str, key: impl Debug, reason: &record::Error) {
        let name = format!("{table} {key:?}");
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() < MARKS_MAX && marks.insert(name) {
            tracing::error!(table, ?key, %reason, "a record is damaged: it is passed over");
        }
    }

    /// Returns how many there were.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Separates a record that cannot be read from a store that cannot be read.
pub(super) fn apart<T>(read: Result<T, Fault>) -> Result<Result<T, record::Error>, Fault> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Damaged { reason, .. }) => Ok(Err(reason)),
        Err(fault @ (Fault::Redb(_) | Fault::Closed(_))) => Err(fault),
    }
}

/// A row of a pending delivery that cannot be loaded: it, or the record that it refers to, is damaged or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeadRow {
    /// First attempts of events in this batch.
    Fresh { batch: u128 },
    /// A further attempt.
    Due { due: i64, event: u128 },
}

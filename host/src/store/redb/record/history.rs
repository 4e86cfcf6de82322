//! A row of history: entries of the deliveries of one batch.

use serde::{Deserialize, Serialize};

use super::{Error, body, read, versioned};
use crate::domain::Entry;

/// One entry of one delivery, in a row of its batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store::redb) struct HistoryRecord {
    /// The event's place in the batch.
    pub(in crate::store::redb) index: u32,
    /// The recipient.
    pub(in crate::store::redb) recipient: u128,
    /// What happened.
    pub(in crate::store::redb) entry: Entry,
}

/// Writes a row of history.
pub(in crate::store::redb) fn encode_history(records: &[HistoryRecord]) -> Vec<u8> {
    versioned(|buffer| postcard::to_extend(records, buffer))
}

/// Reads a row of history.
pub(in crate::store::redb) fn decode_history(record: &[u8]) -> Result<Vec<HistoryRecord>, Error> {
    read(body(record)?)
}

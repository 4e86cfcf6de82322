//! A row of history: entries of the deliveries of one batch.

use bytes::Bytes;

use super::entry::EntryRecord;
use super::form::{Form as _, List, record};
use super::{Error, body, read, versioned};
use waypost_domain::Entry;

/// One entry of one delivery, in a row of its batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HistoryRecord {
    /// The event's place in the batch.
    pub(crate) index: u32,
    /// The recipient.
    pub(crate) recipient: u128,
    /// What happened.
    pub(crate) entry: Entry,
}

record! {
    /// The form of a [`HistoryRecord`] on disk.
    struct LineRecord<'a> of HistoryRecord {
        index: u32,
        recipient: u128,
        entry: EntryRecord<'a>,
    }
}

type Lines<'a> = List<'a, HistoryRecord, LineRecord<'a>>;

/// Writes a row of history.
pub(crate) fn encode_history(records: &[HistoryRecord]) -> Vec<u8> {
    versioned(&Lines::Borrowed(records))
}

/// Reads a row of history.
pub(crate) fn decode_history(record: &[u8]) -> Result<Vec<HistoryRecord>, Error> {
    read::<Lines<'_>>(body(record)?)?.read(&Bytes::new())
}

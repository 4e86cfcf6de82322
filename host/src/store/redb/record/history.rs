//! A row of history: entries of the deliveries of one batch.

use serde::{Deserialize, Serialize, Serializer};

use super::entry::EntryRecord;
use super::{Error, body, read, versioned};
use crate::domain::Entry;

/// One entry of one delivery, in a row of its batch.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store::redb) struct HistoryRecord {
    /// The event's place in the batch.
    pub(in crate::store::redb) index: u32,
    /// The recipient.
    pub(in crate::store::redb) recipient: u128,
    /// What happened.
    pub(in crate::store::redb) entry: Entry,
}

/// The form of a [`HistoryRecord`] on disk.
#[derive(Serialize, Deserialize)]
struct LineRecord<'a> {
    index: u32,
    recipient: u128,
    #[serde(borrow)]
    entry: EntryRecord<'a>,
}

/// The lines of a row; each is made when it is written, so that a row is written without a list of them.
struct Lines<'a>(&'a [HistoryRecord]);

impl Serialize for Lines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(LineRecord::from))
    }
}

/// Writes a row of history.
pub(in crate::store::redb) fn encode_history(records: &[HistoryRecord]) -> Vec<u8> {
    versioned(|buffer| postcard::to_extend(&Lines(records), buffer))
}

/// Reads a row of history.
pub(in crate::store::redb) fn decode_history(record: &[u8]) -> Result<Vec<HistoryRecord>, Error> {
    let lines: Vec<LineRecord<'_>> = read(body(record)?)?;
    lines.into_iter().map(HistoryRecord::try_from).collect()
}

impl<'a> From<&'a HistoryRecord> for LineRecord<'a> {
    fn from(record: &'a HistoryRecord) -> Self {
        let HistoryRecord { index, recipient, entry } = record;
        Self { index: *index, recipient: *recipient, entry: entry.into() }
    }
}

impl TryFrom<LineRecord<'_>> for HistoryRecord {
    type Error = Error;

    fn try_from(line: LineRecord<'_>) -> Result<Self, Error> {
        let LineRecord { index, recipient, entry } = line;
        Ok(Self { index, recipient, entry: entry.try_into()? })
    }
}

//! What the rows of pending deliveries hold: which events of a batch wait for their first attempt, and, in files of the
//! first schema, how far a delivery that was attempted has come.

use serde::{Deserialize, Serialize};

use super::{Error, SUM_BYTES, SUMMED, body, read, timestamp, with_sum, without_sum};
use crate::Progress;

/// The value of a row that waits for its next attempt, in files of the first schema: its migration reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RetryRecord {
    /// The batch of the event.
    pub(crate) batch: u128,
    /// The event's place in the batch.
    pub(crate) index: u32,
    failed: u32,
    first_attempt: Option<i64>,
    allowed: bool,
    /// What version 2 adds.
    #[serde(skip)]
    plugin: PluginProgress,
    /// What records with a checksum add: since when it is held.
    #[serde(skip)]
    held: Option<i64>,
}

/// How far the plugin of a delivery has come: what follows in a record of version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PluginProgress {
    passed: bool,
    sent: u64,
}

const VERSION_2: u8 = 2;

impl RetryRecord {
    /// Returns how far the delivery has come.
    pub(crate) fn progress(&self) -> Result<Progress, Error> {
        let first_attempt = self.first_attempt.map(timestamp).transpose()?;
        let PluginProgress { passed, sent } = self.plugin;
        let held = self.held.map(timestamp).transpose()?;
        Ok(Progress { failed: self.failed, first_attempt, allowed: self.allowed, passed, sent, held })
    }

    /// Reads the record.
    pub(crate) fn decode(record: &[u8]) -> Result<Self, Error> {
        match record.split_first() {
            Some((&SUMMED, _)) => {
                let (this, plugin, held): (Self, _, _) = read(body(record)?)?;
                Ok(Self { plugin, held, ..this })
            }
            Some((&VERSION_2, body)) => {
                let (this, plugin): (Self, _) = read(body)?;
                Ok(Self { plugin, ..this })
            }
            _ => read(body(record)?),
        }
    }
}

/// Rows of this form are written by tests alone: they stand for those of older versions.
#[cfg(test)]
impl RetryRecord {
    /// Makes the record of a delivery that has come this far.
    pub(crate) fn new(batch: u128, index: u32, progress: Progress) -> Self {
        let first_attempt = progress.first_attempt.map(jiff::Timestamp::as_microsecond);
        let Progress { failed, allowed, passed, sent, held, first_attempt: _ } = progress;
        let held = held.map(jiff::Timestamp::as_microsecond);
        Self { batch, index, failed, first_attempt, allowed, plugin: PluginProgress { passed, sent }, held }
    }

    /// Writes the record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        super::versioned(&(self, self.plugin, self.held))
    }
}

/// Writes places in a batch, 4 bytes each, little-endian.
pub(crate) fn encode_places(places: &[u32]) -> Vec<u8> {
    let mut record = Vec::with_capacity(1 + 4 * places.len() + SUM_BYTES);
    record.push(SUMMED);
    record.extend(places.iter().flat_map(|place| place.to_le_bytes()));
    with_sum(record)
}

/// Reads places in a batch. Old rows are places alone: those with a checksum have a byte more than that.
pub(crate) fn decode_places(record: &[u8]) -> Result<Vec<u32>, Error> {
    let record = if record.len().is_multiple_of(4) { record } else { &without_sum(record)?[1..] };
    let (places, rest) = record.as_chunks();
    if !rest.is_empty() {
        return Err(Error::Value("a place is cut off"));
    }
    Ok(places.iter().map(|place| u32::from_le_bytes(*place)).collect())
}

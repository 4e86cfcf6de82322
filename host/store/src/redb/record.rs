//! The format of records on disk: one version byte, then postcard (subscriptions, recoveries and modules: JSON), and at
//! the end a checksum of both, which detects damaged bytes.
//!
//! A new format gets a new version byte. Old formats, which have no checksum, stay readable; `tests/records.rs` checks
//! that.
//!
//! Records have types of their own, apart from those of [`waypost_domain`]: the order and the names of their variants and
//! fields are the format, and a change of the domain must not change it. Most are defined by [`form::record`], which names
//! every variant and field, so that a new one does not compile until it has a place in its record: a variant at the end of
//! the list, a field of postcard in a new version, a member of JSON with a default.

mod access;
mod announcement;
mod batch;
mod ended;
mod entry;
mod event;
mod form;
mod group;
mod handler_run;
mod history;
mod job;
mod module;
mod pending;
mod plugin_run;
mod plugin_use;
mod recovery;
mod rendered;
mod sending;
mod subscription;
mod waiting;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use waypost_domain::plugin::{AllowHostError, DigestError};
use waypost_domain::{EventId, RecipientId, rate, retry};

pub(super) use access::{decode_audit, decode_token, encode_audit, encode_token};
pub(super) use announcement::{decode_announcement, encode_announcement};
pub(super) use batch::{Batch, decode_batch, decode_new_batch, decode_wanted, encode_batch};
pub(super) use ended::{Ended, FINAL, decode_ended, encode_ended, final_code};
pub(super) use group::{decode_group, encode_group};
pub(super) use history::{HistoryRecord, decode_history, encode_history};
pub(super) use job::{decode_job, encode_job};
pub(super) use module::{decode_module, encode_module};
pub(super) use pending::{RetryRecord, decode_places, encode_places};
pub(super) use recovery::{decode_recovery, encode_recovery};
pub(super) use rendered::{decode_rendered, decode_state, encode_rendered, encode_state};
pub(super) use subscription::{Owner, decode_owner, decode_subscription, encode_subscription};
pub(super) use waiting::{Origin, Waiting, Why};

/// The version of records without a checksum.
const VERSION: u8 = 1;
/// The version of records whose last bytes are a checksum of those before them.
pub(super) const SUMMED: u8 = 4;
/// How long a checksum is: CRC-32 (ISO-HDLC), little-endian.
const SUM_BYTES: usize = 4;

/// More bytes than most records have.
const USUAL_BYTES: usize = 128;

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("it has version {0}, which this waypost does not know")]
    Version(u8),
    #[error("it is empty")]
    Empty,
    #[error("{0}")]
    Postcard(#[from] postcard::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Value(&'static str),
    #[error("{0}")]
    Digest(#[from] DigestError),
    #[error("{0}")]
    Retry(#[from] retry::ParseError),
    #[error("{0}")]
    Rate(#[from] rate::ParseError),
    #[error("`{text}` {error}")]
    AllowHost { text: String, error: AllowHostError },
    #[error("its checksum does not fit")]
    Checksum,
    #[error("it is not UTF-8")]
    Text,
}

/// Writes a record as postcard.
pub(super) fn versioned(record: &impl Serialize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(USUAL_BYTES);
    buffer.push(SUMMED);
    append(record, &mut buffer);
    with_sum(buffer)
}

/// Appends the postcard of a value.
fn append(value: &impl Serialize, buffer: &mut Vec<u8>) {
    let written = postcard::serialize_with_flavor(value, Appended(buffer));
    written.expect("records have no maps of unknown length and no failing serializers");
}

/// Where postcard's bytes go, slices as a whole.
struct Appended<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appended<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Writes a record as JSON.
fn json(record: &impl Serialize) -> Vec<u8> {
    let mut buffer = vec![SUMMED];
    serde_json::to_writer(&mut buffer, record).expect("records have only string keys");
    with_sum(buffer)
}

/// Appends the checksum to a record.
pub(super) fn with_sum(mut record: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&record);
    record.extend_from_slice(&sum.to_le_bytes());
    record
}

/// Returns the part of a record that its checksum covers.
fn without_sum(record: &[u8]) -> Result<&[u8], Error> {
    let (record, sum) = record.split_last_chunk::<SUM_BYTES>().ok_or(Error::Checksum)?;
    if crc32fast::hash(record) == u32::from_le_bytes(*sum) { Ok(record) } else { Err(Error::Checksum) }
}

/// Reads the postcard of a record, all of it.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    let (value, rest) = postcard::take_from_bytes(body)?;
    // An older version byte in front of a checksum means that the version byte is damaged.
    if rest.is_empty() { Ok(value) } else { Err(Error::Value("there are bytes behind its end")) }
}

/// Returns what follows the version byte, up to the checksum if it has one.
pub(super) fn body(record: &[u8]) -> Result<&[u8], Error> {
    match record.split_first() {
        Some((&VERSION, body)) => Ok(body),
        Some((&SUMMED, _)) => Ok(&without_sum(record)?[1..]),
        Some((&version, _)) => Err(Error::Version(version)),
        None => Err(Error::Empty),
    }
}

/// Reads a key's or a record's microseconds since 1970.
pub(super) fn timestamp(micros: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(micros).map_err(|_| Error::Value("a time out of range"))
}

/// Reads a key's recipient.
pub(super) fn recipient_id(key: u128) -> RecipientId {
    RecipientId::from_uuid(uuid::Uuid::from_u128(key))
}

/// Reads a key's event.
pub(super) fn event_id(key: u128) -> EventId {
    EventId::from_uuid(uuid::Uuid::from_u128(key))
}

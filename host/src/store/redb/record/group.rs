//! The record of a group of writes: the form in which it travels through a journal, and is applied by others.
//!
//! Everything of a group survives. Its own times have nanoseconds, because what somebody asks for may be that exact;
//! times in the records of attempts, runs and rendered payloads have microseconds, as in the tables. Subscriptions,
//! recoveries and modules are their own records, as they stand in their tables: those are JSON, so that members with a
//! default can be added without a new version of the group.

mod arrival;
mod end;
mod op;
mod recover;
mod rendering;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use self::end::EndRecord;
use self::op::OpRecord;
use super::{Error, SEALED, read, seal, unseal};
use crate::domain::{EventId, RecipientId, SubscriptionId};
use crate::store::Arrival;
use crate::store::journal::Ticket;
use crate::store::redb::group::{End, Group, Op};

/// About how many bytes the record of an operation, or of an end, has besides its events.
const PART_BYTES: usize = 256;

#[derive(Serialize, Deserialize)]
struct GroupRecord<'a> {
    member: u128,
    number: u64,
    #[serde(borrow)]
    ops: List<'a, Op, OpRecord<'a>>,
    #[serde(borrow)]
    ends: List<'a, End, EndRecord<'a>>,
}

/// Writes a group: the version, the head and the operations as postcard, and the checksum.
pub(in crate::store::redb) fn encode_group(ticket: Ticket, group: &Group) -> Vec<u8> {
    let (Ticket { member, number }, Group { ops, ends }) = (ticket, group);
    let record = GroupRecord { member, number, ops: List::Borrowed(ops), ends: List::Borrowed(ends) };
    let size = ops.iter().map(size).sum::<usize>() + PART_BYTES * (1 + ends.len());
    let mut buffer = Vec::with_capacity(size);
    buffer.push(SEALED);
    let written = postcard::to_extend(&record, buffer);
    seal(written.expect("records have no maps of unknown length and no failing serializers"))
}

fn size(op: &Op) -> usize {
    let events = match op {
        Op::Accept { arrivals, .. } => {
            arrivals.iter().map(|arrival| PART_BYTES + Arrival::size(arrival)).sum()
        }
        Op::ModulePart { bytes, .. } => bytes.len(),
        _ => 0,
    };
    PART_BYTES + events
}

/// Reads a group; the bodies of its events, and the parts of modules, share the record's buffer.
pub(in crate::store::redb) fn decode_group(shared: &Bytes) -> Result<(Ticket, Group), Error> {
    // No group was ever written without a checksum.
    let body = match shared.split_first() {
        Some((&SEALED, _)) => &unseal(shared)?[1..],
        Some((&version, _)) => return Err(Error::Version(version)),
        None => return Err(Error::Empty),
    };
    let GroupRecord { member, number, ops, ends } = read(body)?;
    let ops = ops.read(|record| op::read_op(shared, record))?;
    let ends = ends.read(End::try_from)?;
    Ok((Ticket { member, number }, Group { ops, ends }))
}

/// A list in a record: of values, whose records are made one at a time while they are written, or of records that were
/// read. A group is written without a list of its parts.
enum List<'a, T, R> {
    Borrowed(&'a [T]),
    Owned(Vec<R>),
}

impl<'a, T, R: From<&'a T>> List<'a, T, R> {
    /// Reads the values of the list.
    fn read<V>(self, read: impl FnMut(R) -> Result<V, Error>) -> Result<Vec<V>, Error> {
        match self {
            Self::Borrowed(values) => values.iter().map(R::from).map(read).collect(),
            Self::Owned(records) => records.into_iter().map(read).collect(),
        }
    }
}

impl<'a, T, R: From<&'a T> + Serialize> Serialize for List<'a, T, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Borrowed(values) => serializer.collect_seq(values.iter().map(R::from)),
            Self::Owned(records) => serializer.collect_seq(records),
        }
    }
}

impl<'de, T, R: Deserialize<'de>> Deserialize<'de> for List<'_, T, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::Owned)
    }
}

/// A time, in nanoseconds since 1970.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
struct TimeRecord(i128);

impl From<Timestamp> for TimeRecord {
    fn from(time: Timestamp) -> Self {
        Self(time.as_nanosecond())
    }
}

impl TryFrom<TimeRecord> for Timestamp {
    type Error = Error;

    fn try_from(TimeRecord(nanos): TimeRecord) -> Result<Self, Error> {
        Self::from_nanosecond(nanos).map_err(|_| Error::Value("a time out of range"))
    }
}

/// An id.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
struct IdRecord(u128);

/// Defines the conversions between the record of an id and these types of ids.
macro_rules! ids {
    ($($id:ident),+) => {$(
        impl From<&$id> for IdRecord {
            fn from(id: &$id) -> Self {
                Self(id.uuid().as_u128())
            }
        }

        impl From<IdRecord> for $id {
            fn from(IdRecord(number): IdRecord) -> Self {
                Self::from_uuid(Uuid::from_u128(number))
            }
        }
    )+};
}

ids!(EventId, RecipientId, SubscriptionId);

/// Reads a list of ids.
fn read_ids<T: From<IdRecord>>(ids: List<'_, T, IdRecord>) -> Result<Vec<T>, Error>
where
    IdRecord: for<'t> From<&'t T>,
{
    ids.read(|id| Ok(id.into()))
}

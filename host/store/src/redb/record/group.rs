//! The record of a group of writes: the form in which it travels through a journal, and is applied by others.
//!
//! Everything of a group survives. Its own times have nanoseconds, because what somebody asks for may be that exact;
//! times in the records of attempts, runs and rendered payloads have microseconds, as in the tables. Subscriptions,
//! recoveries and modules are their own records, as they stand in their tables: those are JSON, so that members with a
//! default can be added without a new version of the group.

mod arrival;
mod end;
pub(super) mod job;
pub(super) mod op;
pub(super) mod recover;
mod rendering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::end::EndRecord;
use self::op::OpRecord;
use super::form::{Form as _, List};
use super::{Error, SUMMED, append, read, with_sum, without_sum};
use crate::journal::Ticket;
use crate::redb::group::{End, Group, Op};

/// About how many bytes the record of an end has.
const END_BYTES: usize = 256;

#[derive(Serialize, Deserialize)]
struct GroupRecord<'a> {
    member: u128,
    number: u64,
    #[serde(borrow)]
    ops: List<'a, Op, OpRecord<'a>>,
    ends: List<'a, End, EndRecord<'a>>,
}

/// Writes a group: the version, the head and the operations as postcard, and the checksum.
pub(crate) fn encode_group(ticket: Ticket, group: &Group) -> Vec<u8> {
    let (Ticket { member, number }, Group { ops, ends }) = (ticket, group);
    let record = GroupRecord { member, number, ops: List::Borrowed(ops), ends: List::Borrowed(ends) };
    let size = ops.iter().map(Op::size).sum::<usize>() + END_BYTES * (1 + ends.len());
    let mut buffer = Vec::with_capacity(size);
    buffer.push(SUMMED);
    append(&record, &mut buffer);
    with_sum(buffer)
}

/// Reads a group; the bodies of its events, and the parts of modules, share the record's buffer.
pub(crate) fn decode_group(shared: &Bytes) -> Result<(Ticket, Group), Error> {
    // No group was ever written without a checksum.
    let body = match shared.split_first() {
        Some((&SUMMED, _)) => &without_sum(shared)?[1..],
        Some((&version, _)) => return Err(Error::Version(version)),
        None => return Err(Error::Empty),
    };
    let GroupRecord { member, number, ops, ends } = read(body)?;
    let group = Group { ops: ops.read(shared)?, ends: ends.read(shared)? };
    Ok((Ticket { member, number }, group))
}

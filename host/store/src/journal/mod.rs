//! The order of all groups of writes, where more than one process writes: each appends its groups to one journal, and each
//! applies what stands there, in that order, to tables of its own ([`Store::join`](super::Store::join)).
//!
//! A group is bytes here: what is in it is the store's business.

mod memory;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use super::{Error, Position};

pub use memory::{MemoryJournal, Trouble};

/// Where groups of writes get their order and their durability.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Appends a group, and returns its position once it is durable. The same ticket should be kept once, however often it
    /// is sent; those who read pass over a repeat. After an error the group may be kept or not.
    async fn append(&self, ticket: Ticket, group: Bytes) -> Result<Position, Error>;

    /// Returns what stands behind a position, in order and without a hole, and waits for more. After an error, or its end,
    /// ask again from the last entry that came.
    fn read(&self, after: Position) -> BoxStream<'static, Result<Entry, Error>>;

    /// Returns the position of the last group that is kept now.
    async fn last(&self) -> Result<Position, Error>;

    /// Drops what stands at a position and before it.
    async fn trim(&self, until: Position) -> Result<(), Error>;

    /// Returns the most bytes of a group.
    fn group_bytes_max(&self) -> usize;
}

/// Which group it is: sent again after an error, it has the same ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    /// One life of a process: a random number.
    pub member: u128,
    /// Its groups, from 1.
    pub number: u64,
}

/// A group in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The place, one more than that of the entry before.
    pub position: Position,
    /// When the journal took it.
    pub at: Timestamp,
    /// The group.
    pub group: Bytes,
}

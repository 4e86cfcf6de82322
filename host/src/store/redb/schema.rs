//! The tables of the one file. Keys sort in the order in which the code walks them.
//!
//! The unit of the log is the **batch**: the events of one commit, in one value. One value costs redb about as much as
//! a whole batch, so batching makes a durable event cheap. An event is found by the last batch key that is not above
//! its id.

use redb::{ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use super::text::Text;

/// The version of this layout and of its records, under [`SCHEMA_KEY`] in [`META`]: an older Waypost refuses the file
/// instead of calling its records damaged. Since 2, records end with a checksum (`record`); files of version 1 have records
/// without one, which stay readable. Since 3, tables say where each delivery stands; `migrate` makes them of older files.
pub(super) const SCHEMA_VERSION: u64 = 3;
/// See [`SCHEMA_VERSION`].
pub(super) const SCHEMA_KEY: &str = "schema";
/// The number of groups of writes so far: each writes it, and has its position by it.
pub(super) const POSITION_KEY: &str = "position";
/// The latest time in an event's id so far, in milliseconds since 1970.
pub(super) const MILLIS_KEY: &str = "millis";

/// The position of the newest change that events are matched with: a new filter, an end of one.
pub(super) const MATCHING_KEY: &str = "matching";
/// See [`Settings`](super::group::Settings).
pub(super) const DEDUP_WINDOW_KEY: &str = "dedup_window_ms";
/// See [`Settings`](super::group::Settings).
pub(super) const USER_BYTES_KEY: &str = "user_bytes_max";

/// Facts about the file. Written when it is created or migrated, and by each group of writes.
pub(super) const META: TableDefinition<'_, Text, u64> = TableDefinition::new("meta");
/// First event id of a batch → the events of the batch. Written by accept; again only when one of them is purged.
pub(super) const BATCHES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("batches");
/// (Batch, sequence number) → history of the deliveries of its events: a log that nothing is decided by. Each commit
/// appends what it adds.
pub(super) const HISTORY: TableDefinition<'_, (u128, u64), &[u8]> = TableDefinition::new("history");
/// (Recipient, batch) → places in the batch, 4 bytes each, of events whose first attempt has not ended.
pub(super) const FRESH: TableDefinition<'_, (u128, u128), &[u8]> = TableDefinition::new("fresh");
/// (Recipient, event) → a delivery that waits for another attempt: when, why, and how far it has come (`waiting`).
pub(super) const WAITING: TableDefinition<'_, (u128, u128), &[u8]> = TableDefinition::new("waiting");
/// (Recipient, due in microseconds since 1970, event) → nothing. The order of [`WAITING`].
pub(super) const DUE: TableDefinition<'_, (u128, i64, u128), ()> = TableDefinition::new("due");
/// (Batch, recipient) → the deliveries of the batch that are over, each with its state (`deliveries`). In the order of time,
/// since a commit ends deliveries of many recipients and few batches. Removed with the events.
pub(super) const ENDED: TableDefinition<'_, (u128, u128), &[u8]> = TableDefinition::new("ended");
/// (Recipient, minute since 1970) → nothing. The minutes with batches of which [`ENDED`] has a row of the recipient.
pub(super) const ENDED_MINUTES: TableDefinition<'_, (u128, u64), ()> = TableDefinition::new("ended_minutes");
/// (Recipient, final state, batch, place in the batch) → event. The deliveries that are over without being delivered, by
/// state.
pub(super) const ENDED_BY_STATE: TableDefinition<'_, (u128, u8, u128, u32), u128> =
    TableDefinition::new("ended_by_state");
/// Recipient → how many deliveries it has in each state (`counts`). Written when changes are folded.
pub(super) const COUNTS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("counts");
/// Position of a group → by how much it changes [`COUNTS`], until that is folded.
pub(super) const COUNT_CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("count_changes");
/// (Batch, place in the batch, recipient) → nothing. Deliveries that a redelivery or a recovery added to an event that the
/// recipient did not match.
pub(super) const ADDED: TableDefinition<'_, (u128, u32, u128), ()> = TableDefinition::new("added");
/// Subscription → the subscription. Written when it is created or changed; a deleted one stays until nothing in the log
/// refers to it.
pub(super) const SUBSCRIPTIONS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("subscriptions");
/// Subscription → when its target was last reached, in microseconds since 1970; up to a second behind.
pub(super) const REACHED: TableDefinition<'_, u128, i64> = TableDefinition::new("reached");
/// Subscription → its running or last recovery. Written when one is requested, and with each page of the log that it
/// reads.
pub(super) const RECOVERIES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("recoveries");
/// (Subscription, event) → the rendered payload of the delivery. Written by freeze, removed with the end
/// of the delivery; kept for a dead letter, which may be sent again.
pub(super) const PREPARED: TableDefinition<'_, (u128, u128), &[u8]> = TableDefinition::new("prepared");
/// (Subscription, key) → a value of its plugin's state. Written by freeze, removed when the plugin is taken away.
pub(super) const STATE: TableDefinition<'_, (u128, Text), &[u8]> = TableDefinition::new("state");
/// (Number, place) → a piece of a record that is too large for its row (`pieces`). Written and removed with the row.
pub(super) const PIECES: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("pieces");
/// Subscription → its user, and how many bytes are kept for it (`usage`). Written by each commit that changes them.
pub(super) const USAGE: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("usage");
/// `source`, a NUL, and the producer's `id` → the event first logged with them. Only with a dedup window.
pub(super) const SEEN: TableDefinition<'_, Text, u128> = TableDefinition::new("seen");
/// Digest of a module → what is known of it; its bytes are a file of their own (`modules`). Written with each upload.
pub(super) const MODULES: TableDefinition<'_, Text, &[u8]> = TableDefinition::new("modules");
/// (Digest of a module, subscription) → nothing. The subscriptions that refer to a module and are not deleted.
pub(super) const REFERRING: TableDefinition<'_, (Text, u128), ()> = TableDefinition::new("referring");
/// A life of a process that appends to the journal → its newest group that was applied, and which of the 64 before it
/// were, a bit each. Only on a journal.
pub(super) const MEMBERS: TableDefinition<'_, u128, (u64, u64)> = TableDefinition::new("members");
/// Event → its key in [`SEEN`], so that the oldest are dropped first.
pub(super) const SEEN_ORDER: TableDefinition<'_, u128, Text> = TableDefinition::new("seen_order");

/// All tables of one write transaction.
pub(super) struct Tables<'txn> {
    pub(super) meta: Table<'txn, Text, u64>,
    pub(super) batches: Table<'txn, u128, &'static [u8]>,
    pub(super) history: Table<'txn, (u128, u64), &'static [u8]>,
    pub(super) fresh: Table<'txn, (u128, u128), &'static [u8]>,
    pub(super) waiting: Table<'txn, (u128, u128), &'static [u8]>,
    pub(super) due: Table<'txn, (u128, i64, u128), ()>,
    pub(super) ended: Table<'txn, (u128, u128), &'static [u8]>,
    pub(super) ended_minutes: Table<'txn, (u128, u64), ()>,
    pub(super) ended_by_state: Table<'txn, (u128, u8, u128, u32), u128>,
    pub(super) counts: Table<'txn, u128, &'static [u8]>,
    pub(super) count_changes: Table<'txn, u64, &'static [u8]>,
    pub(super) added: Table<'txn, (u128, u32, u128), ()>,
    pub(super) subscriptions: Table<'txn, u128, &'static [u8]>,
    pub(super) reached: Table<'txn, u128, i64>,
    pub(super) recoveries: Table<'txn, u128, &'static [u8]>,
    pub(super) modules: Table<'txn, Text, &'static [u8]>,
    pub(super) members: Table<'txn, u128, (u64, u64)>,
    pub(super) referring: Table<'txn, (Text, u128), ()>,
    pub(super) rendered: Table<'txn, (u128, u128), &'static [u8]>,
    pub(super) state: Table<'txn, (u128, Text), &'static [u8]>,
    pub(super) pieces: Table<'txn, (u64, u32), &'static [u8]>,
    pub(super) usage: Table<'txn, u128, &'static [u8]>,
    pub(super) seen: Table<'txn, Text, u128>,
    pub(super) seen_order: Table<'txn, u128, Text>,
}

impl<'txn> Tables<'txn> {
    /// Opens all tables, and creates those that are missing.
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, TableError> {
        Ok(Self {
            meta: txn.open_table(META)?,
            batches: txn.open_table(BATCHES)?,
            history: txn.open_table(HISTORY)?,
            fresh: txn.open_table(FRESH)?,
            waiting: txn.open_table(WAITING)?,
            due: txn.open_table(DUE)?,
            ended: txn.open_table(ENDED)?,
            ended_minutes: txn.open_table(ENDED_MINUTES)?,
            ended_by_state: txn.open_table(ENDED_BY_STATE)?,
            counts: txn.open_table(COUNTS)?,
            count_changes: txn.open_table(COUNT_CHANGES)?,
            added: txn.open_table(ADDED)?,
            subscriptions: txn.open_table(SUBSCRIPTIONS)?,
            reached: txn.open_table(REACHED)?,
            recoveries: txn.open_table(RECOVERIES)?,
            modules: txn.open_table(MODULES)?,
            members: txn.open_table(MEMBERS)?,
            referring: txn.open_table(REFERRING)?,
            rendered: txn.open_table(PREPARED)?,
            state: txn.open_table(STATE)?,
            pieces: txn.open_table(PIECES)?,
            usage: txn.open_table(USAGE)?,
            seen: txn.open_table(SEEN)?,
            seen_order: txn.open_table(SEEN_ORDER)?,
        })
    }
}

/// Returns the key of the batch that holds `event`, if any does.
pub(super) fn batch_of(
    batches: &impl ReadableTable<u128, &'static [u8]>,
    event: u128,
) -> Result<Option<u128>, redb::StorageError> {
    Ok(batches.range(..=event)?.next_back().transpose()?.map(|(key, _)| key.value()))
}

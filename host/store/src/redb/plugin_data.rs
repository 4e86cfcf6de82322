//! What plugins make and keep: rendered payloads of deliveries, and the state of each subscription's plugin.

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, StorageError};

use super::damage;
use super::handle::Fault;
use super::pieces::{self, PIECES, PiecesTable};
use super::read::Reader;
use super::record::{Error, decode_rendered, decode_state, encode_state};
use super::schema::tables;
use super::text::Text;
use super::usage;
use waypost_domain::plugin::{RenderedPayload, StateChange, StateMap};
use waypost_domain::{EventId, RecipientId, SubscriptionId};

tables! {
    /// The tables of what plugins make and keep.
    PluginTables {
        /// (Subscription, event) → the rendered payload of the delivery. Written by freeze, removed with the end of the
        /// delivery; kept for a dead letter, which may be sent again.
        PREPARED as rendered = "prepared": (u128, u128) => &'static [u8];
        /// (Subscription, key) → a value of its plugin's state. Written by freeze, removed when the plugin is taken away.
        STATE as state = "state": (u128, Text) => &'static [u8];
    }
}

/// How many bytes a row took before and takes after a change.
pub(super) struct RowSizes {
    pub(super) before: u64,
    pub(super) after: u64,
}

/// What plugins make and keep, as a group of writes changes it.
pub(super) struct PluginData<'a, 'txn> {
    tables: &'a mut PluginTables<'txn>,
}

impl<'a, 'txn> PluginData<'a, 'txn> {
    pub(super) fn new(tables: &'a mut PluginTables<'txn>) -> Self {
        Self { tables }
    }

    /// Returns the tables for counting.
    pub(super) fn tables(&self) -> &PluginTables<'txn> {
        self.tables
    }

    /// Tells whether no payload is rendered at all, so that those without a plugin pay for no search.
    pub(super) fn has_no_rendered(&self) -> Result<bool, StorageError> {
        self.tables.rendered.is_empty()
    }

    /// Returns the row of a rendered payload.
    pub(super) fn rendered_row(&self, key: (u128, u128)) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.tables.rendered.get(key)?.map(|row| row.value().to_vec()))
    }

    /// Writes the record of a rendered payload.
    pub(super) fn put_rendered(
        &mut self,
        pieces: &mut PiecesTable<'_>,
        key: (u128, u128),
        record: &[u8],
    ) -> Result<RowSizes, Fault> {
        let before = self.rendered_row(key)?;
        let row = pieces::write(pieces, record, pieces::INLINE_MAX, before.as_deref())?;
        self.tables.rendered.insert(key, &*row)?;
        Ok(RowSizes { before: before.map_or(0, |row| usage::of_row(&row)), after: usage::of_row(&row) })
    }

    /// Removes a rendered payload, which has this row.
    pub(super) fn remove_rendered(
        &mut self,
        pieces: &mut PiecesTable<'_>,
        key: (u128, u128),
        row: &[u8],
    ) -> Result<(), Fault> {
        self.tables.rendered.remove(key)?;
        pieces::remove(pieces, row)
    }

    /// Returns the keys of a subscription's rendered payloads, at most `limit`.
    pub(super) fn rendered_keys(
        &self,
        subscription: u128,
        limit: usize,
    ) -> Result<Vec<(u128, u128)>, StorageError> {
        let rows = self.tables.rendered.range((subscription, 0)..=(subscription, u128::MAX))?.take(limit);
        rows.map(|row| Ok(row?.0.value())).collect()
    }

    /// Returns by how many bytes these changes grow a state.
    pub(super) fn growth(&self, subscription: u128, changes: &[StateChange]) -> Result<u64, Fault> {
        let (mut before, mut after) = (0, 0);
        for StateChange { key, value } in changes {
            let known = self.tables.state.get((subscription, key.as_str()))?;
            before += known.map_or(0, |row| usage::of_state(key, row.value()));
            after += value.as_ref().map_or(0, |value| usage::of_state(key, &encode_state(value)));
        }
        Ok(after.saturating_sub(before))
    }

    /// Changes a state.
    pub(super) fn change_state(
        &mut self,
        pieces: &mut PiecesTable<'_>,
        subscription: u128,
        StateChange { key, value }: &StateChange,
    ) -> Result<RowSizes, Fault> {
        let place = (subscription, key.as_str());
        let row = self.tables.state.get(place)?.map(|row| row.value().to_vec());
        let before = row.as_deref().map_or(0, |row| usage::of_state(key, row));
        let Some(value) = value else {
            if let Some(row) = row {
                pieces::remove(pieces, &row)?;
                self.tables.state.remove(place)?;
            }
            return Ok(RowSizes { before, after: 0 });
        };
        let record = encode_state(value);
        let row = pieces::write(pieces, &record, pieces::INLINE_MAX, row.as_deref())?;
        self.tables.state.insert(place, &*row)?;
        Ok(RowSizes { before, after: usage::of_state(key, &row) })
    }

    /// Returns the changes that remove the state of a subscription's plugin.
    pub(super) fn removals(&self, subscription: u128) -> Result<Vec<StateChange>, StorageError> {
        let mut changes = Vec::new();
        for row in self.tables.state.range((subscription, "")..)? {
            let (key, _) = row?;
            let (of, key) = key.value();
            if of != subscription {
                break;
            }
            changes.push(StateChange { key: key.to_owned(), value: None });
        }
        Ok(changes)
    }
}

/// Reads the rendered payload of a row.
pub(super) fn read_rendered(
    pieces: &impl ReadableTable<(u64, u32), &'static [u8]>,
    row: &[u8],
) -> Result<RenderedPayload, Fault> {
    let record = Bytes::from(pieces::read(pieces, row)?.into_owned());
    decode_rendered(&record).map_err(Fault::damaged("prepared"))
}

/// See [`crate::Store::rendered`].
pub(super) fn rendered(
    reader: &Reader,
    event: EventId,
    subscription: RecipientId,
) -> Result<Option<RenderedPayload>, Fault> {
    reader.handle.read(|txn| {
        let row = (subscription.uuid().as_u128(), event.uuid().as_u128());
        let Some(row) = txn.open_table(PREPARED)?.get(row)? else { return Ok(None) };
        read_rendered(&txn.open_table(PIECES)?, row.value()).map(Some)
    })
}

/// See [`crate::Store::plugin_state`].
pub(super) fn state(reader: &Reader, subscription: SubscriptionId) -> Result<StateMap, Fault> {
    reader.handle.read(|txn| {
        let (subscription, mut state) = (subscription.uuid().as_u128(), StateMap::new());
        let pieces = txn.open_table(PIECES)?;
        for row in txn.open_table(STATE)?.range((subscription, "")..)? {
            let (key, value) = row?;
            let (of, key) = key.value();
            if of != subscription {
                break;
            }
            // A value or key that cannot be read is treated as absent.
            if key == Text::DAMAGED {
                reader.marks.mark("state", (subscription, key), &Error::Text);
                continue;
            }
            let read = pieces::read(&pieces, value.value());
            let read = read.and_then(|value| decode_state(&value).map_err(Fault::damaged("state")));
            let value = reader.marks.pass("state", (subscription, key), damage::apart(read)?);
            state.extend(value.map(|value| (key.to_owned(), value)));
        }
        Ok(state)
    })
}

/// Tells which deliveries of a subscription a plugin has rendered.
pub(super) struct RenderedRows {
    /// `None` if no payload is rendered at all, so that subscriptions without a plugin pay for no search.
    table: Option<ReadOnlyTable<(u128, u128), &'static [u8]>>,
    subscription: u128,
}

impl RenderedRows {
    pub(super) fn open(txn: &ReadTransaction, subscription: RecipientId) -> Result<Self, Fault> {
        let table = txn.open_table(PREPARED)?;
        let table = if table.is_empty()? { None } else { Some(table) };
        Ok(Self { table, subscription: subscription.uuid().as_u128() })
    }

    pub(super) fn has(&self, event: EventId) -> Result<bool, Fault> {
        let Some(table) = &self.table else { return Ok(false) };
        Ok(table.get((self.subscription, event.uuid().as_u128()))?.is_some())
    }
}

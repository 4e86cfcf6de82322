//! Rendered payloads and plugin state: their reads and writes.

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::apply::{Apply, key_of};
use super::damage;
use super::deliveries::DeliveryKey;
use super::handle::Fault;
use super::history::Ledger;
use super::pieces;
use super::read::Reader;
use super::record::{self, Error, HistoryRecord};
pub(super) use super::record::{
    decode_rendered as decode, decode_state, encode_rendered as encode, encode_state,
};
use super::schema::{PIECES, PREPARED, STATE};
use super::text::Text;
use super::usage::{self, Kind};
use crate::domain::plugin::{RenderedPayload, StateChange, StateMap};
use crate::domain::{Entry, EventId, RecipientId, SubscriptionId};
use crate::store::{self, Rendering};

impl Apply<'_, '_> {
    /// See [`crate::store::Store::freeze`]; returns a result for each: an error means that the user has no room.
    pub(super) fn freeze<'p>(
        &mut self,
        all: impl Iterator<Item = &'p Rendering>,
    ) -> Result<Vec<Result<bool, store::Error>>, Fault> {
        let (mut ledger, mut answers) = (Ledger::default(), Vec::new());
        for rendering in all {
            let Rendering { event, position, run, payload: rendered, state, .. } = rendering;
            let key = key_of(rendering.recipient, *event, *position);
            let DeliveryKey { recipient: subscription, event, batch, index } = key;
            if !self.is_pending(key, position.due)? {
                answers.push(Ok(false));
                continue;
            }
            let keeps_state = !state.is_empty() && !self.has_lost_its_plugin(subscription)?;
            let state = if keeps_state { state.as_slice() } else { &[] };
            let fixed = encode(rendered);
            let more = usage::of_row(&fixed) + self.growth(subscription, state)?;
            if let Err(full) = self.room_for(subscription, more)? {
                answers.push(Err(full));
                continue;
            }
            self.freeze_row((subscription, event), &fixed)?;
            self.change_state(subscription, state)?;
            let mut entry = [Entry::Plugin(run.clone())];
            self.fit(subscription, &mut entry)?;
            let [entry] = entry;
            self.count(subscription, Kind::Story, usage::of_entry(&entry))?;
            ledger.add(batch, HistoryRecord { index, recipient: subscription, entry });
            answers.push(Ok(true));
        }
        ledger.write(self.tables)?;
        Ok(answers)
    }

    fn freeze_row(&mut self, key: (u128, u128), record: &[u8]) -> Result<(), Fault> {
        self.account(key.0)?;
        let before = self.tables.rendered.get(key)?.map(|row| row.value().to_vec());
        let row = pieces::write(&mut self.tables.pieces, record, pieces::INLINE_MAX, before.as_deref())?;
        self.tables.rendered.insert(key, &*row)?;
        let before = before.map_or(0, |row| usage::of_row(&row));
        self.recount(key.0, Kind::Outputs, before, usage::of_row(&row))
    }

    /// Removes the rendered payload of a delivery, if there is one.
    pub(super) fn discard_rendered(&mut self, key: (u128, u128)) -> Result<(), Fault> {
        let Some(row) = self.tables.rendered.get(key)?.map(|row| row.value().to_vec()) else {
            return Ok(());
        };
        self.account(key.0)?;
        self.tables.rendered.remove(key)?;
        pieces::remove(&mut self.tables.pieces, &row)?;
        self.recount(key.0, Kind::Outputs, usage::of_row(&row), 0)
    }

    /// Returns by how many bytes these changes grow a state.
    fn growth(&self, subscription: u128, changes: &[StateChange]) -> Result<u64, Fault> {
        let (mut before, mut after) = (0, 0);
        for StateChange { key, value } in changes {
            let known = self.tables.state.get((subscription, key.as_str()))?;
            before += known.map_or(0, |row| usage::of_state(key, row.value()));
            after += value.as_ref().map_or(0, |value| usage::of_state(key, &encode_state(value)));
        }
        Ok(after.saturating_sub(before))
    }

    fn change_state(&mut self, subscription: u128, changes: &[StateChange]) -> Result<(), Fault> {
        if changes.is_empty() {
            return Ok(());
        }
        self.account(subscription)?;
        for StateChange { key, value } in changes {
            let place = (subscription, key.as_str());
            let before = self.tables.state.get(place)?.map(|row| row.value().to_vec());
            let counted = before.as_deref().map_or(0, |row| usage::of_state(key, row));
            let Some(value) = value else {
                if let Some(row) = before {
                    pieces::remove(&mut self.tables.pieces, &row)?;
                    self.tables.state.remove(place)?;
                    self.recount(subscription, Kind::State, counted, 0)?;
                }
                continue;
            };
            let record = encode_state(value);
            let row = pieces::write(&mut self.tables.pieces, &record, pieces::INLINE_MAX, before.as_deref())?;
            self.tables.state.insert(place, &*row)?;
            self.recount(subscription, Kind::State, counted, usage::of_state(key, &row))?;
        }
        Ok(())
    }

    /// Tells whether the plugin, and its state with it, was removed while it ran.
    fn has_lost_its_plugin(&self, subscription: u128) -> Result<bool, Fault> {
        let Some(row) = self.tables.subscriptions.get(subscription)? else { return Ok(false) };
        let known = record::decode_subscription(row.value()).map_err(Fault::damaged("subscriptions"))?;
        Ok(known.subscription.plugin.is_none())
    }

    /// Discards the rendered payload of a delivery if its subscription has another plugin now.
    pub(super) fn discard_rendered_by_other_plugin(
        &mut self,
        id: RecipientId,
        event: EventId,
    ) -> Result<(), Fault> {
        let row = (id.uuid().as_u128(), event.uuid().as_u128());
        let Some(found) = self.tables.rendered.get(row)?.map(|row| row.value().to_vec()) else {
            return Ok(());
        };
        let read = pieces::read(&self.tables.pieces, &found).map(|found| Bytes::from(found.into_owned()));
        let decoded = read.and_then(|found| decode(&found).map_err(Fault::damaged("prepared")));
        let Ok(rendered) = damage::apart(decoded)? else { return self.discard_rendered(row) };
        let now = match self.tables.subscriptions.get(row.0)? {
            Some(now) => record::decode_subscription(now.value()).map_err(Fault::damaged("subscriptions"))?,
            None => return Ok(()),
        };
        if rendered.is_by(now.subscription.plugin.as_deref()) { Ok(()) } else { self.discard_rendered(row) }
    }

    /// Removes what is rendered of a subscription's deliveries, at most `limit` rows; returns how many there were.
    pub(super) fn discard_all_rendered(&mut self, id: RecipientId, limit: usize) -> Result<usize, Fault> {
        let subscription = id.uuid().as_u128();
        let rows = self.tables.rendered.range((subscription, 0)..=(subscription, u128::MAX))?.take(limit);
        let keys = rows.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, redb::StorageError>>()?;
        for key in &keys {
            self.discard_rendered(*key)?;
        }
        Ok(keys.len())
    }

    /// Removes the state of a subscription's plugin.
    pub(super) fn forget_state(&mut self, id: SubscriptionId) -> Result<(), Fault> {
        let subscription = id.uuid().as_u128();
        let rows = self.tables.state.range((subscription, "")..)?;
        let mut keys = Vec::new();
        for row in rows {
            let (key, _) = row?;
            let (of, key) = key.value();
            if of != subscription {
                break;
            }
            keys.push(StateChange { key: key.to_owned(), value: None });
        }
        self.change_state(subscription, &keys)
    }
}

impl Reader {
    /// See [`crate::store::Store::rendered`].
    pub(super) fn rendered(
        &self,
        event: EventId,
        subscription: RecipientId,
    ) -> Result<Option<RenderedPayload>, Fault> {
        self.handle.read(|txn| {
            let row = (subscription.uuid().as_u128(), event.uuid().as_u128());
            let Some(row) = txn.open_table(PREPARED)?.get(row)? else { return Ok(None) };
            let record = Bytes::from(pieces::read(&txn.open_table(PIECES)?, row.value())?.into_owned());
            decode(&record).map(Some).map_err(Fault::damaged("prepared"))
        })
    }

    /// See [`crate::store::Store::plugin_state`].
    pub(super) fn plugin_state(&self, subscription: SubscriptionId) -> Result<StateMap, Fault> {
        self.handle.read(|txn| {
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
                    self.marks.mark("state", (subscription, key), &Error::Text);
                    continue;
                }
                let read = pieces::read(&pieces, value.value());
                let read = read.and_then(|value| decode_state(&value).map_err(Fault::damaged("state")));
                let value = self.marks.pass("state", (subscription, key), damage::apart(read)?);
                state.extend(value.map(|value| (key.to_owned(), value)));
            }
            Ok(state)
        })
    }
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

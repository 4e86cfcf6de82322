//! Rendered payloads and plugin state: their records, reads and writes.

use std::borrow::Cow;

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, key_of};
use super::damage;
use super::deliveries::DeliveryKey;
use super::handle::Fault;
use super::history::Ledger;
use super::pieces;
use super::read::Reader;
use super::record::{self, DigestRecord, Error, EventRecord, HistoryRecord, body, versioned};
use super::schema::{PIECES, PREPARED, STATE};
use super::text::Text;
use super::usage::{self, Kind};
use crate::domain::plugin::{Output, PluginResult, RenderedPayload, StateChange, StateMap, StateValue};
use crate::domain::{Entry, EventId, RecipientId, SubscriptionId};
use crate::store::{self, Rendering};

#[derive(Serialize, Deserialize)]
struct RenderedRecord<'a> {
    #[serde(borrow)]
    digest: DigestRecord<'a>,
    #[serde(borrow)]
    config: DigestRecord<'a>,
    #[serde(borrow)]
    result: ResultRecord<'a>,
}

#[derive(Serialize, Deserialize)]
enum ResultRecord<'a> {
    Event,
    #[serde(borrow)]
    Outputs(Vec<OutputRecord<'a>>),
    #[serde(borrow)]
    Denied(Cow<'a, str>),
    #[serde(borrow)]
    Skipped(Cow<'a, str>),
}

#[derive(Serialize, Deserialize)]
enum OutputRecord<'a> {
    #[serde(borrow)]
    Event(EventRecord<'a>),
    Raw {
        #[serde(borrow)]
        content_type: Cow<'a, str>,
        headers: Cow<'a, [(String, String)]>,
        #[serde(borrow, with = "serde_bytes")]
        body: &'a [u8],
    },
}

/// Writes a rendered payload.
pub(super) fn encode(rendered: &RenderedPayload) -> Vec<u8> {
    let result = match &rendered.result {
        PluginResult::Event => ResultRecord::Event,
        PluginResult::Outputs(outputs) => ResultRecord::Outputs(outputs.iter().map(output_record).collect()),
        PluginResult::Denied { reason } => ResultRecord::Denied(reason.into()),
        PluginResult::Skipped { reason } => ResultRecord::Skipped(reason.into()),
    };
    let record = RenderedRecord { digest: rendered.digest.into(), config: rendered.config.into(), result };
    versioned(|buffer| postcard::to_extend(&record, buffer))
}

fn output_record(output: &Output) -> OutputRecord<'_> {
    match output {
        Output::Event(event) => OutputRecord::Event(record::event_record(event)),
        Output::Raw { content_type, headers, body } => {
            OutputRecord::Raw { content_type: content_type.into(), headers: headers.into(), body }
        }
    }
}

/// Reads a rendered payload; the bodies share the record's buffer.
pub(super) fn decode(shared: &Bytes) -> Result<RenderedPayload, Error> {
    let record: RenderedRecord<'_> = record::read(body(shared)?)?;
    let result = match record.result {
        ResultRecord::Event => PluginResult::Event,
        ResultRecord::Outputs(outputs) => PluginResult::Outputs(
            outputs.into_iter().map(|record| output(shared, record)).collect::<Result<_, _>>()?,
        ),
        ResultRecord::Denied(reason) => PluginResult::Denied { reason: reason.into_owned() },
        ResultRecord::Skipped(reason) => PluginResult::Skipped { reason: reason.into_owned() },
    };
    Ok(RenderedPayload { digest: record.digest.try_into()?, config: record.config.try_into()?, result })
}

fn output(shared: &Bytes, record: OutputRecord<'_>) -> Result<Output, Error> {
    Ok(match record {
        OutputRecord::Event(event) => Output::Event(record::read_event(shared, event)?),
        OutputRecord::Raw { content_type, headers, body } => Output::Raw {
            content_type: content_type.into_owned(),
            headers: headers.into_owned(),
            body: shared.slice_ref(body),
        },
    })
}

#[derive(Serialize, Deserialize)]
struct StateRecord<'a> {
    expires: Option<i64>,
    #[serde(borrow, with = "serde_bytes")]
    bytes: &'a [u8],
}

/// Writes a value of a plugin's state.
pub(super) fn encode_state(value: &StateValue) -> Vec<u8> {
    let expires = value.expires.map(jiff::Timestamp::as_microsecond);
    versioned(|buffer| postcard::to_extend(&StateRecord { expires, bytes: &value.bytes }, buffer))
}

/// Reads a value of a plugin's state.
pub(super) fn decode_state(record: &[u8]) -> Result<StateValue, Error> {
    let record: StateRecord<'_> = record::read(body(record)?)?;
    let expires = record.expires.map(record::timestamp).transpose()?;
    Ok(StateValue { bytes: record.bytes.to_vec(), expires })
}

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

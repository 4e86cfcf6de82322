//! The accounts of what is kept for users, one for each subscription: written by the commit that changes what they count.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::ops::RangeInclusive;

use redb::{ReadableTable, ReadableTableMetadata, StorageError, Table, TableDefinition};

use super::damage::{self, Marks};
use super::handle::Fault;
use super::plugin_data::PluginTables;
use super::read::Reader;
use super::record::{self, body, versioned};
use super::registry::RegistryTables;
use super::schema::Tables;
use super::usage::{
    Account, Kind, Totals, Usage, account_of_sender, keep_little, of_entry, of_row, of_state,
};
use super::{history, log};
use crate::{CountLimits, Counted, Error};
use waypost_domain::Entry;

/// Subscription → its user, and how many bytes are kept for it. Written by each commit that changes them.
pub(super) const USAGE: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("usage");

/// The handle of a write transaction on [`USAGE`].
pub(super) type UsageTable<'txn> = Table<'txn, u128, &'static [u8]>;

/// The accounts, as a group of writes changes them.
pub(super) struct Accounts<'a, 'txn> {
    table: &'a mut UsageTable<'txn>,
    marks: &'a Marks,
    /// What is kept for users before this group.
    usage: &'a Usage,
    /// The accounts that were looked at, with their new values.
    open: HashMap<u128, Account>,
    /// By how much what is kept for a user has changed.
    pub(super) users: HashMap<String, Totals>,
}

impl<'a, 'txn> Accounts<'a, 'txn> {
    pub(super) fn new(table: &'a mut UsageTable<'txn>, marks: &'a Marks, usage: &'a Usage) -> Self {
        Self { table, marks, usage, open: HashMap::new(), users: HashMap::new() }
    }

    /// Opens a subscription's account; `count` makes one that cannot be read.
    pub(super) fn open(
        &mut self,
        subscription: u128,
        count: impl FnOnce() -> Result<Account, StorageError>,
    ) -> Result<OpenAccount<'_>, Fault> {
        let account = match self.open.entry(subscription) {
            Slot::Occupied(known) => known.into_mut(),
            Slot::Vacant(new) => {
                let row = self.table.get(subscription)?;
                let read = row.map(|row| decode(row.value())).transpose();
                new.insert(match self.marks.pass("usage", subscription, read) {
                    Some(known) => known.unwrap_or_default(),
                    None => count()?,
                })
            }
        };
        Ok(OpenAccount { account, users: &mut self.users, usage: self.usage })
    }

    /// Writes the accounts: the last step of a commit.
    pub(super) fn write(&mut self) -> Result<(), StorageError> {
        for (subscription, account) in &self.open {
            if account.totals().all() == 0 {
                self.table.remove(subscription)?;
            } else {
                self.table.insert(subscription, encode(account).as_slice())?;
            }
        }
        Ok(())
    }
}

/// An account that a group of writes looks at or changes.
pub(super) struct OpenAccount<'o> {
    account: &'o mut Account,
    users: &'o mut HashMap<String, Totals>,
    usage: &'o Usage,
}

impl OpenAccount<'_> {
    /// Counts the replacement of something.
    pub(super) fn recount(&mut self, kind: Kind, before: u64, after: u64) {
        let known = self.account.totals();
        let part = self.account.part(kind);
        *part = part.saturating_sub(before).saturating_add(after);
        *self.users.entry(self.account.user.clone()).or_default() += self.account.totals() - known;
    }

    /// Sets the user. Call this before anything is counted.
    pub(super) fn set_user(&mut self, user: &str) {
        if self.account.user != user {
            let before = std::mem::replace(&mut self.account.user, user.to_owned());
            let totals = self.account.totals();
            *self.users.entry(before).or_default() += Totals::default() - totals;
            *self.users.entry(user.to_owned()).or_default() += totals;
        }
    }

    /// Counts nothing any more: a remainder comes from damaged parts of the history, whose bytes were never subtracted.
    pub(super) fn close(&mut self) {
        for kind in [Kind::Subscription, Kind::Outputs, Kind::State, Kind::History] {
            let bytes = *self.account.part(kind);
            self.recount(kind, bytes, 0);
        }
    }

    /// Checks that there is room for `bytes` more of the user.
    pub(super) fn room_for(&self, bytes: u64) -> Result<(), Error> {
        let (kept, max) = (self.kept().all(), self.usage.max());
        let has_room = bytes == 0 || kept.saturating_add(bytes) <= max;
        let user = || self.account.user.clone();
        if has_room { Ok(()) } else { Err(Error::Quota { user: user(), kept, bytes, max }) }
    }

    /// Checks that the user may have one more of something.
    pub(super) fn room_for_another(&self, counted: Counted, limits: CountLimits) -> Result<(), Error> {
        let most = match counted {
            Counted::Subscriptions => limits.subscriptions,
            Counted::Recoveries => limits.recoveries,
        };
        if self.kept().number(counted) < u64::from(most) {
            return Ok(());
        }
        Err(Error::TooMany { user: self.account.user.clone(), counted, most })
    }

    /// Counts more or less of something. Set the user before.
    pub(super) fn count(&mut self, counted: Counted, change: i64) {
        if change != 0 {
            *self.users.entry(self.account.user.clone()).or_default() += Totals::change_of(counted, change);
        }
    }

    /// Shortens entries of the history, which count `bytes`, if there is no room for all of them.
    pub(super) fn fit(&self, entries: &mut [Entry], bytes: u64) {
        let has_room = self.kept().history().saturating_add(bytes) <= self.usage.max() / 2;
        if !has_room || self.room_for(bytes).is_err() {
            entries.iter_mut().for_each(keep_little);
        }
    }

    /// Returns what is kept for the user as this commit has it.
    fn kept(&self) -> Totals {
        let mut totals = self.usage.totals(&self.account.user);
        totals += self.users.get(&self.account.user).copied().unwrap_or_default();
        totals
    }
}

fn encode(account: &Account) -> Vec<u8> {
    versioned(account)
}

fn decode(row: &[u8]) -> Result<Account, record::Error> {
    record::read(body(row)?)
}

/// Returns all accounts. They are derived from the rest of the file: if one is damaged, everything is counted again.
pub(super) fn accounts(reader: &Reader) -> Result<Vec<Account>, Fault> {
    match read_accounts(reader) {
        Err(Fault::Damaged { reason, .. }) => {
            tracing::error!(%reason, "the count of what is kept for users is damaged: it is made again");
            reader.handle.write(|txn| {
                let mut tables = Tables::open(txn)?;
                tables.usage.retain(|_, _| false)?;
                count_all(&mut tables)
            })?;
            read_accounts(reader)
        }
        read => read,
    }
}

fn read_accounts(reader: &Reader) -> Result<Vec<Account>, Fault> {
    reader.handle.read(|txn| {
        let table = txn.open_table(USAGE)?;
        let rows = table.iter()?.map(|row| decode(row?.1.value()).map_err(Fault::damaged("usage")));
        rows.collect()
    })
}

/// Counts a file that has no accounts yet. Records that cannot be read count nothing.
pub(super) fn count_older(tables: &mut Tables<'_>) -> Result<(), Fault> {
    // A log in which no plugin ever ran has little to count, and may be long.
    let PluginTables { rendered, state } = &tables.plugin_data;
    if rendered.is_empty()? && state.is_empty()? && tables.modules.modules.is_empty()? {
        let accounts = of_rows(&tables.registry, &tables.plugin_data, 0..=u128::MAX)?;
        return Ok(save(tables, accounts)?);
    }
    count_all(tables)
}

/// Counts everything.
pub(super) fn count_all(tables: &mut Tables<'_>) -> Result<(), Fault> {
    let mut accounts = of_rows(&tables.registry, &tables.plugin_data, 0..=u128::MAX)?;
    for row in tables.history.iter()? {
        let (key, row) = row?;
        let records = damage::apart(history::read(&tables.pieces, row.value()))?;
        for record in records.unwrap_or_default() {
            let bytes = of_entry(&record.entry);
            if bytes == 0 {
                continue;
            }
            if !matches!(record.entry, Entry::Run(_)) {
                *accounts.entry(record.recipient).or_default().part(Kind::History) += bytes;
                continue;
            }
            let batch = log::read_batch(&tables.log, key.value().0)?.unwrap_or_default();
            if let Some(logged) = batch.event_at(record.index) {
                let account = accounts.entry(account_of_sender(&logged.sender)).or_default();
                account.add_of_sender(&logged.sender, bytes);
            }
        }
    }
    Ok(save(tables, accounts)?)
}

/// Counts a subscription, and what its plugin has rendered and keeps. Not its history: that would take reading all of it.
pub(super) fn of_subscription(
    registry: &RegistryTables<'_>,
    plugin_data: &PluginTables<'_>,
    subscription: u128,
) -> Result<Account, StorageError> {
    let mut counted = of_rows(registry, plugin_data, subscription..=subscription)?;
    Ok(counted.remove(&subscription).unwrap_or_default())
}

/// Counts these subscriptions, and what their plugins have rendered and keep.
fn of_rows(
    registry: &RegistryTables<'_>,
    plugin_data: &PluginTables<'_>,
    subscriptions: RangeInclusive<u128>,
) -> Result<HashMap<u128, Account>, StorageError> {
    let mut accounts: HashMap<u128, Account> = HashMap::new();
    let (first, last) = (*subscriptions.start(), *subscriptions.end());
    for row in registry.subscriptions.range(subscriptions)? {
        let (key, row) = row?;
        accounts.entry(key.value()).or_default().add_subscription(row.value());
    }
    for row in plugin_data.rendered.range((first, 0)..=(last, u128::MAX))? {
        let (key, row) = row?;
        *accounts.entry(key.value().0).or_default().part(Kind::Outputs) += of_row(row.value());
    }
    for row in plugin_data.state.range((first, "")..)? {
        let (key, row) = row?;
        let (subscription, key) = key.value();
        if subscription > last {
            break;
        }
        *accounts.entry(subscription).or_default().part(Kind::State) += of_state(key, row.value());
    }
    Ok(accounts)
}

fn save(tables: &mut Tables<'_>, accounts: HashMap<u128, Account>) -> Result<(), StorageError> {
    for (subscription, account) in accounts {
        tables.usage.insert(subscription, encode(&account).as_slice())?;
    }
    Ok(())
}

//! The bytes that are kept for each user, counted in the commit that changes them.
//!
//! Only data that a user can make large counts: subscriptions, rendered payloads and state of their plugins, and what
//! the story keeps of plugins and failing targets beyond a small allowance. Deliveries without a plugin to working
//! targets need no accounting. The limit is [`Options::user_bytes_max`](super::Options). The story may use half of it;
//! beyond that its entries are shortened, so that long logs never hold a delivery.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use redb::{ReadableTable, ReadableTableMetadata};
use serde::{Deserialize, Serialize};

use super::apply::Apply;
use super::handle::Fault;
use super::history;
use super::pieces;
use super::record::{self, body, versioned};
use super::schema::{Tables, USAGE};
use crate::domain::delivery::ANSWER_BYTES_LITTLE;
use crate::domain::plugin::{LogLevel, LogLine};
use crate::domain::{Answer, Entry};
use crate::store::{Error, UserUsage};

/// What a row takes besides its record, roughly: its key, and its part of the pages above.
const ROW_BYTES: u64 = 64;

/// How many bytes of a plugin's run are always kept and do not count.
const LITTLE: usize = 512;
/// The story's text where an entry was shortened for that reason.
const CUT: &str = "waypost keeps no more than the end of this: the setting user_bytes_max";

/// What is kept for one subscription, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    user: String,
    subscription: u64,
    outputs: u64,
    state: u64,
    story: u64,
}

/// The kinds of data that count.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The subscription itself.
    Subscription,
    /// The rendered payloads of its deliveries.
    Outputs,
    /// The state of its plugin.
    State,
    /// What the story keeps of its plugin's runs and its target's failures.
    Story,
}

impl Account {
    fn part(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Subscription => &mut self.subscription,
            Kind::Outputs => &mut self.outputs,
            Kind::State => &mut self.state,
            Kind::Story => &mut self.story,
        }
    }

    fn totals(&self) -> Totals {
        let all = self.subscription + self.outputs + self.state + self.story;
        Totals { all: signed(all), story: signed(self.story) }
    }
}

/// Returns what a row with this content takes.
pub(super) fn of_row(row: &[u8]) -> u64 {
    ROW_BYTES + pieces::bytes(row)
}

/// Returns what a value of a plugin's state takes.
pub(super) fn of_state(key: &str, row: &[u8]) -> u64 {
    of_row(row) + key.len() as u64
}

/// Returns what an entry of the story counts: a plugin's run, and a failed target's answer beyond the allowance.
pub(super) fn of_entry(entry: &Entry) -> u64 {
    match entry {
        Entry::Plugin(run) if run.size() > LITTLE => ROW_BYTES + run.size() as u64,
        Entry::Attempt(attempt) => {
            let body = attempt.target.as_ref().map_or(0, |answer| answer.body.len());
            if body > ANSWER_BYTES_LITTLE { body as u64 } else { 0 }
        }
        Entry::Plugin(_)
        | Entry::Run(_)
        | Entry::Redelivery { .. }
        | Entry::Dropped { .. }
        | Entry::FilterFailed { .. }
        | Entry::Held { .. }
        | Entry::Recovered { .. } => 0,
    }
}

/// Shortens an entry of a user without room to the end of what a plugin logged and the beginning of an answer.
fn keep_little(entry: &mut Entry) {
    match entry {
        Entry::Plugin(run) if run.size() > LITTLE => {
            let cut = LogLine { level: LogLevel::Warn, message: CUT.to_owned(), fields: Vec::new() };
            run.keep_end(LITTLE - cut.size());
            run.logs.insert(0, cut);
        }
        Entry::Attempt(attempt) => attempt.target.iter_mut().for_each(Answer::keep_little),
        Entry::Plugin(_)
        | Entry::Run(_)
        | Entry::Redelivery { .. }
        | Entry::Dropped { .. }
        | Entry::FilterFailed { .. }
        | Entry::Held { .. }
        | Entry::Recovered { .. } => {}
    }
}

/// What is kept for each user, shared with readers.
#[derive(Debug)]
pub(super) struct Usage {
    max: AtomicU64,
    users: Mutex<HashMap<String, Totals>>,
}

/// What is kept for one user, or a change of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    all: i64,
    story: i64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.all = self.all.saturating_add(other.all);
        self.story = self.story.saturating_add(other.story);
    }
}

impl Usage {
    pub(super) fn new(accounts: impl IntoIterator<Item = Account>, max: u64) -> Self {
        let mut users: HashMap<String, Totals> = HashMap::new();
        for account in accounts {
            let totals = account.totals();
            *users.entry(account.user).or_default() += totals;
        }
        Self { max: AtomicU64::new(max), users: Mutex::new(users) }
    }

    /// Takes over the content of another one.
    pub(super) fn replace(&self, other: &Self) {
        let users = std::mem::take(&mut *other.users.lock().unwrap_or_else(PoisonError::into_inner));
        *self.users.lock().unwrap_or_else(PoisonError::into_inner) = users;
        self.limit(other.max());
    }

    /// Returns what is kept for a user, and the most that may be.
    pub(super) fn of(&self, user: &str) -> UserUsage {
        UserUsage { bytes: u64::try_from(self.totals(user).all).unwrap_or_default(), max: self.max() }
    }

    /// Returns the most that may be kept for a user.
    pub(super) fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Sets it.
    pub(super) fn limit(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    fn totals(&self, user: &str) -> Totals {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.get(user).copied().unwrap_or_default()
    }

    /// Publishes the changes of a commit.
    pub(super) fn publish(&self, changes: HashMap<String, Totals>) {
        if changes.is_empty() {
            return;
        }
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        for (user, change) in changes {
            let mut totals = users.get(&user).copied().unwrap_or_default();
            totals += change;
            if totals.all <= 0 {
                users.remove(&user);
            } else {
                users.insert(user, totals);
            }
        }
    }
}

/// What one commit changes.
#[derive(Default)]
pub(super) struct Changes {
    /// The changed accounts, with their new values.
    accounts: HashMap<u128, Account>,
    /// By how much what is kept for a user has changed.
    pub(super) users: HashMap<String, Totals>,
}

impl Apply<'_, '_> {
    /// Counts bytes that are added.
    pub(super) fn count(&mut self, subscription: u128, kind: Kind, bytes: u64) -> Result<(), Fault> {
        self.recount(subscription, kind, 0, bytes)
    }

    /// Counts the replacement of something.
    pub(super) fn recount(
        &mut self,
        subscription: u128,
        kind: Kind,
        before: u64,
        after: u64,
    ) -> Result<(), Fault> {
        if before == after {
            return Ok(());
        }
        let account = self.account(subscription)?;
        let known = account.totals();
        let part = account.part(kind);
        *part = part.saturating_sub(before).saturating_add(after);
        let (totals, user) = (account.totals(), account.user.clone());
        let change = Totals { all: totals.all - known.all, story: totals.story - known.story };
        *self.effects.usage.users.entry(user).or_default() += change;
        Ok(())
    }

    /// Sets the user of a subscription. Call this before anything is counted for it.
    pub(super) fn open_account(&mut self, subscription: u128, user: &str) -> Result<(), Fault> {
        let account = self.account(subscription)?;
        if account.user != user {
            let before = std::mem::replace(&mut account.user, user.to_owned());
            let Totals { all, story } = account.totals();
            let users = &mut self.effects.usage.users;
            *users.entry(before).or_default() += Totals { all: -all, story: -story };
            *users.entry(user.to_owned()).or_default() += Totals { all, story };
        }
        Ok(())
    }

    /// Resets the account of a subscription that is removed: a remainder comes from damaged parts of the story, whose
    /// bytes were never subtracted.
    pub(super) fn close_account(&mut self, subscription: u128) -> Result<(), Fault> {
        for kind in [Kind::Subscription, Kind::Outputs, Kind::State, Kind::Story] {
            let bytes = *self.account(subscription)?.part(kind);
            self.recount(subscription, kind, bytes, 0)?;
        }
        Ok(())
    }

    /// Checks that there is room for `bytes` more of a subscription's user.
    pub(super) fn room_for(&mut self, subscription: u128, bytes: u64) -> Result<Result<(), Error>, Fault> {
        let user = self.account(subscription)?.user.clone();
        let (kept, max) = (u64::try_from(self.kept(&user).all).unwrap_or_default(), self.usage.max());
        let has_room = bytes == 0 || kept.saturating_add(bytes) <= max;
        Ok(if has_room { Ok(()) } else { Err(Error::Quota { user, kept, bytes, max }) })
    }

    /// Shortens entries of the story if there is no room for all of them.
    pub(super) fn fit(&mut self, subscription: u128, entries: &mut [Entry]) -> Result<(), Fault> {
        let bytes: u64 = entries.iter().map(of_entry).sum();
        if bytes == 0 {
            return Ok(());
        }
        let user = self.account(subscription)?.user.clone();
        let story = u64::try_from(self.kept(&user).story).unwrap_or_default();
        if story.saturating_add(bytes) > self.usage.max() / 2 || self.room_for(subscription, bytes)?.is_err()
        {
            entries.iter_mut().for_each(keep_little);
        }
        Ok(())
    }

    /// Returns what is kept for a user as this commit has it.
    fn kept(&self, user: &str) -> Totals {
        let mut totals = self.usage.totals(user);
        totals += self.effects.usage.users.get(user).copied().unwrap_or_default();
        totals
    }

    /// Returns a subscription's account. Call this before rows that count are changed: if the account cannot be read,
    /// they are counted at this point. The story is not, since that would take reading all of it.
    pub(super) fn account(&mut self, subscription: u128) -> Result<&mut Account, Fault> {
        use std::collections::hash_map::Entry;
        Ok(match self.effects.usage.accounts.entry(subscription) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let row = self.tables.usage.get(subscription)?;
                let read = row.map(|row| decode(row.value())).transpose();
                new.insert(match self.marks.pass("usage", subscription, read) {
                    Some(known) => known.unwrap_or_default(),
                    None => of_subscription(self.tables, subscription)?,
                })
            }
        })
    }

    /// Writes the accounts that have changed: the last step of a commit.
    pub(super) fn write_accounts(&mut self) -> Result<(), Fault> {
        for (subscription, account) in &self.effects.usage.accounts {
            if account.totals().all == 0 {
                self.tables.usage.remove(subscription)?;
            } else {
                self.tables.usage.insert(subscription, encode(account).as_slice())?;
            }
        }
        Ok(())
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn encode(account: &Account) -> Vec<u8> {
    versioned(|buffer| postcard::to_extend(account, buffer))
}

fn decode(row: &[u8]) -> Result<Account, record::Error> {
    record::read(body(row)?)
}

impl super::read::Reader {
    /// Returns all accounts. They are derived from the rest of the file: if one is damaged, everything is counted
    /// again.
    pub(super) fn accounts(&self) -> Result<Vec<Account>, Fault> {
        match self.read_accounts() {
            Err(Fault::Damaged { reason, .. }) => {
                tracing::error!(%reason, "the count of what is kept for users is damaged: it is made again");
                self.handle.write(|txn| {
                    let mut tables = Tables::open(txn)?;
                    tables.usage.retain(|_, _| false)?;
                    count_all(&mut tables)?;
                    Ok(())
                })?;
                self.read_accounts()
            }
            read => read,
        }
    }

    fn read_accounts(&self) -> Result<Vec<Account>, Fault> {
        self.handle.read(|txn| {
            let table = txn.open_table(USAGE)?;
            let rows = table.iter()?.map(|row| decode(row?.1.value()).map_err(Fault::damaged("usage")));
            rows.collect()
        })
    }
}

/// Counts a file that has no accounts yet. Records that cannot be read count nothing.
pub(super) fn count_older(tables: &mut Tables<'_>) -> Result<(), redb::StorageError> {
    // A log in which no plugin ever ran has little to count, and may be long.
    if tables.rendered.is_empty()? && tables.state.is_empty()? && tables.modules.is_empty()? {
        let accounts = of_rows(tables)?;
        return save(tables, accounts);
    }
    count_all(tables)
}

/// Counts everything.
pub(super) fn count_all(tables: &mut Tables<'_>) -> Result<(), redb::StorageError> {
    let mut accounts = of_rows(tables)?;
    for row in tables.history.iter()? {
        let (_, row) = row?;
        for record in history::read(&tables.pieces, row.value()).unwrap_or_default() {
            let bytes = of_entry(&record.entry);
            if bytes > 0 {
                accounts.entry(record.recipient).or_default().story += bytes;
            }
        }
    }
    save(tables, accounts)
}

/// Counts subscriptions, and what plugins have rendered and keep.
fn of_rows(tables: &Tables<'_>) -> Result<HashMap<u128, Account>, redb::StorageError> {
    let mut accounts: HashMap<u128, Account> = HashMap::new();
    for row in tables.subscriptions.iter()? {
        let (key, row) = row?;
        let account = accounts.entry(key.value()).or_default();
        account.subscription += of_row(row.value());
        if let Ok(known) = record::decode_subscription(row.value()) {
            account.user.clone_from(&known.subscription.user);
        }
    }
    for row in tables.rendered.iter()? {
        let (key, row) = row?;
        accounts.entry(key.value().0).or_default().outputs += of_row(row.value());
    }
    for row in tables.state.iter()? {
        let (key, row) = row?;
        let (subscription, key) = key.value();
        accounts.entry(subscription).or_default().state += of_state(key, row.value());
    }
    Ok(accounts)
}

/// Counts a subscription, and what its plugin has rendered and keeps.
fn of_subscription(tables: &Tables<'_>, subscription: u128) -> Result<Account, redb::StorageError> {
    let mut account = Account::default();
    if let Some(row) = tables.subscriptions.get(subscription)? {
        account.subscription = of_row(row.value());
        if let Ok(known) = record::decode_subscription(row.value()) {
            account.user.clone_from(&known.subscription.user);
        }
    }
    for row in tables.rendered.range((subscription, 0)..=(subscription, u128::MAX))? {
        account.outputs += of_row(row?.1.value());
    }
    for row in tables.state.range((subscription, "")..)? {
        let (key, row) = row?;
        let (of, key) = key.value();
        if of != subscription {
            break;
        }
        account.state += of_state(key, row.value());
    }
    Ok(account)
}

fn save(tables: &mut Tables<'_>, accounts: HashMap<u128, Account>) -> Result<(), redb::StorageError> {
    for (subscription, account) in accounts {
        tables.usage.insert(subscription, encode(&account).as_slice())?;
    }
    Ok(())
}

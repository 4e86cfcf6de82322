//! The bytes that are kept for each user, and how many subscriptions and recoveries: counted in the commit that changes them (`accounts`).
//!
//! Only data that a user can make large counts: subscriptions, rendered payloads and state of their plugins, and what
//! the history keeps of plugins and failing targets beyond a small allowance; and of handlers' runs, for the sender of the event. Deliveries without a plugin to working
//! targets need no accounting. The limit is [`Options::user_bytes_max`](super::Options). The history may use half of it;
//! beyond that its entries are shortened, so that long logs never hold a delivery.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::pieces;
use super::record;
use crate::{Counted, UserUsage};
use waypost_domain::delivery::ANSWER_BYTES_LITTLE;
use waypost_domain::plugin::{LogLevel, LogLine};
use waypost_domain::{Answer, Entry};

/// What a row takes besides its record, roughly: its key, and its part of the pages above.
const ROW_BYTES: u64 = 64;

/// How many bytes of a plugin's run are always kept and do not count.
const LITTLE: usize = 512;
/// The history's text where an entry was shortened for that reason.
const CUT: &str = "waypost keeps no more than the end of this: the setting user_bytes_max";

/// The namespace of the accounts of senders (UUID v5): no subscription has such an id.
const SENDERS: Uuid = Uuid::from_u128(0x5c0f_91a2_7e44_4b6c_9d1e_0a6b_38f2_c771);

/// Returns the key of the account that counts what the runs of a sender's events leave.
pub(super) fn account_of_sender(sender: &str) -> u128 {
    Uuid::new_v5(&SENDERS, sender.as_bytes()).as_u128()
}

/// What is kept for one subscription, in bytes; or for a sender, of whose account only the history is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) user: String,
    subscription: u64,
    outputs: u64,
    state: u64,
    history: u64,
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
    /// What the history keeps of its plugin's runs and its target's failures.
    History,
}

impl Account {
    /// Returns the bytes of a kind.
    pub(super) fn part(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Subscription => &mut self.subscription,
            Kind::Outputs => &mut self.outputs,
            Kind::State => &mut self.state,
            Kind::History => &mut self.history,
        }
    }

    /// Returns the bytes of all kinds.
    pub(super) fn totals(&self) -> Totals {
        let all = self.subscription + self.outputs + self.state + self.history;
        Totals { all: signed(all), history: signed(self.history), ..Totals::default() }
    }

    /// Adds what a run of a sender's event has left.
    pub(super) fn add_of_sender(&mut self, sender: &str, bytes: u64) {
        self.history += bytes;
        sender.clone_into(&mut self.user);
    }

    /// Adds the row of the subscription.
    pub(super) fn add_subscription(&mut self, row: &[u8]) {
        self.subscription += of_row(row);
        if let Ok(known) = record::decode_subscription(row) {
            self.user.clone_from(&known.subscription.user);
        }
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

/// Returns what an entry of the history counts: a plugin's or handler's run, and a failed target's answer beyond the allowance.
pub(super) fn of_entry(entry: &Entry) -> u64 {
    match entry {
        Entry::Plugin(run) if run.size() > LITTLE => ROW_BYTES + run.size() as u64,
        Entry::Run(run) if run.size() > LITTLE => ROW_BYTES + run.size() as u64,
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

/// Shortens an entry of a user without room to the end of what a plugin logged or a program wrote, and the beginning of an
/// answer.
pub(super) fn keep_little(entry: &mut Entry) {
    if let Entry::Attempt(attempt) = entry {
        attempt.target.iter_mut().for_each(Answer::keep_little);
    } else if let Entry::Run(run) = entry {
        run.keep_end(LITTLE / 2);
    } else if let Entry::Plugin(run) = entry
        && run.size() > LITTLE
    {
        let cut = LogLine { level: LogLevel::Warn, message: CUT.to_owned(), fields: Vec::new() };
        run.keep_end(LITTLE - cut.size());
        run.logs.insert(0, cut);
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
    history: i64,
    /// Subscriptions that are not deleted. Accounts do not have this: it is counted when a file is opened.
    subscriptions: i64,
    /// Recoveries that run, likewise.
    recoveries: i64,
}

impl Totals {
    /// Returns all bytes.
    pub(super) fn all(self) -> u64 {
        u64::try_from(self.all).unwrap_or_default()
    }

    /// Returns a change of a number.
    pub(super) fn change_of(counted: Counted, change: i64) -> Self {
        match counted {
            Counted::Subscriptions => Self { subscriptions: change, ..Self::default() },
            Counted::Recoveries => Self { recoveries: change, ..Self::default() },
        }
    }

    /// Returns how many there are.
    pub(super) fn number(self, counted: Counted) -> u64 {
        let number = match counted {
            Counted::Subscriptions => self.subscriptions,
            Counted::Recoveries => self.recoveries,
        };
        u64::try_from(number).unwrap_or_default()
    }

    /// Returns the bytes of the history.
    pub(super) fn history(self) -> u64 {
        u64::try_from(self.history).unwrap_or_default()
    }
}

impl std::ops::Sub for Totals {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            all: self.all - other.all,
            history: self.history - other.history,
            subscriptions: self.subscriptions - other.subscriptions,
            recoveries: self.recoveries - other.recoveries,
        }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.all = self.all.saturating_add(other.all);
        self.history = self.history.saturating_add(other.history);
        self.subscriptions = self.subscriptions.saturating_add(other.subscriptions);
        self.recoveries = self.recoveries.saturating_add(other.recoveries);
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

    /// Adds what the accounts do not have: how many subscriptions and recoveries users have.
    pub(super) fn with_numbers(self, numbers: HashMap<String, Totals>) -> Self {
        self.publish(numbers);
        self
    }

    /// Takes over the content of another one.
    pub(super) fn replace(&self, other: &Self) {
        let users = std::mem::take(&mut *other.users.lock().unwrap_or_else(PoisonError::into_inner));
        *self.users.lock().unwrap_or_else(PoisonError::into_inner) = users;
        self.limit(other.max());
    }

    /// Returns what is kept for a user, and the most that may be.
    pub(super) fn of(&self, user: &str) -> UserUsage {
        UserUsage { bytes: self.totals(user).all(), max: self.max() }
    }

    /// Returns what is kept for all users, but for the history.
    pub(super) fn without_history(&self) -> u64 {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.values().map(|totals| totals.all().saturating_sub(totals.history())).sum()
    }

    /// Returns the most that may be kept for a user.
    pub(super) fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Sets it.
    pub(super) fn limit(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Returns what is kept for a user.
    pub(super) fn totals(&self, user: &str) -> Totals {
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
            if totals.all <= 0 && totals.subscriptions <= 0 && totals.recoveries <= 0 {
                users.remove(&user);
            } else {
                users.insert(user, totals);
            }
        }
    }
}

pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

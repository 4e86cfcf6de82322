//! One group of writes, applied to the tables inside a transaction: it does nothing but change them. What it does follows
//! from the tables, the group and its time alone.
//!
//! Each table is changed by its aggregate alone ([`Log`], [`History`], [`Deliveries`], [`Registry`], [`Modules`],
//! [`PluginData`], [`Accounts`], [`Access`]); an operation is a function over all of them, in a file of its own.

mod accept;
mod announce;
mod bury;
mod cancel;
mod expire;
mod freeze;
mod job;
mod purge;
mod recover;
mod redeliver;
mod settle;
mod subscriptions;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use redb::ReadableTable as _;

use self::accept::Accept;
use super::access::Access;
use super::accounts::{self, Accounts, OpenAccount};
use super::announcements::Announcements;
use super::deliveries::{Deliveries, DeliveryKey};
use super::group::{Answer, Audited, Group, Op, Settings, Value};
use super::handle::Fault;
use super::history::History;
use super::ids::Ids;
use super::log::{Log, SLACK};
use super::machine::Machine;
use super::modules::Modules;
use super::pieces::PiecesTable;
use super::plugin_data::PluginData;
use super::record::Batch;
use super::registry::Registry;
use super::schema::{
    DEDUP_WINDOW_KEY, LEAD_KEY, LOG_BYTES_KEY, MATCHING_KEY, MILLIS_KEY, MetaTable, POSITION_KEY, Tables,
    USER_BYTES_KEY,
};
use super::tail::NewRow;
use super::usage::{Kind, Totals, account_of_sender, of_entry, of_row};
use crate::tokens::TokenChange;
use crate::{CountLimits, Position, Rendering, StoredSubscription, Wake};
use waypost_domain::{Entry, RecipientId, SubscriptionId};

pub(super) use bury::bury_stranded;
pub(super) use expire::WAITING as WAITING_STATES;
pub(super) use subscriptions::referred;

/// The changes to publish to the rest of the store after the commit.
pub(super) struct Effects {
    pub(super) position: Position,
    /// New batches.
    pub(super) batches: Vec<(u128, Batch)>,
    /// Batches that have changed on disk.
    pub(super) changed: Vec<u128>,
    /// New rows of first attempts, batch by batch.
    pub(super) new_rows: Vec<NewRow>,
    /// Recipients that have lost pending first attempts otherwise than by the ends of attempts.
    pub(super) pruned: HashSet<RecipientId>,
    /// Recipients with new work.
    pub(super) woken: HashMap<RecipientId, Wake>,
    /// When targets were reached, for those times that were written.
    pub(super) reached: HashMap<SubscriptionId, Timestamp>,
    /// Subscriptions that were removed.
    pub(super) forgotten: Vec<SubscriptionId>,
    /// Subscriptions that were created or replaced, in order.
    pub(super) put: Vec<StoredSubscription>,
    pub(super) settings: Option<Settings>,
    /// By how much what is kept for users has changed.
    pub(super) usage: HashMap<String, Totals>,
    /// What has changed about tokens.
    pub(super) tokens: Vec<TokenChange>,
    /// Recipients and minutes that were written among those with ended deliveries.
    pub(super) ended_minutes: HashSet<(u128, u64)>,
    /// Whether there is something to announce.
    pub(super) has_announced: bool,
}

/// One group's work.
pub(super) struct Apply<'a, 'txn> {
    meta: &'a mut MetaTable<'txn>,
    log: Log<'a, 'txn>,
    history: History<'a, 'txn>,
    pieces: &'a mut PiecesTable<'txn>,
    deliveries: Deliveries<'a, 'txn>,
    registry: Registry<'a, 'txn>,
    modules: Modules<'a, 'txn>,
    plugin_data: PluginData<'a, 'txn>,
    accounts: Accounts<'a, 'txn>,
    access: Access<'a, 'txn>,
    announcements: Announcements<'a, 'txn>,
    ids: Ids,
    /// This group.
    position: Position,
    /// The newest change that events are matched with, as it was before this group.
    matching: Position,
    dedup_window: Duration,
    now: Timestamp,
    new_rows: Vec<NewRow>,
    woken: HashMap<RecipientId, Wake>,
    /// Of batches with dead letters: which of their events are there and from producers.
    from_producers: HashMap<u128, Vec<bool>>,
    settings: Option<Settings>,
}

impl<'a, 'txn> Apply<'a, 'txn> {
    /// Begins a group's work, at the position after the last one.
    pub(super) fn begin(
        machine: &'a Machine,
        tables: &'a mut Tables<'txn>,
        now: Timestamp,
    ) -> Result<Self, Fault> {
        let Tables {
            meta,
            log,
            history,
            pieces,
            deliveries,
            registry,
            modules,
            plugin_data,
            usage,
            access,
            announcements,
        } = tables;
        let number = |key: &str| Ok::<_, Fault>(meta.get(key)?.map_or(0, |number| number.value()));
        let (position, millis) = (number(POSITION_KEY)? + 1, number(MILLIS_KEY)?);
        let matching = Position(number(MATCHING_KEY)?);
        meta.insert(POSITION_KEY, position)?;
        let marks = &machine.marks;
        Ok(Self {
            meta,
            log: Log::new(log, marks),
            history: History::new(history, marks),
            pieces,
            deliveries: Deliveries::new(deliveries, marks, &machine.ended_minutes),
            registry: Registry::new(registry, marks, &machine.reached),
            modules: Modules::new(modules, marks),
            plugin_data: PluginData::new(plugin_data),
            accounts: Accounts::new(usage, marks, &machine.usage),
            access: Access::new(access, marks),
            announcements: Announcements::new(announcements),
            ids: Ids::of_group(position, now, millis),
            position: Position(position),
            matching,
            dedup_window: Duration::from_millis(machine.settings.dedup_window_ms),
            now,
            new_rows: Vec::new(),
            woken: HashMap::new(),
            from_producers: HashMap::new(),
            settings: None,
        })
    }

    /// Applies a group, and returns a value for each of its operations. Accepts and freezes come first, each all together.
    pub(super) fn group(&mut self, Group { ops, ends }: &Group) -> Result<Vec<Answer>, Fault> {
        let mut accepted = accept::accept(self, accepts(ops))?.into_iter();
        let mut rendered = freeze::freeze(self, renderings(ops))?.into_iter();
        let mut answers = Vec::with_capacity(ops.len());
        for op in ops {
            answers.push(match op {
                Op::Accept { .. } | Op::AcceptOnce { .. } | Op::Announce { .. } => {
                    Ok(Value::Accepted(accepted.next().expect("one list for each accept")))
                }
                Op::Freeze(_) => rendered.next().expect("one answer for each").map(Value::Flag),
                other => self.operation(other)?,
            });
        }
        settle::settle(self, ends)?;
        Ok(answers)
    }

    fn operation(&mut self, op: &Op) -> Result<Answer, Fault> {
        Ok(Ok(match op {
            Op::Accept { .. } | Op::AcceptOnce { .. } | Op::Announce { .. } | Op::Freeze(_) => {
                unreachable!("they are applied together")
            }
            Op::PutSubscription(put) => return Ok(subscriptions::put(self, put)?.map(Value::Put)),
            Op::BeginRecovery(recovery) => {
                return Ok(recover::begin(self, recovery, CountLimits::default())?.map(Value::Flag));
            }
            Op::BeginRecoveryWithin { recovery, limits } => {
                return Ok(recover::begin(self, recovery, *limits)?.map(Value::Flag));
            }
            Op::BeginJob { job, limits } => return Ok(job::begin(self, job, *limits)?.map(Value::Flag)),
            Op::ExpireBacklog(request) => {
                let (expired, next) = expire::expire(self, request)?;
                Value::Expired(expired, next)
            }
            Op::AdvanceJob(request) => Value::Job(job::advance(self, request)?.map(Box::new)),
            Op::Redeliver(redelivery) => Value::Flag(redeliver::redeliver(self, redelivery)?),
            Op::Recover(request) => Value::Recovery(recover::recover(self, request)?.map(Box::new)),
            Op::Purge { purge, from } => {
                let (report, next) = purge::purge(self, purge, *from)?;
                Value::PurgeReport(report, next)
            }
            Op::CancelPending { subscription, limit, at } => {
                Value::Flag(cancel::cancel_pending(self, *subscription, *limit, *at)?)
            }
            // Its bytes are written where the entry is read.
            Op::ModulePart { .. } => Value::Unit,
            Op::PutModule(module) => {
                self.modules.put(module)?;
                Value::Unit
            }
            Op::RemoveModule { digest, uploaded } => Value::Flag(self.modules.remove(*digest, *uploaded)?),
            Op::Forget { deleted } => Value::Forgotten(subscriptions::forget(self, deleted)?),
            Op::Bury { recipient, rows, at } => {
                bury::bury(self, *recipient, rows, *at)?;
                Value::Unit
            }
            Op::Settings(settings) => {
                self.meta.insert(DEDUP_WINDOW_KEY, settings.dedup_window_ms)?;
                self.meta.insert(USER_BYTES_KEY, settings.user_bytes_max)?;
                self.settings = Some(*settings);
                Value::Unit
            }
            Op::Probe => Value::Unit,
            Op::PutToken { token, most } => return Ok(self.access.put(token, *most)?.map(Value::Flag)),
            Op::RemoveToken { id } => Value::Flag(self.access.remove(*id)?),
            Op::TokensUsed(uses) => {
                self.access.used(uses)?;
                Value::Unit
            }
            Op::Audited(audited) => {
                let Audited { op, entry } = &**audited;
                let answer = self.operation(op)?;
                if answer.as_ref().is_ok_and(Value::is_done) {
                    self.access.audit(self.position, entry)?;
                }
                return Ok(answer);
            }
            Op::PurgeAudit { before } => Value::Flag(self.access.purge_audit(*before)?),
        }))
    }

    /// Keeps how far ids are ahead of the receipts, so that a walk of the log up to a time finds all that came before it.
    fn note_lead(&mut self) -> Result<(), Fault> {
        let lead = self.ids.lead_millis();
        if i128::from(lead) > SLACK.as_millis()
            && self.meta.get(LEAD_KEY)?.is_none_or(|known| known.value() < lead)
        {
            self.meta.insert(LEAD_KEY, lead)?;
        }
        Ok(())
    }

    /// Writes what is gathered, the last step of a group, and returns what is to be published.
    pub(super) fn finish(mut self) -> Result<Effects, Fault> {
        self.deliveries.write(self.position)?;
        self.accounts.write()?;
        if let Some(millis) = self.ids.millis() {
            self.meta.insert(MILLIS_KEY, millis)?;
        }
        self.note_lead()?;
        self.note_bytes()?;
        let Self { position, log, new_rows, deliveries, woken, registry, settings, .. } = self;
        let Self { accounts, access, announcements, .. } = self;
        Ok(Effects {
            position,
            batches: log.new,
            changed: log.changed,
            new_rows,
            pruned: deliveries.pruned,
            woken,
            reached: registry.reached,
            forgotten: registry.forgotten,
            put: registry.put,
            settings,
            usage: accounts.users,
            tokens: access.changed,
            ended_minutes: deliveries.ended_minutes,
            has_announced: announcements.added > 0,
        })
    }

    /// Notes how much the log and the history have grown.
    fn note_bytes(&mut self) -> Result<(), Fault> {
        let grown = self.log.grown + self.history.grown;
        if grown != 0 {
            let before = self.meta.get(LOG_BYTES_KEY)?.map_or(0, |bytes| bytes.value());
            self.meta.insert(LOG_BYTES_KEY, before.saturating_add_signed(grown))?;
        }
        Ok(())
    }

    /// Wakes a recipient after the commit.
    fn wake(&mut self, recipient: RecipientId, wake: Wake) {
        self.woken.entry(recipient).or_default().merge(wake);
    }

    /// Opens a subscription's account. Call this before rows that count are changed: if the account cannot be read, they
    /// are counted at this point.
    fn account(&mut self, subscription: u128) -> Result<OpenAccount<'_>, Fault> {
        let (registry, plugin_data) = (self.registry.tables(), self.plugin_data.tables());
        self.accounts.open(subscription, || accounts::of_subscription(registry, plugin_data, subscription))
    }

    /// Counts the replacement of something that is kept for a subscription.
    fn recount(&mut self, subscription: u128, kind: Kind, before: u64, after: u64) -> Result<(), Fault> {
        if before != after {
            self.account(subscription)?.recount(kind, before, after);
        }
        Ok(())
    }

    /// Adds entries to the history of a delivery and counts them; they are shortened if its user has no more room.
    fn add_history(&mut self, key: DeliveryKey, mut entries: Vec<Entry>) -> Result<(), Fault> {
        let bytes = entries.iter().map(of_entry).sum();
        let account = self.account_of(key, &entries)?;
        if bytes > 0 {
            self.account(account)?.fit(&mut entries, bytes);
        }
        for entry in entries {
            self.recount(account, Kind::History, 0, of_entry(&entry))?;
            self.history.add(key, entry);
        }
        Ok(())
    }

    /// Returns the account that entries of a delivery's history count for: of its subscription; or, for a run, of the sender of
    /// its event.
    fn account_of(&mut self, key: DeliveryKey, entries: &[Entry]) -> Result<u128, Fault> {
        let is_run = |entry: &Entry| matches!(entry, Entry::Run(_)) && of_entry(entry) > 0;
        if !entries.iter().any(is_run) {
            return Ok(key.recipient);
        }
        let logged = self.log.find(key.event)?;
        let sender = logged.as_ref().map_or("", |(_, _, logged)| &logged.sender);
        let account = account_of_sender(sender);
        self.account(account)?.set_user(sender);
        Ok(account)
    }

    /// Writes the entries that an operation has added to the history: its last step.
    fn write_history(&mut self) -> Result<(), Fault> {
        self.history.write(self.pieces)
    }

    /// Removes the rendered payload of a delivery, if there is one.
    fn discard_rendered(&mut self, key: (u128, u128)) -> Result<(), Fault> {
        let Some(row) = self.plugin_data.rendered_row(key)? else { return Ok(()) };
        self.account(key.0)?;
        self.plugin_data.remove_rendered(self.pieces, key, &row)?;
        self.recount(key.0, Kind::Outputs, of_row(&row), 0)
    }
}

fn accepts(ops: &[Op]) -> impl Iterator<Item = Accept<'_>> {
    ops.iter().filter_map(|op| match op {
        Op::Accept { arrivals, matched_at } => {
            Some(Accept { arrivals, matched_at: *matched_at, key: None, rows: None })
        }
        Op::AcceptOnce { arrivals, matched_at, key } => {
            Some(Accept { arrivals, matched_at: *matched_at, key: Some(*key), rows: None })
        }
        Op::Announce { arrivals, matched_at, rows } => {
            Some(Accept { arrivals, matched_at: *matched_at, key: None, rows: *rows })
        }
        _ => None,
    })
}

fn renderings(ops: &[Op]) -> impl Iterator<Item = &Rendering> {
    ops.iter().filter_map(|op| match op {
        Op::Freeze(rendering) => Some(&**rendering),
        _ => None,
    })
}

//! The tables are a function of the groups of writes: applied one by one, all in one transaction, with the file opened again
//! after each, or as entries of a journal, the same groups give the same rows in every table.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use redb::{ReadableTable as _, TableHandle as _};

use super::super::accounts::USAGE;
use super::super::announcements::ANNOUNCEMENTS;
use super::super::deliveries::{
    ADDED, COUNT_CHANGES, COUNTS, DUE, ENDED, ENDED_BY_STATE, ENDED_MINUTES, FRESH, WAITING, WAITING_BY_STATE,
};
use super::super::group::{AdvanceJob, End, Group, Op, Redelivery};
use super::super::handle::{Durability, Fault, Handle};
use super::super::history::HISTORY;
use super::super::log::{BATCH_PIECES, BATCHES, SEEN, SEEN_KEYS, SEEN_KEYS_ORDER, SEEN_ORDER};
use super::super::modules::{Files, MODULES, REFERRING};
use super::super::pieces::PIECES;
use super::super::plugin_data::{PREPARED, STATE};
use super::super::read::Reader;
use super::super::registry::{JOBS, MEMBERS, REACHED, RECOVERIES, SUBSCRIPTIONS};
use super::super::schema::{META, Tables};
use super::super::{accounts, announcements, deliveries, history, registry};
use super::*;
use crate::journal::{Entry, Ticket};
use crate::{AnnouncementPage, CountLimits, JobStep, Release};
use waypost_domain::job::{Job, Kind, Scope, Work};

const DEDUP_WINDOW: Duration = Duration::from_secs(60);

/// A group of writes, without anybody who waits for its answers.
#[derive(Clone, Debug)]
struct Planned {
    now: Timestamp,
    ops: Vec<PlannedOp>,
    ends: Vec<PlannedEnd>,
}

#[derive(Clone, Debug)]
enum PlannedOp {
    /// With the key of its producer.
    Accept(Vec<Arrival>, Option<u128>),
    Redeliver(EventId, u8),
    Freeze(Rendering),
    Purge(Purge),
    CancelPending(u128),
    /// A job begins, unless one of its kind runs.
    BeginJob(Box<Job>),
    /// A job takes a step, if one of its kind runs.
    AdvanceJob(u128, Kind, u32),
    /// The oldest announcements are logged.
    Announce(Vec<Arrival>, AnnouncementPage),
}

#[derive(Clone, Debug)]
enum PlannedEnd {
    Settled(Settlement),
    Released(Release),
}

impl Planned {
    fn group(&self) -> Group {
        let ops = self.ops.iter().cloned().map(|op| op.op(self.now)).collect();
        let ends = self.ends.iter().cloned().map(|end| match end {
            PlannedEnd::Settled(settlement) => End::Settled(settlement),
            PlannedEnd::Released(release) => End::Released(release),
        });
        Group { ops, ends: ends.collect() }
    }
}

impl Planned {
    /// Returns the group as an entry of a journal.
    fn entry(&self, number: u64) -> Entry {
        let group = record::encode_group(Ticket { member: 1, number }, &self.group()).into();
        Entry { position: Position(number), at: self.now, group }
    }
}

impl PlannedOp {
    fn op(self, at: Timestamp) -> Op {
        match self {
            Self::Accept(arrivals, None) => Op::Accept { arrivals, matched_at: Position::default() },
            Self::Accept(arrivals, Some(key)) => {
                Op::AcceptOnce { arrivals, matched_at: Position::default(), key }
            }
            Self::Redeliver(event, mask) => {
                let recipients = of_mask(mask);
                Op::Redeliver(Redelivery { event, recipients, by: "bob".to_owned(), at })
            }
            Self::Freeze(rendering) => Op::Freeze(Box::new(rendering)),
            Self::Purge(purge) => Op::Purge { purge, from: EventId::NIL },
            Self::BeginJob(job) => Op::BeginJob { job, limits: CountLimits::default() },
            Self::AdvanceJob(number, kind, rows) => {
                let (subscription, asked, step) = (sub(number), after(0), JobStep::Advance { rows });
                Op::AdvanceJob(Box::new(AdvanceJob { subscription, kind, asked, step, at }))
            }
            Self::Announce(arrivals, page) => {
                let rows = Some((page.first, page.last));
                Op::Announce { arrivals, matched_at: Position::default(), rows }
            }
            Self::CancelPending(number) => Op::CancelPending { subscription: sub(number), limit: 9, at },
        }
    }
}

fn job(number: u128, kind: Kind, of: Scope) -> Job {
    let work = match kind {
        Kind::Redeliver => Work::Redeliver,
        Kind::Discard => Work::Discard { reason: "wrong".to_owned() },
    };
    Job {
        subscription: sub(number),
        work,
        of,
        since: None,
        until: None,
        asked: after(0),
        by: "bob".to_owned(),
        total: None,
        end: None,
        position: None,
        looked_at: 0,
        changed: 0,
        state: waypost_domain::recovery::State::Running,
    }
}

fn of_mask(mask: u8) -> Vec<RecipientId> {
    [1, 2, 3].into_iter().filter(|number| mask >> (number - 1) & 1 == 1).map(sub).collect()
}

/// A file with its machine, and no writer.
struct Replica {
    folder: tempfile::TempDir,
    handle: Arc<Handle>,
    machine: Machine,
}

impl Replica {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let handle = Arc::new(Handle::open(folder.path(), &key(folder.path())).unwrap());
        Self { folder, handle, machine: machine(DEDUP_WINDOW) }
    }

    fn reader(&self) -> Reader {
        let (recent, tails) = (Arc::default(), Arc::default());
        Reader { handle: Arc::clone(&self.handle), recent, tails, marks: self.machine.marks.clone() }
    }

    fn apply(&mut self, plan: &Planned) {
        let group = plan.group();
        let written = self.handle.write(|txn| self.machine.apply(&mut Tables::open(txn)?, plan.now, &group));
        self.machine.remember(&mut written.unwrap().1);
    }

    fn apply_at_once(&mut self, plans: &[Planned]) {
        let handle = Arc::clone(&self.handle);
        let written: Result<(), Fault> = handle.write(|txn| {
            let mut tables = Tables::open(txn)?;
            for plan in plans {
                let (_, mut effects) = self.machine.apply(&mut tables, plan.now, &plan.group())?;
                self.machine.remember(&mut effects);
            }
            Ok(())
        });
        written.unwrap();
    }

    /// Applies the groups as entries of a journal, several in a transaction that is not synced.
    fn apply_entries(&mut self, entries: &[Entry]) {
        let (handle, files) = (Arc::clone(&self.handle), Files::new(self.folder.path()));
        let written: Result<(), Fault> = handle.write_as(Durability::Later, |txn| {
            let mut tables = Tables::open(txn)?;
            for entry in entries {
                self.machine.apply_entry(&mut tables, &files, entry)?;
            }
            Ok(())
        });
        written.unwrap();
    }

    fn reopened(self) -> Self {
        let Self { folder, handle, .. } = self;
        drop(handle);
        let handle = Arc::new(Handle::open(folder.path(), &key(folder.path())).unwrap());
        let mut replica = Self { folder, handle, machine: machine(DEDUP_WINDOW) };
        let reader = replica.reader();
        replica.machine.reached = registry::reached(&reader).unwrap().into_iter().collect();
        replica.machine.usage = Usage::new(accounts::accounts(&reader).unwrap(), u64::MAX).into();
        replica
    }

    fn dump(&self) -> Vec<String> {
        dump(&self.handle)
    }
}

/// Returns every row of every table, as text.
pub(super) fn dump(handle: &Handle) -> Vec<String> {
    let mut rows = Vec::new();
    let read = handle.read(|txn| {
        macro_rules! dump {
                ($($table:ident),*) => {$(
                    for row in txn.open_table($table)?.iter()? {
                        let (key, value) = row?;
                        let name = $table.name().to_owned();
                        rows.push(format!("{name} {:?} {:?}", key.value(), value.value()));
                    }
                )*};
            }
        dump!(
            META,
            MEMBERS,
            REFERRING,
            BATCHES,
            BATCH_PIECES,
            HISTORY,
            FRESH,
            WAITING,
            DUE,
            WAITING_BY_STATE,
            ENDED,
            ENDED_BY_STATE,
            ENDED_MINUTES,
            COUNTS,
            COUNT_CHANGES,
            ADDED,
            SUBSCRIPTIONS,
            REACHED,
            RECOVERIES,
            JOBS,
            PREPARED,
            STATE,
            PIECES,
            USAGE,
            SEEN,
            SEEN_KEYS,
            SEEN_KEYS_ORDER,
            MODULES,
            SEEN_ORDER,
            ANNOUNCEMENTS
        );
        Ok(())
    });
    read.unwrap();
    rows
}

/// What a step of the plan does, with what to choose from what is there.
type Dice = (u8, u8, Index, Index);

/// Chooses what happens next, as the tables are.
struct Planner {
    given: Vec<EventId>,
    count: u32,
}

impl Planner {
    fn plan(&mut self, replica: &Replica, number: usize, dice: &[Dice]) -> Planned {
        let now = after(0) + Duration::from_millis(7 * number as u64);
        let mut plan = Planned { now, ops: Vec::new(), ends: Vec::new() };
        for (kind, mask, first, second) in dice {
            match kind % 8 {
                0..=2 => plan.ops.push(self.arrivals(now, *mask)),
                3 if !self.given.is_empty() => {
                    plan.ops.push(PlannedOp::Redeliver(self.given[first.index(self.given.len())], *mask));
                }
                4 if !self.given.is_empty() => {
                    let ids = vec![self.given[first.index(self.given.len())]];
                    plan.ops.push(PlannedOp::Purge(Purge::Events(ids)));
                }
                5 if *mask >= 100 => {
                    let (number, kind) = (1 + u128::from(*mask) % 3, Kind::ALL[usize::from(*mask) % 2]);
                    let of = kind.scopes()[first.index(kind.scopes().len())];
                    plan.ops.push(PlannedOp::BeginJob(Box::new(job(number, kind, of))));
                    let rows = u32::try_from(second.index(5)).unwrap();
                    plan.ops.push(PlannedOp::AdvanceJob(number, kind, rows));
                }
                5 if *mask >= 60 => self.announce(replica, now, &mut plan),
                5 if *mask < 20 => plan.ops.push(PlannedOp::CancelPending(1 + u128::from(*mask) % 3)),
                _ => self.attempt(replica, &mut plan, *mask, *first, *second),
            }
        }
        plan
    }

    fn arrivals(&mut self, now: Timestamp, mask: u8) -> PlannedOp {
        let event =
            |place| Arrival { received: now, ..arrival(&format!("{}", mask % 5 + place), &of_mask(mask)) };
        let key = mask.is_multiple_of(2).then_some(u128::from(mask % 16));
        PlannedOp::Accept((0..1 + mask % 3).map(event).collect(), key)
    }

    /// Logs what there is to announce.
    fn announce(&mut self, replica: &Replica, now: Timestamp, plan: &mut Planned) {
        let Some(page) = announcements::page(&replica.reader(), 2).unwrap() else { return };
        let PlannedOp::Accept(arrivals, _) = self.arrivals(now, 1) else { return };
        plan.ops.push(PlannedOp::Announce(arrivals, page));
    }

    /// Ends, holds or renders one of the pending deliveries.
    fn attempt(&mut self, replica: &Replica, plan: &mut Planned, mask: u8, first: Index, second: Index) {
        let recipient = sub(1 + u128::from(mask) % 3);
        let query =
            ReadyQuery { recipient, after: EventId::NIL, first_attempts: 99, now: Timestamp::MAX, due: 99 };
        let (page, _) = deliveries::ready(&replica.reader(), query).unwrap();
        let pending: Vec<_> = page.first_attempts.into_iter().chain(page.due).collect();
        let Some(pending) = pending.get(first.index(pending.len().max(1))) else { return };
        let seconds = i64::try_from(second.index(50)).unwrap();
        match mask % 6 {
            0 => plan.ends.push(PlannedEnd::Settled(at(plan.now, ending(recipient, pending, dead())))),
            1 | 2 => {
                let end = ending(recipient, pending, retry(after(seconds)));
                plan.ends.push(PlannedEnd::Settled(at(plan.now, end)));
            }
            3 => {
                let (event, position, progress) = (pending.event.id, pending.position, pending.progress);
                let (since, due, reason) = (plan.now, after(seconds), "away".to_owned());
                let by = waypost_domain::Holder::Policy;
                let release = Release { recipient, event, position, progress, by, reason, since, due };
                plan.ends.push(PlannedEnd::Released(release));
            }
            4 if !pending.rendered => {
                self.count += 1;
                plan.ops.push(PlannedOp::Freeze(counting(recipient, pending, self.count)));
            }
            _ => plan
                .ends
                .push(PlannedEnd::Settled(at(plan.now, ending(recipient, pending, Outcome::Delivered)))),
        }
    }
}

fn at(now: Timestamp, mut settlement: Settlement) -> Settlement {
    settlement.attempt.at = now;
    settlement
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_same_groups_make_the_same_rows(
        dice in prop::collection::vec(prop::collection::vec(any::<Dice>(), 1..6), 1..14)
    ) {
        let (mut first, mut planner) = (Replica::new(), Planner { given: Vec::new(), count: 0 });
        let mut plans = Vec::new();
        for (number, dice) in dice.iter().enumerate() {
            let plan = planner.plan(&first, number, dice);
            first.apply(&plan);
            let histories = history::of_range(&first.reader(), ALL).unwrap();
            planner.given = histories.iter().map(|history| history.event.id).collect();
            plans.push(plan);
        }
        let rows = first.dump();
        let mut at_once = Replica::new();
        at_once.apply_at_once(&plans);
        prop_assert_eq!(&at_once.dump(), &rows);
        let mut reopened = Replica::new();
        for plan in &plans {
            reopened.apply(plan);
            reopened = reopened.reopened();
        }
        prop_assert_eq!(&reopened.dump(), &rows);
        let entries: Vec<_> = (1..).zip(&plans).map(|(number, plan)| plan.entry(number)).collect();
        let mut on_journal = Replica::new();
        entries.chunks(3).for_each(|entries| on_journal.apply_entries(entries));
        let on_journal: Vec<_> =
            on_journal.dump().into_iter().filter(|row| !row.starts_with("members ")).collect();
        prop_assert_eq!(on_journal, rows);
        prop_assert_eq!(first.machine.marks.count(), 0);
    }
}

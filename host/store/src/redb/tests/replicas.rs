//! A model of replicas: several processes append groups to one journal that delays, doubles, swaps and forgets, apply what
//! stands there in transactions of any size, and fall back to their last synced transaction when they crash.
//!
//! Held: at equal positions all have the same rows; nothing is applied twice; an event that stands behind a subscription
//! was matched with it; each delivery ends once. `WAYPOST_SEEDS` is the number of runs (default 20).

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::group::{End, Group, Op, PutSubscription, Value};
use super::super::handle::{Durability, Fault, Handle};
use super::super::modules::Files;
use super::super::read::Reader;
use super::super::schema::{SCHEMA_VERSION, Tables};
use super::super::{deliveries, history, registry};
use super::determinism::dump;
use super::*;
use crate::StoredState;
use crate::journal::{Entry, Ticket};

/// How many groups a run has: some have so many that numbers of deliveries are folded.
const GROUPS: std::ops::Range<u64> = 16..96;
const REPLICAS: usize = 3;
/// How many subscriptions a run makes: each one lets events that are under way come too late.
const SUBSCRIPTIONS: usize = 4;

/// What a process has asked for and awaits.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Event(String),
    Subscription(SubscriptionId),
    End,
}

/// A process: its file, what it knows, and the groups whose answers it awaits.
struct Replica {
    folder: tempfile::TempDir,
    handle: Arc<Handle>,
    machine: Machine,
    member: u128,
    number: u64,
    /// What the directory of the process would have: each subscription, up to a position.
    known: (Position, Vec<SubscriptionId>),
    asked: BTreeMap<u64, Vec<Asked>>,
    /// The file as of the last synced transaction.
    synced: Vec<u8>,
}

impl Replica {
    fn new(member: u128) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let handle = Arc::new(Handle::open(folder.path(), &key(folder.path())).unwrap());
        let synced = std::fs::read(folder.path().join(FILE_NAME)).unwrap();
        let (known, asked) = (Default::default(), BTreeMap::new());
        Self { folder, handle, machine: machine(Duration::ZERO), member, number: 0, known, asked, synced }
    }

    fn reader(&self) -> Reader {
        let (recent, tails) = (Arc::default(), Arc::default());
        Reader { handle: Arc::clone(&self.handle), recent, tails, marks: self.machine.marks.clone() }
    }

    fn position(&self) -> Position {
        self.reader().position().unwrap()
    }

    /// Looks at the file again, as the directory does.
    fn look(&mut self) {
        let (position, stored) = registry::subscriptions(&self.reader()).unwrap();
        self.known = (position, stored.iter().map(|stored| stored.subscription.id).collect());
    }

    /// Makes a group of what a process may ask for, with what it knows.
    fn group(&mut self, dice: &mut StdRng, subscriptions_left: &mut usize) -> (Ticket, Vec<Asked>, Group) {
        let (mut group, mut asked) = (Group::default(), Vec::new());
        for _ in 0..dice.random_range(1..4) {
            match dice.random_range(0..10) {
                0 if *subscriptions_left > 0 => {
                    *subscriptions_left -= 1;
                    let new = subscription(dice);
                    asked.push(Asked::Subscription(new.id));
                    let (replaces, recovery, quota) = (None, None, Quota::Holds);
                    let put = PutSubscription { subscription: new, replaces, recovery, quota };
                    group.ops.push(Op::PutSubscription(Box::new(put)));
                }
                0..5 => {
                    let matched: Vec<RecipientId> = self.known.1.iter().map(|id| (*id).into()).collect();
                    let name = format!("{}-{}", self.member, dice.random::<u64>());
                    let arrivals = vec![Arrival { received: after(0), ..arrival(&name, &matched) }];
                    asked.push(Asked::Event(name));
                    group.ops.push(Op::Accept { arrivals, matched_at: self.known.0 });
                }
                _ => {
                    let Some(id) = self.known.1.get(dice.random_range(0..self.known.1.len().max(1))) else {
                        continue;
                    };
                    let recipient = RecipientId::from(*id);
                    let query = ReadyQuery {
                        recipient,
                        after: EventId::NIL,
                        first_attempts: 3,
                        now: Timestamp::MAX,
                        due: 3,
                    };
                    let page = deliveries::ready(&self.reader(), query).unwrap().0;
                    for pending in page.first_attempts.iter().chain(&page.due).take(3) {
                        let outcome =
                            if dice.random_bool(0.3) { retry(after(9)) } else { Outcome::Delivered };
                        group.ends.push(End::Settled(ending(recipient, pending, outcome)));
                        asked.push(Asked::End);
                    }
                }
            }
        }
        self.number += 1;
        (Ticket { member: self.member, number: self.number }, asked, group)
    }

    /// Applies the next entries of the journal.
    fn apply(
        &mut self,
        entries: &[Entry],
        durability: Durability,
    ) -> Vec<(Ticket, Vec<super::super::group::Answer>)> {
        let (handle, files) = (Arc::clone(&self.handle), Files::new(self.folder.path()));
        let applied: Result<Vec<_>, Fault> = handle.write_as(durability, |txn| {
            let mut tables = Tables::open(txn)?;
            entries.iter().map(|entry| self.machine.apply_entry(&mut tables, &files, entry)).collect()
        });
        if durability == Durability::Now {
            self.synced = std::fs::read(self.folder.path().join(FILE_NAME)).unwrap();
        }
        let answered = |(ticket, applied): (Ticket, super::super::machine::AppliedEntry)| {
            Some((ticket, applied.answers?))
        };
        applied.unwrap().into_iter().filter_map(answered).collect()
    }

    /// Crashes: another process goes on with what was synced, and nobody awaits anything.
    fn crash(&mut self, member: u128) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), &self.synced).unwrap();
        let handle = Arc::new(Handle::open(folder.path(), &key(folder.path())).unwrap());
        (self.folder, self.handle, self.member, self.number) = (folder, handle, member, 0);
        self.asked.clear();
        let usage = Arc::clone(&self.machine.usage);
        let reader = self.reader();
        self.machine.load_again(&reader).unwrap();
        assert!(Arc::ptr_eq(&usage, &self.machine.usage));
        self.look();
    }
}

fn subscription(dice: &mut StdRng) -> Subscription {
    let target = "http://localhost/".parse().unwrap();
    let mut new = Subscription::new("ann".into(), "all".into(), "$".into(), target, after(0));
    new.id = SubscriptionId::from_uuid(Uuid::from_u128(dice.random()));
    new
}

/// What the entries say: which subscriptions stand before which events, and how many deliveries ended.
#[derive(Default)]
struct Ledger {
    subscriptions: BTreeSet<SubscriptionId>,
    events: BTreeMap<String, EventId>,
    stale: u64,
    delivered: u64,
}

/// Makes a run; returns the journal, and what came of it.
fn check(seed: u64) -> (Vec<Entry>, Ledger) {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut replicas: Vec<Replica> = (0..REPLICAS).map(|place| Replica::new(place as u128 + 1)).collect();
    let (mut journal, mut rows): (Vec<Entry>, BTreeMap<Position, Vec<String>>) =
        (Vec::new(), BTreeMap::new());
    let (mut under_way, mut ledger, mut members) = (Vec::new(), Ledger::default(), REPLICAS as u128);
    // The settings are in the journal, too: one that has crashed has them from there.
    let settings = Options::default().settings();
    let group = Group { ops: vec![Op::Settings(settings)], ends: Vec::new() };
    let group = record::encode_group(Ticket { member: 0, number: 1 }, &group).into();
    journal.push(Entry { position: Position(1), at: after(0), group });
    let (mut appended, groups, mut subscriptions_left) = (0, dice.random_range(GROUPS), SUBSCRIPTIONS);
    while appended < groups
        || !under_way.is_empty()
        || replicas.iter().any(|replica| replica.position().0 < journal.len() as u64)
    {
        let place = dice.random_range(0..REPLICAS);
        match dice.random_range(0..12) {
            0..3 if appended < groups => {
                let (ticket, asked, group) = replicas[place].group(&mut dice, &mut subscriptions_left);
                replicas[place].asked.insert(ticket.number, asked);
                under_way.push(Bytes::from(record::encode_group(ticket, &group)));
                appended += 1;
            }
            // The journal takes any group that is under way, and may keep it for a later repeat.
            3..8 if !under_way.is_empty() => {
                let group = under_way.swap_remove(dice.random_range(0..under_way.len()));
                if dice.random_bool(0.2) {
                    under_way.push(group.clone());
                }
                let position = Position(journal.len() as u64 + 1);
                let at = after(i64::try_from(position.0).unwrap() - dice.random_range(0..3));
                journal.push(Entry { position, at, group });
            }
            8 if dice.random_bool(0.2) => {
                members += 1;
                replicas[place].crash(members);
            }
            _ => advance(&mut replicas[place], &journal, &mut dice, &mut rows, &mut ledger, seed),
        }
    }
    finish(&replicas, &mut ledger, seed);
    (journal, ledger)
}

/// Applies some of the next entries, and checks what they gave.
fn advance(
    replica: &mut Replica,
    journal: &[Entry],
    dice: &mut StdRng,
    rows: &mut BTreeMap<Position, Vec<String>>,
    ledger: &mut Ledger,
    seed: u64,
) {
    let from = usize::try_from(replica.position().0).unwrap();
    let count = dice.random_range(0..4).min(journal.len() - from);
    let durability = if dice.random_bool(0.3) { Durability::Now } else { Durability::Later };
    for (ticket, answers) in replica.apply(&journal[from..from + count], durability) {
        if ticket.member != replica.member {
            continue;
        }
        let Some(asked) = replica.asked.remove(&ticket.number) else { continue };
        let asked_ops = asked.into_iter().filter(|asked| *asked != Asked::End);
        for (asked, answer) in asked_ops.zip(answers) {
            match (asked, answer.unwrap()) {
                (Asked::Event(name), Value::Accepted(Accepted::Logged(receipts))) => {
                    assert!(
                        ledger.events.insert(name, receipts[0].id).is_none(),
                        "seed {seed}: accepted twice"
                    );
                }
                (Asked::Event(_), Value::Accepted(Accepted::Stale(..))) => ledger.stale += 1,
                (Asked::Subscription(id), Value::Put(Put::Done(_))) => {
                    assert!(ledger.subscriptions.insert(id), "seed {seed}: created twice");
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
    }
    if dice.random_bool(0.7) {
        replica.look();
    }
    let found = dump(&replica.handle);
    let known = rows.entry(replica.position()).or_insert_with(|| found.clone());
    assert_eq!(*known, found, "seed {seed}: other rows at {:?}", replica.position());
}

/// Checks the file that all have in the end.
fn finish(replicas: &[Replica], ledger: &mut Ledger, seed: u64) {
    let reader = replicas[0].reader();
    let stored = registry::subscriptions(&reader).unwrap().1;
    let histories = history::of_range(&reader, ALL).unwrap();
    let mut delivered: BTreeMap<RecipientId, u64> = BTreeMap::new();
    for history in &histories {
        // Ids say which group logged an event: subscriptions of earlier groups have a delivery of it.
        let group = Position(u64::try_from(history.event.id.uuid().as_u128() >> 24 & 0xff_ffff).unwrap());
        for stored in stored.iter().filter(|stored| stored.revision < group) {
            let id = RecipientId::from(stored.subscription.id);
            assert!(history.event.matched.contains(&id), "seed {seed}: an event has passed a subscription");
        }
        let is_over = |delivery: &&Delivery| matches!(delivery.state, State::Delivered { .. });
        for delivery in history.deliveries.iter().filter(is_over) {
            *delivered.entry(delivery.recipient).or_default() += 1;
        }
    }
    for stored in &stored {
        let id = RecipientId::from(stored.subscription.id);
        let counted = deliveries::counts(&reader, id).unwrap().0[StoredState::Delivered as usize];
        let found = delivered.get(&id).copied().unwrap_or(0);
        assert_eq!(counted, found, "seed {seed}: a delivery has ended twice");
        ledger.delivered += counted;
    }
    let logged: BTreeSet<_> = histories.iter().map(|history| history.event.id).collect();
    assert_eq!(logged.len(), histories.len());
    for id in ledger.events.values() {
        assert!(logged.contains(id), "seed {seed}: an acknowledged event is lost");
    }
}

#[test]
fn replicas_agree_whatever_the_journal_does() {
    let seeds = std::env::var("WAYPOST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20);
    let (mut logged, mut stale, mut delivered) = (0, 0, 0);
    for seed in 0..seeds {
        let ledger = check(seed).1;
        logged += ledger.events.len() as u64;
        stale += ledger.stale;
        delivered += ledger.delivered;
    }
    // A model in which nothing happens holds anything.
    let enough = seeds < 20 || (logged > 8 * seeds && stale > seeds && delivered > 8 * seeds);
    assert!(enough, "{logged} logged, {stale} stale, {delivered} delivered");
}

/// A journal that an earlier Waypost has written, and a checksum of the rows that it made. With `WAYPOST_RECORD`, it is
/// written again: for a new version of a record, beside the old file.
#[test]
fn a_recorded_journal_gives_the_rows_that_it_gave() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/redb/tests/fixtures/journal-1.json");
    // The version of the file's schema is not the journal's doing: it was 3 when the sum was recorded.
    let schema = |version: u64| format!("meta \"schema\" {version}");
    let sum = |mut rows: Vec<String>| {
        let own = rows.iter_mut().find(|row| **row == schema(SCHEMA_VERSION));
        *own.unwrap() = schema(3);
        crc32fast::hash(rows.join("\n").as_bytes())
    };
    let apply = |entries: &[Entry]| {
        let mut replica = Replica::new(1);
        replica.apply(entries, Durability::Now);
        sum(dump(&replica.handle))
    };
    if std::env::var_os("WAYPOST_RECORD").is_some() {
        let entries = check(1).0;
        let written: Vec<_> = entries
            .iter()
            .map(|entry| (entry.at.as_microsecond(), data_encoding::HEXLOWER.encode(&entry.group)))
            .collect();
        let recorded = serde_json::json!({"rows": apply(&entries), "entries": written});
        std::fs::write(&path, format!("{recorded:#}\n")).unwrap();
    }
    let recorded: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let written: Vec<(i64, String)> = serde_json::from_value(recorded["entries"].clone()).unwrap();
    let entry = |(position, (at, group)): (u64, (i64, String))| Entry {
        position: Position(position),
        at: Timestamp::from_microsecond(at).unwrap(),
        group: data_encoding::HEXLOWER.decode(group.as_bytes()).unwrap().into(),
    };
    let entries: Vec<_> = (1..).zip(written).map(entry).collect();
    assert_eq!(recorded["rows"], apply(&entries));
}

//! The record of a group of writes: everything of it survives, its bytes stay, and damage is noticed.

use std::collections::BTreeSet;

use super::super::super::damage::DeadRow;
use super::super::super::group::{
    AdvanceJob, Audited, End, ExpireBacklog, Group, Op, PutSubscription, Recover, Redelivery, Settings,
};
use super::parts::{handler_run, module, plugin_run, recovery_of, renderings, whole_subscription};
use super::*;
use crate::journal::Ticket;
use crate::{AnnouncementPlace, CountLimits, JobStep, QueuePosition, Release, Step, StoredState};
use waypost_domain::job::{Job, Kind, Scope, Work};
use waypost_domain::recovery::{Mark, ScanProgress};
use waypost_domain::{Action, Actor, AuditEntry, Holder, Scopes, SecretHash, Token, TokenId, Via};

const HEAD: Ticket = Ticket { member: u128::MAX / 3, number: 300 };

fn nanos(nanos: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanos).unwrap()
}

fn arrivals() -> Vec<Arrival> {
    let logged = batch().into_iter().flatten();
    let arrival = |logged: LoggedEvent| {
        let LoggedEvent { id, event, received, sender, matched } = logged;
        let failed = matched.iter().map(|recipient| (*recipient, format!("too slow for {id}"))).collect();
        Arrival { event, received, sender, matched, failed }
    };
    logged.map(arrival).collect()
}

fn mark(number: u128) -> Mark {
    Mark { event: id(number), received: nanos(1_700_000_000_000_000_001) }
}

fn steps() -> Vec<Step> {
    let scan = |first, matched: &[u128]| ScanProgress {
        first,
        last: mark(9),
        events: 300,
        failed: 2,
        matched: matched.iter().copied().map(id).collect(),
    };
    let states = [
        recovery::State::Running,
        recovery::State::Done { at: at(1) },
        recovery::State::Cancelled { at: at(2) },
        recovery::State::Failed { at: at(3), reason: "why".to_owned() },
    ];
    let mut steps = vec![
        Step::Begin,
        Step::Advance(scan(Some(mark(3)), &[3, u128::MAX])),
        Step::Advance(scan(None, &[])),
    ];
    steps.extend(states.map(Step::End));
    steps
}

/// Every operation, with everything that it may have, and with nothing of it.
fn ops() -> Vec<Op> {
    let digest = PluginDigest::of(b"abc");
    let put = |subscription, replaces, recovery, quota| {
        Op::PutSubscription(Box::new(PutSubscription { subscription, replaces, recovery, quota }))
    };
    let recover = |step| {
        Op::Recover(Box::new(Recover { subscription: sub(7), asked: nanos(-1), step, at: nanos(1_001) }))
    };
    let mut ops = vec![
        Op::Accept { arrivals: arrivals(), matched_at: Position(300) },
        Op::Accept { arrivals: Vec::new(), matched_at: Position::default() },
        put(whole_subscription(), Some(Position(7)), Some(recovery_of(7)), Quota::Holds),
        put(subscription(), None, None, Quota::Exempt),
        Op::Redeliver(Redelivery {
            event: id(1),
            recipients: vec![sub(2), sub(1)],
            by: "bob".to_owned(),
            at: at(4),
        }),
        Op::BeginRecovery(Box::new(recovery_of(8))),
        Op::Purge { purge: Purge::Events(vec![id(5), id(4)]), from: EventId::NIL },
        Op::Purge { purge: Purge::Before(nanos(1_700_000_000_000_000_999)), from: EventId::MAX },
        Op::Purge { purge: Purge::Expired(Timestamp::MIN), from: id(6) },
        Op::CancelPending { subscription: sub(9), limit: 4_096, at: Timestamp::MAX },
        Op::PutModule(Box::new(module())),
        Op::RemoveModule { digest, uploaded: at(5) },
        Op::Bury {
            recipient: sub(3),
            rows: vec![DeadRow::Fresh { batch: 1 << 100 }, DeadRow::Due { due: -7, event: 8 }],
            at: at(6),
        },
        Op::Forget { deleted: vec![sub(1), sub(2)] },
        Op::Settings(Settings { dedup_window_ms: 60_000, user_bytes_max: u64::MAX }),
        Op::Probe,
        Op::ModulePart { digest, offset: 1 << 40, bytes: Bytes::from_static(b"\0asm") },
        Op::ModulePart { digest, offset: 0, bytes: Bytes::new() },
    ];
    ops.extend(steps().into_iter().map(recover));
    ops.extend(renderings().into_iter().map(|rendering| Op::Freeze(Box::new(rendering))));
    ops
}

/// The operations on tokens and the audit, which the first version did not have.
fn access_ops() -> Vec<Op> {
    let token = |expires, session_of| Token {
        id: TokenId::from_uuid(Uuid::from_u128(1 << 100)),
        name: "laptop".to_owned(),
        user: "ann".to_owned(),
        scopes: Scopes::USER,
        hash: SecretHash([0xa5; 32]),
        created: nanos(1),
        by: "root".to_owned(),
        expires,
        session_of,
    };
    let id = TokenId::from_uuid(Uuid::from_u128(7));
    let vias = [Via::Program, Via::Token(id), Via::Session(id), Via::Header, Via::Certificate, Via::Default];
    let entry = |via, action, user| AuditEntry {
        at: at(3),
        by: Actor { user: "root".to_owned(), via },
        action,
        id: id.to_string(),
        user,
        detail: serde_json::from_str(r#"{"a": [1, "b"]}"#).unwrap(),
    };
    let audited = |op, entry| Op::Audited(Box::new(Audited { op, entry }));
    let mut ops = vec![
        Op::PutToken { token: Box::new(token(Some(at(9)), Some(id))), most: 7 },
        Op::PutToken { token: Box::new(token(None, None)), most: u32::MAX },
        Op::RemoveToken { id },
        Op::TokensUsed(vec![(id, nanos(1_001)), (id, at(2))]),
        Op::PurgeAudit { before: nanos(-1) },
        audited(
            ops().swap_remove(2),
            entry(Via::Default, Action::SubscriptionCreate, Some("ann".to_owned())),
        ),
    ];
    ops.extend(vias.map(|via| audited(Op::Probe, entry(via, Action::EventPurge, None))));
    ops.extend(Action::ALL.map(|action| audited(Op::Probe, entry(Via::Header, action, None))));
    ops
}

/// Operations that later versions have added.
fn newer_ops() -> Vec<Op> {
    let limits = CountLimits { subscriptions: 7, recoveries: u32::MAX, tokens: 1 };
    let new = |subscription, recovery| PutSubscription {
        subscription,
        replaces: None,
        recovery,
        quota: Quota::New(limits),
    };
    vec![
        Op::PutSubscription(Box::new(new(whole_subscription(), Some(recovery_of(7))))),
        Op::BeginRecoveryWithin { recovery: Box::new(recovery_of(8)), limits },
        Op::AcceptOnce { arrivals: arrivals(), matched_at: Position(300), key: 1 << 127 | 5 },
        Op::AcceptOnce { arrivals: Vec::new(), matched_at: Position::default(), key: 0 },
        Op::Announce {
            arrivals: arrivals(),
            matched_at: Position(300),
            rows: Some((place(7), place(1 << 40))),
        },
        Op::Announce { arrivals: Vec::new(), matched_at: Position::default(), rows: None },
    ]
}

fn place(group: u64) -> AnnouncementPlace {
    AnnouncementPlace { group, index: u32::MAX }
}

/// A job with everything.
fn job(work: Work, of: Scope, state: recovery::State) -> Job {
    Job {
        subscription: sub(7),
        work,
        of,
        since: Some(nanos(1_700_000_000_000_000_001)),
        until: Some(at(2)),
        asked: nanos(1_700_000_000_000_000_002),
        by: "ann".to_owned(),
        total: Some(9),
        end: Some(id(3)),
        position: Some(id(2)),
        looked_at: 7,
        changed: 5,
        state,
    }
}

/// The operations on jobs.
fn job_ops() -> Vec<Op> {
    let scopes = Kind::ALL.into_iter().flat_map(|kind| kind.scopes().iter().map(move |of| (kind, *of)));
    let begins = scopes.map(|(kind, of)| {
        let work = match kind {
            Kind::Redeliver => Work::Redeliver,
            Kind::Discard => Work::Discard { reason: "\u{1f4a5} \"wrong\"".to_owned() },
        };
        let job = Box::new(job(work, of, recovery::State::Running));
        Op::BeginJob { job, limits: CountLimits { subscriptions: 1, recoveries: 300, tokens: 0 } }
    });
    let failed = recovery::State::Failed { at: at(1), reason: "why".to_owned() };
    let steps = [
        JobStep::Advance { rows: u32::MAX },
        JobStep::End(recovery::State::Cancelled { at: nanos(7) }),
        JobStep::End(failed),
    ];
    let steps = Kind::ALL.into_iter().flat_map(|kind| steps.clone().map(|step| (kind, step)));
    let advances = steps.map(|(kind, step)| {
        let (asked, at) = (nanos(1_700_000_000_000_000_002), nanos(-1));
        Op::AdvanceJob(Box::new(AdvanceJob { subscription: sub(7), kind, asked, step, at }))
    });
    let expiries = StoredState::ALL.map(|state| {
        let (before, at) = (Timestamp::MIN, nanos(9));
        Op::ExpireBacklog(ExpireBacklog { recipient: sub(8), state, before, from: id(6), at, rows: 300 })
    });
    begins.chain(advances).chain(expiries).collect()
}

/// Every end, likewise.
fn ends() -> Vec<End> {
    let whole = Progress {
        failed: 3,
        first_attempt: Some(at(1)),
        allowed: true,
        passed: true,
        sent: 1 << 63 | 5,
        held: Some(at(-2)),
    };
    let place = |due| QueuePosition { batch: id(1 << 90), index: 255, due };
    let attempts = entries().into_iter().filter_map(|record| match record.entry {
        Entry::Attempt(attempt) => Some(attempt),
        _ => None,
    });
    let settlement = |attempt| Settlement {
        recipient: sub(1),
        event: id(2),
        position: place(Some(at(7))),
        plugin: Some(Box::new(plugin_run())),
        run: Some(Box::new(handler_run())),
        attempt,
        progress: whole,
        rendered: true,
    };
    let bare = |settlement: Settlement| Settlement {
        position: place(None),
        plugin: None,
        run: None,
        attempt: Attempt { policy: None, target: None, ..settlement.attempt.clone() },
        progress: Progress::default(),
        rendered: false,
        ..settlement
    };
    let settled: Vec<_> = attempts.map(settlement).collect();
    let bare: Vec<_> = settled.iter().take(1).cloned().map(bare).collect();
    let holders = [Holder::Policy, Holder::Plugins, Holder::Store, Holder::Host, Holder::Quota];
    let release = |by| {
        let (reason, since, due) = ("away".to_owned(), nanos(1), nanos(1_700_000_000_123_456_789));
        let (recipient, event, position) = (sub(4), id(5), place(Some(at(6))));
        End::Released(Release { recipient, event, position, progress: whole, by, reason, since, due })
    };
    settled.into_iter().chain(bare).map(End::Settled).chain(holders.map(release)).collect()
}

fn every() -> Group {
    Group { ops: ops(), ends: ends() }
}

fn read(record: &[u8]) -> Result<(Ticket, Group), record::Error> {
    decode_group(&Bytes::copy_from_slice(record))
}

/// The number of an operation's variant: a new one needs a place in [`ops`], too.
fn variant(op: &Op) -> usize {
    match op {
        Op::Accept { .. } => 0,
        Op::PutSubscription(_) => 1,
        Op::Redeliver(_) => 2,
        Op::Freeze(_) => 3,
        Op::BeginRecovery(_) => 4,
        Op::Recover(_) => 5,
        Op::Purge { .. } => 6,
        Op::CancelPending { .. } => 7,
        Op::PutModule(_) => 8,
        Op::RemoveModule { .. } => 9,
        Op::Bury { .. } => 10,
        Op::Forget { .. } => 11,
        Op::Settings(_) => 12,
        Op::Probe => 13,
        Op::ModulePart { .. } => 14,
        Op::PutToken { .. } => 15,
        Op::RemoveToken { .. } => 16,
        Op::TokensUsed(_) => 17,
        Op::Audited(_) => 18,
        Op::PurgeAudit { .. } => 19,
        Op::BeginRecoveryWithin { .. } => 20,
        Op::BeginJob { .. } => 21,
        Op::AdvanceJob(_) => 22,
        Op::AcceptOnce { .. } => 23,
        Op::ExpireBacklog(_) => 24,
        Op::Announce { .. } => 25,
    }
}

#[test]
fn every_operation_and_end_survives() {
    let Group { ops, ends } = every();
    let ops: Vec<_> = ops.into_iter().chain(access_ops()).chain(newer_ops()).chain(job_ops()).collect();
    assert!(ops.iter().map(variant).collect::<BTreeSet<_>>().into_iter().eq(0..=25));
    let one = |op| Group { ops: vec![op], ends: Vec::new() };
    let end = |end| Group { ops: Vec::new(), ends: vec![end] };
    let groups = ops.into_iter().map(one).chain(ends.into_iter().map(end));
    for group in groups.chain([every(), Group::default()]) {
        assert_eq!(read(&encode_group(HEAD, &group)).unwrap(), (HEAD, group));
    }
}

/// The bytes of [`every`] in the first version. A member that JSON records got since then changes what is written, but
/// these bytes stay readable.
const GOLDEN: &str = include_str!("../fixtures/group-1.hex");

#[test]
fn a_group_has_its_bytes() {
    assert_eq!(hex(&encode_group(HEAD, &every())), GOLDEN.split_whitespace().collect::<String>());
    assert_eq!(read(&unhex(GOLDEN)).unwrap(), (HEAD, every()));
}

#[test]
fn the_bodies_of_a_group_share_its_buffer() {
    let shared = Bytes::from(encode_group(HEAD, &every()));
    let (_, group) = decode_group(&shared).unwrap();
    let (mut bodies, within) = (0, shared.as_ptr_range());
    let mut is_within = |body: &Bytes| {
        bodies += 1;
        assert!(body.is_empty() || within.contains(&body.as_ptr()));
    };
    for op in &group.ops {
        match op {
            Op::Accept { arrivals, .. } => arrivals.iter().for_each(|arrival| match arrival.event.wire() {
                Wire::Structured { body, .. } | Wire::Binary { data: body, .. } => is_within(body),
            }),
            Op::ModulePart { bytes, .. } => is_within(bytes),
            _ => {}
        }
    }
    assert_eq!(bodies, 6);
}

#[test]
fn an_unknown_version_of_a_group_is_named() {
    let mut record = encode_group(HEAD, &every());
    for version in [0, 1, 2, 3, 5, 255] {
        record[0] = version;
        let error = read(&record).unwrap_err().to_string();
        assert_eq!(error, format!("it has version {version}, which this waypost does not know"));
    }
    assert_eq!(read(&[]).unwrap_err().to_string(), "it is empty");
}

#[test]
fn a_group_that_is_cut_off_is_damaged() {
    let record = encode_group(HEAD, &every());
    let body = &record[..record.len() - 4];
    for length in 0..body.len() {
        assert!(read(&record[..length]).is_err(), "{length} bytes of {}", record.len());
        // Even one whose checksum fits.
        assert!(read(&summed(&body[..length])).is_err(), "{length} bytes of {}", record.len());
    }
    let longer = [body, &[0]].concat();
    assert_eq!(read(&summed(&longer)).unwrap_err().to_string(), "there are bytes behind its end");
}

/// Returns bytes with the checksum that fits them.
fn summed(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat()
}

prop_compose! {
    fn any_arrival()(
        (id, source, ty, sender) in ("\\PC{0,20}", "\\PC{0,20}", "\\PC{0,20}", "\\PC{0,20}"),
        content_type in prop::option::of("\\PC{0,20}"),
        attributes in prop::option::of(prop::collection::vec(("[a-z]{1,9}", "\\PC{0,20}"), 0..4)),
        body in prop::collection::vec(any::<u8>(), 0..300),
        received in Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond(),
        matched in prop::collection::vec(any::<u128>(), 0..5),
        failed in prop::collection::vec((any::<u128>(), "\\PC{0,20}"), 0..3),
    ) -> Arrival {
        let data = Bytes::from(body);
        let wire = match attributes {
            Some(attributes) => Wire::Binary { attributes, content_type, data },
            None => Wire::Structured { content_type, body: data },
        };
        let failed = failed.into_iter().map(|(number, reason)| (sub(number), reason)).collect();
        let event = Event::from_parts(SpecVersion::V1_0, id, source, ty, wire);
        let matched = matched.into_iter().map(sub).collect();
        Arrival { event, received: nanos(received), sender, matched, failed }
    }
}

proptest! {
    #[test]
    fn any_group_survives(
        arrivals in prop::collection::vec(any_arrival(), 0..5),
        (matched_at, member, number) in any::<(u64, u128, u64)>(),
        mut ops in prop::sample::subsequence(ops(), 0..6),
        ends in prop::sample::subsequence(ends(), 0..6),
    ) {
        ops.push(Op::Accept { arrivals, matched_at: Position(matched_at) });
        let (head, group) = (Ticket { member, number }, Group { ops, ends });
        prop_assert_eq!(read(&encode_group(head, &group)).unwrap(), (head, group));
    }

    #[test]
    fn flipped_bytes_of_a_group_are_noticed(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..5)
    ) {
        let record = unhex(GOLDEN);
        let mut damaged = record.clone();
        for (place, flip) in flips {
            damaged[place.index(record.len())] ^= flip;
        }
        prop_assert_eq!(read(&damaged).is_err(), damaged != record);
        // No bytes make the reader panic, even if their checksum fits.
        let _read = read(&summed(&damaged[..damaged.len() - 4]));
    }
}

//! What waits for the writer, and for how long.

use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::super::group::{self, End, Group, Op, PutSubscription, Redelivery};
use super::super::queue::{Haste, Queue, QueuedGroup, Reply};
use super::*;
use crate::{Error, QueuePosition};
use waypost_domain::Subscription;
use waypost_domain::handler::{HandlerRun, RunStart};

type Answer = oneshot::Receiver<group::Answer>;

fn accept_op(arrivals: Vec<Arrival>) -> Op {
    Op::Accept { arrivals, matched_at: Position::default() }
}

fn probe() -> ((Op, Reply), Answer) {
    let (reply, answer) = oneshot::channel();
    ((Op::Probe, reply), answer)
}

fn accepting(bytes: usize) -> ((Op, Reply), Answer) {
    let arrivals = vec![Arrival { event: event("a", bytes), ..arrival("", &[]) }];
    let (reply, answer) = oneshot::channel();
    ((accept_op(arrivals), reply), answer)
}

fn end(number: u128) -> ((End, Reply), Answer) {
    let (reply, answer) = oneshot::channel();
    let event = EventId::from_uuid(Uuid::from_u128(number));
    let position = QueuePosition { batch: event, index: 0, due: None };
    let attempt = attempt(1, Outcome::Delivered);
    let settlement = Settlement {
        recipient: sub(1),
        event,
        position,
        plugin: None,
        run: None,
        attempt,
        progress: Progress::default(),
        rendered: false,
    };
    ((End::Settled(settlement), reply), answer)
}

fn push(queue: &Queue, (op, reply): (Op, Reply)) -> Result<(), Error> {
    queue.push(op, reply)
}

fn push_end(queue: &Queue, (end, reply): (End, Reply)) -> Result<(), Error> {
    let is_run = matches!(&end, End::Settled(settlement) if settlement.run.is_some());
    queue.push_end(end, if is_run { Haste::AtOnce } else { Haste::Grouped }, reply)
}

fn number(end: &End) -> u128 {
    settlement(end).event.uuid().as_u128()
}

fn settlement(end: &End) -> &Settlement {
    match end {
        End::Settled(settlement) => settlement,
        End::Released(_) => unreachable!("nothing is released here"),
    }
}

fn counts(group: &QueuedGroup) -> (usize, usize) {
    (group.ops.len(), group.ends.len())
}

#[test]
fn endings_ride_with_the_next_write() {
    let queue = Queue::new(usize::MAX);
    push_end(&queue, end(1).0).unwrap();
    push(&queue, probe().0).unwrap();
    push_end(&queue, end(2).0).unwrap();
    assert_eq!(counts(&queue.next().unwrap()), (1, 2));
}

#[test]
fn endings_wait_for_company_but_not_for_ever() {
    let queue = Queue::new(usize::MAX);
    let begun = Instant::now();
    push_end(&queue, end(1).0).unwrap();
    assert_eq!(counts(&queue.next().unwrap()), (0, 1));
    assert!(begun.elapsed() >= Duration::from_millis(10), "{:?}", begun.elapsed());
    push_end(&queue, end(2).0).unwrap();
    assert_eq!(counts(&queue.next().unwrap()), (0, 1), "the next ones wait again");
}

#[test]
fn the_end_of_a_run_waits_for_nobody_and_takes_along_who_waits() {
    let queue = Queue::new(usize::MAX);
    // The machine may be busy: once is enough.
    let shortest = (0..20).map(|_| {
        let (mut run, _) = end(2);
        let (start, uploads) = (RunStart::Fresh, Vec::new());
        let handler = HandlerRun { handler: "h".to_owned(), start, fetched: None, program: None, uploads };
        run.0 = End::Settled(Settlement { run: Some(Box::new(handler)), ..settlement(&run.0).clone() });
        push_end(&queue, end(1).0).unwrap();
        let begun = Instant::now();
        push_end(&queue, run).unwrap();
        assert_eq!(counts(&queue.next().unwrap()), (0, 2));
        begun.elapsed()
    });
    // Endings wait ten milliseconds for others; this one must not.
    assert!(shortest.min().unwrap() < Duration::from_millis(10));
}

#[test]
fn a_full_house_goes_at_once_and_in_order() {
    let queue = Queue::new(usize::MAX);
    for number in 0..1_500 {
        push_end(&queue, end(number).0).unwrap();
    }
    let (first, second) = (queue.next().unwrap(), queue.next().unwrap());
    assert_eq!((counts(&first), counts(&second)), ((0, 1_024), (0, 476)));
    let all = first.group.ends.iter().chain(&second.group.ends);
    assert!(all.map(number).eq(0..1_500));
}

#[test]
fn a_group_has_a_bound_in_number_and_in_bytes() {
    let queue = Queue::new(usize::MAX);
    for _ in 0..1_030 {
        push(&queue, probe().0).unwrap();
    }
    assert_eq!(counts(&queue.next().unwrap()), (1_024, 0));
    assert_eq!(counts(&queue.next().unwrap()), (6, 0));
    let mut answers = Vec::new();
    for kibibytes in [3_000, 1_000, 1_000, 9_000, 1] {
        let (op, answer) = accepting(kibibytes * 1024);
        push(&queue, op).unwrap();
        answers.push(answer);
    }
    let sizes: Vec<_> = std::iter::from_fn(|| {
        let group = queue.next()?;
        queue.close();
        Some(group.ops.len())
    })
    .collect();
    assert_eq!(sizes, [2, 1, 1, 1], "one that is too large goes alone");
}

/// The texts of a thousand plugins and targets were written in one commit, however large.
#[test]
fn endings_have_a_bound_in_bytes_too() {
    let queue = Queue::new(usize::MAX);
    for (number, kibibytes) in (0..).zip([3_000, 1_000, 1_000, 9_000, 1]) {
        let mut ending = end(number).0;
        let known = settlement(&ending.0).clone();
        let target = Some(waypost_domain::Answer { status: 500, body: "e".repeat(kibibytes * 1024) });
        let attempt = Attempt { target, ..known.attempt };
        ending.0 = End::Settled(Settlement { attempt, ..known });
        push_end(&queue, ending).unwrap();
    }
    queue.close();
    let groups: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
    let numbers: Vec<Vec<_>> =
        groups.iter().map(|group| group.group.ends.iter().map(number).collect()).collect();
    assert_eq!(numbers, [vec![0, 1], vec![2], vec![3], vec![4]], "one that is too large goes alone");
}

#[test]
fn endings_that_were_put_back_come_again_before_the_others() {
    let queue = Queue::new(usize::MAX);
    push_end(&queue, end(1).0).unwrap();
    push(&queue, probe().0).unwrap();
    let failed = queue.next().unwrap();
    push_end(&queue, end(2).0).unwrap();
    queue.put_back(failed.group.ends, failed.ends);
    push(&queue, probe().0).unwrap();
    let again = queue.next().unwrap();
    let order: Vec<_> = again.group.ends.iter().map(number).collect();
    assert_eq!(order, [1, 2]);
    let begun = Instant::now();
    queue.put_back(again.group.ends, again.ends);
    assert_eq!(counts(&queue.next().unwrap()), (0, 2), "also without another write");
    assert!(begun.elapsed() >= Duration::from_millis(500), "a full disk is not asked all the time");
}

#[test]
fn close_lets_what_waits_through_and_nothing_more_in() {
    let queue = Queue::new(usize::MAX);
    push_end(&queue, end(1).0).unwrap();
    push(&queue, probe().0).unwrap();
    queue.close();
    assert!(queue.is_closed());
    assert!(matches!(push(&queue, probe().0), Err(Error::Closed)));
    assert!(matches!(push_end(&queue, end(2).0), Err(Error::Closed)));
    let last = queue.next().unwrap();
    assert_eq!(counts(&last), (1, 1));
    queue.put_back(last.group.ends, last.ends);
    assert_eq!(counts(&queue.next().unwrap()), (0, 1));
    assert!(queue.next().is_none());
}

#[test]
fn nobody_waits_for_a_writer_that_is_gone() {
    let queue = Queue::new(usize::MAX);
    let ((op, asked), (ending, ended)) = (probe(), end(1));
    push(&queue, op).unwrap();
    push_end(&queue, ending).unwrap();
    queue.abandon();
    assert!(matches!(asked.now_or_never(), Some(Err(_))));
    assert!(matches!(ended.now_or_never(), Some(Err(_))));
    assert!(matches!(push(&queue, probe().0), Err(Error::Closed)));
    assert!(queue.next().is_none());
}

#[test]
fn a_group_comes_apart_in_order_down_to_single_writes() {
    let (ops, op_replies) = (0..5).map(|bytes| accepting(bytes).0).unzip();
    let (ends, end_replies) = (0..6).map(|number| end(number).0).unzip();
    let mut waiting = vec![QueuedGroup { group: Group { ops, ends }, ops: op_replies, ends: end_replies }];
    let (mut ops, mut endings) = (Vec::new(), Vec::new());
    while let Some(group) = waiting.pop() {
        if group.len() > 1 {
            let (first, second) = group.split();
            assert!(first.len() > 0 && second.len() > 0);
            waiting.extend([second, first]);
            continue;
        }
        assert!(group.ops.is_empty() || endings.is_empty(), "endings come last");
        ops.extend(group.group.ops.into_iter().map(|op| match op {
            Op::Accept { arrivals, .. } => arrivals[0].event.size(),
            _ => unreachable!("only accepts are in the group"),
        }));
        endings.extend(group.group.ends.iter().map(number));
    }
    assert_eq!((ops, endings), ((0..5).collect(), (0..6).collect()));
}

/// Events whose senders had gone were queued without a bound, and written.
#[test]
fn what_waits_is_bounded_in_bytes_and_those_who_have_gone_make_room() {
    const KIB: usize = 1024;
    let queue = Queue::new(300 * KIB);
    let accept = |bytes: usize| {
        let (op, answer) = accepting(bytes);
        push(&queue, op).map(|()| answer)
    };
    let busy = |pushed: Result<Answer, Error>| {
        assert!(matches!(pushed, Err(Error::Busy { max }) if max == 300 * KIB), "{pushed:?}");
    };
    let (first, second, third) = (accept(90 * KIB), accept(90 * KIB), accept(90 * KIB));
    busy(accept(90 * KIB));
    push(&queue, probe().0).unwrap();
    push_end(&queue, end(1).0).unwrap();
    drop(second);
    let fourth = accept(90 * KIB);
    busy(accept(90 * KIB));
    assert_eq!(counts(&queue.next().unwrap()), (4, 1), "all but the second");
    drop((first, third, fourth));
    busy(accept(301 * KIB));
    let alone = accept(299 * KIB);
    drop(alone.unwrap());
    assert_eq!(counts(&queue.next().unwrap()), (1, 0), "nobody needs its room: it is written");
    drop(accept(299 * KIB).unwrap());
    busy(accept(301 * KIB));
    push_end(&queue, end(2).0).unwrap();
    assert_eq!(counts(&queue.next().unwrap()), (0, 1));
}

/// With a small `accept_bytes_max`, what a plugin had made was too large for the queue: it was held for ever.
#[test]
fn what_no_sender_can_divide_goes_alone_where_it_is_larger_than_the_queue() {
    let queue = Queue::new(1_000);
    let mut answers = Vec::new();
    let mut redeliver = |recipients: usize| {
        let (reply, answer) = oneshot::channel();
        answers.push(answer);
        let recipients = vec![sub(1); recipients];
        let redelivery = Redelivery { event: EventId::NIL, recipients, by: "bob".to_owned(), at: after(0) };
        queue.push(Op::Redeliver(redelivery), reply)
    };
    redeliver(100).unwrap();
    assert!(matches!(redeliver(100), Err(Error::Busy { max: 1_000 })), "one at a time");
    assert_eq!(counts(&queue.next().unwrap()), (1, 0));
    redeliver(100).unwrap();
    assert_eq!(counts(&queue.next().unwrap()), (1, 0));
    assert!(matches!(push(&queue, accepting(1_001).0), Err(Error::Busy { .. })), "its sender sends fewer");
}

#[test]
fn deliveries_count_in_what_waits_and_in_a_group() {
    let queue = Queue::new(usize::MAX);
    let matched = vec![sub(1); 20_000];
    let mut answers = Vec::new();
    for _ in 0..8 {
        let (reply, answer) = oneshot::channel();
        queue.push(accept_op(vec![arrival("a", &matched)]), reply).unwrap();
        answers.push(answer);
    }
    assert_eq!(counts(&queue.next().unwrap()), (3, 0), "1.2 MiB each");
    let queue = Queue::new(2 * 1024 * 1024);
    let (reply, _answer) = oneshot::channel();
    queue.push(accept_op(vec![arrival("a", &matched)]), reply).unwrap();
    let (reply, _answer) = oneshot::channel();
    let refused = queue.push(accept_op(vec![arrival("a", &matched)]), reply);
    assert!(matches!(refused, Err(Error::Busy { .. })));
}

/// Each counted as 16 KiB, though one may have as much as `subscription_bytes_max`.
#[test]
fn subscriptions_count_with_what_they_hold() {
    let queue = Queue::new(400 * 1024);
    let put = |bytes: usize| {
        let target = "http://localhost/".parse().unwrap();
        let new = Subscription::new("ann".into(), "n".repeat(bytes), "$".into(), target, after(0));
        let (reply, answer) = oneshot::channel();
        let put = PutSubscription { subscription: new, replaces: None, recovery: None, quota: Quota::Holds };
        queue.push(Op::PutSubscription(Box::new(put)), reply)?;
        Ok::<_, Error>(answer)
    };
    let _large = put(300 * 1024).unwrap();
    assert!(matches!(put(300 * 1024), Err(Error::Busy { .. })));
    let _small = [(); 20].map(|()| put(1_024).unwrap());
    assert_eq!(counts(&queue.next().unwrap()), (21, 0), "small ones take little");
}

/// While the disk was full, each end of an attempt kept up to 32 KiB of answers in memory.
#[test]
fn of_endings_that_wait_behind_too_much_little_is_kept() {
    let queue = Queue::new(90 * 1024);
    let mut add = |number| {
        let mut ending = end(number).0;
        let target = Some(waypost_domain::Answer { status: 500, body: "e".repeat(16 * 1024) });
        let known = settlement(&ending.0).clone();
        let attempt = Attempt { target, ..known.attempt };
        ending.0 = End::Settled(Settlement { attempt, ..known });
        push_end(&queue, ending).unwrap();
    };
    (0..20).for_each(&mut add);
    let kept = |group: &QueuedGroup| {
        let answers = group.group.ends.iter().map(|end| settlement(end).attempt.target.as_ref().unwrap());
        answers.map(|answer| answer.body.len()).collect::<Vec<_>>()
    };
    let group = queue.next().unwrap();
    let sizes = kept(&group);
    assert_eq!((sizes.len(), &sizes[..5], sizes[19]), (20, &[16 * 1024; 5][..], 1024));
    queue.put_back(group.group.ends, group.ends);
    push(&queue, probe().0).unwrap();
    assert_eq!(kept(&queue.next().unwrap()), sizes, "and once only");
    add(20);
    assert_eq!(kept(&queue.next().unwrap()), [16 * 1024], "there is room again");
}

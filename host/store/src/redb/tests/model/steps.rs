//! What happens to the store, in random order.

use proptest::prelude::*;
use proptest::sample::Index;

use waypost_domain::job::Scope;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Events come in one request, each matching the subscriptions in its mask.
    Accept(Vec<u8>),
    /// An attempt at a pending delivery begins.
    Begin(Index),
    /// An attempt ends; its delivery may have changed since it began.
    End(Index, End),
    /// The plugin of an attempt in flight renders the payload, which is frozen.
    Prepare(Index),
    Redeliver(Index, u8),
    /// A whole recovery of the subscription, which finds the events whose place in the log is in the mask.
    Recover(Index, u8),
    PurgeEvents(Vec<Index>),
    PurgeBefore(Index),
    CancelPending(Index, usize),
    /// A whole job of a subscription, so many rows at a time: what is in this state is sent again, or given up.
    Job(Index, Work, u32),
    /// The process ends and starts again: attempts in flight are lost.
    Reopen,
    /// The process is killed: what was answered is there.
    Crash,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Delivered,
    Dead,
    Retry(i64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    Redeliver(Scope),
    Discard(Scope),
}

/// Random steps.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![
        2 => Just(End::Delivered),
        1 => Just(End::Dead),
        4 => (0..50i64).prop_map(End::Retry),
    ];
    let mask = || 0..8u8;
    let step = prop_oneof![
        4 => prop::collection::vec(mask(), 1..5).prop_map(Step::Accept),
        6 => any::<Index>().prop_map(Step::Begin),
        6 => (any::<Index>(), end).prop_map(|(index, end)| Step::End(index, end)),
        4 => any::<Index>().prop_map(Step::Prepare),
        3 => (any::<Index>(), mask()).prop_map(|(index, mask)| Step::Redeliver(index, mask)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(index, mask)| Step::Recover(index, mask)),
        1 => prop::collection::vec(any::<Index>(), 0..4).prop_map(Step::PurgeEvents),
        1 => any::<Index>().prop_map(Step::PurgeBefore),
        1 => (any::<Index>(), 1..4usize).prop_map(|(index, limit)| Step::CancelPending(index, limit)),
        2 => (any::<Index>(), work(), 1..4u32).prop_map(|(index, work, rows)| Step::Job(index, work, rows)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..50)
}

fn work() -> impl Strategy<Value = Work> {
    let again = prop::sample::select(vec![Scope::Dead, Scope::Skipped]).prop_map(Work::Redeliver);
    let given_up = prop::sample::select(vec![Scope::Dead, Scope::Pending, Scope::Retrying]);
    prop_oneof![again, given_up.prop_map(Work::Discard)]
}

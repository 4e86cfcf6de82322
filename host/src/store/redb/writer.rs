//! The one writer: takes what is queued, commits it together, and answers after it is on disk.
//!
//! While one commit is synced the next group grows, so that its members share the cost of a sync. The writer is a plain
//! thread, because redb blocks.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime;

use super::apply::Effects;
use super::handle::{Fault, Handle};
use super::machine::{Machine, Value};
use super::queue::{Group, Op, Queue, Reply};
use super::recent::Recent;
use super::schema::Tables;
use super::tail::Tails;
use crate::clock;
use crate::domain::RecipientId;
use crate::stage::{Alarm, caught};
use crate::store::{Error, WakeSet};

/// From how many answers on a task of its own sends them.
const CROWD: usize = 4;

/// The writer thread's state.
pub(super) struct Writer {
    pub(super) handle: Arc<Handle>,
    pub(super) queue: Arc<Queue>,
    pub(super) recent: Arc<Recent>,
    pub(super) tails: Arc<Tails>,
    pub(super) wakes: Arc<WakeSet>,
    pub(super) machine: Machine,
    /// Where the store was opened, if inside a runtime.
    pub(super) runtime: Option<runtime::Handle>,
    pub(super) alarm: Alarm,
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _abandon = AbandonAtEnd(Arc::clone(&self.queue));
        while let Some(group) = self.queue.next() {
            self.write(group);
        }
    }

    fn write(&mut self, group: Group) {
        let begun = Instant::now();
        match self.commit(&group) {
            Ok((values, effects)) => {
                let (ops, endings, took) = (group.ops.len(), group.endings.len(), begun.elapsed());
                tracing::debug!(ops, endings, ?took, "committed");
                self.publish(effects);
                self.answer(group, values);
            }
            // Split the group so that only the operation that meets the damaged record fails.
            Err(Fault::Damaged { .. }) if group.len() > 1 => {
                let (first, second) = group.split();
                self.write(first);
                self.write(second);
            }
            Err(fault) => self.fail(group, fault),
        }
    }

    /// Writes a group, or nothing of it; memory is changed only in [`Self::publish`].
    fn commit(&mut self, group: &Group) -> Result<(Vec<Value>, Effects), Fault> {
        let now = clock::now();
        self.handle.write(|txn| self.machine.apply(&mut Tables::open(txn)?, now, group))
    }

    /// Makes the committed changes visible to readers and workers.
    fn publish(&mut self, mut effects: Effects) {
        self.machine.remember(&mut effects);
        for (key, batch) in effects.batches {
            self.recent.put(key, Arc::new(batch));
        }
        // Last: a purge may have changed a batch of the same group.
        for key in effects.changed {
            self.recent.drop_batch(key);
        }
        self.tails.add(effects.new_rows);
        let forgotten = effects.forgotten.into_iter().map(RecipientId::from);
        for recipient in effects.pruned.into_iter().chain(forgotten) {
            self.tails.end(recipient);
        }
        self.wakes.push(effects.woken);
    }

    /// Answers all callers. Waking a task from outside the runtime costs a system call each, so many are woken by a
    /// task inside it.
    fn answer(&self, group: Group, values: Vec<Value>) {
        let Some(runtime) = self.runtime.as_ref().filter(|_| group.len() >= CROWD) else {
            return answer_now(group, values);
        };
        let alarm = self.alarm.clone();
        drop(runtime.spawn(async move {
            if let Err(panic) = caught(async move { answer_now(group, values) }).await {
                alarm.raise("the store's writer", format!("its answers panicked: {panic}"));
            }
        }));
    }

    fn fail(&self, Group { ops, endings }: Group, fault: Fault) {
        let lasting = matches!(fault, Fault::Damaged { .. });
        let error = Error::from(fault);
        tracing::error!(%error, "a commit failed");
        for op in ops {
            refuse(op, &error);
        }
        if lasting || self.queue.is_closed() {
            for ending in endings {
                send(ending.reply, Err(error.clone()));
            }
        } else {
            self.queue.put_back(endings);
        }
    }
}

/// Fails all waiters if the writer panics.
struct AbandonAtEnd(Arc<Queue>);

impl Drop for AbandonAtEnd {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn answer_now(Group { ops, endings }: Group, values: Vec<Value>) {
    for (op, value) in ops.into_iter().zip(values) {
        match (op, value) {
            (op, Value::Refused(error)) => refuse(op, &error),
            (Op::Accept { reply, .. }, Value::Ids(ids)) => send(reply, Ok(ids)),
            (
                Op::PutSubscription { reply, .. }
                | Op::Module { reply, .. }
                | Op::Bury { reply, .. }
                | Op::Probe { reply },
                Value::Unit,
            ) => send(reply, Ok(())),
            (
                Op::Redeliver { reply, .. }
                | Op::CancelPending { reply, .. }
                | Op::BeginRecovery { reply, .. }
                | Op::Freeze { reply, .. },
                Value::Flag(flag),
            ) => send(reply, Ok(flag)),
            (Op::Recover { reply, .. }, Value::Recovery(recovery)) => {
                send(reply, Ok(recovery.map(|recovery| *recovery)))
            }
            (Op::Purge { reply, .. }, Value::PurgeReport(purged)) => send(reply, Ok(purged)),
            (Op::Forget { reply, .. }, Value::Forgotten(forgotten)) => send(reply, Ok(forgotten)),
            _ => unreachable!("each operation has its own kind of value"),
        }
    }
    for ending in endings {
        send(ending.reply, Ok(()));
    }
}

fn refuse(op: Op, error: &Error) {
    let error = error.clone();
    match op {
        Op::Accept { reply, .. } => send(reply, Err(error)),
        Op::PutSubscription { reply, .. }
        | Op::Module { reply, .. }
        | Op::Bury { reply, .. }
        | Op::Probe { reply } => send(reply, Err(error)),
        Op::Redeliver { reply, .. }
        | Op::CancelPending { reply, .. }
        | Op::BeginRecovery { reply, .. }
        | Op::Freeze { reply, .. } => send(reply, Err(error)),
        Op::Recover { reply, .. } => send(reply, Err(error)),
        Op::Purge { reply, .. } => send(reply, Err(error)),
        Op::Forget { reply, .. } => send(reply, Err(error)),
    }
}

/// Sends an answer, and ignores that the receiver may be gone.
fn send<T>(reply: Reply<T>, value: Result<T, Error>) {
    drop(reply.send(value));
}

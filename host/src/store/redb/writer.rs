//! The one writer: takes what is queued, commits it together, and answers after it is on disk.
//!
//! While one commit is synced the next group grows, so that its members share the cost of a sync. The writer is a plain
//! thread, because redb blocks.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime;

use super::apply::Effects;
use super::group::{Answer, Group, Value};
use super::handle::{Fault, Handle};
use super::machine::Machine;
use super::queue::{Queue, QueuedGroup, Reply};
use super::recent::Recent;
use super::schema::Tables;
use super::tail::Tails;
use crate::clock;
use crate::domain::RecipientId;
use crate::stage::{Alarm, caught};
use crate::store::{ChangeSet, Error, WakeSet};

/// From how many answers on a task of its own sends them.
const CROWD: usize = 4;

/// The writer thread's state.
pub(super) struct Writer {
    pub(super) handle: Arc<Handle>,
    pub(super) queue: Arc<Queue>,
    pub(super) recent: Arc<Recent>,
    pub(super) tails: Arc<Tails>,
    pub(super) wakes: Arc<WakeSet>,
    pub(super) changes: Arc<ChangeSet>,
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

    fn write(&mut self, queued: QueuedGroup) {
        let begun = Instant::now();
        match self.commit(&queued.group) {
            Ok((answers, effects)) => {
                let (ops, ends, took) = (queued.ops.len(), queued.ends.len(), begun.elapsed());
                tracing::debug!(ops, ends, ?took, "committed");
                self.publish(effects);
                self.answer(queued, answers);
            }
            // Split the group so that only the operation that meets the damaged record fails.
            Err(Fault::Damaged { .. }) if queued.len() > 1 => {
                let (first, second) = queued.split();
                self.write(first);
                self.write(second);
            }
            Err(fault) => self.fail(queued, fault),
        }
    }

    /// Writes a group, or nothing of it; memory is changed only in [`Self::publish`].
    fn commit(&mut self, group: &Group) -> Result<(Vec<Answer>, Effects), Fault> {
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
        let forgotten = effects.forgotten.iter().map(|id| RecipientId::from(*id));
        for recipient in effects.pruned.into_iter().chain(forgotten) {
            self.tails.end(recipient);
        }
        let Effects { position, put, forgotten, woken, .. } = effects;
        self.changes.push(position, put, forgotten);
        self.wakes.push(woken);
    }

    /// Answers all callers. Waking a task from outside the runtime costs a system call each, so many are woken by a
    /// task inside it.
    fn answer(&self, queued: QueuedGroup, answers: Vec<Answer>) {
        let Some(runtime) = self.runtime.as_ref().filter(|_| queued.len() >= CROWD) else {
            return answer_now(queued, answers);
        };
        let alarm = self.alarm.clone();
        drop(runtime.spawn(async move {
            if let Err(panic) = caught(async move { answer_now(queued, answers) }).await {
                alarm.raise("the store's writer", format!("its answers panicked: {panic}"));
            }
        }));
    }

    fn fail(&self, QueuedGroup { group, ops, ends }: QueuedGroup, fault: Fault) {
        let lasting = matches!(fault, Fault::Damaged { .. });
        let error = Error::from(fault);
        tracing::error!(%error, "a commit failed");
        let (refused, kept) =
            if lasting || self.queue.is_closed() { (ends, Vec::new()) } else { (Vec::new(), ends) };
        for reply in ops.into_iter().chain(refused) {
            send(reply, Err(error.clone()));
        }
        if !kept.is_empty() {
            self.queue.put_back(group.ends, kept);
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

fn answer_now(QueuedGroup { ops, ends, .. }: QueuedGroup, answers: Vec<Answer>) {
    for (reply, answer) in ops.into_iter().zip(answers) {
        send(reply, answer);
    }
    for reply in ends {
        send(reply, Ok(Value::Unit));
    }
}

/// Sends an answer, and ignores that the receiver may be gone.
fn send(reply: Reply, answer: Answer) {
    drop(reply.send(answer));
}

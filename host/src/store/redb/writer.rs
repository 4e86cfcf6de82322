//! The one writer: takes what is queued, commits it together, and answers after it is on disk.
//!
//! While one commit is synced the next group grows, so that its members share the cost of a sync. The writer is a plain
//! thread, because redb blocks.

use std::sync::Arc;
use std::time::Instant;

use super::apply::Effects;
use super::group::{Answer, Group};
use super::handle::{Fault, Handle};
use super::machine::Machine;
use super::publish::{Publisher, send};
use super::queue::{Queue, QueuedGroup};
use super::schema::Tables;
use crate::clock;
use crate::store::Error;

/// The writer thread's state.
pub(super) struct Writer {
    pub(super) handle: Arc<Handle>,
    pub(super) queue: Arc<Queue>,
    pub(super) machine: Machine,
    pub(super) publisher: Publisher,
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
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
                self.publisher.publish(effects);
                self.publisher.answer(queued.ops, queued.ends, answers);
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

    /// Writes a group, or nothing of it; memory is changed only after the commit.
    fn commit(&mut self, group: &Group) -> Result<(Vec<Answer>, Effects), Fault> {
        let now = clock::now();
        let (answers, mut effects) =
            self.handle.write(|txn| self.machine.apply(&mut Tables::open(txn)?, now, group))?;
        self.machine.remember(&mut effects);
        Ok((answers, effects))
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

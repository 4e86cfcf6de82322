//! The one writer: takes what is queued, commits it together, and answers after it is on disk.
//!
//! While one commit is synced the next group grows, so that its members share the cost of a sync. The writer is a plain
//! thread, because redb blocks.

use std::sync::Arc;
use std::time::Instant;

use super::apply::Effects;
use super::group::{End, Value};
use super::handle::{Fault, Handle};
use super::machine::Machine;
use super::publish::{Publisher, send};
use super::queue::{Queue, QueuedGroup, Reply};
use super::schema::{META, POSITION_KEY, Tables};
use crate::{Error, Position};
use waypost_runtime::clock;

/// The writer thread's state.
pub(super) struct Writer {
    pub(super) handle: Arc<Handle>,
    pub(super) queue: Arc<Queue>,
    pub(super) machine: Machine,
    pub(super) publisher: Publisher,
    pub(super) doubt: Option<Doubt>,
}

/// A group whose commit failed in such a way that it may be in the file all the same, and what follows if it is.
pub(super) struct Doubt {
    effects: Effects,
    ends: Vec<End>,
    replies: Vec<Reply>,
}

/// What has become of a group in doubt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resolved {
    InFile,
    NotInFile,
    Unknown,
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(group) = self.queue.next() {
            self.write(group);
        }
    }

    fn write(&mut self, queued: QueuedGroup) {
        let resolved = self.resolve();
        // The group may be empty if its operations were dropped to make room.
        if queued.len() == 0 {
            return;
        }
        if resolved == Resolved::Unknown {
            let fault = Fault::Closed("the file cannot be opened again yet".to_owned());
            return self.fail(queued, fault);
        }
        let (begun, now) = (Instant::now(), clock::now());
        let mut applied = None;
        let written = self.handle.write(|txn| {
            applied = Some(self.machine.apply(&mut Tables::open(txn)?, now, &queued.group)?);
            Ok(())
        });
        match (written, applied) {
            (Ok(()), Some((answers, mut effects))) => {
                let (ops, ends, took) = (queued.ops.len(), queued.ends.len(), begun.elapsed());
                tracing::debug!(ops, ends, ?took, "committed");
                self.machine.remember(&mut effects);
                self.publisher.publish(effects);
                self.publisher.answer(queued.ops, queued.ends, answers);
            }
            (Ok(()), None) => unreachable!("what is committed was applied"),
            // Split the group so that only the operation that meets the damaged record fails.
            (Err(Fault::Damaged { .. }), _) if queued.len() > 1 => {
                let (first, second) = queued.split();
                self.write(first);
                self.write(second);
            }
            (Err(fault), None) => self.fail(queued, fault),
            (Err(fault), Some((_, effects))) => self.fail_in_doubt(queued, fault, effects),
        }
    }

    /// Answers a group that is not in the file.
    fn fail(&self, QueuedGroup { group, ops, ends }: QueuedGroup, fault: Fault) {
        let lasting = matches!(fault, Fault::Damaged { .. });
        let error = Error::from(fault);
        tracing::error!(%error, "a commit failed");
        for reply in ops {
            send(reply, Err(error.clone()));
        }
        if lasting {
            ends.into_iter().for_each(|reply| send(reply, Err(error.clone())));
        } else {
            self.put_back(group.ends, ends, &error);
        }
    }

    /// Answers a group whose commit failed. The last part of a commit may fail after the file has all of it, and the file
    /// may have forgotten it by the next start: no operation of it is acknowledged. What the file has now, everyone sees.
    fn fail_in_doubt(
        &mut self,
        QueuedGroup { group, ops, ends }: QueuedGroup,
        fault: Fault,
        effects: Effects,
    ) {
        let error = Error::from(fault);
        tracing::error!(%error, "a commit failed");
        self.doubt = Some(Doubt { effects, ends: group.ends, replies: ends });
        let error = if self.resolve() == Resolved::NotInFile { error } else { Error::Uncertain };
        ops.into_iter().for_each(|reply| send(reply, Err(error.clone())));
    }

    /// Finds out whether the group in doubt is in the file, if there is one.
    fn resolve(&mut self) -> Resolved {
        let Some(Doubt { mut effects, ends, replies }) = self.doubt.take() else {
            return Resolved::NotInFile;
        };
        let is_in_file = self.position().and_then(|position| {
            let is_in_file = position >= effects.position;
            // What its ends say has to outlast a crash before they are answered.
            if is_in_file { self.handle.sync().map(|()| true) } else { Ok(false) }
        });
        match is_in_file {
            Err(fault) => {
                tracing::warn!(error = %Error::from(fault), "whether a group was written is not known yet");
                self.doubt = Some(Doubt { effects, ends, replies });
                self.queue.look_later();
                Resolved::Unknown
            }
            Ok(true) => {
                self.machine.remember(&mut effects);
                self.publisher.publish(effects);
                replies.into_iter().for_each(|reply| send(reply, Ok(Value::Unit)));
                Resolved::InFile
            }
            Ok(false) => {
                let reason = "a commit failed".to_owned();
                self.put_back(ends, replies, &Error::Unavailable { reason });
                Resolved::NotInFile
            }
        }
    }

    /// Lets ends be written again, unless the store closes.
    fn put_back(&self, ends: Vec<End>, replies: Vec<Reply>, error: &Error) {
        if self.queue.is_closed() {
            replies.into_iter().for_each(|reply| send(reply, Err(error.clone())));
        } else {
            self.queue.put_back(ends, replies);
        }
    }

    /// Returns the position of the last group in the file.
    fn position(&self) -> Result<Position, Fault> {
        let position = self.handle.read(|txn| {
            let position = txn.open_table(META)?.get(POSITION_KEY)?;
            Ok(position.map_or(0, |position| position.value()))
        });
        position.map(Position)
    }
}

/// A writer that a simulation drives.
#[cfg(any(test, feature = "testing"))]
pub struct Stepper(pub(super) Writer);

#[cfg(any(test, feature = "testing"))]
impl Stepper {
    /// Commits what is queued; returns how many writes that were.
    pub fn step(&mut self) -> usize {
        let group = self.0.queue.take();
        let count = group.len();
        self.0.write(group);
        count
    }
}

//! The queue of writes for the writer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::group::{Answer, End, Group, Op};
use crate::Error;

/// Where an answer goes. The write happens even if the receiver is dropped, except for [`QueuedOp::is_abandoned`] when
/// there is no room.
pub(super) type Reply = oneshot::Sender<Answer>;

/// A write in the queue.
struct QueuedOp {
    op: Op,
    reply: Reply,
    /// How many bytes it holds.
    bytes: usize,
}

impl QueuedOp {
    /// Tells whether it may be dropped: its events were never acknowledged, and its caller has gone.
    fn is_abandoned(&self) -> bool {
        self.op.is_accept() && self.reply.is_closed()
    }
}

/// The end of an attempt in the queue: it may wait to be grouped with others, and is retried while the disk is full.
struct QueuedEnd {
    end: End,
    reply: Reply,
}

/// A group, and who waits for it.
#[derive(Default)]
pub(super) struct QueuedGroup {
    pub(super) group: Group,
    /// One for each operation.
    pub(super) ops: Vec<Reply>,
    /// One for each end.
    pub(super) ends: Vec<Reply>,
}

impl QueuedGroup {
    /// Returns how many writes there are.
    pub(super) fn len(&self) -> usize {
        self.ops.len() + self.ends.len()
    }

    fn push_op(&mut self, QueuedOp { op, reply, .. }: QueuedOp) {
        self.group.ops.push(op);
        self.ops.push(reply);
    }

    fn push_end(&mut self, QueuedEnd { end, reply }: QueuedEnd) {
        self.group.ends.push(end);
        self.ends.push(reply);
    }

    /// Splits a group of more than one, keeping the order.
    pub(super) fn split(mut self) -> (Self, Self) {
        let (ops, ends) = match (self.ops.len(), self.ends.len()) {
            (0, ends) => (0, ends / 2),
            (ops, 0) => (ops / 2, 0),
            (ops, _) => (ops, 0),
        };
        let second = Self {
            group: Group { ops: self.group.ops.split_off(ops), ends: self.group.ends.split_off(ends) },
            ops: self.ops.split_off(ops),
            ends: self.ends.split_off(ends),
        };
        (self, second)
    }
}

/// How long endings wait for an accept whose commit they can join.
const ENDING_WAIT: Duration = Duration::from_millis(10);

/// How soon the end of an attempt is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// Together with others, after a short wait.
    Grouped,
    /// With the next commit: a run holds its permit until its end is written, and the next in order waits for it.
    AtOnce,
}
/// How long endings wait after a failed write.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// How many endings are committed without waiting.
const ENDINGS_READY: usize = 512;
/// Under load, delivering and accepting share a commit's cost with more: without this (`GATHER_FROM` = `usize::MAX`) `fanout1`
/// had 0.78 and 0.93 of the rate in two series of interleaved rounds, `accept` 1.01: `cargo run --release -p waypost-bench --
/// accept fanout1 --seconds 1 --rounds 5`.
///
/// From how many operations on a group waits for more, how many are enough, and how long it waits at most, in steps: it
/// stops after a step in which none was added.
const GATHER_FROM: usize = 8;
const GATHER_ENOUGH: usize = 64;
const GATHER_MAX: Duration = Duration::from_micros(600);
const GATHER_STEP: Duration = Duration::from_micros(100);
/// The most operations and endings in one commit, each.
const GROUP_MAX: usize = 1_024;
/// The most bytes of operations, with what their events cause, and of endings in one commit, each.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The writer's input, bounded in bytes. Ends of attempts are always accepted, since a lost one causes a repeat. When
/// too much is queued they are shortened, and their number is bounded by their workers.
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    ops: VecDeque<QueuedOp>,
    /// The bytes of all `ops`.
    bytes: usize,
    endings: Vec<QueuedEnd>,
    /// The bytes of all `endings`.
    endings_bytes: usize,
    endings_ready_at: Option<Instant>,
    /// Whether the writer waits to be notified; notifying it otherwise would waste a system call.
    writer_waits: bool,
    /// How many operations the last group had.
    last_group: usize,
    closed: bool,
}

impl Queue {
    /// Makes a queue for `bytes_max` bytes of writes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), ready: Condvar::new(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a write. One from outside is refused with [`Error::Busy`] if there is no room for it ([`State::has_room`]).
    pub(super) fn push(&self, op: Op, reply: Reply) -> Result<(), Error> {
        let bytes = op.size();
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if op.is_asked_for() && !state.has_room(&op, bytes, self.bytes_max) {
            state.drop_abandoned();
            if !state.has_room(&op, bytes, self.bytes_max) {
                return Err(Error::Busy { max: self.bytes_max });
            }
        }
        state.bytes += bytes;
        state.ops.push_back(QueuedOp { op, reply, bytes });
        self.tell(&mut state);
        Ok(())
    }

    /// Adds the end of an attempt.
    pub(super) fn push_end(&self, mut end: End, haste: Haste, reply: Reply) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if let End::Settled(settlement) = &mut end
            && state.endings_bytes + settlement.size() > self.bytes_max
        {
            settlement.keep_little();
        }
        state.endings_bytes += end.size();
        let wait = match haste {
            Haste::AtOnce => Duration::ZERO,
            Haste::Grouped => ENDING_WAIT,
        };
        state.endings.push(QueuedEnd { end, reply });
        let now = Instant::now();
        // Endings that were put back after a failed write keep their longer wait.
        let is_sooner = |at: Instant| now + wait < at && at <= now + ENDING_WAIT;
        if state.endings_ready_at.is_none_or(is_sooner) {
            state.endings_ready_at = Some(now + wait);
            self.tell(&mut state);
        } else if state.endings.len() == ENDINGS_READY {
            self.tell(&mut state);
        }
        Ok(())
    }

    fn tell(&self, state: &mut State) {
        if std::mem::take(&mut state.writer_waits) {
            self.ready.notify_one();
        }
    }

    /// Puts back the endings of a failed commit.
    pub(super) fn put_back(&self, ends: Vec<End>, replies: Vec<Reply>) {
        let mut state = self.lock();
        let mut endings: Vec<_> =
            ends.into_iter().zip(replies).map(|(end, reply)| QueuedEnd { end, reply }).collect();
        state.endings_bytes += endings.iter().map(|ending| ending.end.size()).sum::<usize>();
        endings.append(&mut state.endings);
        if !endings.is_empty() {
            state.endings_ready_at = Some(Instant::now() + RETRY_WAIT);
        }
        state.endings = endings;
    }

    /// Closes the queue to new writes.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// Closes the queue to new writes and drops its content: each caller learns that the store is closed.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        (state.bytes, state.endings_bytes) = (0, 0);
        let dropped = (std::mem::take(&mut state.ops), std::mem::take(&mut state.endings));
        drop(state);
        drop(dropped);
    }

    /// Lets [`Self::next`] return in a while, even if nothing is queued.
    pub(super) fn look_later(&self) {
        let at = Instant::now() + RETRY_WAIT;
        let mut state = self.lock();
        state.endings_ready_at = Some(state.endings_ready_at.map_or(at, |known| known.min(at)));
    }

    /// Waits for the next group, which may be empty; `None` when the queue is closed and empty.
    pub(super) fn next(&self) -> Option<QueuedGroup> {
        let mut state = self.lock();
        loop {
            if !state.ops.is_empty() || state.closed {
                break;
            }
            match state.endings_ready_at {
                None => {
                    state.writer_waits = true;
                    state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Some(at) => {
                    let wait = at.saturating_duration_since(Instant::now());
                    // Enough endings go at once, unless a failed write has just put them back.
                    if wait.is_zero() || (state.endings.len() >= ENDINGS_READY && wait <= ENDING_WAIT) {
                        break;
                    }
                    state.writer_waits = true;
                    state = self.ready.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                    state.writer_waits = false;
                }
            }
        }
        if state.closed && state.ops.is_empty() && state.endings.is_empty() {
            return None;
        }
        state = self.gather(state);
        Some(state.take())
    }

    /// Takes what is there without waiting.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn take(&self) -> QueuedGroup {
        self.lock().take()
    }

    /// Under load, waits a moment for a group to grow: each commit has a fixed cost that its members share.
    ///
    /// A single operation does not wait.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let until = Instant::now() + GATHER_MAX;
        let is_busy = state.last_group.max(state.ops.len()) >= GATHER_FROM;
        while is_busy && state.ops.len() < GATHER_ENOUGH && !state.closed {
            let before = state.ops.len();
            let left = until.saturating_duration_since(Instant::now()).min(GATHER_STEP);
            if left.is_zero() {
                break;
            }
            state = self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            if state.ops.len() == before {
                break;
            }
        }
        state
    }

    /// Tells whether the queue is closed. A failed write is not retried then.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl State {
    /// Tells whether a write of `bytes` may be queued.
    ///
    /// An empty queue accepts a write of any size, which would be refused for ever otherwise; its own limit bounds it.
    /// Accepts are the exception, since the sender can send fewer events at once.
    fn has_room(&self, op: &Op, bytes: usize, max: usize) -> bool {
        let may_be_alone = self.ops.is_empty() && !op.is_accept();
        may_be_alone || self.bytes + bytes <= max
    }

    /// Takes a commit's worth of everything.
    fn take(&mut self) -> QueuedGroup {
        let mut group = QueuedGroup::default();
        self.take_ops(&mut group);
        self.last_group = group.ops.len();
        self.take_endings(&mut group);
        if self.endings.is_empty() {
            self.endings_ready_at = None;
        }
        group
    }

    /// Takes a commit's worth of writes.
    fn take_ops(&mut self, group: &mut QueuedGroup) {
        let mut bytes = 0;
        while let Some(next) = self.ops.front() {
            bytes += next.bytes;
            if group.ops.len() == GROUP_MAX || (!group.ops.is_empty() && bytes > GROUP_BYTES_MAX) {
                break;
            }
            let Some(next) = self.ops.pop_front() else { break };
            self.bytes -= next.bytes;
            group.push_op(next);
        }
    }

    /// Takes a commit's worth of endings.
    fn take_endings(&mut self, group: &mut QueuedGroup) {
        let (mut count, mut bytes) = (0, 0);
        for ending in self.endings.iter().take(GROUP_MAX) {
            let more = ending.end.size();
            if count > 0 && bytes + more > GROUP_BYTES_MAX {
                break;
            }
            count += 1;
            bytes += more;
        }
        self.endings_bytes -= bytes;
        self.endings.drain(..count).for_each(|ending| group.push_end(ending));
    }

    /// Makes room by dropping accepts whose callers have gone.
    fn drop_abandoned(&mut self) {
        self.ops.retain(|next| !next.is_abandoned());
        self.bytes = self.ops.iter().map(|next| next.bytes).sum();
    }
}

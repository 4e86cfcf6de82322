//! The queue of writes for the writer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::damage::DeadRow;
use super::modules;
use super::record;
use super::recover::Recover;
use crate::domain::{EventId, RecipientId, Recovery, Subscription, SubscriptionId};
use crate::store::{
    Arrival, DELIVERY_BYTES, Error, Purge, PurgeReport, Quota, Release, Rendering, Settlement,
};

/// Where an answer goes. The write happens even if the receiver is dropped, except for [`Op::is_abandoned`] when there
/// is no room.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A write whose caller waits until it is durable.
pub(super) enum Op {
    Accept { arrivals: Vec<Arrival>, reply: Reply<Vec<EventId>> },
    PutSubscription { subscription: Box<Subscription>, quota: Quota, reply: Reply<()> },
    Redeliver { redelivery: Redelivery, reply: Reply<bool> },
    Freeze { rendering: Box<Rendering>, reply: Reply<bool> },
    BeginRecovery { recovery: Box<Recovery>, subscription: Option<Box<Subscription>>, reply: Reply<bool> },
    Recover { recover: Box<Recover>, reply: Reply<Option<Recovery>> },
    Purge { purge: Purge, from: EventId, reply: Reply<(PurgeReport, Option<EventId>)> },
    CancelPending { subscription: SubscriptionId, limit: usize, at: Timestamp, reply: Reply<bool> },
    Module { change: Box<modules::Change>, reply: Reply<()> },
    Bury { recipient: RecipientId, rows: Vec<DeadRow>, at: Timestamp, reply: Reply<()> },
    Forget { deleted: Vec<SubscriptionId>, reply: Reply<Vec<SubscriptionId>> },
    Probe { reply: Reply<()> },
}

/// The overhead of a write, in bytes.
const OP_BYTES: usize = 256;
/// About the size of a recovery's record, in bytes.
const RECOVERY_BYTES: usize = 1024;

impl Op {
    /// Returns about how many bytes it holds.
    fn size(&self) -> usize {
        OP_BYTES
            + match self {
                Self::Accept { arrivals, .. } => arrivals.iter().map(Arrival::size).sum(),
                Self::Freeze { rendering, .. } => rendering.size(),
                Self::Redeliver { redelivery, .. } => redelivery.recipients.len() * DELIVERY_BYTES,
                Self::Recover { recover, .. } => recover.size(),
                Self::PutSubscription { subscription, .. } => subscription_bytes(subscription),
                Self::BeginRecovery { subscription, .. } => {
                    RECOVERY_BYTES + subscription.as_deref().map_or(0, subscription_bytes)
                }
                Self::Module { change, .. } => change.size(),
                Self::Forget { deleted, .. } => deleted.len() * size_of::<SubscriptionId>(),
                Self::Bury { rows, .. } => rows.len() * size_of::<DeadRow>(),
                Self::Purge { .. } | Self::CancelPending { .. } | Self::Probe { .. } => 0,
            }
    }

    /// Tells whether it comes from outside, and may therefore be refused when there is no room. The service's own
    /// operations have few callers, each of which waits for its answer.
    fn is_asked_for(&self) -> bool {
        match self {
            Self::Accept { .. }
            | Self::Freeze { .. }
            | Self::PutSubscription { .. }
            | Self::Redeliver { .. }
            | Self::BeginRecovery { .. }
            | Self::Module { .. } => true,
            Self::Recover { .. }
            | Self::Purge { .. }
            | Self::CancelPending { .. }
            | Self::Forget { .. }
            | Self::Bury { .. }
            | Self::Probe { .. } => false,
        }
    }

    /// Tells whether it may be dropped: its events were never acknowledged, and its caller has gone.
    fn is_abandoned(&self) -> bool {
        matches!(self, Self::Accept { reply, .. } if reply.is_closed())
    }
}

/// Returns the size of a subscription's record.
fn subscription_bytes(subscription: &Subscription) -> usize {
    record::encode_subscription(subscription).len()
}

/// A request to send an event again.
pub(super) struct Redelivery {
    pub(super) event: EventId,
    pub(super) recipients: Vec<RecipientId>,
    pub(super) by: String,
    pub(super) at: Timestamp,
}

/// The end of an attempt: it may wait to be grouped with others, and is retried while the disk is full.
pub(super) struct Ending {
    pub(super) end: End,
    pub(super) reply: Reply<()>,
}

/// How an attempt ended.
pub(super) enum End {
    /// With an outcome.
    Settled(Settlement),
    /// Without one that counts.
    Released(Release),
}

impl End {
    fn is_run(&self) -> bool {
        match self {
            Self::Settled(settlement) => settlement.run.is_some(),
            Self::Released(_) => false,
        }
    }

    /// Returns about how many bytes it holds.
    fn size(&self) -> usize {
        match self {
            Self::Settled(settlement) => settlement.size(),
            Self::Released(release) => size_of::<Release>() + release.reason.len(),
        }
    }
}

/// The content of one commit.
#[derive(Default)]
pub(super) struct Group {
    pub(super) ops: Vec<Op>,
    pub(super) endings: Vec<Ending>,
}

impl Group {
    /// Returns how many writes there are.
    pub(super) fn len(&self) -> usize {
        self.ops.len() + self.endings.len()
    }

    /// Splits a group of more than one, keeping the order.
    pub(super) fn split(mut self) -> (Self, Self) {
        if self.ops.is_empty() {
            let second = self.endings.split_off(self.endings.len() / 2);
            return (self, Self { ops: Vec::new(), endings: second });
        }
        let middle = if self.endings.is_empty() { self.ops.len() / 2 } else { self.ops.len() };
        let second = self.ops.split_off(middle);
        let endings = std::mem::take(&mut self.endings);
        (self, Self { ops: second, endings })
    }
}

/// How long endings wait for an accept whose commit they can join.
const ENDING_WAIT: Duration = Duration::from_millis(10);
/// How long endings wait after a failed write.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// How many endings are committed without waiting.
const ENDINGS_READY: usize = 512;
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
    ops: VecDeque<WeighedOp>,
    /// The bytes of all `ops`.
    bytes: usize,
    endings: Vec<Ending>,
    /// The bytes of all `endings`.
    endings_bytes: usize,
    endings_ready_at: Option<Instant>,
    /// Whether the writer waits to be notified; notifying it otherwise would waste a system call.
    writer_waits: bool,
    /// How many operations the last group had.
    last_group: usize,
    closed: bool,
}

/// A write, and how many bytes it holds.
struct WeighedOp {
    op: Op,
    bytes: usize,
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
    pub(super) fn push(&self, op: Op) -> Result<(), Error> {
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
        state.ops.push_back(WeighedOp { op, bytes });
        self.tell(&mut state);
        Ok(())
    }

    /// Adds the end of an attempt.
    pub(super) fn push_ending(&self, mut ending: Ending) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if let End::Settled(settlement) = &mut ending.end
            && state.endings_bytes + settlement.size() > self.bytes_max
        {
            settlement.keep_little();
        }
        state.endings_bytes += ending.end.size();
        // The end of a run is committed without delay: the run holds its permit until its end is written.
        let wait = if ending.end.is_run() { Duration::ZERO } else { ENDING_WAIT };
        state.endings.push(ending);
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
    pub(super) fn put_back(&self, mut endings: Vec<Ending>) {
        let mut state = self.lock();
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

    /// Waits for the next group; `None` when the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Group> {
        loop {
            let group = self.wait()?;
            // The group may be empty if its operations were dropped to make room.
            if group.len() > 0 {
                return Some(group);
            }
        }
    }

    fn wait(&self) -> Option<Group> {
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
        let ops = state.take_ops();
        state.last_group = ops.len();
        let endings = state.take_endings();
        if state.endings.is_empty() {
            state.endings_ready_at = None;
        }
        Some(Group { ops, endings })
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
        let may_be_alone = self.ops.is_empty() && !matches!(op, Op::Accept { .. });
        may_be_alone || self.bytes + bytes <= max
    }

    /// Takes a commit's worth of writes.
    fn take_ops(&mut self) -> Vec<Op> {
        let (mut taken, mut bytes) = (Vec::with_capacity(self.ops.len().min(GROUP_MAX)), 0);
        while let Some(next) = self.ops.front() {
            bytes += next.bytes;
            if taken.len() == GROUP_MAX || (!taken.is_empty() && bytes > GROUP_BYTES_MAX) {
                break;
            }
            let Some(WeighedOp { op, bytes }) = self.ops.pop_front() else { break };
            self.bytes -= bytes;
            taken.push(op);
        }
        taken
    }

    /// Takes a commit's worth of endings.
    fn take_endings(&mut self) -> Vec<Ending> {
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
        self.endings.drain(..count).collect()
    }

    /// Makes room by dropping accepts whose callers have gone.
    fn drop_abandoned(&mut self) {
        self.ops.retain(|next| !next.op.is_abandoned());
        self.bytes = self.ops.iter().map(|next| next.bytes).sum();
    }
}

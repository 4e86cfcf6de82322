//! One attempt: calls the deliverer, and turns the result into a record for the store.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::slots::Slot;
use super::supervisor::Shared;
use super::{Assignment, AttemptRecord, Deliverer, Effect, Next};
use waypost_domain::{Attempt, EventId, Holder, Outcome, RecipientId};
use waypost_runtime::clock;
use waypost_runtime::dice;
use waypost_runtime::stage::caught;
use waypost_store::{Error, PendingDelivery, Progress, Release, Settlement, Store};

/// The longest that a delivery is put off without being counted. Each wait is as long as all before it together.
const HOLD_MAX: Duration = Duration::from_secs(5 * 60);
/// How long to wait before the end of an attempt is recorded again.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// How an attempt ended.
pub(super) struct AttemptResult {
    pub(super) record: Record,
    pub(super) effect: Effect,
    pub(super) event: EventId,
    /// Whether its row was that of a retry.
    pub(super) was_retry: bool,
    pub(super) is_good: bool,
    /// When the next attempt is due, if there is one.
    pub(super) due: Option<Timestamp>,
    pub(super) took: Duration,
    /// How long the recipient took to answer, if it was asked.
    pub(super) answered_in: Option<Duration>,
    /// Whether it gave way to other workers.
    pub(super) gave_way: bool,
}

/// How an attempt ended, for the store.
#[derive(Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, which is not to cost an allocation"
)]
pub(super) enum Record {
    /// It counts.
    Settled(Settlement),
    /// It does not.
    Released(Box<Release>),
}

/// How soon the end of an attempt is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// Together with others.
    Grouped,
    /// With the next commit.
    AtOnce,
}

impl Record {
    /// Writes it to the store: once, or until it is written if the rules insist.
    pub(super) async fn write<D: Deliverer>(self, shared: &Shared<D>, haste: Haste) -> Result<(), Error> {
        if D::RULES.insists {
            // Boxed, so that those that do not insist do not pay for the size of this future.
            return Box::pin(self.insist(&shared.store, &shared.stop)).await;
        }
        self.write_once(&shared.store, haste).await
    }

    async fn write_once(self, store: &Store, haste: Haste) -> Result<(), Error> {
        match self {
            Self::Settled(settlement) if haste == Haste::AtOnce => store.settle_at_once(settlement).await,
            Self::Settled(settlement) => store.settle(settlement).await,
            Self::Released(release) => store.release(*release).await,
        }
    }

    /// Tries to write it until it is written, the error is final, or the service stops.
    async fn insist(self, store: &Store, stop: &CancellationToken) -> Result<(), Error> {
        loop {
            let written = self.clone().write_once(store, Haste::Grouped).await;
            match &written {
                // A damaged record stays damaged.
                Ok(()) | Err(Error::Damaged { .. }) => return written,
                Err(error) => tracing::error!(%error, "the end of an attempt is not recorded yet"),
            }
            if stop.run_until_cancelled(tokio::time::sleep(RECORD_PAUSE)).await.is_none() {
                return written;
            }
        }
    }
}

/// Makes one attempt. Dropping the future undoes it as the deliverer says. A panic is an outcome of only this attempt.
pub(super) async fn attempt<D: Deliverer>(
    shared: Arc<Shared<D>>,
    recipient: RecipientId,
    subject: Arc<D::Subject>,
    pending: PendingDelivery,
    permit: D::Permit,
    slot: Slot,
) -> (AttemptResult, Slot) {
    let (deliverer, event) = (&shared.deliverer, pending.event.id);
    let mark = deliverer.mark();
    let _in_flight = shared.in_flight.enter(event, recipient, mark.clone());
    let mut record = AttemptRecord::of(&pending);
    let (at, occupied) = (clock::now(), slot.occupy());
    let assignment =
        Assignment { subject: &subject, recipient, pending: &pending, at, slot: occupied, mark: &mark };
    let next = match caught(deliverer.deliver(&assignment, permit, &mut record)).await {
        Ok(next) => next,
        Err(panic) => {
            tracing::error!(%recipient, %event, panic, "an attempt panicked");
            deliverer.panicked(&assignment, &mut record).await
        }
    };
    let (took, answered_in) = (occupied.elapsed(), record.answered_in);
    let (was_retry, gave_way) = (pending.position.due.is_some(), matches!(next, Next::GaveWay(_)));
    let put_off = |by, reason| {
        let release = release::<D>(recipient, &pending, record.progress.sent, by, reason);
        (false, Some(release.due), Record::Released(Box::new(release)), Effect::Nothing)
    };
    let (is_good, due, record, effect) = match next {
        Next::Over(outcome, effect) => {
            let (is_good, due) = match &outcome {
                Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } => (true, None),
                Outcome::Retry { due, .. } => (false, Some(*due)),
                Outcome::Dead { .. } => (false, None),
            };
            let settlement = settle(recipient, &pending, record, (at, took), outcome);
            (is_good, due, Record::Settled(settlement), effect)
        }
        Next::Held(by, reason) => put_off(by, reason),
        Next::GaveWay(reason) => put_off(Holder::Host, reason),
    };
    (AttemptResult { record, effect, event, was_retry, is_good, due, took, answered_in, gave_way }, slot)
}

fn settle(
    recipient: RecipientId,
    pending: &PendingDelivery,
    record: AttemptRecord,
    (at, took): (Timestamp, Duration),
    outcome: Outcome,
) -> Settlement {
    let AttemptRecord { mut progress, policy, target, plugin, run, rendered, missed, .. } = record;
    progress.failed += match &outcome {
        Outcome::Retry { .. } | Outcome::Dead { .. } => 1 + missed,
        Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } => 1,
    };
    progress.held = None;
    progress.first_attempt.get_or_insert(at);
    let attempt = Attempt { number: progress.failed, at, took, policy, target, outcome };
    let (event, position) = (pending.event.id, pending.position);
    Settlement { recipient, event, position, plugin, run, attempt, progress, rendered }
}

/// Puts a delivery off, for as long as it has been held, within limits. Of what the attempt has found out, only what
/// the recipient already has is kept: the history of an event would not show the rest.
fn release<D: Deliverer>(
    recipient: RecipientId,
    pending: &PendingDelivery,
    sent: u64,
    by: Holder,
    reason: String,
) -> Release {
    let now = clock::now();
    // A clock that was set back since.
    let since = pending.progress.held.map_or(now, |since| since.min(now));
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let wait = waited.clamp(D::RULES.hold_min, HOLD_MAX).mul_f64(0.9 + 0.2 * dice::fraction());
    let due = now.checked_add(wait).unwrap_or(Timestamp::MAX);
    let in_micros = |at: Timestamp| Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
    Release {
        recipient,
        event: pending.event.id,
        position: pending.position,
        progress: Progress { sent, ..pending.progress },
        by,
        reason,
        since: in_micros(since),
        // The precision of the store's keys.
        due: in_micros(due),
    }
}

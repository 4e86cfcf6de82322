//! The pending deliveries of one recipient as its worker sees them, with an order or without.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::backlog::Backlog;
use super::lanes::HeadEnd;
use super::ordered::OrderedBacklog;
use super::{CompiledOrder, Division};
use waypost_domain::{EventId, RecipientId};
use waypost_store::{PendingDelivery, Store, Wake};

/// What a worker reads its deliveries from.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, which is not to cost an allocation"
)]
pub(super) enum Reading {
    /// Without an order: retries when they are due, and first attempts as they were accepted.
    Plain(Backlog),
    /// With an order.
    Ordered(Box<OrderedBacklog>),
}

/// Does the same with either.
macro_rules! either {
    ($self:ident, $backlog:ident => $does:expr) => {
        match $self {
            Self::Plain($backlog) => $does,
            Self::Ordered($backlog) => $does,
        }
    };
}

impl Reading {
    pub(super) fn new(
        store: Arc<Store>,
        id: RecipientId,
        division: Division,
        order: Option<CompiledOrder>,
    ) -> Self {
        match order {
            None => Self::Plain(Backlog::new(store, id, division)),
            Some(order) => Self::Ordered(Box::new(OrderedBacklog::new(store, id, order))),
        }
    }

    pub(super) fn is_ordered(&self) -> bool {
        matches!(self, Self::Ordered(_))
    }

    /// Returns what was read and is not attempted yet.
    pub(super) fn waiting(&self) -> &VecDeque<PendingDelivery> {
        either!(self, backlog => &backlog.waiting)
    }

    /// Takes one of those.
    pub(super) fn take(&mut self, place: usize) -> Option<PendingDelivery> {
        either!(self, backlog => backlog.waiting.remove(place))
    }

    /// Returns when the next delivery is due, of those that were not due when they were read.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        either!(self, backlog => backlog.next_due)
    }

    /// Returns when a worker that has nothing to do is needed again, if nothing comes before.
    pub(super) fn needed_at(&self) -> Option<Timestamp> {
        match self {
            Self::Plain(backlog) => backlog.next_due,
            Self::Ordered(backlog) => backlog.needed_at(),
        }
    }

    /// Begins to read a page of this size, if there is something to read.
    pub(super) fn begin(&mut self, page: usize) {
        either!(self, backlog => backlog.begin(page))
    }

    pub(super) fn is_reading(&self) -> bool {
        either!(self, backlog => backlog.is_reading())
    }

    /// Returns the end of the pause after a failed read.
    pub(super) fn pause(&self) -> Option<Instant> {
        either!(self, backlog => backlog.pause())
    }

    /// Waits for the page that is being read, and takes it. Cancel safe.
    pub(super) async fn page(&mut self, most: usize) {
        match self {
            Self::Plain(backlog) => backlog.page().await,
            Self::Ordered(backlog) => backlog.page(most).await,
        }
    }

    /// Drops waiting deliveries that are not this node's any more.
    pub(super) fn drop_foreign(&mut self) {
        match self {
            Self::Plain(backlog) => backlog.drop_foreign(),
            // All of its recipient are this node's.
            Self::Ordered(_) => {}
        }
    }

    /// Drops waiting deliveries, and reads from the beginning.
    pub(super) fn restart(&mut self) {
        either!(self, backlog => backlog.restart())
    }

    /// Stops reading.
    pub(super) fn stop(&mut self) {
        either!(self, backlog => backlog.stop())
    }

    /// Notes if something is due, and tells so.
    pub(super) fn look_at_what_is_due(&mut self) -> bool {
        match self {
            Self::Plain(backlog) => backlog.look_at_what_is_due(),
            Self::Ordered(backlog) => backlog.is_due(),
        }
    }

    /// Tells whether nothing is pending, except deliveries that are due later.
    pub(super) fn is_over(&self) -> bool {
        either!(self, backlog => backlog.is_over())
    }

    /// Tells whether the store may hold due deliveries that are read as soon as there is room.
    pub(super) fn is_due_unread(&self) -> bool {
        match self {
            Self::Plain(backlog) => backlog.is_due_unread(),
            Self::Ordered(backlog) => backlog.is_due() && !backlog.waiting.is_empty(),
        }
    }

    /// Notes what a wake says.
    pub(super) fn receive(&mut self, wake: Wake) {
        either!(self, backlog => backlog.receive(wake))
    }

    /// Tells whether others wait until the end of an attempt is recorded.
    pub(super) fn is_awaited(&self, event: EventId) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Ordered(backlog) => backlog.is_awaited(event),
        }
    }

    /// Notes that the store has recorded the end of an attempt.
    pub(super) fn record(&mut self, event: EventId, was_retry: bool, end: HeadEnd) {
        match self {
            Self::Plain(backlog) => {
                let due = match end {
                    HeadEnd::Again(due) => Some(due),
                    HeadEnd::Over | HeadEnd::Dead => None,
                };
                backlog.record(event, was_retry, due);
            }
            Self::Ordered(backlog) => backlog.record(event, end),
        }
    }

    /// Notes that the end of an attempt could not be recorded.
    pub(super) fn fail_to_record(&mut self, event: EventId) {
        match self {
            // It stays taken, so that this worker does not repeat the attempt in a tight loop.
            Self::Plain(_) => {}
            Self::Ordered(backlog) => backlog.fail_to_record(event),
        }
    }
}

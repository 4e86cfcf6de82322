//! The input of a worker, and what others see of the worker.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::backpressure::{Backpressure, Load};
use waypost_domain::{Holder, RecipientId};
use waypost_store::Wake;

/// The mailbox of one worker: the wakes that it has not received yet, merged into one; and what holds its deliveries.
#[derive(Default)]
pub(super) struct Mailbox {
    /// Notified when there is a wake.
    pub(super) notify: Notify,
    wake: Mutex<Option<Wake>>,
    /// What holds its recipient's deliveries, other than the recipient itself, and since when.
    hold: Mutex<Option<(Holder, Timestamp)>>,
    pub(super) backpressure: Backpressure,
}

impl Mailbox {
    /// Adds a wake.
    pub(super) fn push(&self, wake: Wake) {
        self.backpressure.add(wake.count);
        self.wake.lock().get_or_insert_default().merge(wake);
        self.notify.notify_one();
    }

    /// Takes the merged wake, if there is one.
    pub(super) fn take_wake(&self) -> Option<Wake> {
        self.wake.lock().take()
    }

    /// Tells whether there is a wake.
    pub(super) fn has_wake(&self) -> bool {
        self.wake.lock().is_some()
    }

    /// Notes that a delivery was put off.
    pub(super) fn note_hold(&self, by: Holder, at: Timestamp) {
        let mut hold = self.hold.lock();
        *hold = hold.filter(|(known, _)| *known == by).or(Some((by, at)));
    }

    /// Notes that deliveries are attempted again.
    pub(super) fn clear_hold(&self) {
        *self.hold.lock() = None;
    }

    pub(super) fn hold(&self) -> Option<(Holder, Timestamp)> {
        *self.hold.lock()
    }
}

/// The mailboxes of the running workers. Only the supervisor adds and removes them.
#[derive(Default)]
pub struct Mailboxes {
    map: Mutex<HashMap<RecipientId, Arc<Mailbox>>>,
    load: Load,
}

impl Mailboxes {
    /// Makes mailboxes of prompt recipients that lag.
    #[cfg(test)]
    pub(crate) fn lagging(is_busy: bool, lags: impl IntoIterator<Item = (RecipientId, u64)>) -> Self {
        let mailbox = |(recipient, lag)| {
            let mailbox = Arc::<Mailbox>::default();
            mailbox.push(Wake::accepted(lag + 1));
            mailbox.backpressure.note(std::time::Duration::ZERO, true);
            (recipient, mailbox)
        };
        let map = lags.into_iter().map(mailbox).collect();
        Self { map: Mutex::new(map), load: Load::fixed(is_busy) }
    }

    pub(super) fn of(&self, recipient: RecipientId) -> Option<Arc<Mailbox>> {
        self.lock().get(&recipient).map(Arc::clone)
    }

    /// Keeps workers from starting and ending until the guard is dropped.
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<RecipientId, Arc<Mailbox>>> {
        self.map.lock()
    }

    /// Waits, until `end` at most, while the workers of these recipients lag only because this machine is busy.
    pub(crate) async fn throttle(&self, recipients: &[RecipientId], end: Instant) {
        for id in recipients {
            if let Some(mailbox) = self.of(*id)
                && mailbox.backpressure.is_lagging()
                && self.load.is_busy()
            {
                mailbox.backpressure.caught_up(end).await;
            }
        }
    }

    /// Returns how many deliveries wait for their first attempt only because this machine is busy, by recipient.
    pub(crate) fn lags(&self) -> Vec<(RecipientId, u64)> {
        if !self.load.is_busy() {
            return Vec::new();
        }
        let lag = |mailbox: &Mailbox| u64::try_from(mailbox.backpressure.lag()).unwrap_or_default();
        self.lock().iter().map(|(id, mailbox)| (*id, lag(mailbox))).filter(|(_, lag)| *lag > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ID: RecipientId = RecipientId::MAX;

    /// A target that takes 30 ms slowed all producers of its events down to its own pace, on a machine with nothing to
    /// do.
    #[tokio::test(start_paused = true)]
    async fn a_lag_counts_and_throttles_only_while_the_machine_is_busy() {
        let end = Instant::now() + Duration::from_millis(100);
        let idle = Mailboxes::lagging(false, [(ID, 9_999)]);
        assert!(idle.lags().is_empty());
        idle.throttle(&[ID], end).await;
        assert!(Instant::now() < end);
        let busy = Mailboxes::lagging(true, [(ID, 9_999), (RecipientId::NIL, 0)]);
        assert_eq!(busy.lags(), [(ID, 9_999)]);
        busy.throttle(&[RecipientId::NIL, RecipientId::from_uuid(uuid::Uuid::from_u128(7))], end).await;
        assert!(Instant::now() < end, "these have caught up, or have no worker");
        busy.throttle(&[ID], end).await;
        assert!(Instant::now() >= end);
        assert!(busy.lags().is_empty(), "nothing has succeeded for 100 ms");
    }

    #[test]
    fn a_wake_is_taken_once() {
        let mailbox = Mailbox::default();
        assert!(!mailbox.has_wake());
        mailbox.push(Wake::accepted(2));
        mailbox.push(Wake { count: 1, ..Wake::read() });
        mailbox.push(Wake::accepted(3));
        assert!(mailbox.has_wake());
        let wake = mailbox.take_wake().unwrap();
        assert_eq!((wake.due, wake.count), (true, 6));
        assert!(!mailbox.has_wake() && mailbox.take_wake().is_none());
    }
}

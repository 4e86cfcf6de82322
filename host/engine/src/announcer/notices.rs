//! What is told and not kept: a bounded queue from those who notice it to the announcer.
//!
//! Of each kind, a breaker has at most one told in a minute. A breaker that flaps is told as it stands when the minute is
//! over, unless that is known.

use std::collections::{HashMap, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use waypost_domain::{Guarded, Notice, SubscriptionId};
use waypost_runtime::clock;

/// The shortest time between two of a kind about the same.
const EVERY: Duration = Duration::from_secs(60);
/// How many wait to be told at most: the oldest is dropped for another.
const WAITING_MAX: usize = 256;

/// Notices on their way to the announcer.
#[derive(Default)]
pub struct Notices {
    queue: Mutex<Queue>,
    told: Notify,
}

#[derive(Default)]
struct Queue {
    /// What is to be told now, and when it was noticed.
    ready: VecDeque<(Timestamp, Notice)>,
    /// What was told of each breaker, or of this machine.
    subjects: HashMap<About, Subject>,
}

/// A breaker, or `None` for this machine.
type About = Option<(SubscriptionId, Guarded)>;

#[derive(Default)]
struct Subject {
    /// When each kind was told last.
    told: Vec<(Discriminant<Notice>, Instant)>,
    /// The last that was told.
    last: Option<Notice>,
    /// What came too soon after another of its kind.
    late: Option<(Timestamp, Notice)>,
}

impl Notices {
    /// Tells operators something, soon. Does not block.
    pub fn tell(&self, notice: Notice) {
        self.tell_at(notice, clock::now(), Instant::now());
    }

    /// Forgets a subscription that is deleted.
    pub(crate) fn forget(&self, subscription: SubscriptionId) {
        let mut queue = self.queue.lock();
        for of in [Guarded::Target, Guarded::Plugin] {
            queue.subjects.remove(&Some((subscription, of)));
        }
    }

    fn tell_at(&self, notice: Notice, at: Timestamp, now: Instant) {
        self.queue.lock().push(notice, at, now);
        self.told.notify_one();
    }

    /// Returns what is to be told now.
    pub(crate) fn take(&self, now: Instant) -> Vec<(Timestamp, Notice)> {
        self.queue.lock().take(now)
    }

    /// Waits until there is something to be told. Cancel safe, for one reader.
    pub(super) async fn due(&self) {
        loop {
            let due = {
                let queue = self.queue.lock();
                if queue.ready.is_empty() { queue.next_due() } else { Some(Instant::now()) }
            };
            match due {
                Some(due) if due <= Instant::now() => return,
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.told.notified() => {}
                    }
                }
                None => self.told.notified().await,
            }
        }
    }
}

impl Queue {
    fn push(&mut self, notice: Notice, at: Timestamp, now: Instant) {
        let about = about(&notice);
        let subject = self.subjects.entry(about).or_default();
        // The newest counts.
        subject.late = None;
        if subject.free_at(&notice).is_some_and(|free| free > now) {
            subject.late = Some((at, notice));
            return;
        }
        // One that opens again was closed by a change of its subscription, which is not told.
        let opens = matches!(notice, Notice::BreakerOpened { .. });
        if opens || is_news(subject.last.as_ref(), &notice) {
            self.ready(at, notice, now);
        }
    }

    fn ready(&mut self, at: Timestamp, notice: Notice, now: Instant) {
        let subject = self.subjects.entry(about(&notice)).or_default();
        let kind = discriminant(&notice);
        subject.told.retain(|(known, _)| *known != kind);
        subject.told.push((kind, now));
        subject.last = Some(notice.clone());
        if self.ready.len() == WAITING_MAX {
            let dropped = self.ready.pop_front();
            tracing::warn!(?dropped, "more happens than operators can be told: the oldest notice is dropped");
        }
        self.ready.push_back((at, notice));
    }

    fn take(&mut self, now: Instant) -> Vec<(Timestamp, Notice)> {
        let late: Vec<_> = self.subjects.values_mut().filter_map(|subject| subject.take_late(now)).collect();
        for (at, notice) in late {
            self.ready(at, notice, now);
        }
        // An open breaker is remembered: only then is its end news.
        self.subjects.retain(|_, subject| {
            let is_open = matches!(subject.last, Some(Notice::BreakerOpened { .. }));
            is_open || subject.late.is_some() || subject.told.iter().any(|(_, at)| *at + EVERY > now)
        });
        self.ready.drain(..).collect()
    }

    fn next_due(&self) -> Option<Instant> {
        let due = |subject: &Subject| subject.late.as_ref().and_then(|(_, late)| subject.free_at(late));
        self.subjects.values().filter_map(due).min()
    }
}

impl Subject {
    /// Returns when a notice of this kind may be told, if one was.
    fn free_at(&self, notice: &Notice) -> Option<Instant> {
        let kind = discriminant(notice);
        self.told.iter().find(|(known, _)| *known == kind).map(|(_, at)| *at + EVERY)
    }

    fn take_late(&mut self, now: Instant) -> Option<(Timestamp, Notice)> {
        let free = self.late.as_ref().and_then(|(_, late)| self.free_at(late));
        let late = self.late.take_if(|_| free.is_none_or(|free| free <= now))?;
        is_news(self.last.as_ref(), &late.1).then_some(late)
    }
}

fn about(notice: &Notice) -> About {
    match notice {
        Notice::BreakerOpened { subscription, of, .. } | Notice::BreakerClosed { subscription, of } => {
            Some((*subscription, *of))
        }
        Notice::DiskLow { .. } => None,
    }
}

/// Tells whether a notice says something new: that a breaker is closed does only after it was told to be open.
fn is_news(last: Option<&Notice>, notice: &Notice) -> bool {
    match notice {
        Notice::BreakerOpened { .. } => !matches!(last, Some(Notice::BreakerOpened { .. })),
        Notice::BreakerClosed { .. } => matches!(last, Some(Notice::BreakerOpened { .. })),
        Notice::DiskLow { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(subscription: SubscriptionId) -> Notice {
        let (failures, reason) = (10, "500".to_owned());
        let of = Guarded::Target;
        Notice::BreakerOpened { subscription, of, failures, reason, until: Timestamp::UNIX_EPOCH }
    }

    fn closed(subscription: SubscriptionId) -> Notice {
        Notice::BreakerClosed { subscription, of: Guarded::Target }
    }

    /// What is told of notices that come so many seconds after the first look, each looked for each second.
    fn told(notices: &[(u64, Notice)]) -> Vec<(u64, Notice)> {
        let (queue, begin) = (Notices::default(), Instant::now());
        let mut told = Vec::new();
        for second in 0..200 {
            let now = begin + Duration::from_secs(second);
            for (_, notice) in notices.iter().filter(|(at, _)| *at == second) {
                queue.tell_at(notice.clone(), Timestamp::UNIX_EPOCH, now);
            }
            told.extend(queue.take(now).into_iter().map(|(_, notice)| (second, notice)));
        }
        assert!(queue.queue.lock().subjects.values().all(|subject| subject.late.is_none()));
        told
    }

    const ID: SubscriptionId = SubscriptionId::NIL;

    #[tokio::test]
    async fn a_breaker_that_flaps_is_told_once_a_minute_and_as_it_stands() {
        let (open, close) = (opened(ID), closed(ID));
        let flaps: Vec<_> =
            (0..20).map(|at| (at, if at % 2 == 0 { open.clone() } else { close.clone() })).collect();
        assert_eq!(told(&flaps), [(0, open.clone()), (1, close.clone())], "in the end it is closed");
        assert_eq!(
            told(&flaps[..19]),
            [(0, open.clone()), (1, close.clone()), (60, open.clone())],
            "in the end it is open"
        );
        assert_eq!(
            told(&[(0, open.clone()), (70, close.clone()), (100, open.clone())]),
            [(0, open.clone()), (70, close), (100, open)]
        );
    }

    #[tokio::test]
    async fn others_are_told_at_once_and_an_end_without_a_beginning_not_at_all() {
        let others: Vec<_> = (1..9).map(uuid::Uuid::from_u128).map(SubscriptionId::from_uuid).collect();
        let notices: Vec<_> = others.iter().map(|id| (3, opened(*id))).collect();
        assert_eq!(told(&notices), notices);
        assert_eq!(told(&[(0, closed(ID))]), []);
        let low = |used| Notice::DiskLow { used, max: 10 };
        assert_eq!(
            told(&[(0, low(1)), (1, low(2)), (2, low(3)), (90, low(4))]),
            [(0, low(1)), (60, low(3)), (120, low(4))]
        );
    }

    #[tokio::test]
    async fn no_more_wait_than_may() {
        let (queue, now) = (Notices::default(), Instant::now());
        for number in 0..1_000 {
            let id = SubscriptionId::from_uuid(uuid::Uuid::from_u128(number));
            queue.tell_at(opened(id), Timestamp::UNIX_EPOCH, now);
        }
        let left = queue.take(now);
        assert_eq!(left.len(), WAITING_MAX);
        assert_eq!(about(&left[0].1).unwrap().0.uuid().as_u128(), 1_000 - WAITING_MAX as u128);
    }
}

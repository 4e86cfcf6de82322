//! The limit of deliveries that wait for this service: beyond it, events are refused until it has caught up.
//!
//! It counts deliveries that were accepted and not attempted yet, only while this machine is busy, and only of recipients
//! that are prompt ([`Mailboxes::lags`]). Others wait for their targets, and refusing events would let one bad target harm
//! all subscriptions: the disk bounds what waits for them (`retention`). And a single subscription counts for a quarter of
//! the limit at most, the subscriptions of one user for half of it while there are other users.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Error;
use crate::directory::Directory;
use crate::worker::Mailboxes;
use waypost_domain::RecipientId;

/// How often it is counted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The limit, and whether it was exceeded when that was looked at last.
pub(super) struct BacklogLimit {
    max: u64,
    next_look: Mutex<Instant>,
    is_exceeded: AtomicBool,
}

impl BacklogLimit {
    pub(super) fn new(max: u64) -> Self {
        Self { max, next_look: Mutex::new(Instant::now()), is_exceeded: AtomicBool::new(false) }
    }

    /// Fails while the limit is exceeded.
    pub(super) fn check(&self, mailboxes: &Mailboxes, directory: &Directory) -> Result<(), Error> {
        // One request looks, for all.
        if let Some(mut next) = self.next_look.try_lock()
            && Instant::now() >= *next
        {
            *next = Instant::now() + LOOK_EVERY;
            let is_exceeded = self.is_exceeded(&mailboxes.lags(), directory);
            self.is_exceeded.store(is_exceeded, Ordering::Relaxed);
        }
        match self.is_exceeded.load(Ordering::Relaxed) {
            true => Err(Error::Behind { max: self.max }),
            false => Ok(()),
        }
    }

    fn is_exceeded(&self, lags: &[(RecipientId, u64)], directory: &Directory) -> bool {
        if lags.iter().map(|(_, lag)| *lag).sum::<u64>() <= self.max {
            return false;
        }
        let owned = lags.iter().filter_map(|(id, lag)| Some((directory.recipient(*id)?, *lag)));
        let owned: Vec<_> = owned.collect();
        let lags = owned.iter().map(|(subscription, lag)| (subscription.user.as_str(), *lag));
        counted(lags, self.max, directory.has_one_user()) >= self.max
    }
}

/// Returns what counts of the lags of users' subscriptions.
fn counted<'a>(lags: impl Iterator<Item = (&'a str, u64)>, max: u64, is_one_user: bool) -> u64 {
    let mut users = HashMap::<&str, u64>::new();
    for (user, lag) in lags {
        *users.entry(user).or_default() += lag.min(max.div_ceil(4));
    }
    let share = if is_one_user { max } else { max.div_ceil(2) };
    users.into_values().map(|lag| lag.min(share)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_domain::Subscription;
    use waypost_runtime::clock;
    use waypost_store::Store;

    /// The limit looks again only after a while; what it has found holds for all requests in between.
    #[tokio::test]
    async fn events_are_refused_until_the_service_has_caught_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = std::sync::Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
        let directory = Directory::open(store, Vec::new()).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..5 {
            let target = "http://localhost:9/".parse().unwrap();
            let subscription = Subscription::new(
                "ann".to_owned(),
                "a".to_owned(),
                "$.data".to_owned(),
                target,
                clock::now(),
            );
            let created = directory.create(subscription).await.unwrap();
            ids.push(RecipientId::from(created.subscription.id));
        }
        tokio::time::pause();
        let limit = BacklogLimit::new(100);
        let check = |is_busy, lags: &[u64]| {
            let lags = ids.iter().copied().zip(lags.iter().copied());
            limit.check(&Mailboxes::lagging(is_busy, lags), &directory).map_err(|error| error.to_string())
        };
        assert_eq!(check(true, &[25, 25, 25, 25]), Ok(()), "as many as may");
        assert_eq!(check(true, &[30; 5]), Ok(()), "it has just looked");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(check(true, &[9_999, 1, 1, 1]), Ok(()), "one subscription alone");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(check(false, &[30; 5]), Ok(()), "their targets are slow: the machine has nothing to do");
        tokio::time::advance(LOOK_EVERY).await;
        let refused = check(true, &[30; 5]).unwrap_err();
        assert!(refused.contains("100 or more (the setting backlog_max): try again"), "{refused}");
        assert!(check(true, &[]).is_err());
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(check(true, &[]), Ok(()));
    }

    #[test]
    fn no_subscription_counts_for_more_than_a_quarter_and_no_user_for_more_than_half() {
        let of =
            |lags: &[(&'static str, u64)], is_one_user| counted(lags.iter().copied(), 1_000, is_one_user);
        assert_eq!(of(&[("ann", 9_999), ("ann", 10)], true), 260);
        assert_eq!(of(&[("ann", 9_999); 3], true), 750);
        assert_eq!(of(&[("ann", 9_999); 9], true), 1_000, "there is nobody else");
        assert_eq!(of(&[("ann", 9_999); 9], false), 500);
        assert_eq!(of(&[("ann", 260), ("bob", 9_999), ("ann", 200), ("bob", 400), ("bob", 100)], false), 950);
        let all: Vec<_> = (0..1_001).map(|_| ("ann", 1)).collect();
        assert_eq!(of(&all, true), 1_000);
        assert_eq!(counted([("ann", 7)].into_iter(), 1, true), 1);
    }
}

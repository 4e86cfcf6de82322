//! Removes what is past its time: events past their retention, and deleted subscriptions that nothing refers to.
//!
//! One node does it for all: the one that has the first hash slot ([`waypost_store::Share`]).
//!
//! What is removed by the clock is gone, so a clock that jumps ahead is not believed at once ([`Calendar`]): a machine whose
//! battery is empty may show any year until the network tells it the time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use waypost_engine::directory::Directory;
use waypost_runtime::{clock, durable};
use waypost_store::{HashSlot, Purge, PurgeReport, Store};

/// The file in the data folder with the time that was believed last.
const CLOCK_FILE: &str = "clock";
/// How far ahead of where it should be a clock counts as one that has jumped, and how far ahead of the time that was believed
/// last at a start.
const JUMP_MIN: SignedDuration = SignedDuration::from_hours(1);
const START_JUMP_MIN: SignedDuration = SignedDuration::from_hours(24);
/// How long a clock that has jumped ahead has to go on as usual until it is believed.
const PROBATION: Duration = Duration::from_secs(55 * 60);

/// How often it is done.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How often the last uses of tokens are written.
const USES_INTERVAL: Duration = Duration::from_secs(60);
/// How long a token past its end is still listed.
const SPENT_SHOWN: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many deleted subscriptions one write looks at.
const FORGET_AT_ONCE: usize = 256;

/// How long things are kept; `None` keeps them for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub(super) events: Option<Duration>,
    /// What waits for disabled subscriptions.
    pub(super) backlog: Option<Duration>,
    pub(super) audit: Option<Duration>,
}

/// Removes it at the start and at intervals, until the service stops.
pub(super) async fn run(
    store: Arc<Store>,
    directory: Arc<Directory>,
    retention: Retention,
    data: PathBuf,
    stop: CancellationToken,
) {
    let mut calendar = Calendar::of(&store, &data).await;
    if calendar.doubted_until.is_some() {
        tracing::warn!(
            "the clock is far ahead of the last run: what is past its time stays for another hour, in case the clock is wrong"
        );
    }
    let rounds = async {
        loop {
            store.share().gained(HashSlot::FIRST).await;
            if let Some(now) = calendar.now() {
                keep(now, &data).await;
                if let Some(retention) = retention.backlog {
                    expire(&store, &directory, now, retention).await;
                }
                if let Some(retention) = retention.events {
                    purge(&store, now, retention).await;
                }
                if let Some(retention) = retention.audit {
                    purge_audit(&store, now, retention).await;
                }
            }
            forget(&store, &directory).await;
            tokio::time::sleep(INTERVAL).await;
        }
    };
    // The work is many small writes, so a shutdown need not wait for the last one.
    stop.run_until_cancelled(rounds).await;
}

/// The wall clock, as far as it is believed.
struct Calendar {
    /// What it showed last, and when.
    last: (Timestamp, Instant),
    /// Until when it is not believed.
    doubted_until: Option<Instant>,
}

impl Calendar {
    /// Begins with the clock as it is, if it is not far ahead of what was believed last: of the newest event, where that is not
    /// known. (One event under a wrong clock would make that the measure.)
    async fn of(store: &Store, data: &Path) -> Self {
        let kept = std::fs::read_to_string(data.join(CLOCK_FILE)).ok();
        let believed = match kept.and_then(|text| text.trim().parse::<Timestamp>().ok()) {
            Some(kept) => Some(kept),
            None => store.newest_time().await.ok().flatten(),
        };
        let now = clock::now();
        let doubted = believed.is_some_and(|believed| now.duration_since(believed) > START_JUMP_MIN);
        let here = Instant::now();
        Self { last: (now, here), doubted_until: doubted.then(|| here + PROBATION) }
    }

    /// Returns the time, if it is believed.
    fn now(&mut self) -> Option<Timestamp> {
        let (now, here) = (clock::now(), Instant::now());
        let (before, then) = std::mem::replace(&mut self.last, (now, here));
        let expected = before.checked_add(here.duration_since(then)).unwrap_or(Timestamp::MAX);
        let ahead = now.duration_since(expected);
        if ahead > JUMP_MIN {
            tracing::warn!(
                hours = ahead.as_hours(),
                "the clock has jumped ahead: what is past its time stays for another hour, in case the clock is wrong"
            );
            self.doubted_until = Some(here + PROBATION);
        } else if ahead < -JUMP_MIN {
            self.doubted_until = None;
        }
        self.doubted_until = self.doubted_until.filter(|until| here < *until);
        self.doubted_until.is_none().then_some(now)
    }
}

/// Keeps the time that is believed, for the next start.
async fn keep(now: Timestamp, data: &Path) {
    let file = data.join(CLOCK_FILE);
    let writing = tokio::task::spawn_blocking(move || durable::write(&file, &[now.to_string().as_bytes()]));
    if let Ok(Err(error)) = writing.await {
        tracing::debug!(%error, "the time is not kept: the next start may doubt the clock for an hour");
    }
}

/// Gives up what has waited for disabled subscriptions for too long.
async fn expire(store: &Store, directory: &Directory, now: Timestamp, retention: Duration) {
    let Ok(before) = now.checked_sub(retention) else { return };
    let expired = async {
        let mut expired = 0;
        let mut recipients = store.recipients_with_backlog().await?;
        // One that the directory does not know is a handler, or cannot be read: the store knows which.
        recipients.retain(|id| directory.get(id.subscription_id()).is_none_or(|known| !known.is_active()));
        for recipient in recipients {
            expired += store.expire_backlog(recipient, before).await?;
        }
        Ok::<_, waypost_store::Error>(expired)
    };
    match expired.await {
        Ok(0) => {}
        Ok(expired) => {
            tracing::info!(expired, "what has waited for disabled subscriptions for too long is given up")
        }
        Err(error) => tracing::warn!(%error, "what waits for disabled subscriptions stays for now"),
    }
}

/// Removes events past their retention.
async fn purge(store: &Store, now: Timestamp, retention: Duration) {
    let Ok(before) = now.checked_sub(retention) else { return };
    match store.purge(Purge::Before(before), None).await {
        Ok(PurgeReport { purged: 0, .. }) => {}
        Ok(PurgeReport { purged, kept }) => {
            tracing::info!(purged, kept, "events past their retention are removed");
        }
        Err(error) => tracing::warn!(%error, "events past their retention stay for now"),
    }
}

/// Removes the oldest part of the audit.
async fn purge_audit(store: &Store, now: Timestamp, retention: Duration) {
    let Ok(before) = now.checked_sub(retention) else { return };
    loop {
        match store.purge_audit(before).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::warn!(%error, "old entries of the audit stay for now"),
        }
    }
}

/// Writes when tokens were used, and removes those that are past their end, a while after it, until the service stops.
pub(super) async fn tend_tokens(
    store: Arc<Store>,
    identity: Arc<Identity>,
    data: PathBuf,
    stop: CancellationToken,
) {
    let mut calendar = Calendar::of(&store, &data).await;
    let rounds = async {
        loop {
            tokio::time::sleep(USES_INTERVAL).await;
            let uses = identity.tokens().take_used();
            if !uses.is_empty()
                && let Err(error) = store.tokens_used(uses).await
            {
                tracing::warn!(%error, "when tokens were last used is not written");
            }
            let Some(now) = calendar.now() else { continue };
            for id in identity.spent(now - SPENT_SHOWN) {
                if let Err(error) = store.remove_token(id, None).await {
                    tracing::warn!(%error, "a token past its end stays for now");
                }
            }
        }
    };
    stop.run_until_cancelled(rounds).await;
}

/// Forgets deleted subscriptions that nothing in the log refers to any more.
async fn forget(store: &Store, directory: &Directory) {
    let deleted = directory.deleted_before(clock::now());
    for deleted in deleted.chunks(FORGET_AT_ONCE) {
        if let Err(error) = store.forget(deleted.to_vec()).await {
            return tracing::warn!(%error, "deleted subscriptions stay for now");
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;
    use waypost_domain::Event;
    use waypost_store::Arrival;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + hours.hours()
    }

    async fn log(store: &Store, id: &str, received: Timestamp) {
        let event = serde_json::json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t"});
        let event = Event::from_json(event.to_string()).unwrap();
        let (sender, matched, failed) = ("ann".to_owned(), Vec::new(), Vec::new());
        store.log(vec![Arrival { event, received, sender, matched, failed }]).await.unwrap();
    }

    /// One look at a clock that was wrong for a minute removed the whole log.
    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_ahead_is_believed_after_an_hour() {
        clock::simulated::set(Some(at(0)));
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Duration::ZERO).unwrap();
        let mut calendar = Calendar::of(&store, folder.path()).await;
        assert_eq!(calendar.now(), Some(at(0)));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(calendar.now(), Some(at(1)));
        // A dead battery: it is corrected within the hour, and nothing was removed.
        clock::simulated::set(Some(at(100_000)));
        assert_eq!(calendar.now(), None);
        clock::simulated::set(Some(at(1)));
        assert_eq!(calendar.now(), Some(at(1)));
        // A machine that slept for a day.
        clock::simulated::set(Some(at(25)));
        assert_eq!(calendar.now(), None);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(calendar.now(), None);
        tokio::time::advance(INTERVAL).await;
        assert!(calendar.now().is_some());
        clock::simulated::set(Some(at(0)));
        assert_eq!(calendar.now(), Some(at(0)), "what is set back removes nothing");
        clock::simulated::set(None);
        store.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn at_a_start_a_clock_far_ahead_of_the_newest_event_is_doubted_for_an_hour() {
        clock::simulated::set(Some(at(0)));
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Duration::ZERO).unwrap();
        log(&store, "a", at(-30)).await;
        let of = async || Calendar::of(&store, folder.path()).await;
        let mut calendar = of().await;
        assert_eq!(calendar.now(), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(calendar.now(), Some(at(1)));
        log(&store, "b", at(0)).await;
        assert_eq!(of().await.now(), Some(at(1)));
        // An event that comes while the clock is wrong proves nothing.
        keep(at(1), folder.path()).await;
        clock::simulated::set(Some(at(100_000)));
        log(&store, "c", at(100_000)).await;
        assert_eq!(of().await.now(), None);
        clock::simulated::set(None);
        store.close().await;
    }
}

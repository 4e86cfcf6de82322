//! The way of operator events into the log: no limit of producers holds for them.

use std::time::Duration;

use super::{Error, Intake, MATCH_PAUSE_MAX, MATCH_PAUSE_MIN};
use waypost_domain::{Event, OPERATOR, SubscriptionId};
use waypost_runtime::clock;
use waypost_store::{Accepted, AnnouncementPlace};

/// An operator event to be logged.
pub(crate) struct OperatorEvent {
    pub(crate) event: Event,
    /// Whose dead letter it tells of, and whether policy had allowed its user to see the event.
    pub(crate) letter: Option<(SubscriptionId, bool)>,
}

impl OperatorEvent {
    /// Makes one that is about no dead letter.
    pub(crate) fn plain(event: Event) -> Self {
        Self { event, letter: None }
    }
}

impl Intake {
    /// Logs operator events, with the announcements from the first to the last of `rows` that they are made of. There is
    /// room for them whatever else waits.
    ///
    /// # Errors
    /// When the store cannot write. Nothing is logged then.
    pub(crate) async fn announce(
        &self,
        events: Vec<OperatorEvent>,
        rows: Option<(AnnouncementPlace, AnnouncementPlace)>,
    ) -> Result<(), Error> {
        let (received, mut matched_at) = (clock::now(), self.directory.position());
        let (mut arrivals, mut letters) = (Vec::with_capacity(events.len()), Vec::new());
        let mut pause = Duration::ZERO;
        for (index, OperatorEvent { event, letter }) in events.into_iter().enumerate() {
            arrivals.push(self.arrival(event, received, OPERATOR, index).await?);
            letters.push(letter);
        }
        loop {
            for (arrival, letter) in arrivals.iter_mut().zip(&letters) {
                let goes_to = letter.and_then(|(of, allowed)| self.directory.letters_go_to(of, allowed));
                arrival.matched.extend(goes_to);
            }
            let accepted = self.store.announce(arrivals, matched_at, rows).await;
            match accepted.map_err(|source| Error::Log { source })? {
                Accepted::Logged(_) => return Ok(()),
                Accepted::Stale(changed, stale) => {
                    self.directory.follow(changed).await;
                    self.directory.pause_changes(pause);
                    pause = (2 * pause).clamp(MATCH_PAUSE_MIN, MATCH_PAUSE_MAX);
                    matched_at = self.directory.position();
                    arrivals = stale;
                }
            }
            for (index, arrival) in arrivals.iter_mut().enumerate() {
                self.match_again(arrival, index).await?;
            }
        }
    }
}

//! The deliveries of one subscription, whenever their state has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::{Page, Source, message};
use crate::http::Api;
use crate::http::deliveries::show;
use crate::http::error::ApiError;
use crate::http::eventmatch::own;
use crate::http::story::View;
use crate::identity::User;
use waypost_api::v1;
use waypost_domain::{EventId, SubscriptionId};
use waypost_store::DeliveriesQuery;

/// How many of the newest deliveries are looked at, at once and at most.
const NEWEST: usize = 100;
const NEWEST_MAX: usize = 1_000;
/// How many deliveries are followed.
const FOLLOWED_MAX: usize = 1_000;
/// How often deliveries are looked at that were over: somebody may have asked for them again.
const AGAIN: Duration = Duration::from_secs(5);
/// How many events are held in memory at once: each may be as large as `event_bytes_max`.
const READ_AT_ONCE: usize = 32;

/// The changes of a subscription's deliveries.
pub(super) struct Deliveries {
    api: Arc<Api>,
    user: User,
    subscription: SubscriptionId,
    /// What the reader knows of each delivery; `None` for one that the user may not know of yet.
    followed: BTreeMap<EventId, Option<Seen>>,
    /// When those that were over are looked at again.
    again: Instant,
}

/// What of a delivery was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    state: v1::DeliveryState,
    attempts: usize,
    redeliveries: usize,
}

/// Tells that there were more new deliveries than are looked at.
#[derive(Serialize)]
struct Gap {
    /// The oldest delivery that was looked at.
    before: EventId,
}

impl Seen {
    fn of(delivery: &v1::Delivery) -> Self {
        Self {
            state: delivery.state,
            attempts: delivery.attempts.len(),
            redeliveries: delivery.redeliveries.len(),
        }
    }

    /// Tells whether a delivery may still change by itself.
    fn is_open(self) -> bool {
        use v1::DeliveryState::{Delivering, Pending, Retrying};
        matches!(self.state, Pending | Delivering | Retrying)
    }
}

impl Deliveries {
    /// Begins with the changes after a time, in microseconds since 1970, or with the next one.
    pub(super) async fn begin(
        api: Arc<Api>,
        user: User,
        subscription: SubscriptionId,
        since: Option<i64>,
    ) -> Result<Self, ApiError> {
        let mut begun =
            Self { api, user, subscription, followed: BTreeMap::new(), again: Instant::now() + AGAIN };
        let (newest, _) = begun.newest().await?;
        for delivery in begun.look(newest).await? {
            if since.is_none_or(|since| changed(&delivery).as_microsecond() <= since) {
                let event = EventId::from_uuid(delivery.event);
                begun.followed.insert(event, Some(Seen::of(&delivery.delivery)));
            }
        }
        Ok(begun)
    }

    /// Returns the newest deliveries, back to one that is followed already, and whether there may be more before them.
    async fn newest(&self) -> Result<(Vec<EventId>, bool), ApiError> {
        let mut found = Vec::new();
        let mut before = None;
        while found.len() < NEWEST_MAX {
            let query =
                DeliveriesQuery { recipient: self.subscription.into(), state: None, before, limit: NEWEST };
            let listed = self.api.store.deliveries(query).await?;
            before = listed.last().map(|last| last.event);
            let is_end = listed.len() < NEWEST
                || self.followed.is_empty()
                || before.is_some_and(|before| self.followed.contains_key(&before));
            found.extend(listed.into_iter().map(|listed| listed.event));
            if is_end {
                return Ok((found, false));
            }
        }
        Ok((found, true))
    }

    /// Reads deliveries, as the user may see them.
    async fn look(&self, events: Vec<EventId>) -> Result<Vec<v1::SubscriptionDelivery>, ApiError> {
        let mut found = Vec::new();
        for events in events.chunks(READ_AT_ONCE) {
            let stories = self.api.store.deliveries_of(self.subscription.into(), events.to_vec()).await?;
            let views = stories.into_iter().filter_map(|story| View::of(story, &self.user, &self.api));
            found.extend(views.filter_map(|view| show(&view, self.subscription)));
        }
        Ok(found)
    }

    /// Forgets what cannot change any more, and then the oldest, beyond what is followed at most.
    fn forget(&mut self) {
        let mut over = self.followed.len().saturating_sub(FOLLOWED_MAX);
        self.followed.retain(|_, seen| {
            let is_kept = over == 0 || seen.is_none_or(Seen::is_open);
            over -= usize::from(!is_kept);
            is_kept
        });
        while self.followed.len() > FOLLOWED_MAX {
            self.followed.pop_first();
        }
    }
}

impl Source for Deliveries {
    async fn read(&mut self) -> Result<Page, ApiError> {
        own(&self.api, &self.user, self.subscription)?;
        let (newest, has_gap) = self.newest().await?;
        let mut page = Page::default();
        if let Some(before) = newest.last().filter(|_| has_gap) {
            page.messages.push_back(message("gap", None, &Gap { before: *before }));
        }
        let is_again = Instant::now() >= self.again;
        if is_again {
            self.again = Instant::now() + AGAIN;
        }
        let open = self.followed.iter().filter(|(_, seen)| seen.is_none_or(Seen::is_open));
        let new = newest.iter().filter(|event| is_again || !self.followed.contains_key(event));
        let mut wanted: Vec<_> = open.map(|(event, _)| event).chain(new).copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut changes = self.look(wanted).await?;
        changes.retain(|delivery| {
            let seen = Some(Seen::of(&delivery.delivery));
            self.followed.insert(EventId::from_uuid(delivery.event), seen) != Some(seen)
        });
        for event in newest {
            self.followed.entry(event).or_insert(None);
        }
        changes.sort_by_key(changed);
        page.messages.extend(changes.iter().map(|delivery| {
            let id = changed(delivery).as_microsecond().to_string();
            message("delivery", Some(id), delivery)
        }));
        self.forget();
        Ok(page)
    }
}

/// Returns when a delivery has changed last, as far as it is known.
fn changed(delivery: &v1::SubscriptionDelivery) -> Timestamp {
    let ended = delivery.delivery.attempts.iter().map(|attempt| {
        let took = Duration::from_millis(attempt.took_ms);
        attempt.at.0.checked_add(took).unwrap_or(attempt.at.0)
    });
    let asked = delivery.delivery.redeliveries.iter().map(|begun| begun.at.0);
    ended.chain(asked).chain([delivery.received.0]).max().unwrap_or(delivery.received.0)
}

//! The deliveries of one subscription, whenever their state has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use waypost_api::v1;

use super::{Page, Source, message};
use crate::http::Api;
use crate::http::deliveries::show;
use crate::http::error::ApiError;
use crate::http::eventmatch::own;
use crate::http::story::View;
use crate::identity::User;
use waypost_domain::{EventId, SubscriptionId};
use waypost_store::DeliveriesQuery;

/// How many of the newest deliveries are looked at, at once and at most.
const NEWEST: usize = 100;
const NEWEST_MAX: usize = 1_000;
/// How many deliveries are followed.
const FOLLOWED_MAX: usize = 1_000;
/// How often deliveries are looked at that were over, since somebody may have asked for them again, or that policy had not
/// let the user know of; and for how long the latter are.
const AGAIN: Duration = Duration::from_secs(1);
const HIDDEN_TIME_MAX: Duration = Duration::from_secs(60);
/// How much of what happened before `Last-Event-ID` is sent again: attempts are committed in another order than they end.
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);
/// How many events are held in memory at once: each may be as large as `event_bytes_max`.
const READ_AT_ONCE: usize = 32;

/// The changes of a subscription's deliveries.
pub(super) struct Deliveries {
    api: Arc<Api>,
    user: User,
    subscription: SubscriptionId,
    followed: BTreeMap<EventId, Known>,
    /// The newest event of the deliveries that were listed.
    upto: Option<EventId>,
    /// Whether there were more deliveries at the beginning than are looked at.
    has_gap: bool,
    /// When those that do not change by themselves are looked at again.
    again: Instant,
}

/// What the reader knows of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// What was sent of it.
    Sent { state: v1::DeliveryState, attempts: usize, redeliveries: usize },
    /// Nothing: the user may not know of it, at least not yet.
    Hidden { until: Instant },
}

impl Known {
    fn of(delivery: &v1::Delivery) -> Self {
        Self::Sent {
            state: delivery.state,
            attempts: delivery.attempts.len(),
            redeliveries: delivery.redeliveries.len(),
        }
    }

    /// Tells whether it may change by itself.
    fn is_open(self) -> bool {
        use v1::DeliveryState::{Delivering, Pending, Retrying};
        matches!(self, Self::Sent { state: Pending | Delivering | Retrying, .. })
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
        let since = since.map(|since| Timestamp::from_microsecond(since).unwrap_or(Timestamp::MIN));
        let since = since.map(|since| since.checked_sub(OVERLAP).unwrap_or(Timestamp::MIN));
        let mut begun = Self {
            api,
            user,
            subscription,
            followed: BTreeMap::new(),
            upto: None,
            has_gap: false,
            again: Instant::now(),
        };
        let is_enough = |oldest: EventId| since.is_none_or(|since| received(oldest) < since);
        let (newest, has_gap) = begun.newest(is_enough).await?;
        begun.upto = newest.first().copied();
        begun.has_gap = has_gap;
        begun.hide(&newest);
        for delivery in begun.look(newest).await? {
            let event = EventId::from_uuid(delivery.event);
            // The others stay hidden until the first read, which sends them.
            if since.is_none_or(|since| changed(&delivery) <= since) {
                begun.followed.insert(event, Known::of(&delivery.delivery));
            }
        }
        Ok(begun)
    }

    /// Returns the newest deliveries, page by page until `is_enough` of the oldest, and whether there may be more that
    /// are new.
    async fn newest(&self, is_enough: impl Fn(EventId) -> bool) -> Result<(Vec<EventId>, bool), ApiError> {
        let mut found: Vec<EventId> = Vec::new();
        while found.len() < NEWEST_MAX {
            let (recipient, before) = (self.subscription.into(), found.last().copied());
            let query =
                DeliveriesQuery { recipient, state: None, since: None, until: None, before, limit: NEWEST };
            let listed = self.api.store.deliveries(query).await?;
            let is_end = listed.len() < NEWEST;
            found.extend(listed.into_iter().map(|listed| listed.event));
            if is_end || found.last().is_none_or(|oldest| is_enough(*oldest)) {
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

    /// Follows deliveries of which the user knows nothing yet.
    fn hide(&mut self, events: &[EventId]) {
        let until = Instant::now() + HIDDEN_TIME_MAX;
        for event in events {
            self.followed.entry(*event).or_insert(Known::Hidden { until });
        }
    }

    /// Returns the deliveries that may have changed.
    fn wanted(&mut self, newest: &[EventId]) -> Vec<EventId> {
        let now = Instant::now();
        let is_again = now >= self.again;
        if is_again {
            self.again = now + AGAIN;
        }
        let followed = self.followed.iter().filter(|(_, known)| match known {
            Known::Sent { .. } => known.is_open(),
            Known::Hidden { until } => is_again && now < *until,
        });
        let new = newest.iter().filter(|event| match self.followed.get(event) {
            None => true,
            Some(Known::Sent { .. }) => is_again,
            Some(Known::Hidden { .. }) => false,
        });
        let mut wanted: Vec<_> = followed.map(|(event, _)| event).chain(new).copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }
}

impl Source for Deliveries {
    async fn read(&mut self) -> Result<Page, ApiError> {
        own(&self.api, &self.user, self.subscription)?;
        let upto = self.upto;
        let (newest, has_gap) = self.newest(|oldest| Some(oldest) <= upto).await?;
        self.upto = newest.first().copied().max(self.upto);
        let mut page = Page::default();
        if has_gap || std::mem::take(&mut self.has_gap) {
            page.messages.push_back(message("gap", None, &v1::DeliveryGap {}));
        }
        let wanted = self.wanted(&newest);
        let mut changes = self.look(wanted).await?;
        changes.retain(|delivery| {
            let known = Known::of(&delivery.delivery);
            self.followed.insert(EventId::from_uuid(delivery.event), known) != Some(known)
        });
        self.hide(&newest);
        changes.sort_by_key(changed);
        page.messages.extend(changes.iter().map(|delivery| {
            let id = changed(delivery).as_microsecond().to_string();
            message("delivery", Some(id), delivery)
        }));
        while self.followed.len() > FOLLOWED_MAX {
            self.followed.pop_first();
        }
        Ok(page)
    }

    fn waits(&self) -> Option<Duration> {
        Some(AGAIN)
    }
}

/// Returns when an event was received, as its id tells.
fn received(event: EventId) -> Timestamp {
    let time = event.uuid().get_timestamp().map(|time| time.to_unix());
    let time = time.and_then(|(seconds, nanos)| {
        Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
    });
    time.unwrap_or(Timestamp::MIN)
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

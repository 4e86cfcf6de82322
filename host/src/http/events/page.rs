//! Which part of the log a list has, and the walk to it: through the log, or where an index leads to the events, by it.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use uuid::Uuid;
use waypost_api::v1;

use crate::http::dry_run::DryRunPermits;
use crate::http::error::ApiError;
use crate::http::story::{Delivery, View};
use crate::http::{Api, words};
use crate::identity::User;
use waypost_domain::{DeliveryId, EventId, Subscription, SubscriptionId};
#[cfg(test)]
use waypost_domain::{Scopes, Via};
use waypost_store::{DeliveriesQuery, EventHistory, LoggedEvent, Range, StoredState};

/// How many events a list has by default, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// How many logged events one request searches for each event that it may return, to skip those of others.
const SEARCHED_FACTOR: usize = 20;
/// How many logged events one request searches for those that it asks for.
const SEARCHED_MAX: usize = 5_000;
/// How long one request searches.
const SEARCH_TIME_MAX: Duration = Duration::from_millis(500);
/// A list ends once its events have this many bytes.
const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many events are held in memory at once: each may be as large as `event_bytes_max`.
const PAGE: usize = 32;

/// Which part of the log to list.
#[derive(Clone, Debug, Default, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Page {
    /// How many to list: from 1 on, 100 unless it is set, at most 1000.
    #[param(value_type = Option<u64>, nullable = false, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<NonZeroUsize>,
    /// The id of an event: only events before it.
    #[param(value_type = Option<Uuid>, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<EventId>,
    /// A time such as 2026-01-31T12:00:00Z: only events that were received then or later.
    #[param(value_type = Option<String>, nullable = false, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// A time: only events that were received before it.
    #[param(value_type = Option<String>, nullable = false, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    /// Only events of this type.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none", rename = "type")]
    kind: Option<String>,
    /// Only events of this source.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Only events with this subject.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// Only events with this text in their type, source, subject or own id, in capital letters or not, or with this id or
    /// `webhook-id`.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<String>,
    /// Only events with a delivery in this state; with `subscription`, with one to it in this state.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<v1::DeliveryState>,
    /// The UUID of a subscription: only events with a delivery to it.
    #[param(value_type = Option<Uuid>, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<SubscriptionId>,
}

/// Where a page of events ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum End {
    /// At the end of the log.
    Log,
    /// Behind this event, since the page is full.
    Page(EventId),
    /// Behind this event, since enough has been looked at.
    Searched(EventId),
}

impl Page {
    /// Returns the parameters of the next page, if there may be one.
    pub(in crate::http) fn after(&self, end: &End) -> Option<Self> {
        match end {
            End::Log => None,
            End::Page(before) | End::Searched(before) => {
                Some(Self { limit: NonZeroUsize::new(self.limit()), before: Some(*before), ..self.clone() })
            }
        }
    }

    /// Returns how many events a page has.
    fn limit(&self) -> usize {
        self.limit.map_or(LIMIT, NonZeroUsize::get).min(LIMIT_MAX)
    }

    /// Returns the most events that one request looks at.
    fn searched_max(&self) -> usize {
        if self.has_conditions() { SEARCHED_MAX } else { SEARCHED_FACTOR * self.limit() }
    }

    /// Tells whether it asks for some events only.
    fn has_conditions(&self) -> bool {
        self.kind.is_some()
            || self.source.is_some()
            || self.subject.is_some()
            || self.q.is_some()
            || self.state.is_some()
            || self.subscription.is_some()
    }

    /// Tells whether an event is to be listed, by what it says itself.
    fn wants(&self, logged: &LoggedEvent) -> bool {
        let event = &logged.event;
        self.kind.as_deref().is_none_or(|kind| kind == event.ty())
            && self.source.as_deref().is_none_or(|source| source == event.source())
            && self.subject.as_deref().is_none_or(|subject| event.subject().as_deref() == Some(subject))
    }

    /// Tells whether an event is to be listed, by what the user may see of it.
    fn wants_view(&self, view: &View) -> bool {
        let is_meant = |delivery: &Delivery| {
            self.state.is_none_or(|state| words::delivery_state(&delivery.state) == state)
                && self.subscription.is_none_or(|id| delivery.recipient == id.into())
        };
        let has_delivery =
            self.state.is_none() && self.subscription.is_none() || view.deliveries.iter().any(is_meant);
        has_delivery && self.q.as_deref().is_none_or(|text| has_text(view, text))
    }

    /// Returns what to read instead of the log, where an index leads to the events: lists of deliveries. Only where the user
    /// may know of all of them, since the end of a page, and the time that it takes, tell that there are others.
    fn by_key(&self, user: &User, now: Option<&Subscription>, asks_policy: bool) -> Vec<DeliveriesQuery> {
        let Some(id) = self.subscription else { return Vec::new() };
        let is_own = now.is_some_and(|now| now.user == user.name);
        // What was delivered, its target has seen.
        let knows_all = !asks_policy || self.state == Some(v1::DeliveryState::Delivered);
        if !(user.is_admin() || is_own && knows_all) {
            return Vec::new();
        }
        let (before, since, until) = (self.before, self.since, self.until);
        let of = |state| DeliveriesQuery { recipient: id.into(), state, since, until, before, limit: PAGE };
        match self.state {
            None => vec![of(None)],
            Some(state) => stored(state).iter().map(|state| of(Some(*state))).collect(),
        }
    }
}

/// Returns in which states the store may have deliveries that are shown in this one.
fn stored(state: v1::DeliveryState) -> &'static [StoredState] {
    match state {
        v1::DeliveryState::Pending => &[StoredState::Pending],
        v1::DeliveryState::Delivering => &[StoredState::Pending, StoredState::Retrying, StoredState::Held],
        v1::DeliveryState::Retrying => &[StoredState::Retrying, StoredState::Held],
        v1::DeliveryState::Delivered => &[StoredState::Delivered],
        v1::DeliveryState::Denied => &[StoredState::Denied],
        v1::DeliveryState::Skipped => &[StoredState::Skipped],
        v1::DeliveryState::Dead => &[StoredState::Dead],
    }
}

/// Tells whether an event has this text, or this id.
fn has_text(view: &View, text: &str) -> bool {
    let (logged, event) = (&view.event, &view.event.event);
    let text = text.to_lowercase();
    let has = |part: &str| part.to_lowercase().contains(&text);
    let is_delivery = |id: Uuid| {
        view.deliveries.iter().any(|delivery| DeliveryId::of(logged.id, delivery.recipient).uuid() == id)
    };
    has(event.id())
        || has(event.source())
        || has(event.ty())
        || event.subject().is_some_and(|subject| has(&subject))
        || text.parse().is_ok_and(|id: Uuid| id == logged.id.uuid() || is_delivery(id))
}

/// Shows the newest events that a user may see, and returns where they end. `bytes` tells how large a row is that
/// contains the event.
pub(in crate::http) async fn views<T>(
    api: &Api,
    user: &User,
    page: &Page,
    permits: &DryRunPermits,
    show: impl Fn(&View) -> Option<T>,
    bytes: impl Fn(&T) -> usize,
) -> Result<(Vec<T>, End), ApiError> {
    // A search may take as long as a dry run.
    let _permit = if page.has_conditions() { Some(permits.take(&user.name).await?) } else { None };
    let (limit, begun) = (page.limit(), Instant::now());
    let now = page.subscription.and_then(|id| api.directory.recipient(id.into()));
    let by_key = page.by_key(user, now.as_deref(), api.dispatcher.asks_policy());
    let (mut shown, mut before, mut size) = (Vec::new(), page.before, 0);
    for _ in 0..page.searched_max().div_ceil(PAGE) {
        let (stories, next) = if by_key.is_empty() {
            let range = Range { before, since: page.since, until: page.until, limit: PAGE };
            let stories = api.store.histories(range).await?;
            let next = stories.last().map(|last| last.event.id).filter(|_| stories.len() == PAGE);
            (stories, next)
        } else {
            of_deliveries(api, &by_key, before).await?
        };
        for story in stories {
            let id = story.event.id;
            // What a user may not see costs the same time, whatever it says.
            let is_wanted = !user.is_admin() || page.wants(&story.event);
            let view = is_wanted.then(|| View::of(story, user, api)).flatten();
            let view =
                view.filter(|view| view.shows_event && page.wants(&view.event) && page.wants_view(view));
            let row = view.as_ref().and_then(&show);
            size += row.as_ref().map_or(0, &bytes);
            shown.extend(row);
            if shown.len() == limit || size >= LIST_BYTES_MAX {
                return Ok((shown, End::Page(id)));
            }
        }
        if next.is_none() {
            return Ok((shown, End::Log));
        }
        before = next;
        if page.has_conditions() && begun.elapsed() >= SEARCH_TIME_MAX {
            break;
        }
    }
    Ok((shown, before.map_or(End::Log, End::Searched)))
}

/// Reads the newest events that have the deliveries of these queries, and returns where to go on if there may be more.
async fn of_deliveries(
    api: &Api,
    queries: &[DeliveriesQuery],
    before: Option<EventId>,
) -> Result<(Vec<EventHistory>, Option<EventId>), ApiError> {
    let mut events = Vec::new();
    for query in queries {
        let listed = api.store.deliveries(DeliveriesQuery { before, ..*query }).await?;
        events.extend(listed.into_iter().map(|listed| listed.event));
    }
    // Each list has its newest ones.
    events.sort_unstable_by_key(|event| Reverse(*event));
    events.dedup();
    events.truncate(PAGE);
    let next = events.last().copied().filter(|_| events.len() == PAGE);
    let mut stories = api.store.histories_of(events).await?;
    stories.sort_unstable_by_key(|story| Reverse(story.event.id));
    Ok((stories, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, scopes: Scopes) -> User {
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        User { name: name.to_owned(), scopes, via: Via::Program, address, expires: None }
    }

    /// The end of a page of deliveries that policy hides would tell a user that their filter has matched.
    #[test]
    fn an_index_is_used_where_its_user_may_know_of_all_that_is_in_it() {
        let target = "http://t.example/".parse().unwrap();
        let own = Subscription::new("ann".into(), "n".into(), "$".into(), target, Timestamp::UNIX_EPOCH);
        let page = |state| Page { subscription: Some(own.id), state, ..Page::default() };
        let states = |page: &Page, user: &User, asks_policy| {
            let queries = page.by_key(user, Some(&own), asks_policy);
            queries.into_iter().map(|query| query.state).collect::<Vec<_>>()
        };
        let (ann, bob) = (user("ann", Scopes::USER), user("bob", Scopes::USER));
        let admin = user("root", Scopes::ADMIN);
        let (all, retrying) = (page(None), page(Some(v1::DeliveryState::Retrying)));
        let delivered = page(Some(v1::DeliveryState::Delivered));
        assert_eq!(states(&all, &ann, false), [None]);
        assert_eq!(states(&all, &admin, true), [None]);
        let open = [StoredState::Retrying, StoredState::Held].map(Some);
        assert_eq!(states(&retrying, &ann, false), open);
        assert_eq!(states(&retrying, &ann, true), []);
        assert_eq!(states(&all, &ann, true), []);
        assert_eq!(states(&delivered, &ann, true), [Some(StoredState::Delivered)]);
        assert_eq!(states(&all, &bob, false), []);
        assert_eq!(states(&Page::default(), &admin, false), [], "no index has all states");
    }
}

//! `/eventmatch/{uuid}/deliveries`: the deliveries of one subscription and their outcomes, newest first.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use waypost_api::v1;

use super::Api;
use super::error::ApiError;
use super::eventmatch::own;
use super::id::Id;
use super::parameters::{Here, Parameters};
use super::story::View;
use crate::identity::User;
use waypost_domain::{EventId, SubscriptionId};
use waypost_store::{DeliveriesQuery, DeliveryCounts, StoredState};

/// How many deliveries a list has by default, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// How many events are held in memory at once: each may be as large as `event_bytes_max`.
const PAGE: usize = 32;
/// The most pages that one request reads, to skip those that the user may not know of.
const PAGES_READ_MAX: usize = 20;

/// Which part of the list to return.
#[derive(Clone, Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many to list: from 1 on, 100 unless it is set, at most 1000.
    #[param(value_type = Option<u64>, nullable = false, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<NonZeroUsize>,
    /// The id of an event: only deliveries of events before it.
    #[param(value_type = Option<Uuid>, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<EventId>,
    /// RFC 3339: only deliveries of events that were received then or later.
    #[param(value_type = Option<String>, format = DateTime, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// RFC 3339: only deliveries of events that were received before.
    #[param(value_type = Option<String>, format = DateTime, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    /// Only those that are pending, retrying, held, delivered, denied, skipped or dead.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
}

/// Lists the deliveries of a subscription, newest first
#[utoipa::path(get, path = "/eventmatch/{uuid}/deliveries", operation_id = "list_deliveries",
    tag = "Subscriptions", params(Page),
    responses((status = 200, description = "A page", body = v1::Deliveries)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    here: Here,
    Parameters(page): Parameters<Page>,
) -> Result<Json<v1::Deliveries>, ApiError> {
    own(&api, &user, id)?;
    let limit = page.limit.map_or(LIMIT, NonZeroUsize::get).min(LIMIT_MAX);
    let state = page.state.as_deref().map(state).transpose()?;
    let Page { since, until, before, .. } = page;
    let query = DeliveriesQuery { recipient: id.into(), state, since, until, before, limit };
    let knows_all = user.is_admin() || !api.dispatcher.asks_policy();
    let (shown, next) = views(&api, &user, query, knows_all).await?;
    let counts = show_counts(&api.store.counts(id.into()).await?, knows_all);
    let page = |before| Page { limit: NonZeroUsize::new(limit), before: Some(before), ..page.clone() };
    let next = next.map(|before| here.with(&page(before)));
    Ok(Json(v1::Deliveries { counts, deliveries: shown, next }))
}

fn state(name: &str) -> Result<StoredState, ApiError> {
    let found = StoredState::ALL.into_iter().find(|state| state.name() == name);
    found.ok_or_else(|| {
        let names = StoredState::ALL.map(StoredState::name).join(", ");
        ApiError::bad_request(format!("`state={name}` is not a state of deliveries: use one of {names}"))
    })
}

/// Shows the newest deliveries that a user may know of, and returns where to continue if there may be more.
/// Pages without a delivery that policy has allowed are skipped: an empty page would reveal that there are
/// deliveries, as would the place where it ends.
async fn views(
    api: &Api,
    user: &User,
    mut query: DeliveriesQuery,
    knows_all: bool,
) -> Result<(Vec<v1::SubscriptionDelivery>, Option<EventId>), ApiError> {
    let (id, limit) = (query.recipient, query.limit);
    let (mut shown, mut last_shown) = (Vec::new(), None);
    if !knows_all {
        query.limit = LIMIT_MAX;
        if query.state == Some(StoredState::Denied) {
            return Ok((shown, None));
        }
    }
    for _ in 0..PAGES_READ_MAX {
        let listed = api.store.deliveries(query).await?;
        for page in listed.chunks(PAGE) {
            let events = page.iter().map(|delivery| delivery.event).collect();
            let mut stories = api.store.deliveries_of(id, events).await?;
            stories.sort_unstable_by_key(|story| Reverse(story.event.id));
            for story in stories {
                let event = story.event.id;
                let view = View::of(story, user, api);
                let row = view.as_ref().and_then(|view| show(view, id.subscription_id()));
                last_shown = row.as_ref().map(|_| event).or(last_shown);
                shown.extend(row);
                if shown.len() == limit {
                    return Ok((shown, last_shown));
                }
            }
        }
        if listed.len() < query.limit {
            return Ok((shown, None));
        }
        query.before = listed.last().map(|last| last.event);
    }
    Ok((shown, if knows_all { query.before } else { last_shown }))
}

/// Shows how many deliveries a subscription has in each state. A user who may not know of all deliveries sees
/// only the count of the state that needs the consent of policy: what was given up is skipped without it.
pub(super) fn show_counts(counts: &DeliveryCounts, knows_all: bool) -> v1::DeliveryCounts {
    let of = |state| knows_all.then(|| counts.of(state));
    v1::DeliveryCounts {
        pending: of(StoredState::Pending),
        retrying: of(StoredState::Retrying),
        held: of(StoredState::Held),
        delivered: Some(counts.of(StoredState::Delivered)),
        denied: of(StoredState::Denied),
        skipped: of(StoredState::Skipped),
        dead: of(StoredState::Dead),
    }
}

/// Tells whether no number says that there is a delivery.
pub(super) fn shows_none(counts: &v1::DeliveryCounts) -> bool {
    let v1::DeliveryCounts { pending, retrying, held, delivered, denied, skipped, dead } = counts;
    [pending, retrying, held, delivered, denied, skipped, dead].iter().all(|count| count.unwrap_or(0) == 0)
}

/// Shows the delivery of an event to a subscription, if there is one.
pub(super) fn show(view: &View, subscription: SubscriptionId) -> Option<v1::SubscriptionDelivery> {
    let delivery = view.deliveries.iter().find(|delivery| delivery.recipient == subscription.into())?;
    Some(v1::SubscriptionDelivery {
        event: view.event.id.uuid(),
        received: view.event.received.into(),
        delivery: delivery.show(&view.event),
    })
}

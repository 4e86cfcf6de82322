//! `/events`: the log, the whole story of one event, redelivery and purging.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::Deserialize;
use waypost_api::v1;

use super::dry_run::DryRunPermits;
use super::error::ApiError;
use super::id::Id;
use super::parameters::{Parameters, QueryDoc};
use super::story::View;
use super::{Api, explain};
use crate::identity::User;
use waypost_domain::{Action, AuditEntry, DeliveryId, EventId, RecipientId, SubscriptionId};
use waypost_handlers::Runs;
use waypost_runtime::clock;
use waypost_store::{Purge, PurgeReport, Range};

/// How many events a list has by default, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// How many logged events one request searches for each event that it may return.
const SEARCHED_FACTOR: usize = 20;
/// A list ends once its events have this many bytes.
const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many recipients of a redelivery the audit names.
const NOTED_MAX: usize = 20;
/// How many events are held in memory at once: each may be as large as `event_bytes_max`.
const PAGE: usize = 32;

/// Which part of the log to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<NonZeroUsize>,
    before: Option<EventId>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl QueryDoc for Page {
    const DOC: &'static str = "limit (from 1 on; at most 1000 are listed), before (an event's id), since and until \
        (times such as 2026-01-31T12:00:00Z)";
}

/// `GET /events`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    user: User,
    Parameters(page): Parameters<Page>,
) -> Result<Json<v1::EventPage>, ApiError> {
    let (events, next) = views(&api, &user, &page, |view| Some(view.summary()), |_| 0).await?;
    Ok(Json(v1::EventPage { events, next: next.map(|before| next_url(&page, before)), truncated_at: None }))
}

/// Returns how many events a page has.
fn page_limit(page: &Page) -> usize {
    page.limit.map_or(LIMIT, NonZeroUsize::get).min(LIMIT_MAX)
}

fn next_url(page: &Page, before: EventId) -> String {
    let mut url = format!("/events?limit={}&before={before}", page_limit(page));
    for (name, time) in [("since", page.since), ("until", page.until)] {
        if let Some(time) = time {
            url.push_str(&format!("&{name}={time}"));
        }
    }
    url
}

/// Shows the newest events that a user may see, and returns where to continue if there may be more. `bytes` tells how
/// large a row is that contains the event.
pub(super) async fn views<T>(
    api: &Api,
    user: &User,
    page: &Page,
    show: impl Fn(&View) -> Option<T>,
    bytes: impl Fn(&T) -> usize,
) -> Result<(Vec<T>, Option<EventId>), ApiError> {
    let limit = page_limit(page);
    let (mut shown, mut before, mut size) = (Vec::new(), page.before, 0);
    for _ in 0..(SEARCHED_FACTOR * limit).div_ceil(PAGE) {
        let range = Range { before, since: page.since, until: page.until, limit: PAGE };
        let stories = api.store.histories(range).await?;
        let more = stories.len() == PAGE;
        for story in stories {
            before = Some(story.event.id);
            let view = View::of(story, user, api);
            let row = view.filter(|view| view.shows_event).as_ref().and_then(&show);
            size += row.as_ref().map_or(0, &bytes);
            shown.extend(row);
            if shown.len() == limit || size >= LIST_BYTES_MAX {
                return Ok((shown, before));
            }
        }
        if !more {
            return Ok((shown, None));
        }
    }
    Ok((shown, before))
}

/// What to explain, besides showing the event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Explain {
    explain: Option<String>,
    after: Option<SubscriptionId>,
}

impl QueryDoc for Explain {
    const DOC: &'static str = "explain (a user, to see why each of their subscriptions matched or did not) and after \
        (the UUID of the last one that you have seen)";
}

/// `GET /events/{id}`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    Extension(permits): Extension<DryRunPermits>,
    user: User,
    Id(id): Id<EventId>,
    Parameters(asked): Parameters<Explain>,
) -> Result<Json<v1::Story>, ApiError> {
    let view = find(&api, &user, id).await?;
    let explained = match (&asked.explain, asked.after) {
        (None, None) => None,
        (None, Some(_)) => return Err(ApiError::bad_request("`after` goes with `explain`")),
        (Some(_), _) if !view.shows_event => return Err(not_found(id)),
        (Some(of), after) => {
            // Explaining evaluates filters for as long as a dry run may.
            let _permit = permits.take(&user.name).await?;
            Some(explain::explain(&api, &user, &view, of, after).await?)
        }
    };
    view.whole(&api, explained)
        .map(Json)
        .map_err(|_| ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "the event is damaged"))
}

/// Returns an event that the user may see.
pub(super) async fn find(api: &Api, user: &User, id: EventId) -> Result<View, ApiError> {
    let story = api.store.history(id).await?;
    story.and_then(|story| View::of(story, user, api)).ok_or_else(|| not_found(id))
}

/// Returns an event that the user may see, which is more than to know that a filter failed on it.
pub(super) async fn find_shown(api: &Api, user: &User, id: EventId) -> Result<View, ApiError> {
    let view = find(api, user, id).await?;
    if view.shows_event { Ok(view) } else { Err(not_found(id)) }
}

pub(super) fn not_found(id: EventId) -> ApiError {
    ApiError::not_found(format!("there is no event {id} that you may see"))
}

/// Which deliveries to send again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Only {
    subscription: Option<SubscriptionId>,
}

impl QueryDoc for Only {
    const DOC: &'static str = "subscription (a subscription's UUID)";
}

/// `POST /events/{id}/retry`
pub(super) async fn retry(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<EventId>,
    Parameters(only): Parameters<Only>,
) -> Result<Json<v1::Redelivered>, ApiError> {
    let view = find(&api, &user, id).await?;
    let matches = api.intake.matches(&view.event.event).await;
    let matches = matches.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let (mut matched, mut failed) = (matches.matched, matches.failed);
    let is_meant = |recipient: RecipientId| {
        let id = recipient.subscription_id();
        let own = || api.directory.get(id).is_some_and(|subscription| subscription.user == user.name);
        only.subscription.is_none_or(|only| only == id) && (user.is_admin() || own())
    };
    // A run that was dispatched by request does not depend on routes: it goes to its own handler, and waits
    // while that handler is not configured.
    let asked_for = Runs::dispatched_to(&view.event.event);
    let asked_for = asked_for.filter(|id| view.deliveries.iter().any(|it| it.recipient == *id));
    if let Some(asked_for) = asked_for {
        matched.retain(|id| !api.directory.is_route(*id));
        matched.push(asked_for);
    }
    matched.retain(|id| is_meant(*id));
    failed.retain(|(id, _)| is_meant(*id));
    let id = view.event.id;
    api.dispatcher.ask_policy_again(id, &matched).await;
    let recipients: Vec<_> = matched.iter().take(NOTED_MAX).map(ToString::to_string).collect();
    let note = AuditEntry::new(Action::EventRedeliver, id, &user.actor(), clock::now());
    let note = Some(note.of(&view.event.sender).with("recipients", recipients).with("count", matched.len()));
    if !matched.is_empty() && !api.store.redeliver(id, matched.clone(), user.name, clock::now(), note).await?
    {
        // The event was purged in between.
        return Err(not_found(id));
    }
    let deliveries = matched.into_iter().map(|recipient| v1::RedeliveryOf {
        id: DeliveryId::of(id, recipient).uuid(),
        subscription: recipient.uuid(),
        handler: api.runs.name(recipient).map(ToString::to_string),
    });
    let filters_failed = failed.into_iter().map(|(recipient, failure)| v1::UnmatchedFilter {
        subscription: recipient.uuid(),
        reason: failure.to_string(),
    });
    Ok(Json(v1::Redelivered {
        id: id.uuid(),
        deliveries: deliveries.collect(),
        filters_failed: filters_failed.collect(),
    }))
}

/// Which events to purge: those before this time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Before {
    before: Option<Timestamp>,
}

impl QueryDoc for Before {
    const DOC: &'static str = "before (a time such as 2026-01-31T12:00:00Z)";
}

/// `DELETE /events?before=T`
pub(super) async fn purge(
    State(api): State<Arc<Api>>,
    user: User,
    Parameters(Before { before }): Parameters<Before>,
) -> Result<Json<v1::Purged>, ApiError> {
    let before =
        before.ok_or_else(|| ApiError::bad_request("say which events: `?before=2026-01-31T00:00:00Z`"))?;
    let note = AuditEntry::new(Action::EventPurge, "", &user.actor(), clock::now());
    let note = note.with("before", before.to_string());
    Ok(show(api.store.purge(Purge::Before(before), Some(note)).await?))
}

/// `DELETE /events/{id}`
pub(super) async fn purge_one(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<EventId>,
) -> Result<Json<v1::Purged>, ApiError> {
    let note = AuditEntry::new(Action::EventPurge, id, &user.actor(), clock::now());
    let purged = api.store.purge(Purge::Events(vec![id]), Some(note)).await?;
    if purged == PurgeReport::default() {
        return Err(ApiError::not_found(format!("there is no event {id}")));
    }
    Ok(show(purged))
}

fn show(purged: PurgeReport) -> Json<v1::Purged> {
    Json(v1::Purged { purged: purged.purged, kept: purged.kept })
}

//! `/events`: the log, the whole story of one event, redelivery and purging.

mod page;

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use waypost_api::v1;

use super::dry_run::DryRunPermits;
use super::error::ApiError;
use super::id::Id;
use super::parameters::{Here, Parameters};
use super::story::View;
use super::{Api, explain};
use crate::identity::User;
use waypost_domain::{Action, AuditEntry, DeliveryId, EventId, RecipientId, SubscriptionId};
use waypost_runtime::clock;
use waypost_store::{Purge, PurgeReport};

use page::End;
pub(super) use page::{Page, views};

/// How many recipients of a redelivery the audit names.
const NOTED_MAX: usize = 20;
/// Lists the log, newest first
///
/// You see the events that you have sent, and those that policy has let a subscription of yours see; an admin sees all. With
/// `type`, `source`, `subject`, `q`, `state` or `subscription`, at most 5,000 events are looked at, for at most half a
/// second: `truncated_at` says how far that came, and `next` goes on there. With a `subscription` of yours, these are only
/// those with a delivery to it; where policy may hide some from you, with `state=delivered` alone.
#[utoipa::path(get, path = "/events", operation_id = "list_events",
    tag = "Events", params(Page),
    responses((status = 200, description = "A page", body = v1::EventPage)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(permits): Extension<DryRunPermits>,
    user: User,
    here: Here,
    Parameters(page): Parameters<Page>,
) -> Result<Json<v1::EventPage>, ApiError> {
    let (events, end) = views(&api, &user, &page, &permits, |view| Some(view.summary()), |_| 0).await?;
    let truncated_at = match end {
        End::Searched(at) => Some(at.uuid()),
        End::Log | End::Page(_) => None,
    };
    let next = page.after(&end).map(|next| here.with(&next));
    Ok(Json(v1::EventPage { events, next, truncated_at }))
}

/// What to explain, besides showing the event.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Explain {
    /// A user, to see why each of their subscriptions matched or did not.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<String>,
    /// With `explain`: the UUID of the last subscription that you have seen.
    #[param(value_type = Option<Uuid>, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<SubscriptionId>,
}

/// Shows an event with all that has happened to it
///
/// Matches, policy's answers, each attempt with the target's answer, filters that failed. With `explain`, why each
/// subscription of a user matched or did not, 100 at once.
#[utoipa::path(get, path = "/events/{id}", operation_id = "read_event",
    tag = "Events", params(Explain),
    responses((status = 200, description = "The event", body = v1::Story)))]
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    Extension(permits): Extension<DryRunPermits>,
    user: User,
    Id(id): Id<EventId>,
    here: Here,
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
            let next = |after| here.with(&Explain { explain: Some(of.clone()), after: Some(after) });
            Some(explain::explain(&api, &user, &view, of, after, next).await?)
        }
    };
    view.whole(&api, explained).map(Json).map_err(|_| ApiError::damaged("the event is damaged"))
}

/// Returns an event that the user may see.
pub(super) async fn find(api: &Api, user: &User, id: EventId) -> Result<View, ApiError> {
    let story = api.store.history(id).await?;
    let mut view = story.and_then(|story| View::of(story, user, api)).ok_or_else(|| not_found(id))?;
    view.look_at_orders(api).await?;
    Ok(view)
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
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Only {
    /// A subscription's UUID: only to this one.
    #[param(value_type = Option<Uuid>, nullable = false)]
    subscription: Option<SubscriptionId>,
}

/// Sends an event again
///
/// To all subscriptions of yours that match it now, or to one of them; an admin sends it to everyone's.
#[utoipa::path(post, path = "/events/{id}/retry", operation_id = "redeliver_event",
    tag = "Events", params(Only),
    responses((status = 200, description = "What is sent again", body = v1::Redelivery)))]
pub(super) async fn retry(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<EventId>,
    Parameters(only): Parameters<Only>,
) -> Result<Json<v1::Redelivery>, ApiError> {
    let view = find(&api, &user, id).await?;
    let matches = api.intake.matches(&view.event.event, &view.event.sender).await;
    let matches = matches.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let (mut matched, mut failed) = (matches.matched, matches.failed);
    // No filter chooses what goes where dead letters go.
    let letters = view.deliveries.iter().map(|delivery| delivery.recipient);
    let letters = letters.filter(|recipient| recipient.dead_letters_owner().is_some());
    matched.extend(letters.filter(|id| api.directory.recipient(*id).is_some_and(|now| now.is_active())));
    let is_meant = |recipient: RecipientId| {
        let id = recipient.subscription_id();
        let own = || api.directory.recipient(recipient).is_some_and(|now| now.user == user.name);
        only.subscription.is_none_or(|only| only == id) && (user.is_admin() || own())
    };
    // A run that was dispatched by request does not depend on routes: it goes to its own handler, and waits
    // while that handler is not configured.
    let asked_for = waypost_handlers::dispatched_to(&view.event.event);
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
    let deliveries = matched.into_iter().map(|recipient| v1::RedeliveryTarget {
        id: DeliveryId::of(id, recipient).uuid(),
        subscription: recipient.uuid(),
        handler: api.runs.name(recipient).map(ToString::to_string),
    });
    let filters_failed = failed.into_iter().map(|(recipient, failure)| v1::RedeliveryFailure {
        subscription: recipient.uuid(),
        reason: failure.to_string(),
    });
    Ok(Json(v1::Redelivery {
        id: id.uuid(),
        deliveries: deliveries.collect(),
        filters_failed: filters_failed.collect(),
    }))
}

/// Which events to purge: those before this time.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Before {
    /// A time such as 2026-01-31T12:00:00Z; it has to be given.
    #[param(value_type = String, format = DateTime, required = true)]
    before: Option<Timestamp>,
}

/// Purges the events that were received before a time
///
/// Events with open deliveries are kept.
#[utoipa::path(delete, path = "/events", operation_id = "purge_events",
    tag = "Events", params(Before),
    responses((status = 200, description = "How many", body = v1::PurgeReport)))]
pub(super) async fn purge(
    State(api): State<Arc<Api>>,
    user: User,
    Parameters(Before { before }): Parameters<Before>,
) -> Result<Json<v1::PurgeReport>, ApiError> {
    let before =
        before.ok_or_else(|| ApiError::bad_request("say which events: `?before=2026-01-31T00:00:00Z`"))?;
    let note = AuditEntry::new(Action::EventPurge, "", &user.actor(), clock::now());
    let note = note.with("before", before.to_string());
    Ok(show(api.store.purge(Purge::Before(before), Some(note)).await?))
}

/// Purges an event
///
/// It is kept while deliveries of it are open.
#[utoipa::path(delete, path = "/events/{id}", operation_id = "purge_event",
    tag = "Events",
    responses((status = 200, description = "Whether it is gone", body = v1::PurgeReport)))]
pub(super) async fn purge_one(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<EventId>,
) -> Result<Json<v1::PurgeReport>, ApiError> {
    let note = AuditEntry::new(Action::EventPurge, id, &user.actor(), clock::now());
    let purged = api.store.purge(Purge::Events(vec![id]), Some(note)).await?;
    if purged == PurgeReport::default() {
        return Err(ApiError::not_found(format!("there is no event {id}")));
    }
    Ok(show(purged))
}

fn show(purged: PurgeReport) -> Json<v1::PurgeReport> {
    Json(v1::PurgeReport { purged: purged.purged, kept: purged.kept })
}

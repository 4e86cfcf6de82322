//! `/eventmatch`: a user's subscriptions, as Pacifica's Notifications serves them.
//!
//! An unknown, a deleted and another user's subscription answer alike, so that nobody learns what exists.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use super::id::Id;
use super::identity::User;
use super::parameters::{Parameters, Takes};
use super::subscription_body::{self, show};
use super::{Api, body, recover};
use crate::clock;
use crate::domain::{Recovery, Subscription, SubscriptionId};

/// `POST /eventmatch`
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    user: User,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let body = body::read(body, api.limits.subscription).await?;
    let mut body = body::object(&headers, &body)?;
    let now = clock::now();
    let start = recover::take_start_at(&mut body, now)?;
    let subscription = subscription_body::create(body, user.name, now)?;
    let shown = show(&subscription);
    match start {
        None => api.directory.create(subscription).await?,
        Some(since) => {
            let by = subscription.user.clone();
            let recovery = Recovery::new(subscription.id, since.time(), None, by, now);
            api.recoveries.create(subscription, recovery).await?;
        }
    }
    Ok(Json(shown))
}

/// Which part of the list to return; all of it when nothing is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<usize>,
    after: Option<SubscriptionId>,
}

impl Takes for Page {
    const TAKES: &'static str = "limit (a number) and after (the UUID of a subscription in the list)";
}

/// `GET /eventmatch`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    user: User,
    Parameters(page): Parameters<Page>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let own = api.directory.of_user(&user.name);
    let first = match page.after {
        None => 0,
        Some(after) => {
            own.iter().position(|found| found.id == after).map(|place| place + 1).ok_or_else(not_yours)?
        }
    };
    let limit = page.limit.unwrap_or(usize::MAX);
    Ok(Json(own[first..].iter().take(limit).map(|subscription| show(subscription)).collect()))
}

/// `GET /eventmatch/{uuid}`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
) -> Result<Json<Value>, ApiError> {
    let subscription = own(&api, &user, id)?;
    Ok(Json(show(&subscription)))
}

/// `PUT /eventmatch/{uuid}`
pub(super) async fn update(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let body = body::read(body, api.limits.subscription).await?;
    let body = body::object(&headers, &body)?;
    recover::refuse_start_at(&body)?;
    let now = clock::now();
    let mut wrong = None;
    let changed = api.directory.change(id, |current| {
        let mut changed = is_own(current, &user).then(|| current.clone())?;
        subscription_body::update(body, &mut changed, now).map_err(|error| wrong = Some(error)).ok()?;
        Some(changed)
    });
    let changed = changed.await?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    changed.map(|subscription| Json(show(&subscription))).ok_or_else(not_yours)
}

/// `DELETE /eventmatch/{uuid}`
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
) -> Result<(), ApiError> {
    let now = clock::now();
    let deleted = api.directory.change(id, |current| {
        is_own(current, &user).then(|| Subscription { deleted: Some(now), updated: now, ..current.clone() })
    });
    deleted.await?.map(drop).ok_or_else(not_yours)
}

/// Returns a user's subscription.
pub(super) fn own(api: &Api, user: &User, id: SubscriptionId) -> Result<Arc<Subscription>, ApiError> {
    api.directory.get(id).filter(|found| is_own(found, user)).ok_or_else(not_yours)
}

fn is_own(subscription: &Subscription, user: &User) -> bool {
    subscription.deleted.is_none() && subscription.user == user.name
}

fn not_yours() -> ApiError {
    ApiError::forbidden("you have no subscription with this UUID")
}

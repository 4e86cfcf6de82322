//! `/eventmatch/{uuid}/recover`: matches the log again for one subscription; and `start_at`, which does so when a
//! subscription is created.
//!
//! `since` is mandatory: leaving it out must not replay the whole log by mistake.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value};
use waypost_api::v1;

use super::error::ApiError;
use super::eventmatch::own;
use super::id::Id;
use super::{Api, body, words};
use crate::identity::User;
use waypost_domain::recovery::{Mark, State as Progress};
use waypost_domain::{Recovery, SubscriptionId};
use waypost_engine::walks::Wait;
use waypost_runtime::clock;

/// Where in the log a recovery starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// At the first event.
    Earliest,
    /// At this time of receipt.
    Time(Timestamp),
}

impl Since {
    /// Returns the time, if it is one.
    pub(super) fn time(self) -> Option<Timestamp> {
        match self {
            Self::Earliest => None,
            Self::Time(time) => Some(time),
        }
    }
}

/// Begins a recovery: matches the log again for a subscription
#[utoipa::path(post, path = "/eventmatch/{uuid}/recover", operation_id = "begin_recovery",
    tag = "Subscriptions", request_body = v1::NewRecovery,
    responses((status = 202, description = "It is begun", body = v1::Recovery)))]
pub(super) async fn begin(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<v1::Recovery>), ApiError> {
    if let Err(refused) = own(&api, &user, id) {
        // A client that is still sending would not see the response.
        body::drain(body).await;
        return Err(refused);
    }
    let (body, _taken) = body::read(&headers, body, &api.limits.subscription).await?;
    let now = clock::now();
    let (since, until) = read_range(body::object(&headers, &body)?, now)?;
    let recovery = begin_of(&api, &user, id, (since.time(), until), now).await?;
    Ok((StatusCode::ACCEPTED, Json(show(&recovery, None, Details::of(&user, &api)))))
}

/// Begins a recovery of a subscription that a user may manage, of the events between two times.
pub(crate) async fn begin_of(
    api: &Api,
    user: &User,
    id: SubscriptionId,
    (since, until): (Option<Timestamp>, Option<Timestamp>),
    now: Timestamp,
) -> Result<Recovery, ApiError> {
    own(api, user, id)?;
    let recovery = Recovery::new(id, since, until, user.name.clone(), now);
    let begun = recovery.clone();
    if !api.recoveries.begin(recovery, &user.actor()).await? {
        return Err(ApiError::conflict(format!(
            "a recovery of this subscription is running: GET /eventmatch/{id}/recover shows its progress, DELETE \
             cancels it"
        )));
    }
    Ok(begun)
}

/// Shows the last recovery of a subscription
#[utoipa::path(get, path = "/eventmatch/{uuid}/recover", operation_id = "read_recovery",
    tag = "Subscriptions",
    responses((status = 200, description = "The recovery", body = v1::Recovery)))]
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
) -> Result<Json<v1::Recovery>, ApiError> {
    own(&api, &user, id)?;
    let (recovery, wait) = api.recoveries.find(id).await?.ok_or_else(never_asked)?;
    Ok(Json(show(&recovery, wait, Details::of(&user, &api))))
}

/// Cancels the recovery of a subscription
///
/// What it has delivered stays.
#[utoipa::path(delete, path = "/eventmatch/{uuid}/recover", operation_id = "cancel_recovery",
    tag = "Subscriptions",
    responses((status = 200, description = "The recovery", body = v1::Recovery)))]
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
) -> Result<Json<v1::Recovery>, ApiError> {
    own(&api, &user, id)?;
    let recovery = api.recoveries.cancel(id, clock::now(), &user.actor()).await?.ok_or_else(never_asked)?;
    Ok(Json(show(&recovery, None, Details::of(&user, &api))))
}

fn never_asked() -> ApiError {
    ApiError::not_found(
        "no recovery of this subscription was ever asked for: POST {\"since\": \"earliest\"}, or a time, begins one",
    )
}

/// Whether a user may see which events were matched, and how many. Where policy decides about events, their number and
/// whether a filter matches them would reveal something about events that the user may not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Details {
    Shown,
    Hidden,
}

impl Details {
    pub(super) fn of(user: &User, api: &Api) -> Self {
        if user.is_admin() || !api.dispatcher.asks_policy() { Self::Shown } else { Self::Hidden }
    }
}

fn show(recovery: &Recovery, wait: Option<Wait>, details: Details) -> v1::Recovery {
    let count = |count: u64| (details == Details::Shown).then_some(count);
    let mark = |mark: Option<Mark>| {
        let visible = mark.filter(|_| details == Details::Shown);
        visible.map(|mark| v1::Mark { event: mark.event.uuid(), received: mark.received.into() })
    };
    let reason = match &recovery.state {
        Progress::Failed { reason, .. } => Some(reason.clone()),
        Progress::Running | Progress::Done { .. } | Progress::Cancelled { .. } => None,
    };
    v1::Recovery {
        subscription: recovery.subscription.uuid(),
        state: words::recovery_state(&recovery.state),
        reason,
        waiting: waiting(wait, details),
        since: recovery.since.map_or_else(|| "earliest".to_owned(), clock::text),
        until: recovery.until.map(v1::Time),
        asked: recovery.asked.into(),
        by: recovery.by.clone(),
        ended: recovery.state.ended().map(v1::Time),
        looked_at: count(recovery.looked_at),
        matched: count(recovery.matched),
        created: count(recovery.created),
        failed: count(recovery.failed),
        oldest: mark(recovery.oldest),
        position: mark(recovery.position),
        end: mark(recovery.end),
    }
}

/// Says what a recovery or a job waits for.
pub(super) fn waiting(wait: Option<Wait>, details: Details) -> Option<String> {
    // How much waits for a target would reveal how much has matched.
    let wait = wait.filter(|wait| details == Details::Shown || *wait != Wait::Target);
    let text = wait.map(|wait| match wait {
        Wait::Disabled => "the subscription is disabled",
        Wait::Target => "the target has many deliveries to take first",
        Wait::Store => "the store cannot be used now",
    });
    text.map(str::to_owned)
}

/// Reads the body of a POST.
fn read_range(mut body: Map<String, Value>, now: Timestamp) -> Result<(Since, Option<Timestamp>), ApiError> {
    let since = match body.remove("since") {
        None | Some(Value::Null) => {
            let detail = "`since` is missing: a time such as \"2026-01-31T12:00:00Z\", or \"earliest\" for all of the log";
            return Err(ApiError::field("/since", detail));
        }
        Some(value) => {
            read_since(&value, "since", "a time such as 2026-01-31T12:00:00Z, or \"earliest\"", now)?
        }
    };
    let until = match body.remove("until") {
        None | Some(Value::Null) => None,
        Some(value) => Some(read_time(&value, "until", "a time such as 2026-01-31T12:00:00Z, or null")?),
    };
    if let Some(unknown) = body.keys().next() {
        let detail = format!("unknown member `{unknown}`: a recovery has `since` and `until`");
        return Err(ApiError::field(pointer(unknown), detail));
    }
    match (since, until) {
        (Since::Time(since), Some(until)) if until <= since => {
            Err(ApiError::field("/until", format!("`until` ({until}) must be later than `since` ({since})")))
        }
        range => Ok(range),
    }
}

/// Takes `start_at` out of a new subscription's body; `None` means now.
pub(super) fn take_start_at(
    body: &mut Map<String, Value>,
    now: Timestamp,
) -> Result<Option<Since>, ApiError> {
    match body.remove("start_at") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text == "now" => Ok(None),
        Some(value) => {
            let expected = "\"now\", \"earliest\", or a time such as 2026-01-31T12:00:00Z";
            read_since(&value, "start_at", expected, now).map(Some)
        }
    }
}

/// Refuses `start_at` for a subscription that exists already.
pub(super) fn refuse_start_at(body: &Map<String, Value>) -> Result<(), ApiError> {
    match body.contains_key("start_at") {
        false => Ok(()),
        true => Err(ApiError::field(
            "/start_at",
            "`start_at` is for new subscriptions: POST /eventmatch/{uuid}/recover replays into this one",
        )),
    }
}

fn read_since(value: &Value, name: &str, expected: &str, now: Timestamp) -> Result<Since, ApiError> {
    if value == "earliest" {
        return Ok(Since::Earliest);
    }
    match read_time(value, name, expected)? {
        time if time > now => {
            Err(ApiError::field(pointer(name), format!("`{name}` is in the future: it is {now} now")))
        }
        time => Ok(Since::Time(time)),
    }
}

pub(super) fn read_time(value: &Value, name: &str, expected: &str) -> Result<Timestamp, ApiError> {
    let time = value.as_str().and_then(|text| text.parse().ok());
    time.ok_or_else(|| ApiError::field(pointer(name), format!("`{name}` must be {expected}")))
}

/// Returns a member's JSON pointer (RFC 6901 §4).
pub(super) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

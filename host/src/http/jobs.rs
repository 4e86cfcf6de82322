//! `/eventmatch/{uuid}/redeliver` and `/eventmatch/{uuid}/discard`: jobs on all deliveries of one subscription in a state.

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
use super::recover::{Details, pointer, read_time, waiting};
use super::{Api, body, words};
use crate::identity::User;
use waypost_domain::SubscriptionId;
use waypost_domain::job::{Job, Kind, Scope, Work};
use waypost_domain::recovery::State as Progress;
use waypost_engine::walks::Wait;
use waypost_runtime::clock;

/// The most characters of the reason of a discard.
const REASON_MAX: usize = 1_000;

/// Sends all dead letters of a subscription again
///
/// Or those that were skipped or denied. Each is a delivery with attempts of its own, as after `POST /events/{id}/retry`.
#[utoipa::path(post, path = "/eventmatch/{uuid}/redeliver", operation_id = "begin_redeliver",
    tag = "Subscriptions", request_body = v1::NewRedeliver,
    responses((status = 202, description = "It is begun", body = v1::Job)))]
pub(super) async fn begin_redeliver(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<v1::Job>), ApiError> {
    begin(&api, &user, (id, Kind::Redeliver), &headers, body).await
}

/// Shows the last job that sent deliveries of a subscription again
#[utoipa::path(get, path = "/eventmatch/{uuid}/redeliver", operation_id = "read_redeliver",
    tag = "Subscriptions",
    responses((status = 200, description = "The job", body = v1::Job)))]
pub(super) async fn read_redeliver(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
) -> Result<Json<v1::Job>, ApiError> {
    read(&api, &user, (id, Kind::Redeliver)).await
}

/// Cancels the job that sends deliveries of a subscription again
///
/// Those that it has sent again already stay so.
#[utoipa::path(delete, path = "/eventmatch/{uuid}/redeliver", operation_id = "cancel_redeliver",
    tag = "Subscriptions",
    responses((status = 200, description = "The job", body = v1::Job)))]
pub(super) async fn cancel_redeliver(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
) -> Result<Json<v1::Job>, ApiError> {
    cancel(&api, &user, (id, Kind::Redeliver)).await
}

/// Gives up all deliveries of a subscription in a state
///
/// They become `skipped`, with the reason; one whose attempt is under way may still arrive.
#[utoipa::path(post, path = "/eventmatch/{uuid}/discard", operation_id = "begin_discard",
    tag = "Subscriptions", request_body = v1::NewDiscard,
    responses((status = 202, description = "It is begun", body = v1::Job)))]
pub(super) async fn begin_discard(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<v1::Job>), ApiError> {
    begin(&api, &user, (id, Kind::Discard), &headers, body).await
}

/// Shows the last job that gave up deliveries of a subscription
#[utoipa::path(get, path = "/eventmatch/{uuid}/discard", operation_id = "read_discard",
    tag = "Subscriptions",
    responses((status = 200, description = "The job", body = v1::Job)))]
pub(super) async fn read_discard(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
) -> Result<Json<v1::Job>, ApiError> {
    read(&api, &user, (id, Kind::Discard)).await
}

/// Cancels the job that gives up deliveries of a subscription
///
/// Those that it has given up already stay so.
#[utoipa::path(delete, path = "/eventmatch/{uuid}/discard", operation_id = "cancel_discard",
    tag = "Subscriptions",
    responses((status = 200, description = "The job", body = v1::Job)))]
pub(super) async fn cancel_discard(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
) -> Result<Json<v1::Job>, ApiError> {
    cancel(&api, &user, (id, Kind::Discard)).await
}

async fn begin(
    api: &Api,
    user: &User,
    (id, kind): (SubscriptionId, Kind),
    headers: &HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<v1::Job>), ApiError> {
    if let Err(refused) = own(api, user, id) {
        // A client that is still sending would not see the response.
        body::drain(body).await;
        return Err(refused);
    }
    let (body, _taken) = body::read(headers, body, &api.limits.subscription).await?;
    let request = Request::read(kind, body::object(headers, &body)?)?;
    let Request { work, of, since, until } = request;
    let total = match (since, until) {
        (None, None) => Some(api.store.counts(id.into()).await?.of(of.into())),
        _ => None,
    };
    // Reading the body took its time.
    own(api, user, id)?;
    let job = Job {
        subscription: id,
        work,
        of,
        since,
        until,
        asked: clock::now(),
        by: user.name.clone(),
        total,
        end: None,
        position: None,
        looked_at: 0,
        changed: 0,
        state: Progress::Running,
    };
    let begun = job.clone();
    if !api.jobs.begin(job, &user.actor()).await? {
        let name = kind.name();
        return Err(ApiError::conflict(format!(
            "a {name} of this subscription is running: GET /eventmatch/{id}/{name} shows its progress, DELETE cancels it"
        )));
    }
    Ok((StatusCode::ACCEPTED, Json(show(&begun, None, Details::of(user, api)))))
}

async fn read(api: &Api, user: &User, (id, kind): (SubscriptionId, Kind)) -> Result<Json<v1::Job>, ApiError> {
    own(api, user, id)?;
    let (job, wait) = api.jobs.find(id, kind).await?.ok_or_else(|| never_asked(kind))?;
    Ok(Json(show(&job, wait, Details::of(user, api))))
}

async fn cancel(
    api: &Api,
    user: &User,
    (id, kind): (SubscriptionId, Kind),
) -> Result<Json<v1::Job>, ApiError> {
    own(api, user, id)?;
    let cancelled = api.jobs.cancel(id, kind, clock::now(), &user.actor()).await?;
    let job = cancelled.ok_or_else(|| never_asked(kind))?;
    Ok(Json(show(&job, None, Details::of(user, api))))
}

fn never_asked(kind: Kind) -> ApiError {
    let example = match kind {
        Kind::Redeliver => r#"{"state": "dead"}"#,
        Kind::Discard => r#"{"state": "dead", "reason": "…"}"#,
    };
    let name = kind.name();
    ApiError::not_found(format!(
        "no {name} of this subscription was ever asked for: POST {example} begins one"
    ))
}

fn show(job: &Job, wait: Option<Wait>, details: Details) -> v1::Job {
    let count = |count: u64| (details == Details::Shown).then_some(count);
    let failure = match &job.state {
        Progress::Failed { reason, .. } => Some(reason.clone()),
        Progress::Running | Progress::Done { .. } | Progress::Cancelled { .. } => None,
    };
    let (kind, reason) = match &job.work {
        Work::Redeliver => (v1::JobKind::Redeliver, None),
        Work::Discard { reason } => (v1::JobKind::Discard, Some(reason.clone())),
    };
    v1::Job {
        subscription: job.subscription.uuid(),
        kind,
        state: words::recovery_state(&job.state),
        failure,
        waiting: waiting(wait, details),
        of: v1::JobScope {
            state: job.of.name().to_owned(),
            since: job.since.map(v1::Time),
            until: job.until.map(v1::Time),
        },
        reason,
        asked: job.asked.into(),
        by: job.by.clone(),
        ended: job.state.ended().map(v1::Time),
        total: job.total.and_then(count),
        looked_at: count(job.looked_at),
        changed: count(job.changed),
    }
}

/// What the body of a POST asks for.
#[derive(Debug, PartialEq)]
struct Request {
    work: Work,
    of: Scope,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Request {
    fn read(kind: Kind, mut body: Map<String, Value>) -> Result<Self, ApiError> {
        let of = read_scope(kind, body.remove("state"))?;
        let work = match kind {
            Kind::Redeliver => Work::Redeliver,
            Kind::Discard => Work::Discard { reason: read_reason(body.remove("reason"))? },
        };
        let mut time = |name: &str| match body.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read_time(&value, name, "a time such as 2026-01-31T12:00:00Z, or null").map(Some),
        };
        let (since, until) = (time("since")?, time("until")?);
        if let Some(unknown) = body.keys().next() {
            let members = match kind {
                Kind::Redeliver => "`state`, `since` and `until`",
                Kind::Discard => "`state`, `reason`, `since` and `until`",
            };
            let detail = format!("unknown member `{unknown}`: a {} has {members}", kind.name());
            return Err(ApiError::field(pointer(unknown), detail));
        }
        match (since, until) {
            (Some(since), Some(until)) if until <= since => {
                let detail = format!("`until` ({until}) must be later than `since` ({since})");
                Err(ApiError::field("/until", detail))
            }
            _ => Ok(Self { work, of, since, until }),
        }
    }
}

fn read_scope(kind: Kind, value: Option<Value>) -> Result<Scope, ApiError> {
    let names: Vec<_> = kind.scopes().iter().map(|scope| scope.name()).collect();
    let expected = names.join(", ");
    let refused = |detail: String| Err(ApiError::field("/state", detail));
    match (value, kind) {
        (None | Some(Value::Null), Kind::Redeliver) => Ok(Scope::Dead),
        (None | Some(Value::Null), Kind::Discard) => {
            refused(format!("`state` is missing: one of {expected}"))
        }
        (Some(value), _) => {
            let found = kind.scopes().iter().find(|scope| value == scope.name());
            found.map_or_else(
                || refused(format!("`state` must be one of {expected} for a {}", kind.name())),
                |scope| Ok(*scope),
            )
        }
    }
}

fn read_reason(value: Option<Value>) -> Result<String, ApiError> {
    let detail = match value {
        None | Some(Value::Null) => "`reason` is missing: why the deliveries are given up".to_owned(),
        Some(Value::String(reason)) if reason.trim().is_empty() => "`reason` is empty".to_owned(),
        Some(Value::String(reason)) => match reason.chars().count() {
            ..=REASON_MAX => return Ok(reason),
            count => format!("`reason` has {count} characters: at most {REASON_MAX}"),
        },
        Some(_) => "`reason` must be a text".to_owned(),
    };
    Err(ApiError::field("/reason", detail))
}

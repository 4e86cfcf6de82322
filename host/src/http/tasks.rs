//! `/status`, `/get` and `/`: an event as a task, the form that clients of the Dispatcher know.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use jiff::Timestamp;
use waypost_api::v1;

use super::Api;
use super::dry_run::DryRunPermits;
use super::error::ApiError;
use super::events::{Page, find, find_shown, views};
use super::id::TaskId;
use super::parameters::{Here, Parameters};
use super::runs::show_progress;
use super::story::View;
use crate::identity::User;
use waypost_domain::State as DeliveryState;
use waypost_domain::{Attempt, EventId, TaskStatus};

/// Shows the state of an event's deliveries, in the words of Pacifica's Dispatcher
///
/// `202 Accepted` waiting, `102 Processing` under way, `200 OK` done, `422 Unprocessable Entity` nothing matched, `500
/// Internal Server Error` a dead letter.
#[utoipa::path(get, path = "/status/{id}", operation_id = "read_task_status",
    tag = "Pacifica",
    responses((status = 200, description = "The state", body = String, example = "200 OK")))]
pub(super) async fn status(
    State(api): State<Arc<Api>>,
    user: User,
    TaskId(id): TaskId<EventId>,
) -> Result<Json<String>, ApiError> {
    let view = find(&api, &user, id).await?;
    Ok(Json(view.status().to_string()))
}

/// Shows an event as a task of Pacifica's Dispatcher
#[utoipa::path(get, path = "/get/{id}", operation_id = "read_task",
    tag = "Pacifica",
    responses((status = 200, description = "The task", body = v1::Task)))]
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    user: User,
    TaskId(id): TaskId<EventId>,
) -> Result<Json<v1::Task>, ApiError> {
    let view = find_shown(&api, &user, id).await?;
    let attributes = view.event.event.attributes();
    let dead = view.deliveries.iter().find_map(|delivery| match &delivery.state {
        DeliveryState::Dead { reason } => Some(reason.clone()),
        _ => None,
    });
    let handler = view.deliveries.iter().find_map(|delivery| delivery.handler.clone());
    Ok(Json(v1::Task {
        event_type: attributes.event_type,
        event_type_version: attributes.event_type_version,
        source: attributes.source,
        event_id: attributes.event_id,
        event_time: attributes.event_time,
        schema_url: attributes.schema_url,
        content_type: attributes.content_type,
        event_data: String::from_utf8_lossy(&view.event.event.json()).into_owned(),
        data: attributes.data.map_or_else(|| "null".to_owned(), |data| data.get().to_owned()),
        task_id: view.event.id.uuid(),
        task_status: view.status().to_string(),
        task_application_name: "waypost".to_owned(),
        task_name: handler.or_else(|| (view.status() != TaskStatus::Unmatched).then(|| "deliver".to_owned())),
        exception_type: dead.is_some().then(|| "DeadLetter".to_owned()),
        exception_traceback: dead.as_deref().map_or_else(String::new, |reason| traceback(&view, reason)),
        exception_value: dead,
        created: view.event.received.into(),
        updated: updated(&view),
        deleted: None,
        progress: view.deliveries.iter().find_map(|delivery| delivery.progress.as_ref().map(show_progress)),
    }))
}

/// Returns the end of what a handler's last program wrote to stderr, which is where Python writes its
/// traceback, or the reason of the dead letter if that is empty.
fn traceback(view: &View, reason: &str) -> String {
    let runs = view.deliveries.iter().filter_map(|delivery| delivery.runs().last());
    let mut said = runs.filter_map(|run| run.program.as_ref()).map(|program| program.stderr.tail.as_str());
    said.rfind(|tail| !tail.trim().is_empty()).unwrap_or(reason).to_owned()
}

/// Lists the log as tasks of Pacifica's Dispatcher, newest first
///
/// The header `Link` leads to the next page.
#[utoipa::path(get, path = "/", operation_id = "list_tasks",
    tag = "Pacifica", params(Page),
    responses((status = 200, description = "A page", body = Vec<v1::TaskSummary>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(permits): Extension<DryRunPermits>,
    user: User,
    here: Here,
    Parameters(page): Parameters<Page>,
) -> Result<(HeaderMap, Json<Vec<v1::TaskSummary>>), ApiError> {
    let (tasks, end) = views(&api, &user, &page, &permits, |view| Some(task(view)), |_| 0).await?;
    Ok((here.link(page.after(&end)), Json(tasks)))
}

fn task(view: &View) -> v1::TaskSummary {
    v1::TaskSummary {
        task_id: view.event.id.uuid(),
        created: view.event.received.into(),
        updated: updated(view),
        deleted: None,
    }
}

/// Returns when the last attempt ended, or when the event was received if there was none.
fn updated(view: &View) -> v1::Time {
    let attempts = view.deliveries.iter().flat_map(|delivery| delivery.attempts());
    attempts.map(ended).max().unwrap_or(view.event.received).into()
}

/// Returns when an attempt ended.
pub(super) fn ended(attempt: &Attempt) -> Timestamp {
    attempt.at.checked_add(attempt.took).unwrap_or(attempt.at)
}

//! `/status`, `/get` and `/`: an event as the Dispatcher's clients know it, a task.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use super::events::{Page, find, not_found, views};
use super::id::Id;
use super::identity::User;
use super::parameters::Parameters;
use super::runs::show_progress;
use super::story::View;
use crate::domain::State as DeliveryState;
use crate::domain::{Attempt, EventId, TaskStatus};

/// `GET /status/{id}`
pub(super) async fn status(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<EventId, 422>,
) -> Result<Json<String>, ApiError> {
    let view = find(&api, &user, id).await?;
    Ok(Json(view.status().to_string()))
}

/// A task, with the members that the Dispatcher answers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    event_type: String,
    event_type_version: Option<String>,
    source: String,
    #[serde(rename = "eventID")]
    event_id: String,
    event_time: Option<String>,
    #[serde(rename = "schemaURL")]
    schema_url: Option<String>,
    content_type: Option<String>,
    event_data: Option<Box<RawValue>>,
    /// The same once more: some clients read this name.
    data: Option<Box<RawValue>>,
    #[serde(rename = "taskID")]
    task_id: String,
    task_status: String,
    task_application_name: &'static str,
    task_name: Option<String>,
    exception_type: Option<&'static str>,
    exception_value: Option<String>,
    /// Always null: what went wrong is in the event's story.
    exception_traceback: Option<String>,
    created: String,
    updated: String,
    deleted: Option<String>,
    /// How far the run of a handler has come, while it is under way.
    progress: Option<Value>,
}

/// `GET /get/{id}`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<EventId, 422>,
) -> Result<Json<Box<RawValue>>, ApiError> {
    let view = find(&api, &user, id).await?;
    if !view.shows_event {
        return Err(not_found(id));
    }
    let attributes = view.event.event.attributes();
    let dead = view.deliveries.iter().find_map(|delivery| match &delivery.state {
        DeliveryState::Dead { reason } => Some(reason.clone()),
        _ => None,
    });
    let handler = view.deliveries.iter().find_map(|delivery| delivery.handler.clone());
    let task = Task {
        event_type: attributes.event_type,
        event_type_version: attributes.event_type_version,
        source: attributes.source,
        event_id: attributes.event_id,
        event_time: attributes.event_time,
        schema_url: attributes.schema_url,
        content_type: attributes.content_type,
        data: attributes.data.clone(),
        event_data: attributes.data,
        task_id: view.event.id.to_string(),
        task_status: view.status().to_string(),
        task_application_name: "waypost",
        task_name: handler.or_else(|| (view.status() != TaskStatus::Unmatched).then(|| "deliver".to_owned())),
        exception_type: dead.is_some().then_some("DeadLetter"),
        exception_value: dead,
        exception_traceback: None,
        created: view.event.received.to_string(),
        updated: updated(&view),
        deleted: None,
        progress: view.deliveries.iter().find_map(|delivery| delivery.progress.as_ref().map(show_progress)),
    };
    let json = serde_json::value::to_raw_value(&task);
    json.map(Json).map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the event is damaged"))
}

/// `GET /`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    user: User,
    Parameters(page): Parameters<Page>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let (tasks, _) = views(&api, &user, &page, |view| Some(task(view))).await?;
    Ok(Json(tasks))
}

fn task(view: &View) -> Value {
    json!({
        "taskID": view.event.id.to_string(),
        "created": view.event.received.to_string(),
        "updated": updated(view),
        "deleted": null,
    })
}

/// Returns when something happened last.
fn updated(view: &View) -> String {
    let attempts = view.deliveries.iter().flat_map(|delivery| delivery.attempts());
    attempts.map(ended).max().unwrap_or(view.event.received).to_string()
}

/// Returns when an attempt ended.
pub(super) fn ended(attempt: &Attempt) -> Timestamp {
    attempt.at.checked_add(attempt.took).unwrap_or(attempt.at)
}

//! `/status`, `/get` and `/`: an event as a task, the form that clients of the Dispatcher know.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use super::events::{Page, find, find_shown, views};
use super::id::Id;
use super::parameters::Parameters;
use super::runs::show_progress;
use super::story::View;
use crate::identity::User;
use waypost_domain::State as DeliveryState;
use waypost_domain::{Attempt, EventId, TaskStatus};
use waypost_runtime::clock;

/// `GET /status/{id}`
pub(super) async fn status(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<EventId, 422>,
) -> Result<Json<String>, ApiError> {
    let view = find(&api, &user, id).await?;
    Ok(Json(view.status().to_string()))
}

/// A task, with the members and types of the Dispatcher: JSON is given as a string.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Task {
    event_type: String,
    event_type_version: Option<String>,
    source: String,
    #[serde(rename = "eventID")]
    event_id: String,
    event_time: Option<String>,
    #[serde(rename = "schemaURL")]
    schema_url: Option<String>,
    content_type: Option<String>,
    /// The whole event, as JSON.
    event_data: String,
    /// Its data, as JSON: `null` where there are none.
    data: String,
    #[serde(rename = "taskID")]
    task_id: String,
    task_status: String,
    task_application_name: &'static str,
    task_name: Option<String>,
    exception_type: Option<&'static str>,
    exception_value: Option<String>,
    /// Empty without an error, since clients expect a string.
    exception_traceback: String,
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
) -> Result<Json<Task>, ApiError> {
    let view = find_shown(&api, &user, id).await?;
    let attributes = view.event.event.attributes();
    let dead = view.deliveries.iter().find_map(|delivery| match &delivery.state {
        DeliveryState::Dead { reason } => Some(reason.clone()),
        _ => None,
    });
    let handler = view.deliveries.iter().find_map(|delivery| delivery.handler.clone());
    Ok(Json(Task {
        event_type: attributes.event_type,
        event_type_version: attributes.event_type_version,
        source: attributes.source,
        event_id: attributes.event_id,
        event_time: attributes.event_time,
        schema_url: attributes.schema_url,
        content_type: attributes.content_type,
        event_data: String::from_utf8_lossy(&view.event.event.json()).into_owned(),
        data: attributes.data.map_or_else(|| "null".to_owned(), |data| data.get().to_owned()),
        task_id: view.event.id.to_string(),
        task_status: view.status().to_string(),
        task_application_name: "waypost",
        task_name: handler.or_else(|| (view.status() != TaskStatus::Unmatched).then(|| "deliver".to_owned())),
        exception_type: dead.is_some().then_some("DeadLetter"),
        exception_traceback: dead.as_deref().map_or_else(String::new, |reason| traceback(&view, reason)),
        exception_value: dead,
        created: clock::text(view.event.received),
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
        "created": clock::text(view.event.received),
        "updated": updated(view),
        "deleted": null,
    })
}

/// Returns when the last attempt ended, or when the event was received if there was none.
fn updated(view: &View) -> String {
    let attempts = view.deliveries.iter().flat_map(|delivery| delivery.attempts());
    clock::text(attempts.map(ended).max().unwrap_or(view.event.received))
}

/// Returns when an attempt ended.
pub(super) fn ended(attempt: &Attempt) -> Timestamp {
    attempt.at.checked_add(attempt.took).unwrap_or(attempt.at)
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Progress, Time};

/// An event as a task of Pacifica's Dispatcher: JSON is given as a string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// The event's type.
    pub event_type: String,
    /// The version of the type (CloudEvents 0.1).
    pub event_type_version: Option<String>,
    /// The event's source.
    pub source: String,
    /// The event's own id.
    #[serde(rename = "eventID")]
    pub event_id: String,
    /// The event's time.
    pub event_time: Option<String>,
    /// The schema of the data.
    #[serde(rename = "schemaURL")]
    pub schema_url: Option<String>,
    /// The media type of the data.
    pub content_type: Option<String>,
    /// The whole event, as JSON.
    pub event_data: String,
    /// Its data, as JSON: `null` where there are none.
    pub data: String,
    /// The id that the event got when it was received.
    #[serde(rename = "taskID")]
    pub task_id: Uuid,
    /// The state of its deliveries: `200 OK`.
    pub task_status: String,
    /// Always `waypost`.
    pub task_application_name: String,
    /// The handler, or `deliver`; null if nothing matched.
    pub task_name: Option<String>,
    /// `DeadLetter`, if a delivery was given up.
    pub exception_type: Option<String>,
    /// Why.
    pub exception_value: Option<String>,
    /// What the program wrote to stderr; empty without an error, since clients expect a string.
    pub exception_traceback: String,
    /// When the event was received.
    pub created: Time,
    /// When its last attempt ended.
    pub updated: Time,
    /// Always null.
    pub deleted: Option<Time>,
    /// How far the run of a handler has come, while it is under way.
    pub progress: Option<Progress>,
}

/// A task in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskSummary {
    /// The id that the event got when it was received.
    #[serde(rename = "taskID")]
    pub task_id: Uuid,
    /// When the event was received.
    pub created: Time,
    /// When its last attempt ended.
    pub updated: Time,
    /// Always null.
    pub deleted: Option<Time>,
}

/// The run of a handler as Pacifica's Dispatcher-K8s shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScriptLog {
    /// The id of its event.
    pub uuid: Uuid,
    /// The event, as JSON.
    pub event: String,
    /// The end of what the program wrote to stdout.
    pub stdout: String,
    /// The end of what it wrote to stderr.
    pub stderr: String,
    /// Its exit code, as a string; null if it has none.
    pub return_code: Option<String>,
    /// The handler.
    pub script_id: Option<String>,
    /// When the event was received.
    pub created: Time,
    /// When the last attempt ended.
    pub updated: Time,
    /// Always null.
    pub deleted: Option<Time>,
}

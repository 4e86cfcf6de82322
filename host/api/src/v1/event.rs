use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Delivery, Explanation, Time, words};

/// An event in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventSummary {
    /// The id that it got when it was received.
    pub id: Uuid,
    /// When it was received.
    pub received: Time,
    /// The state of its deliveries, in the words of Pacifica's Dispatcher: `200 OK`.
    pub status: String,
    /// Its version of CloudEvents.
    pub spec_version: String,
    /// Its own id.
    pub event_id: String,
    /// Its source.
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its subject; null for none.
    pub subject: Option<String>,
}

/// A page of events, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    /// The events.
    pub events: Vec<EventSummary>,
    /// The path of the next page; null at the end.
    pub next: Option<String>,
    /// The last event that was looked at, if the search ended before the page was full: `next` goes on behind it.
    pub truncated_at: Option<Uuid>,
}

/// An event with all that has happened to it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Story {
    /// The id that it got when it was received.
    pub id: Uuid,
    /// When it was received.
    pub received: Time,
    /// The state of its deliveries, in the words of Pacifica's Dispatcher: `200 OK`.
    pub status: String,
    /// Who sent it.
    pub sender: String,
    /// How it was sent.
    pub mode: Mode,
    /// The media type of its request.
    pub content_type: Option<String>,
    /// The event as it was received, numbers included; null if you may see only that a filter failed on it.
    #[schema(value_type = Option<Object>)]
    pub event: Option<Box<RawValue>>,
    /// Why filters cannot read the event's data, where they are declared as JSON but are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub data: Option<String>,
    /// Its deliveries, those that you may see.
    pub deliveries: Vec<Delivery>,
    /// The filters that failed on it.
    #[serde(default)]
    pub filters_failed: Vec<FailedFilter>,
    /// Why each subscription of a user matched or did not, if you asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub explain: Option<Explanation>,
}

words! {
    /// How an event was sent (CloudEvents HTTP binding §3).
    Mode {
        /// All of it in the body.
        Structured = "structured",
        /// Its data in the body, and its attributes in headers.
        Binary = "binary",
    }
}

/// A filter that failed on an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedFilter {
    /// The subscription, or the id of the handler.
    pub subscription: Uuid,
    /// Its name.
    pub name: Option<String>,
    /// The owner of the subscription.
    pub user: Option<String>,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Time,
}

/// What is sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Redelivery {
    /// The event.
    pub id: Uuid,
    /// The deliveries.
    pub deliveries: Vec<RedeliveryTarget>,
    /// The filters that failed on it this time.
    #[serde(default)]
    pub filters_failed: Vec<RedeliveryFailure>,
}

/// A delivery that is sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RedeliveryTarget {
    /// Its id.
    pub id: Uuid,
    /// The subscription, or the id of the handler.
    pub subscription: Uuid,
    /// The name of the handler; null for a subscription.
    pub handler: Option<String>,
}

/// A filter that failed when an event was matched again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RedeliveryFailure {
    /// The subscription, or the id of the handler.
    pub subscription: Uuid,
    /// Why.
    pub reason: String,
}

/// How many events were purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PurgeReport {
    /// How many are gone.
    pub purged: u64,
    /// How many were kept, because deliveries of them are still open.
    pub kept: u64,
}

/// An event as it is sent (CloudEvents 1.0). Extension attributes are members, too; 0.1 to 0.3 are accepted as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CloudEvent {
    /// The version.
    #[schema(examples("1.0"))]
    pub specversion: String,
    /// An id, unique for the source.
    #[schema(min_length = 1, examples("run-7"))]
    pub id: String,
    /// Where it comes from: a URI reference.
    #[schema(min_length = 1, examples("/microscope"))]
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    #[schema(min_length = 1, examples("org.example.run.done"))]
    pub kind: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 1)]
    pub subject: Option<String>,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub time: Option<Time>,
    /// The media type of its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("application/json"))]
    pub datacontenttype: Option<String>,
    /// The schema of its data: a URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dataschema: Option<String>,
    /// Its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Its data in base64, where they are bytes; then it has no `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub data_base64: Option<String>,
}

/// Tells that events were left out of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventGap {
    /// The last event that the stream has sent: those that were left out came later. Null if it has sent none.
    pub after: Option<Uuid>,
    /// The last event that was left out; null unless you are an admin.
    pub until: Option<Uuid>,
}

/// Tells that a stream's filter gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FilterFailure {
    /// About which event.
    pub event: Uuid,
    /// Why.
    pub reason: String,
}

/// Tells that there were more new deliveries than a stream looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryGap {}

/// The last message of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamEnd {
    /// Why it ends.
    pub reason: String,
}

/// The ids that events got when they were received: one, or those of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EventIds {
    /// Of one event.
    One(Uuid),
    /// Of a batch, in its order.
    Batch(Vec<Uuid>),
}

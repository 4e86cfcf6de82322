//! Events that `/dispatch` makes for a run.

use serde_json::{Value, json};
use uuid::Uuid;

use waypost_domain::{Event, HandlerName, RecipientId};
use waypost_engine::intake;

/// The prefix of the `source` of an event that was made for a run; the handler's name follows.
const SOURCE: &str = "/dispatch/";
/// The member of such an event's data with the arguments.
const ARGUMENTS: &str = "arguments";

/// Why `/dispatch` starts nothing.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// No handler of that name may be started by `/dispatch`.
    #[error("there is no handler `{0}` that may be dispatched (`dispatch = true` in its `[[handler]]`)")]
    Unknown(String),
    /// The store cannot write.
    #[error("failed to accept the run")]
    Accept(#[source] intake::Error),
}

/// Makes the event of a run with these arguments.
pub(super) fn event(handler: &str, arguments: &[String]) -> Event {
    let event = json!({
        "specversion": "1.0",
        "id": Uuid::new_v4().to_string(),
        "source": format!("{SOURCE}{handler}"),
        "type": "waypost.dispatch",
        "data": {"handler": handler, ARGUMENTS: arguments},
    });
    Event::from_json(event.to_string()).expect("it has what every event has")
}

/// Returns the arguments of such an event, and none of others.
pub(super) fn arguments(event_json: &[u8]) -> Vec<String> {
    let event: Value = serde_json::from_slice(event_json).unwrap_or_default();
    let arguments = event["data"][ARGUMENTS].as_array().map(Vec::as_slice).unwrap_or_default();
    arguments.iter().filter_map(|argument| argument.as_str().map(str::to_owned)).collect()
}

/// Returns the recipient of the run that [`Runs::dispatch`](super::Runs::dispatch) has made this event for. Other
/// producers can send events with such a source; check the event's deliveries.
pub fn dispatched_to(event: &Event) -> Option<RecipientId> {
    let name: HandlerName = event.source().strip_prefix(SOURCE)?.parse().ok()?;
    Some(name.dispatched())
}

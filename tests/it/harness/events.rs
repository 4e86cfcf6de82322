//! The events that the suite's producers send.

use serde_json::{Value, json};

/// Returns an event of Pacifica's form (CloudEvents 0.1) with this `eventID`.
pub(crate) fn event(id: &str) -> Value {
    json!({
        "cloudEventsVersion": "0.1",
        "contentType": "application/json",
        "data": [
            {"destinationTable": "Transactions._id", "value": 1234},
            {"destinationTable": "TransactionKeyValue", "key": "Taggy", "value": "Blah"},
        ],
        "eventID": id,
        "eventTime": "2018-04-05T17:31:00Z",
        "eventType": "org.pacifica.metadata.ingest",
        "extensions": {"comExampleExtension": "value"},
        "source": "/pacifica/metadata/ingest",
    })
}

/// Returns an event of CloudEvents 1.0 with this `id`.
pub(crate) fn event_1_0(id: &str) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": "/it",
        "type": "it.happened",
        "time": "2026-01-02T03:04:05Z",
        "datacontenttype": "application/json",
        "data": {"n": 1},
    })
}

/// Returns `base` with the members of `over` laid over it; `null` removes a member.
pub(crate) fn merged(mut base: Value, over: Value) -> Value {
    let Value::Object(over) = over else { panic!("{over} is no object") };
    for (key, value) in over {
        match value {
            Value::Null => drop(base.as_object_mut().unwrap().remove(&key)),
            value => base[key] = value,
        }
    }
    base
}

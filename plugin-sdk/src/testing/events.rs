//! Events for tests.

use serde_json::Value;

use crate::event::{Event, Payload};

/// Makes an event from a CloudEvent in JSON, as a plugin would see it. `id`, `source` and `type` default to `1`, `/test`
/// and `test`. `data_base64` is not supported: set [`Payload::Binary`].
///
/// # Panics
/// When it is not an object, or an attribute is an array or an object.
pub fn event(cloud_event: Value) -> Event {
    let Value::Object(members) = cloud_event else { panic!("an event is a JSON object: {cloud_event}") };
    let mut event =
        Event { id: "1".to_owned(), source: "/test".to_owned(), ty: "test".to_owned(), ..Event::default() };
    let mut data = None;
    for (name, value) in members {
        match (name.as_str(), value) {
            (_, Value::Null) | ("specversion", _) => {}
            ("data", value) => data = Some(value),
            ("id", value) => event.id = text(&name, value),
            ("source", value) => event.source = text(&name, value),
            ("type", value) => event.ty = text(&name, value),
            ("subject", value) => event.subject = Some(text(&name, value)),
            ("time", value) => event.time = Some(text(&name, value)),
            ("datacontenttype", value) => event.data_content_type = Some(text(&name, value)),
            ("dataschema", value) => event.data_schema = Some(text(&name, value)),
            (_, value) => event.extensions.push((name, text("an extension attribute", value))),
        }
    }
    event.payload = data.map(|data| payload(data, event.data_content_type.as_deref()));
    event
}

fn text(name: &str, value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => panic!("{name} is a text, and not {value}"),
    }
}

/// A string is text unless its content type says JSON (CloudEvents 1.0.2, JSON format §3.1).
fn payload(data: Value, content_type: Option<&str>) -> Payload {
    let is_json = content_type.is_none_or(|content_type| {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        kind.ends_with("/json") || kind.ends_with("+json")
    });
    match data {
        Value::String(text) if !is_json => Payload::Text(text),
        data => Payload::Json(data.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_has_the_form_that_a_plugin_sees() {
        let seen = event(json!({
            "specversion": "1.0", "id": "7", "subject": "s", "count": 3, "datacontenttype": "text/plain", "data": "x",
        }));
        assert_eq!((seen.id.as_str(), seen.ty.as_str(), seen.subject.as_deref()), ("7", "test", Some("s")));
        assert_eq!(seen.extension("count"), Some("3"));
        assert_eq!(seen.payload, Some(Payload::Text("x".to_owned())));
        assert_eq!(event(json!({"data": "x"})).payload, Some(Payload::Json("\"x\"".to_owned())));
        assert_eq!(event(json!({})).payload, None);
    }
}

//! Waits for two events that belong together and sends one with the data of both.
//!
//! The filter stores the first event and skips it. When the second arrives, the transform takes the first one out of the
//! state.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use waypost_plugin::serde_json::{Map, Value};
use waypost_plugin::{
    Context, Describe, Error, Event, Filter, Manifest, Output, Result, Transform, Verdict, deliver, manifest,
    skip, state,
};

/// The plugin.
pub struct Join;

#[derive(Deserialize)]
struct Config {
    types: [String; 2],
    #[serde(default = "subject")]
    key: String,
    #[serde(default = "joined", rename = "type")]
    ty: String,
    #[serde(default = "hour")]
    wait_s: u64,
}

fn subject() -> String {
    "subject".to_owned()
}

fn joined() -> String {
    "waypost.joined".to_owned()
}

fn hour() -> u64 {
    60 * 60
}

/// What the state keeps of the first event.
#[derive(Deserialize, Serialize)]
struct First {
    id: String,
    data: Value,
}

/// An event's place among the two, and the key that both have in common.
struct Place {
    own: String,
    other: String,
    key: String,
}

impl Config {
    /// Returns where an event belongs, or why it does not.
    fn place(&self, event: &Event) -> Result<Place, String> {
        let Some(own) = self.types.iter().position(|ty| *ty == event.ty) else {
            return Err(format!("{} is none of the two types", event.ty));
        };
        let key = match self.key.as_str() {
            "subject" => event.subject.clone(),
            pointer => {
                data(event).pointer(pointer).filter(|value| !value.is_null()).map(|value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                })
            }
        };
        let key = key.ok_or_else(|| format!("it has no {}", self.key))?;
        let (own, other) = (&self.types[own], &self.types[1 - own]);
        Ok(Place { own: own.clone(), other: other.clone(), key })
    }
}

/// Returns the data, or `null` where there is none or it is not JSON.
fn data(event: &Event) -> Value {
    event.data().unwrap_or_default()
}

/// Returns the state's key under which the event of a type waits.
fn waiting(ty: &str, key: &str) -> String {
    format!("{ty} {key}")
}

impl Filter for Join {
    fn evaluate(event: &Event, context: &Context) -> Result<Verdict> {
        let config: Config = context.config()?;
        let Place { own, other, key } = match config.place(event) {
            Ok(place) => place,
            Err(reason) => return skip(reason),
        };
        if state::get(&waiting(&other, &key))?.is_some() {
            return deliver();
        }
        let first = First { id: event.id.clone(), data: data(event) };
        state::set_json(&waiting(&own, &key), &first, Some(Duration::from_secs(config.wait_s)))?;
        skip(format!("it waits for {other} with {} {key}", config.key))
    }
}

impl Transform for Join {
    fn apply(event: Event, context: &Context) -> Result<Vec<Output>> {
        let config: Config = context.config()?;
        let Place { own, other, key } = config.place(&event).map_err(Error::InvalidEvent)?;
        let name = waiting(&other, &key);
        let Some(first) = state::get_json::<First>(&name)? else { return Ok(Vec::new()) };
        state::delete(&name)?;
        let both = Map::from_iter([(other, first.data), (own, data(&event))]);
        let mut joined =
            Event { id: format!("{}+{}", first.id, event.id), ty: config.ty, subject: Some(key), ..event };
        joined.set_data(&both)?;
        Ok(vec![Output::event(joined)])
    }
}

impl Describe for Join {
    fn describe() -> Manifest {
        manifest!().with_config_schema(include_str!("../config.schema.json"))
    }
}

waypost_plugin::export!(Join: filter, transform, metadata);

#[cfg(test)]
mod tests {
    use waypost_plugin::serde_json::json;
    use waypost_plugin::testing::{Host, event};

    use super::*;

    fn of(ty: &str, id: &str, run: u64) -> Event {
        event(json!({"type": ty, "id": id, "source": "/lab", "data": {"run": run, "of": id}}))
    }

    fn host() -> Host {
        Host::new().with_config(json!({"types": ["scan", "report"], "key": "/run", "wait_s": 60}))
    }

    #[test]
    fn the_second_event_is_sent_with_the_data_of_both_in_either_order() {
        for (first, second) in [("scan", "report"), ("report", "scan")] {
            let host = host();
            let waits = skip(format!("it waits for {second} with /run 5"));
            assert_eq!(host.filter::<Join>(&of(first, "a", 5)), waits);
            let event = of(second, "b", 5);
            assert_eq!(host.filter::<Join>(&event), Ok(Verdict::Deliver));
            let outputs = host.transform::<Join>(&event).unwrap();
            let [Output::Event(joined)] = &outputs[..] else { panic!("{outputs:?}") };
            assert_eq!((joined.id.as_str(), joined.ty.as_str()), ("a+b", "waypost.joined"));
            let expected = json!({first: {"run": 5, "of": "a"}, second: {"run": 5, "of": "b"}});
            assert_eq!(joined.data::<Value>(), Ok(expected));
            assert!(host.state_keys().is_empty(), "nothing waits any more");
        }
    }

    #[test]
    fn events_of_other_keys_and_types_do_not_meet() {
        let host = host();
        host.filter::<Join>(&of("scan", "a", 5)).unwrap();
        assert_eq!(host.filter::<Join>(&of("report", "b", 6)), skip("it waits for scan with /run 6"));
        assert_eq!(host.filter::<Join>(&of("note", "c", 5)), skip("note is none of the two types"));
        assert_eq!(host.filter::<Join>(&event(json!({"type": "scan"}))), skip("it has no /run"));
    }

    #[test]
    fn the_first_does_not_wait_for_ever() {
        let host = host();
        host.filter::<Join>(&of("scan", "a", 5)).unwrap();
        host.advance(Duration::from_secs(60));
        assert_eq!(host.filter::<Join>(&of("report", "b", 5)), skip("it waits for scan with /run 5"));
    }
}

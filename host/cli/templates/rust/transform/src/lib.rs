//! Sends a chat message instead of an event.

use serde::{Deserialize, Serialize};
use waypost_plugin::{Context, Describe, Event, Manifest, Output, Result, Transform};

struct Plugin;

/// What the subscription sets.
#[derive(Deserialize)]
struct Config {
    #[serde(default = "default_prefix")]
    prefix: String,
}

fn default_prefix() -> String {
    "New".to_owned()
}

/// What is sent.
#[derive(Serialize)]
struct Message {
    text: String,
}

impl Transform for Plugin {
    fn apply(event: Event, context: &Context) -> Result<Vec<Output>> {
        let Config { prefix } = context.config()?;
        let text = format!("{prefix}: {} from {}", event.ty, event.source);
        Ok(vec![Output::json(&Message { text })?])
    }
}

impl Describe for Plugin {
    fn describe() -> Manifest {
        waypost_plugin::manifest!().with_config_schema(include_str!("../config.schema.json"))
    }
}

waypost_plugin::export!(Plugin: transform, metadata);

#[cfg(test)]
mod tests {
    use waypost_plugin::serde_json::json;
    use waypost_plugin::testing::{Host, event};

    use super::*;

    #[test]
    fn an_event_becomes_a_message() {
        let event = event(json!({"type": "file.written", "source": "/microscope"}));
        let message = |text: &str| Ok(vec![Output::json(&json!({ "text": text })).unwrap()]);
        let host = Host::new().with_config(json!({"prefix": "Look"}));
        assert_eq!(host.transform::<Plugin>(&event), message("Look: file.written from /microscope"));
        assert_eq!(Host::new().transform::<Plugin>(&event), message("New: file.written from /microscope"));
    }
}

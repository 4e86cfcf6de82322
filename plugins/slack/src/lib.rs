//! Sends a Slack message instead of an event: the body that an incoming webhook accepts.

use serde::{Deserialize, Serialize};
use waypost_plugin::serde_json::Value;
use waypost_plugin::{
    Context, Describe, Error, Event, Manifest, Output, Problem, Result, Transform, manifest,
};

/// The plugin.
pub struct Slack;

#[derive(Deserialize)]
struct Config {
    #[serde(default = "text")]
    text: String,
    #[serde(flatten)]
    look: Look,
}

fn text() -> String {
    "*{type}* from {source}".to_owned()
}

/// The members of the configuration that are sent unchanged.
#[derive(Deserialize, Serialize)]
struct Look {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icon_emoji: Option<String>,
}

#[derive(Serialize)]
struct Message {
    text: String,
    #[serde(flatten)]
    look: Look,
}

/// Splits a template into texts and the names that follow them.
fn parts(template: &str) -> Result<Vec<(&str, Option<&str>)>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("a `{` has no `}`")?;
        if !name.starts_with('/') && !["id", "source", "type", "subject", "time"].contains(&name) {
            return Err(format!("{{{name}}} is no attribute, and no JSON pointer as {{/a/b}}"));
        }
        parts.push((text, Some(name)));
        rest = after;
    }
    parts.push((rest, None));
    Ok(parts)
}

/// Returns the value of a name, or an empty text where the event has none.
fn value(event: &Event, data: &Value, name: &str) -> String {
    let value = match name {
        "id" => event.id.clone(),
        "source" => event.source.clone(),
        "type" => event.ty.clone(),
        "subject" => event.subject.clone().unwrap_or_default(),
        "time" => event.time.clone().unwrap_or_default(),
        pointer => match data.pointer(pointer) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        },
    };
    // The three characters that are special to Slack: otherwise `<!channel>` in an event's subject would notify everybody.
    value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Transform for Slack {
    fn apply(event: Event, context: &Context) -> Result<Vec<Output>> {
        let Config { text, look } = context.config()?;
        let data = event.data().unwrap_or_default();
        let mut filled = String::new();
        for (text, name) in parts(&text).map_err(Error::InvalidConfig)? {
            filled += text;
            filled += &name.map(|name| value(&event, &data, name)).unwrap_or_default();
        }
        Ok(vec![Output::json(&Message { text: filled, look })?])
    }
}

impl Describe for Slack {
    fn describe() -> Manifest {
        manifest!().with_config_schema(include_str!("../config.schema.json"))
    }

    fn check_config(config: &str) -> Result<(), Vec<Problem>> {
        let config: Config = Problem::or_config(config)?;
        parts(&config.text).map(drop).map_err(|message| vec![Problem::new("/text", message)])
    }
}

waypost_plugin::export!(Slack: transform, metadata);

#[cfg(test)]
mod tests {
    use waypost_plugin::Payload;
    use waypost_plugin::serde_json::json;
    use waypost_plugin::testing::{Host, event};

    use super::*;

    fn sent(config: Value, given: Value) -> Vec<Output> {
        Host::new().with_config(config).transform::<Slack>(&event(given)).unwrap()
    }

    #[test]
    fn a_message_has_the_values_of_the_event() {
        let given = json!({"id": "7", "type": "t", "data": {"file": {"name": "a.txt", "size": 128}}});
        let config = json!({"text": "{type} {id}: {/file/name} of {/file/size} bytes {subject}{/no}", "channel": "#x"});
        let body = r##"{"text":"t 7: a.txt of 128 bytes ","channel":"#x"}"##;
        let expected = Output::raw("application/json", Payload::Json(body.to_owned()));
        assert_eq!(sent(config, given), [expected]);
    }

    #[test]
    fn an_event_cannot_say_more_than_text() {
        let expected = Output::json(&json!({"text": "*&lt;!channel&gt; &amp; co* from /test"})).unwrap();
        assert_eq!(sent(json!({}), json!({"type": "<!channel> & co"})), [expected]);
    }

    #[test]
    fn a_wrong_template_is_refused_with_its_place() {
        let problems = |text: &str| {
            let host = Host::new().with_config(json!({"text": text}));
            host.check_config::<Slack>()
        };
        assert_eq!(problems("{type"), Err(vec![Problem::new("/text", "a `{` has no `}`")]));
        let message = "{kind} is no attribute, and no JSON pointer as {/a/b}";
        assert_eq!(problems("{kind}"), Err(vec![Problem::new("/text", message)]));
        assert_eq!(problems("{type}{/a/0}"), Ok(()));
    }
}

//! Does what its configuration says, so that most tests of the host can share it.
//!
//! `policy`, `filter`, `transform`: what each returns. `ok` (the default), or one of
//! - `no: REASON`: deny, or skip;
//! - `invalid-event: …`, `invalid-config: …`, `unavailable: …`, `internal: …`: the errors;
//! - `panic: …`;
//! - for `transform` also `none`, `same`, `upper` (a raw body: the data in upper case), `twice`, `stamp` (a raw body that
//!   differs each time: the attempt and the time), `raw` (the JSON of `body`, with `headers`: `name: value`, one per line).
//!
//! `log`: a line to log. `count`: a key of the state to add 1 to; the new value goes into the raw body of `count`, and with the
//! event's id before it into that of `numbered`.

wit_bindgen::generate!({ path: "../../../wit", world: "waypost:plugin/plugin" });

use exports::waypost::plugin::filter::Verdict;
use exports::waypost::plugin::metadata::{Manifest, Problem};
use exports::waypost::plugin::policy::Decision;
use exports::waypost::plugin::transform::{Output, RawBody};
use waypost::plugin::types::{CallContext, Event, Payload, PluginError, RetryHint};
use waypost::plugin::{config, log, state};

struct Probe;

/// Returns the reason of `no`, if the configuration says so.
fn wanted(step: &str) -> Result<Option<String>, PluginError> {
    let Some(text) = config::get(step) else { return Ok(None) };
    let (word, rest) = text.split_once(": ").unwrap_or((&text, ""));
    let rest = rest.to_owned();
    match word {
        "no" => Ok(Some(rest)),
        "invalid-event" => Err(PluginError::InvalidEvent(rest)),
        "invalid-config" => Err(PluginError::InvalidConfig(rest)),
        "unavailable" => {
            Err(PluginError::Unavailable(RetryHint { message: rest, retry_after_ms: Some(1000) }))
        }
        "internal" => Err(PluginError::Internal(rest)),
        "panic" => panic!("{rest}"),
        _ => Ok(None),
    }
}

impl exports::waypost::plugin::metadata::Guest for Probe {
    fn describe() -> Manifest {
        Manifest {
            name: "probe".to_owned(),
            version: "1.0.0".to_owned(),
            description: "Does what its configuration says".to_owned(),
            config_schema: Some(
                r#"{"type": "object", "properties": {"filter": {"type": "string"}}}"#.to_owned(),
            ),
            wanted_hosts: vec!["example.org".to_owned()],
        }
    }

    fn check_config(config: String) -> Result<(), Vec<Problem>> {
        if config.contains("\"wrong\"") {
            return Err(vec![Problem { at: "/wrong".to_owned(), message: "is wrong".to_owned() }]);
        }
        Ok(())
    }
}

impl exports::waypost::plugin::policy::Guest for Probe {
    fn decide(_event: Event, _target: String, _context: CallContext) -> Result<Decision, PluginError> {
        Ok(wanted("policy")?.map_or(Decision::Allow, Decision::Deny))
    }
}

impl exports::waypost::plugin::filter::Guest for Probe {
    fn evaluate(_event: Event, _context: CallContext) -> Result<Verdict, PluginError> {
        if let Some(line) = config::get("log") {
            log::write(log::Level::Info, &line, &[("from".to_owned(), "filter".to_owned())]);
        }
        if let Some(key) = config::get("count") {
            state::increment(&key, 1, None).map_err(|error| PluginError::Internal(format!("{error:?}")))?;
        }
        Ok(wanted("filter")?.map_or(Verdict::Deliver, Verdict::Skip))
    }
}

impl exports::waypost::plugin::transform::Guest for Probe {
    fn apply(event: Event, context: CallContext) -> Result<Vec<Output>, PluginError> {
        wanted("transform")?;
        let raw = |body: Payload| {
            Output::Raw(RawBody {
                content_type: "text/plain".to_owned(),
                headers: vec![("x-made-by".to_owned(), "probe".to_owned())],
                body,
            })
        };
        Ok(match config::get("transform").as_deref() {
            Some("none") => Vec::new(),
            Some("upper") => match event.data {
                Some(Payload::Json(text) | Payload::Text(text)) => {
                    vec![raw(Payload::Text(text.to_uppercase()))]
                }
                Some(Payload::Binary(bytes)) => vec![raw(Payload::Binary(bytes))],
                None => vec![raw(Payload::Text(String::new()))],
            },
            Some("raw") => {
                let headers = config::get("headers").unwrap_or_default();
                let headers = headers.lines().filter_map(|line| line.split_once(": "));
                vec![Output::Raw(RawBody {
                    content_type: "application/json".to_owned(),
                    headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                    body: Payload::Text(config::get("body").unwrap_or_default()),
                })]
            }
            Some("stamp") => {
                let stamp = format!("attempt {} at {}", context.attempt, context.now_ms);
                vec![raw(Payload::Text(stamp))]
            }
            Some("twice") => vec![Output::Event(event.clone()), Output::Event(event)],
            Some(word @ ("count" | "numbered")) => {
                let count = config::get("count").and_then(|key| state::get(&key).ok().flatten());
                let count = count.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_le_bytes);
                let text = if word == "count" { count.to_string() } else { format!("{} {count}", event.id) };
                vec![raw(Payload::Text(text))]
            }
            _ => vec![Output::Event(event)],
        })
    }
}

export!(Probe);

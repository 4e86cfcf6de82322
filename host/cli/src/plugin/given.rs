//! Reads arguments that are JSON: inline, in a file, or on stdin.

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use waypost_domain::{Event, json};

use crate::input;

/// Reads an argument: text that begins with `{` is the JSON itself, `-` is stdin, and anything else is a file's name.
fn read(argument: &str) -> anyhow::Result<(String, Vec<u8>)> {
    if argument.trim_start().starts_with('{') {
        return Ok(("the argument".to_owned(), argument.as_bytes().to_vec()));
    }
    let path = Path::new(argument);
    let json = input::read(path).context("this does not begin with `{`, so it is a file's name")?;
    Ok((input::name(path).into_owned(), json))
}

/// Reads the event of `--event`.
pub(super) fn event(argument: &str) -> anyhow::Result<Event> {
    let (name, json) = read(argument)?;
    Event::from_json(json).with_context(|| format!("{name} is not an event"))
}

/// Reads the configuration of `--config`; none is an empty one.
pub(super) fn config(argument: Option<&str>) -> anyhow::Result<Map<String, Value>> {
    let Some(argument) = argument else { return Ok(Map::new()) };
    let (name, json) = read(argument)?;
    match json::read(&json).with_context(|| format!("{name} is not JSON"))? {
        Value::Object(config) => Ok(config),
        _ => bail!("the configuration in {name} has to be a JSON object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brace_begins_json_and_anything_else_is_a_file() {
        assert_eq!(config(Some(r#" {"a": 1}"#)).unwrap()["a"], 1);
        assert!(config(None).unwrap().is_empty());
        let error = |argument| format!("{:#}", config(Some(argument)).unwrap_err());
        insta::assert_snapshot!(error("{"), @"the argument is not JSON: EOF while parsing an object at line 1 column 1");
        insta::assert_snapshot!(error("absent.json"), @"this does not begin with `{`, so it is a file's name: failed to read absent.json: No such file or directory (os error 2)");
        let error = format!("{:#}", event("{}").unwrap_err());
        assert!(error.starts_with("the argument is not an event: "), "{error}");
    }
}

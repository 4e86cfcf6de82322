//! Compares a run with what was expected of it: both become JSON with the same members.

use serde_json::{Map, Value, json};
use similar::{ChangeTag, TextDiff};
use waypost_domain::plugin::LogLine;
use waypost_runtime::foreign;
use waypost_sandbox::CallResult;

use super::case::{Expect, Log, Output, Raw};
use super::shown::{self, OutputJson};

/// Returns how a run differs from what was expected, line by line: `-` expected, `+` found. `None` means no difference.
pub(super) fn difference(expect: &Expect, ran: &CallResult) -> Option<String> {
    let (mut expected, mut found) = (Map::new(), Map::new());
    let mut both = |name: &str, one: Value, other: Value| {
        expected.insert(name.to_owned(), one);
        found.insert(name.to_owned(), other);
    };
    if let Some(verdict) = expect.verdict {
        both("verdict", json!(verdict), json!(shown::verdict(&ran.run.verdict)));
    }
    if let Some(reason) = &expect.reason {
        both("reason", json!(reason), json!(shown::reason(&ran.run.verdict)));
    }
    if let Some(outputs) = &expect.outputs {
        let made: Vec<_> = ran.outputs.iter().map(shown::made).collect();
        let found = pairs(outputs, &made).map(|(expected, made)| self::made(expected, made));
        both("outputs", outputs.iter().map(output).collect(), found.collect());
    }
    if let Some(logs) = &expect.logs {
        let found = pairs(logs, &ran.run.logs).map(|(expected, line)| logged(expected, line));
        both("logs", logs.iter().map(log).collect(), found.collect());
    }
    let (expected, found) = (Value::Object(expected), Value::Object(found));
    (expected != found).then(|| diff(&expected, &found))
}

/// Pairs each item that was found with the one that was expected at its index.
fn pairs<'a, E, F>(expected: &'a [E], found: &'a [F]) -> impl Iterator<Item = (Option<&'a E>, &'a F)> {
    found.iter().enumerate().map(|(index, found)| (expected.get(index), found))
}

fn output(output: &Output) -> Value {
    match output {
        Output::Event(members) => json!({"event": members}),
        Output::Raw(Raw { content_type, headers, body }) => {
            let mut raw = Map::new();
            content_type.iter().for_each(|value| drop(raw.insert("content_type".to_owned(), json!(value))));
            headers.iter().for_each(|value| drop(raw.insert("headers".to_owned(), json!(value))));
            body.iter().for_each(|value| drop(raw.insert("body".to_owned(), value.clone())));
            json!({"raw": raw})
        }
    }
}

/// Returns an output with the members that are expected, or with all when no output of its kind is expected here.
fn made(expected: Option<&Output>, made: &OutputJson) -> Value {
    match (expected, made) {
        (Some(Output::Event(members)), OutputJson::Event(event)) => json!({"event": only(members, event)}),
        (Some(Output::Raw(raw)), OutputJson::Raw { content_type, headers, body }) => {
            let mut found = Map::new();
            if raw.content_type.is_some() {
                found.insert("content_type".to_owned(), json!(content_type));
            }
            if let Some(members) = &raw.headers {
                found.insert("headers".to_owned(), only(members, &json!(headers)));
            }
            if let Some(expected) = &raw.body {
                found.insert("body".to_owned(), like(expected, body));
            }
            json!({"raw": found})
        }
        (_, made) => json!(made),
    }
}

/// Returns the members of an object that are expected.
fn only(expected: &Map<String, Value>, found: &Value) -> Value {
    let members = expected.keys().filter_map(|name| Some((name.clone(), found.get(name)?.clone())));
    members.collect::<Map<_, _>>().into()
}

/// Returns a body as JSON where JSON is expected, and as text where text is.
fn like(expected: &Value, found: &Value) -> Value {
    match (expected, found) {
        (Value::String(_), found) => found.clone(),
        (_, Value::String(text)) => serde_json::from_str(text).unwrap_or_else(|_| found.clone()),
        (_, found) => found.clone(),
    }
}

fn log(log: &Log) -> Value {
    let Log { level, message, fields } = log;
    let mut line = Map::new();
    level.iter().for_each(|value| drop(line.insert("level".to_owned(), json!(value))));
    message.iter().for_each(|value| drop(line.insert("message".to_owned(), json!(value))));
    fields.iter().for_each(|value| drop(line.insert("fields".to_owned(), value.clone())));
    line.into()
}

fn logged(expected: Option<&Log>, line: &LogLine) -> Value {
    let fields: Map<_, _> =
        line.fields.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let all = json!({"level": shown::level(line.level), "message": line.message, "fields": fields});
    match expected.map(log) {
        Some(Value::Object(members)) => only(&members, &all),
        _ => all,
    }
}

fn diff(expected: &Value, found: &Value) -> String {
    let [expected, found] =
        [expected, found].map(|value| foreign::json(&format!("{value:#}\n")).into_owned());
    let diff = TextDiff::from_lines(&expected, &found);
    diff.iter_all_changes().map(|change| format!("{} {change}", sign(change.tag()))).collect()
}

fn sign(tag: ChangeTag) -> char {
    match tag {
        ChangeTag::Equal => ' ',
        ChangeTag::Delete => '-',
        ChangeTag::Insert => '+',
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use waypost_domain::plugin::{self, LogLevel, PluginRun};
    use waypost_domain::{Event, PluginDigest};
    use waypost_runtime::clock;
    use waypost_sandbox::State;

    use super::*;

    fn ran() -> CallResult {
        let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1,"b":2}}"#;
        let raw = plugin::Output::Raw {
            content_type: "application/json".to_owned(),
            headers: vec![("x-a".to_owned(), "b".to_owned()), ("x-c".to_owned(), "d".to_owned())],
            body: br#"{"text": "hello"}"#.as_slice().into(),
        };
        let outputs = vec![plugin::Output::Event(Event::from_json(event).unwrap()), raw];
        let fields = vec![("n".to_owned(), "1".to_owned())];
        let run = PluginRun {
            digest: PluginDigest::of(b""),
            at: clock::now(),
            attempt: 1,
            took: Duration::ZERO,
            verdict: plugin::Verdict::Transformed { outputs: 2 },
            answered: vec!["transform".to_owned()],
            logs: vec![LogLine { level: LogLevel::Info, message: "m".to_owned(), fields }],
            logs_dropped: 0,
            stderr: String::new(),
            memory_bytes: 0,
        };
        CallResult { run, outputs, state: State::default() }
    }

    fn compared(expect: &str) -> Option<String> {
        difference(&serde_json::from_str(expect).unwrap(), &ran())
    }

    #[test]
    fn what_is_left_out_is_not_compared() {
        for expect in [
            r#"{"verdict": "transformed"}"#,
            r#"{"outputs": [{"event": {"type": "t"}}, {"raw": {"headers": {"x-a": "b"}}}]}"#,
            r#"{"outputs": [{"event": {"data": {"b": 2, "a": 1}}}, {"raw": {"body": {"text": "hello"}}}]}"#,
            r#"{"outputs": [{"event": {}}, {"raw": {"body": "{\"text\": \"hello\"}"}}]}"#,
            r#"{"logs": [{"message": "m", "fields": {"n": "1"}}]}"#,
        ] {
            assert_eq!(compared(expect), None, "{expect}");
        }
    }

    #[test]
    fn a_difference_is_told_line_by_line() {
        let told = compared(r#"{"reason": "r", "verdict": "transformed"}"#).unwrap();
        let expected =
            "  {\n-   \"reason\": \"r\",\n+   \"reason\": null,\n    \"verdict\": \"transformed\"\n  }\n";
        assert_eq!(told, expected);
        assert!(compared(r#"{"outputs": [{"raw": {}}, {"raw": {}}]}"#).is_some(), "an event is no raw body");
        assert!(compared(r#"{"outputs": [{"event": {"data": {"a": 1}}}, {"raw": {}}]}"#).is_some());
    }
}

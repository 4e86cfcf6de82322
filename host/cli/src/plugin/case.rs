//! Case files: events, and what a plugin is expected to do with them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use waypost_api::v1;
use waypost_domain::Event;
use waypost_domain::plugin::{AllowHost, StateMap};

use super::state::StateJson;
use super::trial::USER;
use crate::input;

/// One case: steps that share a state.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) config: Map<String, Value>,
    pub(super) user: String,
    pub(super) allow_hosts: Vec<AllowHost>,
    pub(super) state: Arc<StateMap>,
    pub(super) steps: Vec<Step>,
}

/// One event, and what is expected.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) event: Event,
    pub(super) now: Option<Timestamp>,
    pub(super) expect: Expect,
}

/// What is expected of one run; what is left out is not compared.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) verdict: Option<v1::PluginVerdict>,
    pub(super) reason: Option<String>,
    pub(super) outputs: Option<Vec<Output>>,
    pub(super) logs: Option<Vec<Log>>,
}

/// What one output is expected to be.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Output {
    /// These members of the event.
    Event(Map<String, Value>),
    Raw(Raw),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) content_type: Option<String>,
    pub(super) headers: Option<Map<String, Value>>,
    /// A string is compared with the body as text; anything else, with the body parsed as JSON.
    pub(super) body: Option<Value>,
}

/// What one log line is expected to be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Option<String>,
    pub(super) message: Option<String>,
    pub(super) fields: Option<Value>,
}

impl Case {
    /// Tells whether its first event is expected to fail.
    pub(super) fn expects_failure(&self) -> bool {
        matches!(self.steps.first().and_then(|step| step.expect.verdict), Some(v1::PluginVerdict::Failed))
    }
}

/// A case as the file holds it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseJson {
    name: Option<String>,
    event: Option<Box<RawValue>>,
    #[serde(default)]
    config: Map<String, Value>,
    user: Option<String>,
    #[serde(default)]
    allow_hosts: Vec<AllowHost>,
    #[serde(default)]
    state: StateJson,
    now: Option<Timestamp>,
    expect: Option<Expect>,
    steps: Option<Vec<StepJson>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepJson {
    event: Box<RawValue>,
    now: Option<Timestamp>,
    expect: Expect,
}

/// Reads the cases of a file: an array of them, or one.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Case>> {
    let json = input::read(path)?;
    parse(&json).with_context(|| format!("{} is not a case file", input::name(path)))
}

fn parse(json: &[u8]) -> anyhow::Result<Vec<Case>> {
    let written: Vec<&RawValue> = match json.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(json)?,
        _ => vec![serde_json::from_slice(json)?],
    };
    if written.is_empty() {
        bail!("it holds no case");
    }
    written.iter().enumerate().map(|(index, case)| one(index + 1, case)).collect()
}

fn one(number: usize, json: &RawValue) -> anyhow::Result<Case> {
    let place = || format!("case {number}");
    let written: CaseJson = serde_json::from_str(json.get()).map_err(unlocated).with_context(place)?;
    let name = written.name.unwrap_or_else(place);
    let steps = match (written.event, written.expect, written.steps) {
        (Some(event), Some(expect), None) => vec![StepJson { event, now: written.now, expect }],
        (None, None, Some(steps)) if !steps.is_empty() && written.now.is_none() => steps,
        _ => bail!("case {number} (`{name}`) needs `event` and `expect`, or `steps` with these in each"),
    };
    let step = |(index, step): (usize, StepJson)| {
        let StepJson { event, now, expect } = step;
        let place = || format!("case {number} (`{name}`), event {}", index + 1);
        let event = Event::from_json(event.get().to_owned()).with_context(place)?;
        if expect.is_empty() {
            bail!("{}: `expect` needs one of verdict, reason, outputs and logs", place());
        }
        Ok(Step { event, now, expect })
    };
    Ok(Case {
        steps: steps.into_iter().enumerate().map(step).collect::<anyhow::Result<_>>()?,
        state: Arc::new(written.state.map().with_context(place)?),
        config: written.config,
        user: written.user.unwrap_or_else(|| USER.to_owned()),
        allow_hosts: written.allow_hosts,
        name,
    })
}

/// Removes the line and column from an error: they count from the beginning of the case, not of the file.
fn unlocated(error: serde_json::Error) -> anyhow::Error {
    let text = error.to_string();
    let sentence = text.rsplit_once(" at line ").map_or(text.as_str(), |(sentence, _)| sentence);
    anyhow::Error::msg(sentence.to_owned())
}

impl Expect {
    fn is_empty(&self) -> bool {
        self.verdict.is_none() && self.reason.is_none() && self.outputs.is_none() && self.logs.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        format!("{:#}", parse(json.as_bytes()).unwrap_err())
    }

    #[test]
    fn a_file_holds_one_case_or_several() {
        let event = r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}"#;
        let case = format!(r#"{{"name": "n", "event": {event}, "expect": {{"verdict": "deliver"}}}}"#);
        assert_eq!(parse(case.as_bytes()).unwrap()[0].name, "n");
        let step = format!(r#"{{"event": {event}, "expect": {{"logs": []}}}}"#);
        let several = format!(r#"[{case}, {{"steps": [{step}, {step}], "state": {{"seen": 1}}}}]"#);
        let cases = parse(several.as_bytes()).unwrap();
        assert_eq!(cases[1].name, "case 2");
        assert_eq!((cases[1].steps.len(), cases[1].state.len()), (2, 1));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_case() {
        insta::assert_snapshot!(error("[]"), @"it holds no case");
        insta::assert_snapshot!(error(r#"[{"evnt": {}}]"#), @"case 1: unknown field `evnt`, expected one of `name`, `event`, `config`, `user`, `allow_hosts`, `state`, `now`, `expect`, `steps`");
        insta::assert_snapshot!(error(r#"{"name": "n", "event": {}}"#), @"case 1 (`n`) needs `event` and `expect`, or `steps` with these in each");
        let expecting = |expect: &str| {
            error(&format!(
                r#"{{"event": {{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}}, "expect": {expect}}}"#
            ))
        };
        insta::assert_snapshot!(expecting("{}"), @"case 1 (`case 1`), event 1: `expect` needs one of verdict, reason, outputs and logs");
        insta::assert_snapshot!(expecting(r#"{"verdict": "drop"}"#), @"case 1: unknown variant `drop`, expected one of `deliver`, `transformed`, `denied`, `skipped`, `failed`");
        insta::assert_snapshot!(expecting(r#"{"outputs": [{"raw": {"text": 1}}]}"#), @"case 1: unknown field `text`, expected one of `content_type`, `headers`, `body`");
        let error = error(r#"{"event": {"id": 1}, "expect": {"reason": "r"}}"#);
        assert!(error.starts_with("case 1 (`case 1`), event 1: "), "{error}");
    }
}

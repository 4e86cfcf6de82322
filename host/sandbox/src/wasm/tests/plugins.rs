//! The plugins of `plugins/` by their own case files: what `waypost plugin test` says of them.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::*;
use waypost_domain::plugin::StateMap;

/// One case: one event, or several that share a state.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    event: Option<Value>,
    #[serde(default)]
    expect: Option<Expect>,
    #[serde(default)]
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    event: Value,
    #[serde(default)]
    now: Option<Timestamp>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    verdict: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    outputs: Option<Vec<Value>>,
}

impl Case {
    fn steps(self) -> (String, Map<String, Value>, Option<String>, Vec<Step>) {
        let one = self.event.zip(self.expect).map(|(event, expect)| Step { event, now: None, expect });
        (self.name, self.config, self.user, one.into_iter().chain(self.steps).collect())
    }
}

/// Makes a sandbox whose calls may take long: a busy machine is no plugin's fault.
fn patient() -> Sandbox {
    let mut sandbox = Sandbox::new();
    let host = Arc::get_mut(&mut sandbox.host).unwrap();
    host.settings.limits.time = Duration::from_secs(60);
    sandbox
}

/// Runs a plugin by its case file.
async fn passes(path: &str, name: &str) {
    let sandbox = patient();
    let plugin = sandbox.load(path).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins").join(name);
    let cases = std::fs::read(folder.join("cases.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() > 2, "{name} has cases");
    for case in cases {
        let (title, config, user, steps) = case.steps();
        let mut kept = StateMap::new();
        for (place, step) in steps.into_iter().enumerate() {
            let mut call = call(&plugin, Value::Object(config.clone()));
            call.event = Event::from_json(step.event.to_string()).unwrap();
            call.now = step.now.unwrap_or(call.now);
            call.state = State::over(Arc::new(kept.clone()));
            if let Some(user) = &user {
                Arc::make_mut(&mut call.subscription).user.clone_from(user);
            }
            let ran = sandbox.host.run(Arc::clone(&plugin), call).await;
            for change in ran.state.changes() {
                match change.value {
                    Some(value) => kept.insert(change.key, value),
                    None => kept.remove(&change.key),
                };
            }
            check(&ran, &step.expect, &format!("{name}: {title}: step {}", place + 1));
        }
    }
}

fn check(ran: &CallResult, expect: &Expect, place: &str) {
    let (verdict, reason) = match &ran.run.verdict {
        Verdict::Deliver => ("deliver", None),
        Verdict::Transformed { .. } => ("transformed", None),
        Verdict::Denied { reason } => ("denied", Some(reason.clone())),
        Verdict::Skipped { reason } => ("skipped", Some(reason.clone())),
        Verdict::Failed(failure) => ("failed", Some(failure.reason())),
    };
    assert_eq!(verdict, expect.verdict, "{place}: {:?}", ran.run);
    if let Some(expected) = &expect.reason {
        assert_eq!(reason.as_ref(), Some(expected), "{place}");
    }
    if let Some(expected) = &expect.outputs {
        assert_eq!(ran.outputs.len(), expected.len(), "{place}: {:?}", ran.outputs);
        for (output, expected) in ran.outputs.iter().zip(expected) {
            assert_eq!(&shown(output, expected), expected, "{place}");
        }
    }
}

/// Shows those members of an output that a case names.
fn shown(output: &Output, expected: &Value) -> Value {
    let members = |kind: &str, whole: Value| {
        let names = expected[kind].as_object().unwrap().keys();
        json!({kind: names.map(|name| (name.clone(), whole[name].clone())).collect::<Map<_, _>>()})
    };
    match output {
        Output::Event(event) => members("event", serde_json::from_slice(&event.json()).unwrap()),
        Output::Raw { content_type, headers, body } => {
            let headers = headers.iter().cloned().map(|(name, value)| (name, Value::String(value)));
            let body = match &expected["raw"]["body"] {
                Value::String(_) => Value::String(String::from_utf8_lossy(body).into_owned()),
                _ => serde_json::from_slice(body).unwrap(),
            };
            let headers: Map<_, _> = headers.collect();
            members("raw", json!({"content_type": content_type, "headers": headers, "body": body}))
        }
    }
}

#[tokio::test]
async fn keep_files_passes_its_cases() {
    passes(waypost_guests::KEEP_FILES, "keep-files").await;
}

#[tokio::test]
async fn project_policy_passes_its_cases() {
    passes(waypost_guests::PROJECT_POLICY, "project-policy").await;
}

#[tokio::test]
async fn slack_passes_its_cases() {
    passes(waypost_guests::SLACK, "slack").await;
}

#[tokio::test]
async fn once_passes_its_cases() {
    passes(waypost_guests::ONCE, "once").await;
}

#[tokio::test]
async fn join_passes_its_cases() {
    passes(waypost_guests::JOIN, "join").await;
}

#[tokio::test]
async fn a_plugin_of_the_sdk_grows_for_a_large_event_alone() {
    let sandbox = patient();
    let plugin = sandbox.load(waypost_guests::KEEP_FILES).await;
    let memory_bytes = async |rows: usize| {
        let row =
            json!({"destinationTable": "Files", "mimetype": "text/plain", "size": 128, "name": "x\u{e9}\n"});
        let event =
            json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": vec![row; rows]});
        let mut call = call(&plugin, json!({"mimetypes": ["text/*"]}));
        call.event = Event::from_json(event.to_string()).unwrap();
        let ran = sandbox.host.run(Arc::clone(&plugin), call).await;
        assert_eq!(ran.run.verdict, Verdict::Deliver, "{rows} rows");
        ran.run.memory_bytes
    };
    // The allocator's arena comes with the module, so that a usual event grows nothing.
    let (small, usual, large) = (memory_bytes(1).await, memory_bytes(20).await, memory_bytes(20_000).await);
    assert_eq!(small, usual);
    assert!(small < 2 * 1024 * 1024, "{small} bytes are not kept resident");
    assert!(large > small && large < 12 * 1024 * 1024, "{large} bytes for an event of 2 MB");
}

#[tokio::test]
async fn a_plugin_of_the_sdk_exports_and_imports_what_it_uses_alone() {
    let sandbox = patient();
    let filter = sandbox.load(waypost_guests::KEEP_FILES).await;
    assert!(!filter.uses_state() && !filter.has_policy() && !filter.has_transform());
    let both = sandbox.load(waypost_guests::JOIN).await;
    assert!(both.uses_state() && !both.has_policy() && both.has_transform());
}

//! Shows what a plugin did, as JSON and for people.

use std::collections::BTreeMap;
use std::process::ExitCode;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::Value;
use waypost_api::v1;
use waypost_domain::plugin::{LogLevel, LogLine, Output, PluginRun, Verdict};
use waypost_runtime::foreign;
use waypost_sandbox::{CallResult, Limits};

use super::units;
use crate::{EXIT_USAGE, logged, pretty};

/// One run as JSON, with the member names of an event's story.
#[derive(Serialize)]
pub(super) struct RunJson<'a> {
    digest: String,
    took_ms: f64,
    answered: &'a [String],
    verdict: v1::PluginVerdict,
    reason: Option<String>,
    outputs: Vec<OutputJson>,
    logs: &'a [LogLine],
    logs_dropped: u32,
    stderr: &'a str,
    memory_bytes: u64,
}

/// One output as JSON: the form of case files.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutputJson {
    Event(Value),
    Raw { content_type: String, headers: BTreeMap<String, String>, body: Value },
}

/// Shows a run as JSON.
pub(super) fn json(ran: &CallResult) -> RunJson<'_> {
    let run = &ran.run;
    RunJson {
        digest: run.digest.to_string(),
        took_ms: units::milliseconds(run.took),
        answered: &run.answered,
        verdict: verdict(&run.verdict),
        reason: reason(&run.verdict),
        outputs: ran.outputs.iter().map(made).collect(),
        logs: &run.logs,
        logs_dropped: run.logs_dropped,
        stderr: &run.stderr,
        memory_bytes: run.memory_bytes,
    }
}

/// Returns a verdict as the story has it.
pub(super) fn verdict(verdict: &Verdict) -> v1::PluginVerdict {
    match verdict {
        Verdict::Deliver => v1::PluginVerdict::Deliver,
        Verdict::Transformed { .. } => v1::PluginVerdict::Transformed,
        Verdict::Denied { .. } => v1::PluginVerdict::Denied,
        Verdict::Skipped { .. } => v1::PluginVerdict::Skipped,
        Verdict::Failed(_) => v1::PluginVerdict::Failed,
    }
}

/// Returns a verdict's reason, if it has one.
pub(super) fn reason(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Deliver | Verdict::Transformed { .. } => None,
        Verdict::Denied { reason } | Verdict::Skipped { reason } => Some(reason.clone()),
        Verdict::Failed(failure) => Some(failure.reason()),
    }
}

/// Returns the exit code for a verdict.
pub(super) fn exit_code(verdict: &Verdict) -> ExitCode {
    match verdict {
        Verdict::Deliver | Verdict::Transformed { .. } => ExitCode::SUCCESS,
        Verdict::Denied { .. } | Verdict::Skipped { .. } => ExitCode::FAILURE,
        Verdict::Failed(_) => ExitCode::from(EXIT_USAGE),
    }
}

/// Returns a log level's word.
pub(super) fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

/// Shows an output as JSON; a raw body that is not text is `{"base64": …}`.
pub(super) fn made(output: &Output) -> OutputJson {
    match output {
        Output::Event(event) => OutputJson::Event(serde_json::from_slice(&event.json()).unwrap_or_default()),
        Output::Raw { content_type, headers, body } => OutputJson::Raw {
            content_type: content_type.clone(),
            headers: headers.iter().cloned().collect(),
            body: match str::from_utf8(body) {
                Ok(text) => Value::from(text),
                Err(_) => serde_json::json!({"base64": BASE64_STANDARD.encode(body)}),
            },
        },
    }
}

/// Shows a run for people.
pub(super) fn text(ran: &CallResult, limits: &Limits) -> String {
    let run = &ran.run;
    let mut out = format!("verdict   {}", verdict(&run.verdict));
    if let Some(reason) = reason(&run.verdict) {
        out.push_str(&format!(": {}", foreign::continued(&reason, "  ")));
    }
    out.push('\n');
    if !run.answered.is_empty() {
        out.push_str(&format!("answered  {}\n", run.answered.join(", ")));
    }
    for (place, output) in ran.outputs.iter().enumerate() {
        self::output(&mut out, place + 1, output);
    }
    self::said(&mut out, "", run);
    let (took, time) = (units::time(run.took), units::time(limits.time));
    out.push_str(&format!("time      used {took} of {time}\n"));
    let (used, memory) = (units::bytes(run.memory_bytes), units::bytes(limits.memory_bytes as u64));
    out.push_str(&format!("memory    used {used} of {memory}\n"));
    out
}

/// Writes the log lines and what went to stderr.
pub(super) fn said(out: &mut String, indent: &str, run: &PluginRun) {
    for LogLine { level, message, fields } in &run.logs {
        let further = format!("{indent}          ");
        let line = logged::line(self::level(*level), message, fields, &further);
        out.push_str(&format!("{indent}log       {line}\n"));
    }
    if run.logs_dropped > 0 {
        out.push_str(&format!("{indent}log       {} more lines went over the log limit\n", run.logs_dropped));
    }
    run.stderr
        .trim_matches('\n')
        .lines()
        .for_each(|text| out.push_str(&format!("{indent}stderr    {}\n", foreign::line(text))));
}

fn output(out: &mut String, number: usize, output: &Output) {
    match output {
        Output::Event(event) => {
            out.push_str(&format!("output {number}  event\n"));
            body(out, &event.json());
        }
        Output::Raw { content_type, headers, body } => {
            out.push_str(&format!("output {number}  raw body, {}\n", foreign::line(content_type)));
            let line =
                |(name, value): &(String, String)| foreign::line(&format!("{name}: {value}")).into_owned();
            headers.iter().map(line).for_each(|header| out.push_str(&format!("  {header}\n")));
            self::body(out, body);
        }
    }
}

fn body(out: &mut String, body: &[u8]) {
    pretty::body(body).lines().for_each(|text| out.push_str(&format!("  {text}\n")));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use waypost_domain::plugin::Failure;
    use waypost_domain::{Event, PluginDigest};
    use waypost_runtime::clock;
    use waypost_sandbox::State;

    use super::*;

    fn ran(verdict: Verdict, outputs: Vec<Output>) -> CallResult {
        let fields = vec![("file".to_owned(), "a\u{1b}[2J".to_owned())];
        let run = PluginRun {
            digest: PluginDigest::of(b""),
            at: clock::now(),
            attempt: 1,
            took: Duration::from_micros(113),
            verdict,
            answered: vec!["filter".to_owned()],
            logs: vec![LogLine { level: LogLevel::Warn, message: "large".to_owned(), fields }],
            logs_dropped: 2,
            stderr: "\npanicked at\nboom\n".to_owned(),
            memory_bytes: 1_245_184,
        };
        CallResult { run, outputs, state: State::default() }
    }

    #[test]
    fn a_run_is_told_with_what_it_used_of_its_limits() {
        let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1.10}"#;
        let raw = |body: &'static [u8]| Output::Raw {
            content_type: "text/plain".to_owned(),
            headers: vec![("x-a".to_owned(), "b".to_owned())],
            body: body.into(),
        };
        let outputs =
            vec![Output::Event(Event::from_json(event).unwrap()), raw(b"hello\nyou"), raw(b"\xff\x00")];
        let verdict = Verdict::Transformed { outputs: 3 };
        insta::assert_snapshot!(text(&ran(verdict, outputs), &Limits::default()), @r#"
        verdict   transformed
        answered  filter
        output 1  event
          {
            "specversion": "1.0",
            "id": "1",
            "source": "/s",
            "type": "t",
            "data": 1.10
          }
        output 2  raw body, text/plain
          x-a: b
          | hello
          | you
        output 3  raw body, text/plain
          x-a: b
          (2 bytes that are not text)
        log       warn: large  file=a\u{1b}[2J
        log       2 more lines went over the log limit
        stderr    panicked at
        stderr    boom
        time      used 113 µs of 250 ms
        memory    used 1.2 MiB of 64 MiB
        "#);
    }

    #[test]
    fn a_failure_has_the_sentence_of_the_story() {
        let failed = ran(Verdict::Failed(Failure::Limit("time limit of 250 ms".to_owned())), Vec::new());
        let shown = serde_json::to_value(json(&failed)).unwrap();
        assert_eq!(shown["verdict"], "failed");
        assert_eq!(shown["reason"], "plugin: time limit of 250 ms");
        assert_eq!(shown["took_ms"], 0.113);
        assert_eq!(shown["logs"][0]["level"], "warn");
        let raw =
            Output::Raw { content_type: String::new(), headers: Vec::new(), body: b"\xff".as_slice().into() };
        assert_eq!(serde_json::to_value(made(&raw)).unwrap()["raw"]["body"]["base64"], "/w==");
    }
}

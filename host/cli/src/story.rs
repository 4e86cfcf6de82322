//! One event's story, as `waypost event get` prints it.
//!
//! The lines are those of `pacifica-notifications -cmd eventget`, and a few more. The plugin's verdict and logs stand
//! below each delivery. A handler's run has a line with its program's output below it, and each filter that failed has
//! a line. Texts of events, programs, plugins and targets are untrusted: their line ends are marked or escaped
//! ([`foreign`]).

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use waypost_runtime::foreign;

use crate::{logged, pretty};

/// The answer of `GET /events/{id}`, as far as it is shown.
#[derive(Deserialize)]
pub(super) struct Story {
    id: String,
    event: Box<RawValue>,
    /// Why filters cannot look into the event's data, where they cannot.
    #[serde(default)]
    data: Option<String>,
    deliveries: Vec<Delivery>,
    #[serde(default)]
    filters_failed: Vec<FailedFilter>,
}

/// A filter that failed on the event.
#[derive(Deserialize)]
struct FailedFilter {
    subscription: String,
    at: String,
    reason: String,
}

#[derive(Deserialize)]
struct Delivery {
    subscription: String,
    #[serde(default)]
    handler: Option<String>,
    state: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    due: Option<String>,
    #[serde(default)]
    held: Option<Hold>,
    #[serde(default)]
    progress: Option<Progress>,
    attempts: Vec<Attempt>,
}

/// What a delivery is held by: neither its target nor its plugin.
#[derive(Deserialize)]
struct Hold {
    by: String,
    since: String,
}

#[derive(Deserialize)]
struct Attempt {
    at: String,
    policy: Option<Answer>,
    plugin: Option<Run>,
    #[serde(default)]
    run: Option<HandlerRun>,
    target: Option<Answer>,
}

/// The progress of a run.
#[derive(Deserialize)]
struct Progress {
    phase: String,
    since: String,
}

/// What a handler did.
#[derive(Deserialize)]
struct HandlerRun {
    start: Start,
    program: Option<Program>,
    uploads: Vec<Upload>,
}

#[derive(Deserialize)]
struct Start {
    #[serde(default)]
    interrupted: Option<String>,
}

#[derive(Deserialize)]
struct Program {
    exit: String,
    stdout: Stream,
    stderr: Stream,
}

#[derive(Deserialize)]
struct Stream {
    tail: String,
}

#[derive(Deserialize)]
struct Upload {
    output: String,
    files: u64,
    place: String,
}

/// What a plugin did.
#[derive(Deserialize)]
struct Run {
    verdict: String,
    reason: Option<String>,
    #[serde(default)]
    logs: Vec<LogLine>,
    #[serde(default)]
    logs_dropped: u32,
    #[serde(default)]
    stderr: String,
}

#[derive(Deserialize)]
struct LogLine {
    level: String,
    message: String,
    fields: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Answer {
    status: u16,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Event - {}", self.id)?;
        writeln!(f, "{}", pretty::json(&self.event))?;
        self.data.iter().try_for_each(|doubt| writeln!(f, "    DATA {doubt}"))?;
        self.deliveries.iter().try_for_each(|delivery| writeln!(f, "{delivery}"))?;
        if self.deliveries.is_empty() {
            writeln!(f, "    no subscription that you may see, and no handler, matched it")?;
        }
        self.filters_failed.iter().try_for_each(|FailedFilter { subscription, at, reason }| {
            let (subscription, reason) =
                (foreign::line(subscription), foreign::continued(reason, "        "));
            writeln!(f, "    FILTER {subscription} ({at}) failed: {reason}")
        })
    }
}

impl fmt::Display for Delivery {
    /// Shows the last attempt, with `-` for steps that it did not reach, and the plugin's last run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status =
            |answer: Option<&Answer>| answer.map_or("-".to_owned(), |answer| answer.status.to_string());
        let last = self.attempts.last();
        if let Some(handler) = &self.handler {
            return self.show_run(handler, last, f);
        }
        let at = last.map_or("-", |attempt| &attempt.at);
        let policy = status(last.and_then(|attempt| attempt.policy.as_ref()));
        let target = status(last.and_then(|attempt| attempt.target.as_ref()));
        write!(f, "    ELM {} ({at}) policy {policy} target {target}", self.subscription)?;
        if let Some(Hold { by, since }) = &self.held {
            write!(f, "\n        held by {by} since {since}")?;
        }
        match self.attempts.iter().rev().find_map(|attempt| attempt.plugin.as_ref()) {
            Some(run) => run.show(&self.state, f),
            // There was no attempt yet: show what the delivery waits for.
            None if last.is_none() => self
                .reason
                .iter()
                .try_for_each(|reason| write!(f, "\n        {}", foreign::continued(reason, "            "))),
            None => Ok(()),
        }
    }
}

impl Delivery {
    /// Shows a handler's last run.
    fn show_run(&self, handler: &str, last: Option<&Attempt>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = last.map_or("-", |attempt| &attempt.at);
        write!(f, "    RUN {} ({at}) {}", foreign::line(handler), self.state)?;
        self.progress
            .iter()
            .try_for_each(|progress| write!(f, ", {} since {}", progress.phase, progress.since))?;
        self.due.iter().try_for_each(|due| write!(f, ", due {due}"))?;
        let continued = |reason: &String| foreign::continued(reason, "        ");
        self.reason.iter().map(continued).try_for_each(|reason| write!(f, ": {reason}"))?;
        match last.and_then(|attempt| attempt.run.as_ref()) {
            Some(run) => run.show(f),
            None => Ok(()),
        }
    }
}

impl HandlerRun {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.start.interrupted {
            write!(f, "\n        started again: the run of {at} was interrupted")?;
        }
        if let Some(Program { exit, stdout, stderr }) = &self.program {
            write!(f, "\n        {}", foreign::continued(exit, "            "))?;
            for (stream, said) in [("stdout", stdout), ("stderr", stderr)] {
                let lines = said.tail.trim_end().lines();
                lines.map(foreign::line).try_for_each(|line| write!(f, "\n            {stream}: {line}"))?;
            }
        }
        self.uploads.iter().try_for_each(|Upload { output, files, place }| {
            let (output, place) = (foreign::line(output), foreign::line(place));
            let what = if *files == 1 { "file" } else { "files" };
            write!(f, "\n        uploaded {output}, {files} {what}: {place}")
        })
    }
}

impl Run {
    /// Shows what the plugin did and logged; if it failed, also the result for the delivery, which `on_error` decides.
    fn show(&self, state: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n        PLUGIN {}", self.verdict)?;
        if self.verdict == "failed" {
            write!(f, " ({state})")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, ": {}", foreign::continued(reason, "            "))?;
        }
        for LogLine { level, message, fields } in &self.logs {
            write!(f, "\n            {}", logged::line(level, message, fields, "                "))?;
        }
        if self.logs_dropped > 0 {
            write!(f, "\n            and {} more lines, over the log limit", self.logs_dropped)?;
        }
        let mut stderr = self.stderr.trim_matches('\n').lines().map(foreign::line);
        stderr.try_for_each(|line| write!(f, "\n            stderr: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_last_attempt_of_each_delivery_and_the_filters_that_failed() {
        let story: Story = serde_json::from_str(
            r#"{"id":"0193-e","received":"2026-11-22T01:00:00Z","status":"202 Accepted","mode":"structured",
            "content_type":"application/json","event":{"type":"b","id":"a","data":{"n":1.10,"list":[]}},"deliveries":[
            {"id":"d1","subscription":"s1","state":"retrying","attempts":[
                {"number":1,"at":"2026-11-22T01:00:00Z","took_ms":3,"outcome":"retry","policy":{"status":200,"body":""},"target":null},
                {"number":2,"at":"2026-11-22T01:00:05Z","took_ms":3,"outcome":"retry","policy":{"status":200,"body":""},"target":{"status":503,"body":""}}]},
            {"id":"d2","subscription":"s2","state":"denied","attempts":[
                {"number":1,"at":"2026-11-22T01:00:00Z","took_ms":3,"outcome":"denied","policy":{"status":403,"body":""},"target":null}]},
            {"id":"d5","subscription":"s5","state":"skipped","attempts":[
                {"number":1,"at":"2026-11-22T01:00:00Z","took_ms":3,"outcome":"skipped","policy":null,"target":null,
                "plugin":{"digest":"sha256:0","took_ms":0.1,"answered":[],"verdict":"failed","reason":"plugin: it panicked",
                    "outputs":null,"logs":[{"level":"info","message":"hello","fields":[["from","filter"]]}],
                    "logs_dropped":2,"stderr":"\npanicked at\nhere\n","memory_bytes":1}}]},
            {"id":"d6","subscription":"s6","handler":"add","state":"dead","reason":"exit code 1","attempts":[
                {"number":1,"at":"2026-11-22T01:00:00Z","took_ms":3,"outcome":"dead","policy":null,"target":null,"plugin":null,
                "run":{"handler":"add","start":{"from":"fresh"},"fetched":null,
                    "program":{"exit":"ended with exit code 1","exit_code":1,"took_ms":1,
                        "stdout":{"tail":"a\nb\n","bytes":4,"kept":4},"stderr":{"tail":"","bytes":0,"kept":0}},
                    "uploads":[{"output":"output","files":2,"bytes":9,"place":"/results/1"}]}}]},
            {"id":"d3","subscription":"s3","state":"pending","attempts":[]}],
            "filters_failed":[{"subscription":"s4","name":"n","user":"ann","at":"2026-11-22T01:00:00Z",
                "reason":"filter too expensive: one filter may visit 9 nodes of this event"}]}"#,
        )
        .unwrap();
        insta::assert_snapshot!(story, @r#"
        Event - 0193-e
        {
          "type": "b",
          "id": "a",
          "data": {
            "n": 1.10,
            "list": []
          }
        }
            ELM s1 (2026-11-22T01:00:05Z) policy 200 target 503
            ELM s2 (2026-11-22T01:00:00Z) policy 403 target -
            ELM s5 (2026-11-22T01:00:00Z) policy - target -
                PLUGIN failed (skipped): plugin: it panicked
                    info: hello  from=filter
                    and 2 more lines, over the log limit
                    stderr: panicked at
                    stderr: here
            RUN add (2026-11-22T01:00:00Z) dead: exit code 1
                ended with exit code 1
                    stdout: a
                    stdout: b
                uploaded output, 2 files: /results/1
            ELM s3 (-) policy - target -
            FILTER s4 (2026-11-22T01:00:00Z) failed: filter too expensive: one filter may visit 9 nodes of this event
        "#);
    }

    /// A log line, a reason or a program's output with line ends looked like lines of the story itself.
    #[test]
    fn texts_from_outside_cannot_pass_for_lines_of_the_story() {
        let forged = r"x\n    ELM s9 (2026-11-22T01:00:05Z) policy 200 target 200\n\u202e\u009b2J";
        let story = r#"{"id":"0193-e","event":{"id":"FORGED","data":"FORGED"},"deliveries":[
            {"subscription":"s1","state":"skipped","attempts":[{"at":"T","policy":null,"target":null,
                "plugin":{"verdict":"failed","reason":"FORGED","logs":[{"level":"info","message":"FORGED",
                    "fields":[["FORGED","FORGED"]]}],"logs_dropped":0,"stderr":"FORGED"}}]},
            {"subscription":"s2","state":"pending","reason":"FORGED","attempts":[]},
            {"subscription":"s3","handler":"h","state":"dead","reason":"FORGED","attempts":[{"at":"T","policy":null,
                "plugin":null,"target":null,"run":{"start":{},"program":{"exit":"FORGED","stdout":{"tail":"FORGED"},
                    "stderr":{"tail":"FORGED"}},"uploads":[{"output":"FORGED","files":1,"place":"FORGED"}]}}]}],
            "filters_failed":[{"subscription":"s4","at":"T","reason":"FORGED"}]}"#;
        let story: Story = serde_json::from_str(&story.replace("FORGED", forged)).unwrap();
        let shown = story.to_string();
        assert_eq!(shown.lines().filter(|line| line.starts_with("    ELM ")).count(), 2, "{shown}");
        assert!(!shown.contains(|c| c != '\n' && foreign::is_escaped(c)), "{shown:?}");
        assert!(shown.contains("\n            |     ELM s9"), "{shown}");
    }
}

//! One event's story, as `waypost event get` prints it.
//!
//! The lines are those of `pacifica-notifications -cmd eventget`, and a few more. The plugin's verdict and logs stand
//! below each delivery. A handler's run has a line with its program's output below it, and each filter that failed has
//! a line. Texts of events, programs, plugins and targets are untrusted: their line ends are marked or escaped
//! ([`foreign`]).

use std::fmt::{self, Display, Write};

use waypost_api::v1;
use waypost_runtime::foreign;

use crate::{logged, pretty};

/// Shows a story for people.
pub(super) fn text(story: &v1::Story) -> String {
    let mut out = String::new();
    write_story(&mut out, story).expect("a string takes all that is written to it");
    out
}

fn write_story(out: &mut String, story: &v1::Story) -> fmt::Result {
    let v1::Story { id, event, data, deliveries, filters_failed, .. } = story;
    writeln!(out, "Event - {id}")?;
    writeln!(out, "{}", event.as_deref().map_or_else(|| "null".to_owned(), pretty::json))?;
    data.iter().try_for_each(|doubt| writeln!(out, "    DATA {doubt}"))?;
    for delivery in deliveries {
        write_delivery(out, delivery)?;
        out.push('\n');
    }
    if deliveries.is_empty() {
        writeln!(out, "    no subscription that you may see, and no handler, matched it")?;
    }
    filters_failed.iter().try_for_each(|v1::FailedFilter { subscription, at, reason, .. }| {
        let reason = foreign::continued(reason, "        ");
        writeln!(out, "    FILTER {subscription} ({at}) failed: {reason}")
    })
}

/// Writes the last attempt, with `-` for steps that it did not reach, and the plugin's last run.
fn write_delivery(out: &mut String, delivery: &v1::Delivery) -> fmt::Result {
    let v1::Delivery { subscription, handler, state, reason, held, attempts, .. } = delivery;
    if let Some(handler) = handler {
        return write_run(out, delivery, handler);
    }
    let last = attempts.last();
    let at = or_dash(last.map(|attempt| attempt.at));
    let status = |answer: Option<&v1::Answer>| or_dash(answer.map(|answer| answer.status));
    let policy = status(last.and_then(|attempt| attempt.policy.as_ref()));
    let target = status(last.and_then(|attempt| attempt.target.as_ref()));
    write!(out, "    ELM {subscription} ({at}) policy {policy} target {target}")?;
    if let Some(v1::Hold { by, since, until }) = held {
        write!(out, "\n        held by {by} since {since}")?;
        until.iter().try_for_each(|until| write!(out, ", until {until}"))?;
    }
    match attempts.iter().rev().find_map(|attempt| attempt.plugin.as_ref()) {
        Some(run) => write_plugin(out, run, *state),
        // There was no attempt yet: show what the delivery waits for.
        None if last.is_none() => reason
            .iter()
            .try_for_each(|reason| write!(out, "\n        {}", foreign::continued(reason, "            "))),
        None => Ok(()),
    }
}

/// Writes a handler's last run.
fn write_run(out: &mut String, delivery: &v1::Delivery, handler: &str) -> fmt::Result {
    let v1::Delivery { state, reason, due, progress, attempts, .. } = delivery;
    let last = attempts.last();
    let at = or_dash(last.map(|attempt| attempt.at));
    write!(out, "    RUN {} ({at}) {state}", foreign::line(handler))?;
    if let Some(v1::Progress { phase, since, .. }) = progress {
        write!(out, ", {phase} since {since}")?;
    }
    due.iter().try_for_each(|due| write!(out, ", due {due}"))?;
    let continued = |reason: &String| foreign::continued(reason, "        ");
    reason.iter().map(continued).try_for_each(|reason| write!(out, ": {reason}"))?;
    match last.and_then(|attempt| attempt.run.as_ref()) {
        Some(run) => write_handler_run(out, run),
        None => Ok(()),
    }
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn write_handler_run(out: &mut String, run: &v1::HandlerRun) -> fmt::Result {
    if let Some(at) = run.start.interrupted {
        write!(out, "\n        started again: the run of {at} was interrupted")?;
    }
    if let Some(v1::Program { exit, stdout, stderr, .. }) = &run.program {
        write!(out, "\n        {}", foreign::continued(exit, "            "))?;
        for (stream, said) in [("stdout", stdout), ("stderr", stderr)] {
            let lines = said.tail.trim_end().lines();
            lines.map(foreign::line).try_for_each(|line| write!(out, "\n            {stream}: {line}"))?;
        }
    }
    run.uploads.iter().try_for_each(|v1::Upload { output, files, place, .. }| {
        let (output, place) = (foreign::line(output), foreign::line(place));
        let what = if *files == 1 { "file" } else { "files" };
        write!(out, "\n        uploaded {output}, {files} {what}: {place}")
    })
}

/// Writes what a plugin did and logged; if it failed, also the result for the delivery, which `on_error` decides.
fn write_plugin(out: &mut String, run: &v1::PluginRun, state: v1::DeliveryState) -> fmt::Result {
    write!(out, "\n        PLUGIN {}", run.verdict)?;
    if run.verdict == v1::PluginVerdict::Failed {
        write!(out, " ({state})")?;
    }
    if let Some(reason) = &run.reason {
        write!(out, ": {}", foreign::continued(reason, "            "))?;
    }
    for v1::LogLine { level, message, fields } in &run.logs {
        let line = logged::line(level.as_str(), message, fields, "                ");
        write!(out, "\n            {line}")?;
    }
    if run.logs_dropped > 0 {
        write!(out, "\n            and {} more lines, over the log limit", run.logs_dropped)?;
    }
    let mut stderr = run.stderr.trim_matches('\n').lines().map(foreign::line);
    stderr.try_for_each(|line| write!(out, "\n            stderr: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_last_attempt_of_each_delivery_and_the_filters_that_failed() {
        let story: v1::Story = serde_json::from_str(
            r#"{"id":"00000000-0000-4000-8000-0000000000e1","received":"2026-11-22T01:00:00Z",
            "status":"202 Accepted","sender":"ann","mode":"structured","content_type":"application/json",
            "event":{"type":"b","id":"a","data":{"n":1.10,"list":[]}},"deliveries":[
            {"id":"00000000-0000-4000-8000-0000000000d1","subscription":"00000000-0000-4000-8000-0000000000a1","state":"retrying","attempts":[
                {"number":1,"at":"2026-11-22T01:00:00Z","took_ms":3,"outcome":"retry","policy":{"status":200,"body":""},"target":null},
                {"number":2,"at":"2026-11-22T01:00:05Z","took_ms":3,"outcome":"retry","policy":{"status":200,"body":""},"target":{"status":503,"body":""}}]},
            {"id":"00000000-0000-4000-8000-0000000000d2","subscription":"00000000-0000-4000-8000-0000000000a2","state":"denied","attempts":[
                {"number":1,"at":"2026-11-22T01:00:00Z","took_ms":3,"outcome":"denied","policy":{"status":403,"body":""},"target":null}]},
            {"id":"00000000-0000-4000-8000-0000000000d5","subscription":"00000000-0000-4000-8000-0000000000a5","state":"skipped","attempts":[
                {"number":1,"at":"2026-11-22T01:00:00Z","took_ms":3,"outcome":"skipped","policy":null,"target":null,
                "plugin":{"digest":"sha256:0","took_ms":0.1,"answered":[],"verdict":"failed","reason":"plugin: it panicked",
                    "outputs":null,"logs":[{"level":"info","message":"hello","fields":[["from","filter"]]}],
                    "logs_dropped":2,"stderr":"\npanicked at\nhere\n","memory_bytes":1}}]},
            {"id":"00000000-0000-4000-8000-0000000000d6","subscription":"00000000-0000-4000-8000-0000000000a6","handler":"add","state":"dead","reason":"exit code 1","attempts":[
                {"number":1,"at":"2026-11-22T01:00:00Z","took_ms":3,"outcome":"dead","policy":null,"target":null,"plugin":null,
                "run":{"handler":"add","start":{"from":"fresh"},"fetched":null,
                    "program":{"exit":"ended with exit code 1","exit_code":1,"took_ms":1,
                        "stdout":{"tail":"a\nb\n","bytes":4,"kept":4},"stderr":{"tail":"","bytes":0,"kept":0}},
                    "uploads":[{"output":"output","files":2,"bytes":9,"place":"/results/1"}]}}]},
            {"id":"00000000-0000-4000-8000-0000000000d3","subscription":"00000000-0000-4000-8000-0000000000a3","state":"pending","attempts":[]}],
            "filters_failed":[{"subscription":"00000000-0000-4000-8000-0000000000a4","name":"n","user":"ann","at":"2026-11-22T01:00:00Z",
                "reason":"filter too expensive: one filter may visit 9 nodes of this event"}]}"#,
        )
        .unwrap();
        insta::assert_snapshot!(text(&story), @r#"
        Event - 00000000-0000-4000-8000-0000000000e1
        {
          "type": "b",
          "id": "a",
          "data": {
            "n": 1.10,
            "list": []
          }
        }
            ELM 00000000-0000-4000-8000-0000000000a1 (2026-11-22T01:00:05.000000Z) policy 200 target 503
            ELM 00000000-0000-4000-8000-0000000000a2 (2026-11-22T01:00:00.000000Z) policy 403 target -
            ELM 00000000-0000-4000-8000-0000000000a5 (2026-11-22T01:00:00.000000Z) policy - target -
                PLUGIN failed (skipped): plugin: it panicked
                    info: hello  from=filter
                    and 2 more lines, over the log limit
                    stderr: panicked at
                    stderr: here
            RUN add (2026-11-22T01:00:00.000000Z) dead: exit code 1
                ended with exit code 1
                    stdout: a
                    stdout: b
                uploaded output, 2 files: /results/1
            ELM 00000000-0000-4000-8000-0000000000a3 (-) policy - target -
            FILTER 00000000-0000-4000-8000-0000000000a4 (2026-11-22T01:00:00.000000Z) failed: filter too expensive: one filter may visit 9 nodes of this event
        "#);
    }

    #[test]
    fn an_event_that_the_user_may_not_see_is_null() {
        let story = r#"{"id":"00000000-0000-4000-8000-0000000000e1","received":"2026-11-22T01:00:00Z",
            "status":"202 Accepted","sender":"ann","mode":"structured","content_type":null,"event":null,"deliveries":[]}"#;
        insta::assert_snapshot!(text(&serde_json::from_str(story).unwrap()), @r"
        Event - 00000000-0000-4000-8000-0000000000e1
        null
            no subscription that you may see, and no handler, matched it
        ");
    }

    /// A log line, a reason or a program's output with line ends looked like lines of the story itself.
    #[test]
    fn texts_from_outside_cannot_pass_for_lines_of_the_story() {
        let forged = r"x\n    ELM s9 (2026-11-22T01:00:05Z) policy 200 target 200\n\u202e\u009b2J";
        let story = r#"{"id":"00000000-0000-4000-8000-0000000000e1","received":"2026-11-22T01:00:00Z",
            "status":"202 Accepted","sender":"ann","mode":"structured","event":{"id":"FORGED","data":"FORGED"},"deliveries":[
            {"id":"00000000-0000-4000-8000-0000000000d1","subscription":"00000000-0000-4000-8000-0000000000a1","state":"skipped","attempts":[
                {"number":1,"at":"2026-11-22T01:00:00Z","took_ms":3,"outcome":"skipped",
                "plugin":{"digest":"sha256:0","took_ms":0.1,"verdict":"failed","reason":"FORGED",
                    "logs":[{"level":"info","message":"FORGED","fields":[["FORGED","FORGED"]]}],"stderr":"FORGED"}}]},
            {"id":"00000000-0000-4000-8000-0000000000d2","subscription":"00000000-0000-4000-8000-0000000000a2","state":"pending","reason":"FORGED","attempts":[]},
            {"id":"00000000-0000-4000-8000-0000000000d3","subscription":"00000000-0000-4000-8000-0000000000a3","handler":"FORGED","state":"dead","reason":"FORGED","attempts":[
                {"number":1,"at":"2026-11-22T01:00:00Z","took_ms":3,"outcome":"dead",
                "run":{"handler":"FORGED","start":{"from":"fresh"},
                    "program":{"exit":"FORGED","stdout":{"tail":"FORGED"},"stderr":{"tail":"FORGED"}},
                    "uploads":[{"output":"FORGED","files":1,"place":"FORGED"}]}}]}],
            "filters_failed":[{"subscription":"00000000-0000-4000-8000-0000000000a4","at":"2026-11-22T01:00:00Z","reason":"FORGED"}]}"#;
        let shown = text(&serde_json::from_str(&story.replace("FORGED", forged)).unwrap());
        assert_eq!(shown.lines().filter(|line| line.starts_with("    ELM ")).count(), 2, "{shown}");
        assert!(!shown.contains(|c| c != '\n' && foreign::is_escaped(c)), "{shown:?}");
        assert!(shown.contains("\n            |     ELM s9"), "{shown}");
    }
}

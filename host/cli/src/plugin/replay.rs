//! `waypost plugin replay`: shows what another version of a plugin would have decided about logged events.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use waypost_domain::SubscriptionId;
use waypost_runtime::foreign;

use super::push::WASM;
use super::report::Report;
use super::trial;
use crate::client::Client;
use crate::event::{Server, next_query};
use crate::print;

/// The most deliveries in one request.
const PAGE: usize = 100;

/// Show what a new version of a plugin would have decided about logged events
///
/// The file is uploaded, but the subscription keeps its plugin. Each of the subscription's latest deliveries is tried
/// with the current version and with the new one, with the current configuration and state. Nothing is sent or kept.
/// Exits with 0 when nothing would change, and with 1 when something would.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost plugin replay filter.wasm --subscription cb24d343-7891-407f-b8e9-8b9ce57fd3cc --last 100")]
pub(crate) struct Arguments {
    /// The new version, a .wasm file
    file: PathBuf,
    /// The subscription's UUID
    #[arg(long, value_name = "UUID")]
    subscription: SubscriptionId,
    /// How many deliveries to try, newest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    last: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// The answer of `GET /eventmatch/{uuid}/deliveries`, as far as it is used.
#[derive(Deserialize)]
struct Page {
    deliveries: Vec<Delivery>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Delivery {
    event: String,
    state: String,
    reason: Option<String>,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
struct Attempt {
    plugin: Option<Run>,
}

/// The answer of `POST /eventmatch/{uuid}/test`, as far as it is used.
#[derive(Deserialize)]
struct TestAnswer {
    policy: Option<Policy>,
    plugin: Option<Run>,
    requests: Vec<Value>,
}

#[derive(Deserialize)]
struct Policy {
    verdict: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Run {
    verdict: String,
    reason: Option<String>,
}

/// What was decided about an event, and what would be.
#[derive(Debug, Serialize)]
struct Row {
    event: String,
    was: Decision,
    would_be: Decision,
    outputs_changed: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Decision {
    verdict: String,
    reason: Option<String>,
    /// How many requests are sent.
    requests: usize,
}

impl Row {
    fn is_changed(&self) -> bool {
        self.outputs_changed || self.was != self.would_be
    }
}

/// Runs the command.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let wasm = trial::read(&arguments.file)?;
    let (client, uuid) = (arguments.server.client()?, arguments.subscription.to_string());
    let upload = client.request(Method::POST, &["plugins"]).header(CONTENT_TYPE, WASM).body(wasm);
    let report: Report = client.json(upload).await?;
    let deliveries = last(&client, &uuid, arguments.last as usize).await?;
    let mut rows = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        let now = tried(&client, &uuid, &delivery.event, None).await?;
        let then = tried(&client, &uuid, &delivery.event, Some(&report.digest)).await?;
        rows.push(row(delivery, now, then));
    }
    let changed = rows.iter().filter(|row| row.is_changed()).count();
    if arguments.json {
        let shown = json!({"digest": report.digest, "deliveries": rows, "changed": changed});
        print::json(&shown)?;
    } else {
        print::text(&table(&rows, changed))?;
    }
    Ok(if changed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the newest deliveries.
async fn last(client: &Client, uuid: &str, wanted: usize) -> anyhow::Result<Vec<Delivery>> {
    let mut found = Vec::new();
    let mut query = vec![("limit".to_owned(), wanted.min(PAGE).to_string())];
    while found.len() < wanted {
        let path = ["eventmatch", uuid, "deliveries"];
        let page: Page = client.json(client.query(Method::GET, &path, &query)).await?;
        found.extend(page.deliveries);
        let Some(next) = page.next else { break };
        query = next_query(&next);
    }
    found.truncate(wanted);
    Ok(found)
}

/// Runs one event through the endpoint for dry runs. The filter is `$`: the delivery was enqueued, so the current
/// filter does not matter.
async fn tried(client: &Client, uuid: &str, event: &str, plugin: Option<&str>) -> anyhow::Result<TestAnswer> {
    let mut query = vec![("event".to_owned(), event.to_owned()), ("jsonpath".to_owned(), "$".to_owned())];
    query.extend(plugin.map(|digest| ("plugin".to_owned(), digest.to_owned())));
    client.json(client.query(Method::POST, &["eventmatch", uuid, "test"], &query)).await
}

fn row(delivery: Delivery, now: TestAnswer, then: TestAnswer) -> Row {
    let outputs_changed = now.requests != then.requests;
    let was = decided(&delivery, &now);
    Row { event: delivery.event, was, would_be: decision(&then), outputs_changed }
}

/// Returns what was decided about a delivery: by its last plugin run, or else by its final state. If it has neither,
/// what the current version decides.
fn decided(delivery: &Delivery, now: &TestAnswer) -> Decision {
    let present = decision(now);
    let ran = delivery.attempts.iter().rev().find_map(|attempt| attempt.plugin.as_ref());
    match (ran, delivery.state.as_str()) {
        (Some(Run { verdict, reason }), _) => {
            let requests =
                if matches!(verdict.as_str(), "deliver" | "transformed") { present.requests } else { 0 };
            Decision { verdict: verdict.clone(), reason: reason.clone(), requests }
        }
        (None, "delivered") => {
            Decision { verdict: "deliver".to_owned(), reason: None, requests: present.requests }
        }
        (None, "skipped" | "denied") => {
            Decision { verdict: delivery.state.clone(), reason: delivery.reason.clone(), requests: 0 }
        }
        (None, _) => present,
    }
}

/// Returns what is decided now.
fn decision(tried: &TestAnswer) -> Decision {
    let (verdict, reason) = match (&tried.plugin, &tried.policy) {
        (Some(Run { verdict, reason }), _) => (verdict.clone(), reason.clone()),
        (None, Some(Policy { verdict, reason })) if verdict != "allowed" => (verdict.clone(), reason.clone()),
        (None, _) => ("deliver".to_owned(), None),
    };
    Decision { verdict, reason, requests: tried.requests.len() }
}

/// Writes the rows that changed, and how many.
fn table(rows: &[Row], changed: usize) -> String {
    let mut out = String::new();
    for Row { event, was, would_be, outputs_changed } in rows.iter().filter(|row| row.is_changed()) {
        let outputs = if *outputs_changed && was == would_be { ", with other requests" } else { "" };
        let (event, was, would_be) = (foreign::line(event), words(was), words(would_be));
        let _infallible =
            writeln!(out, "{event}  {} -> {}{outputs}", foreign::line(&was), foreign::line(&would_be));
    }
    let deliveries = if rows.len() == 1 { "delivery" } else { "deliveries" };
    let _infallible = writeln!(out, "{} {deliveries}: {changed} would change", rows.len());
    out
}

fn words(Decision { verdict, reason, requests }: &Decision) -> String {
    let several = if *requests > 1 { format!(" ({requests} requests)") } else { String::new() };
    reason.as_ref().map_or_else(|| format!("{verdict}{several}"), |reason| format!("{verdict} ({reason})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(delivery: &str, now: &str, then: &str) -> Row {
        let tried = |json: &str| serde_json::from_str::<TestAnswer>(json).unwrap();
        row(serde_json::from_str(delivery).unwrap(), tried(now), tried(then))
    }

    #[test]
    fn rows_show_what_was_decided_beside_what_would_be() {
        let skipped = r#"{"policy": {"verdict": "allowed", "reason": null},
            "plugin": {"verdict": "skipped", "reason": "too small"}, "requests": []}"#;
        let sent = r#"{"policy": {"verdict": "allowed", "reason": null},
            "plugin": {"verdict": "transformed", "reason": null}, "requests": [{"body": "A"}, {"body": "B"}]}"#;
        let other = r#"{"policy": {"verdict": "allowed", "reason": null},
            "plugin": {"verdict": "transformed", "reason": null}, "requests": [{"body": "A"}, {"body": "C"}]}"#;
        let was = |verdict: &str| {
            format!(
                r#"{{"event": "e1", "state": "delivered", "reason": null,
                "attempts": [{{"plugin": {{"verdict": "{verdict}", "reason": null}}}}, {{"plugin": null}}]}}"#
            )
        };
        let rows = [skipped, other, sent].map(|then| compared(&was("transformed"), sent, then));
        let expected = "e1  transformed -> skipped (too small)\n\
            e1  transformed (2 requests) -> transformed (2 requests), with other requests\n\
            3 deliveries: 2 would change\n";
        assert_eq!(table(&rows, 2).replacen(" (2 requests)", "", 1), expected);
    }

    #[test]
    fn a_delivery_without_a_run_is_told_by_its_state() {
        let plain = r#"{"policy": {"verdict": "allowed", "reason": null}, "plugin": null, "requests": [{}]}"#;
        let denied = r#"{"policy": {"verdict": "denied", "reason": null}, "plugin": null, "requests": []}"#;
        let delivery = |state: &str| format!(r#"{{"event": "e", "state": "{state}", "reason": null}}"#);
        assert!(!compared(&delivery("delivered"), plain, plain).is_changed());
        assert!(!compared(&delivery("denied"), denied, denied).is_changed());
        assert!(compared(&delivery("denied"), denied, plain).is_changed());
        assert!(!compared(&delivery("retrying"), plain, plain).is_changed());
    }
}

//! `waypost plugin replay`: shows what another version of a plugin would have decided about logged events.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;
use waypost_api::v1;
use waypost_domain::SubscriptionId;
use waypost_runtime::foreign;

use super::push::WASM;
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

/// What was decided about an event, and what would be.
#[derive(Debug, Serialize)]
struct Row {
    event: Uuid,
    was: Decision,
    would_be: Decision,
    outputs_changed: bool,
}

#[derive(Debug, PartialEq, Serialize)]
struct Decision {
    verdict: &'static str,
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
    let module: v1::Module = client.json(upload).await?;
    let deliveries = last(&client, &uuid, arguments.last as usize).await?;
    let mut rows = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        let now = tried(&client, &uuid, delivery.event, None).await?;
        let then = tried(&client, &uuid, delivery.event, Some(&module.digest)).await?;
        rows.push(row(&delivery, &now, &then));
    }
    let changed = rows.iter().filter(|row| row.is_changed()).count();
    if arguments.json {
        let shown = json!({"digest": module.digest, "deliveries": rows, "changed": changed});
        print::json(&shown)?;
    } else {
        print::text(&table(&rows, changed))?;
    }
    Ok(if changed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the newest deliveries.
async fn last(client: &Client, uuid: &str, wanted: usize) -> anyhow::Result<Vec<v1::SubscriptionDelivery>> {
    let mut found = Vec::new();
    let mut query = vec![("limit".to_owned(), wanted.min(PAGE).to_string())];
    while found.len() < wanted {
        let path = ["eventmatch", uuid, "deliveries"];
        let page: v1::Deliveries = client.json(client.query(Method::GET, &path, &query)).await?;
        found.extend(page.deliveries);
        let Some(next) = page.next else { break };
        query = next_query(&next);
    }
    found.truncate(wanted);
    Ok(found)
}

/// Runs one event through the endpoint for dry runs. The filter is `$`: the delivery was enqueued, so the current
/// filter does not matter.
async fn tried(client: &Client, uuid: &str, event: Uuid, plugin: Option<&str>) -> anyhow::Result<v1::DryRun> {
    let mut query = vec![("event".to_owned(), event.to_string()), ("jsonpath".to_owned(), "$".to_owned())];
    query.extend(plugin.map(|digest| ("plugin".to_owned(), digest.to_owned())));
    client.json(client.query(Method::POST, &["eventmatch", uuid, "test"], &query)).await
}

fn row(delivery: &v1::SubscriptionDelivery, now: &v1::DryRun, then: &v1::DryRun) -> Row {
    let outputs_changed = now.requests != then.requests;
    let was = decided(&delivery.delivery, now);
    Row { event: delivery.event, was, would_be: decision(then), outputs_changed }
}

/// Returns what was decided about a delivery: by its last plugin run, or else by its final state. If it has neither,
/// what the current version decides.
fn decided(delivery: &v1::Delivery, now: &v1::DryRun) -> Decision {
    let present = decision(now);
    let ran = delivery.attempts.iter().rev().find_map(|attempt| attempt.plugin.as_ref());
    match (ran, delivery.state) {
        (Some(run), _) => {
            let is_sent = matches!(run.verdict, v1::PluginVerdict::Deliver | v1::PluginVerdict::Transformed);
            let requests = if is_sent { present.requests } else { 0 };
            Decision { verdict: run.verdict.as_str(), reason: run.reason.clone(), requests }
        }
        (None, v1::DeliveryState::Delivered) => Decision {
            verdict: v1::PluginVerdict::Deliver.as_str(),
            reason: None,
            requests: present.requests,
        },
        (None, state @ (v1::DeliveryState::Skipped | v1::DeliveryState::Denied)) => {
            Decision { verdict: state.as_str(), reason: delivery.reason.clone(), requests: 0 }
        }
        (None, _) => present,
    }
}

/// Returns what is decided now.
fn decision(tried: &v1::DryRun) -> Decision {
    let (verdict, reason) = match (&tried.plugin, &tried.policy) {
        (Some(run), _) => (run.verdict.as_str(), run.reason.clone()),
        (None, Some(policy)) if policy.verdict != v1::PolicyVerdict::Allowed => {
            (policy.verdict.as_str(), policy.reason.clone())
        }
        (None, _) => (v1::PluginVerdict::Deliver.as_str(), None),
    };
    Decision { verdict, reason, requests: tried.requests.len() }
}

/// Writes the rows that changed, and how many.
fn table(rows: &[Row], changed: usize) -> String {
    let mut out = String::new();
    for Row { event, was, would_be, outputs_changed } in rows.iter().filter(|row| row.is_changed()) {
        let outputs = if *outputs_changed && was == would_be { ", with other requests" } else { "" };
        let (was, would_be) = (words(was), words(would_be));
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
    use serde_json::Value;

    use super::*;

    const EVENT: &str = "019aa6c2-0000-7000-8000-000000000000";

    fn delivery(state: &str, attempts: &Value) -> v1::SubscriptionDelivery {
        let subscription = "cb24d343-7891-407f-b8e9-8b9ce57fd3cc";
        let delivery = json!({"event": EVENT, "received": "2026-11-22T01:00:00Z", "id": EVENT, "attempts": attempts,
            "subscription": subscription, "state": state});
        serde_json::from_value(delivery).unwrap()
    }

    fn attempt(number: u32, plugin: &Value) -> Value {
        json!({"number": number, "at": "2026-11-22T01:00:00Z", "took_ms": 3, "outcome": "retry", "plugin": plugin})
    }

    fn run(verdict: &str, reason: Option<&str>) -> Value {
        json!({"digest": "sha256:ab", "took_ms": 0.1, "verdict": verdict, "reason": reason})
    }

    fn tried(policy: &str, plugin: &Value, requests: &Value) -> v1::DryRun {
        let tried = json!({"matches": true, "filter": {"dialect": "rfc9535", "reason": "", "steps": []},
            "policy": {"verdict": policy}, "plugin": plugin, "requests": requests});
        serde_json::from_value(tried).unwrap()
    }

    #[test]
    fn rows_show_what_was_decided_beside_what_would_be() {
        let transformed = run("transformed", None);
        let skipped = tried("allowed", &run("skipped", Some("too small")), &json!([]));
        let sent = tried("allowed", &transformed, &json!([{"body": "A"}, {"body": "B"}]));
        let other = tried("allowed", &transformed, &json!([{"body": "A"}, {"body": "C"}]));
        let was = delivery("delivered", &json!([attempt(1, &transformed), attempt(2, &Value::Null)]));
        let rows = [&skipped, &other, &sent].map(|then| row(&was, &sent, then));
        let expected = format!(
            "{EVENT}  transformed -> skipped (too small)\n\
            {EVENT}  transformed (2 requests) -> transformed (2 requests), with other requests\n\
            3 deliveries: 2 would change\n"
        );
        assert_eq!(table(&rows, 2).replacen(" (2 requests)", "", 1), expected);
    }

    #[test]
    fn a_delivery_without_a_run_is_told_by_its_state() {
        let plain = tried("allowed", &Value::Null, &json!([{}]));
        let denied = tried("denied", &Value::Null, &json!([]));
        let is_changed = |state: &str, now: &v1::DryRun, then: &v1::DryRun| {
            row(&delivery(state, &json!([])), now, then).is_changed()
        };
        assert!(!is_changed("delivered", &plain, &plain));
        assert!(!is_changed("denied", &denied, &denied));
        assert!(is_changed("denied", &denied, &plain));
        assert!(!is_changed("retrying", &plain, &plain));
    }
}

//! `waypost redeliver` and `waypost discard`: jobs on the deliveries of a subscription of a running Waypost, over REST.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use jiff::Timestamp;
use reqwest::Method;
use waypost_api::v1;
use waypost_domain::SubscriptionId;

use crate::client::Client;
use crate::event::{Server, time};
use crate::print;

/// How often `--wait` polls.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Send all dead letters of a subscription again
///
/// Begins to send them again, or those in another --state. With --show, only shows the progress of the running or last job.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost redeliver cb24d343-7891-407f-b8e9-8b9ce57fd3cc --wait
  waypost redeliver cb24d343-7891-407f-b8e9-8b9ce57fd3cc --since 2026-11-01 --until 2026-11-08
  waypost redeliver cb24d343-7891-407f-b8e9-8b9ce57fd3cc --show
  waypost redeliver cb24d343-7891-407f-b8e9-8b9ce57fd3cc --cancel")]
pub(super) struct Redeliver {
    /// Only those in this state: dead, skipped or denied
    #[arg(long, default_value = "dead")]
    state: String,
    #[command(flatten)]
    common: Common,
}

/// Give up all deliveries of a subscription in a state
///
/// They become `skipped`, with the reason. With --show, only shows the progress of the running or last job.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost discard cb24d343-7891-407f-b8e9-8b9ce57fd3cc --state dead --reason 'the target was wrong' --wait
  waypost discard cb24d343-7891-407f-b8e9-8b9ce57fd3cc --show
  waypost discard cb24d343-7891-407f-b8e9-8b9ce57fd3cc --cancel")]
pub(super) struct Discard {
    /// Those in this state: dead, pending, retrying or held
    #[arg(long, required_unless_present_any = ["show", "cancel"])]
    state: Option<String>,
    /// Why they are given up
    #[arg(long, required_unless_present_any = ["show", "cancel"])]
    reason: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The subscription's UUID
    subscription: SubscriptionId,
    /// Only those of events received at this time or later (RFC 3339, or a date in UTC)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only those of events received before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Wait until the job ends
    #[arg(long)]
    wait: bool,
    /// Show the running or last job, and begin none
    #[arg(long, conflicts_with_all = ["since", "until"])]
    show: bool,
    /// Cancel the running job; what it has done stays
    #[arg(long, conflicts_with_all = ["since", "until", "wait", "show"])]
    cancel: bool,
    #[command(flatten)]
    server: Server,
}

/// Runs `waypost redeliver` against a running Waypost.
pub(super) async fn redeliver(arguments: Redeliver) -> anyhow::Result<ExitCode> {
    let Redeliver { state, common } = arguments;
    let body = v1::NewRedeliver {
        state: Some(state),
        since: common.since.map(|time| time.to_string()),
        until: common.until.map(|time| time.to_string()),
    };
    run("redeliver", common, serde_json::to_string(&body)?).await
}

/// Runs `waypost discard` against a running Waypost.
pub(super) async fn discard(arguments: Discard) -> anyhow::Result<ExitCode> {
    let Discard { state, reason, common } = arguments;
    let body = v1::NewDiscard {
        state: state.unwrap_or_default(),
        reason: reason.unwrap_or_default(),
        since: common.since.map(|time| time.to_string()),
        until: common.until.map(|time| time.to_string()),
    };
    run("discard", common, serde_json::to_string(&body)?).await
}

async fn run(kind: &str, common: Common, body: String) -> anyhow::Result<ExitCode> {
    let Common { subscription, wait, show, cancel, server, .. } = common;
    let (client, uuid) = (server.client()?, subscription.to_string());
    let path = ["eventmatch", &uuid, kind];
    let request = match (show, cancel) {
        (true, _) => client.request(Method::GET, &path),
        (_, true) => client.request(Method::DELETE, &path),
        (false, false) => {
            client.request(Method::POST, &path).header("content-type", "application/json").body(body)
        }
    };
    let mut job: v1::Job = client.json(request).await?;
    if wait {
        job = ended(&client, &path, job).await?;
        if job.state != v1::RecoveryState::Done {
            bail!("the {kind} is {}", progress(&job));
        }
    }
    print::line(progress(&job))?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of the job, and shows its progress on stderr.
async fn ended(client: &Client, path: &[&str], mut job: v1::Job) -> anyhow::Result<v1::Job> {
    let mut shown = String::new();
    while job.state == v1::RecoveryState::Running {
        let line = progress(&job);
        if line != shown {
            print::notice(&line);
            shown = line;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        job = client.json(client.request(Method::GET, path)).await?;
    }
    Ok(job)
}

/// Says on one line how far a job has come. Its counts are shown only to users who may see everything.
fn progress(job: &v1::Job) -> String {
    let v1::Job { state, failure, waiting, total, looked_at, changed, .. } = job;
    let mut out = state.to_string();
    if let (Some(looked_at), Some(changed)) = (looked_at, changed) {
        let of = total.map_or_else(String::new, |total| format!(" of {total}"));
        out.push_str(&format!(": looked at {looked_at}{of}, changed {changed}"));
    }
    if let Some(why) = waiting.as_ref().or(failure.as_ref()) {
        out.push_str(&format!(" ({why})"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_line() {
        let text = |members: &str| {
            let json = format!(
                r#"{{"subscription": "cb24d343-7891-407f-b8e9-8b9ce57fd3cc", "kind": "redeliver",
                "of": {{"state": "dead"}}, "asked": "2026-11-22T01:00:00Z", "by": "ann", {members}}}"#
            );
            progress(&serde_json::from_str(&json).unwrap())
        };
        let running = r#""state": "running", "waiting": "the subscription is disabled", "total": 9, "looked_at": 7, "changed": 5"#;
        insta::assert_snapshot!(text(running), @"running: looked at 7 of 9, changed 5 (the subscription is disabled)");
        insta::assert_snapshot!(text(r#""state": "done""#), @"done");
    }
}

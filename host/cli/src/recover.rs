//! `waypost recover`: replays the log of a running Waypost into a subscription, over REST.

use std::fmt;
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

/// Replay logged events into a subscription
///
/// Delivers every logged event that the subscription's filter matches now and that has no delivery to it yet. Without
/// --since, shows the progress of the running or last replay.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost recover cb24d343-7891-407f-b8e9-8b9ce57fd3cc --since earliest --wait
  waypost recover cb24d343-7891-407f-b8e9-8b9ce57fd3cc --since 2026-11-01 --until 2026-11-08
  waypost recover cb24d343-7891-407f-b8e9-8b9ce57fd3cc
  waypost recover cb24d343-7891-407f-b8e9-8b9ce57fd3cc --cancel")]
pub(super) struct Arguments {
    /// The subscription's UUID
    subscription: SubscriptionId,
    /// Start a replay of the events received at this time or later (RFC 3339, or a date in UTC), or `earliest`
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Only events received before this time
    #[arg(long, value_name = "TIME", value_parser = time, requires = "since")]
    until: Option<Timestamp>,
    /// Wait until the replay ends
    #[arg(long)]
    wait: bool,
    /// Cancel the running replay; what it has delivered stays
    #[arg(long, conflicts_with_all = ["since", "wait"])]
    cancel: bool,
    #[command(flatten)]
    server: Server,
}

/// Where a replay begins.
#[derive(Clone, Copy, Debug)]
enum Since {
    Earliest,
    Time(Timestamp),
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Time(time) => time.fmt(f),
        }
    }
}

fn since(text: &str) -> Result<Since, String> {
    match text {
        "earliest" => Ok(Since::Earliest),
        text => time(text).map(Since::Time).map_err(|error| format!("{error}, or `earliest`")),
    }
}

/// Runs the command against a running Waypost.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { subscription, since, until, wait, cancel, server } = arguments;
    let (client, uuid) = (server.client()?, subscription.to_string());
    let path = ["eventmatch", &uuid, "recover"];
    let request = match since {
        Some(since) => {
            let body =
                v1::NewRecovery { since: since.to_string(), until: until.map(|time| time.to_string()) };
            client
                .request(Method::POST, &path)
                .header("content-type", "application/json")
                .body(serde_json::to_string(&body)?)
        }
        None if cancel => client.request(Method::DELETE, &path),
        None => client.request(Method::GET, &path),
    };
    let mut recovery: v1::Recovery = client.json(request).await?;
    if wait {
        recovery = ended(&client, &path, recovery).await?;
        if recovery.state != v1::RecoveryState::Done {
            bail!("the replay is {}", progress(&recovery));
        }
    }
    print::line(progress(&recovery))?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of the replay, and shows its progress on stderr.
async fn ended(client: &Client, path: &[&str], mut recovery: v1::Recovery) -> anyhow::Result<v1::Recovery> {
    let mut shown = String::new();
    while recovery.state == v1::RecoveryState::Running {
        let line = progress(&recovery);
        if line != shown {
            print::notice(&line);
            shown = line;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        recovery = client.json(client.request(Method::GET, path)).await?;
    }
    Ok(recovery)
}

/// Says on one line how far a replay has come. Its counts are shown only to users who may see everything.
fn progress(recovery: &v1::Recovery) -> String {
    let v1::Recovery { state, reason, waiting, looked_at, matched, created, position, .. } = recovery;
    let mut out = state.to_string();
    let counts = [("looked at", looked_at), ("matched", matched), ("created", created)];
    for (place, (what, count)) in counts.into_iter().enumerate() {
        let before = if place == 0 { ": " } else { ", " };
        if let Some(count) = count {
            out.push_str(&format!("{before}{what} {count}"));
        }
    }
    if let Some(position) = position {
        out.push_str(&format!(", up to {}", position.received));
    }
    if let Some(why) = waiting.as_ref().or(reason.as_ref()) {
        out.push_str(&format!(" ({why})"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_the_earliest() {
        assert_eq!(since("earliest").unwrap().to_string(), "earliest");
        assert_eq!(since("2026-11-22").unwrap().to_string(), "2026-11-22T00:00:00Z");
        assert!(since("now").unwrap_err().contains("or `earliest`"));
    }

    #[test]
    fn progress_is_one_line() {
        let text = |members: &str| {
            let subscription = "cb24d343-7891-407f-b8e9-8b9ce57fd3cc";
            let json = format!(
                r#"{{"subscription": "{subscription}", "since": "earliest", "asked": "2026-11-22T01:00:00Z", "by": "ann",
                {members}}}"#
            );
            progress(&serde_json::from_str(&json).unwrap())
        };
        let running = r#""state": "running", "reason": null, "waiting": "the subscription is disabled", "looked_at": 7,
            "matched": 5, "created": 3,
            "position": {"event": "019aa6c2-0000-7000-8000-000000000000", "received": "2026-11-22T00:00:00Z"}"#;
        insta::assert_snapshot!(text(running), @"running: looked at 7, matched 5, created 3, up to 2026-11-22T00:00:00.000000Z (the subscription is disabled)");
        let done = r#""state": "done", "looked_at": 0, "matched": 0, "created": 0, "position": null"#;
        insta::assert_snapshot!(text(done), @"done: looked at 0, matched 0, created 0");
    }
}

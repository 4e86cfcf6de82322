//! `waypost recover`: replays the log of a running Waypost into a subscription, over REST.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
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

/// The answer of `/eventmatch/{uuid}/recover`, as far as it is shown.
#[derive(Deserialize)]
struct Progress {
    state: String,
    reason: Option<String>,
    waiting: Option<String>,
    /// Only shown to users who may see everything.
    looked_at: Option<u64>,
    matched: Option<u64>,
    created: Option<u64>,
    position: Option<Mark>,
}

#[derive(Deserialize)]
struct Mark {
    received: String,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.state)?;
        let counts = [("looked at", self.looked_at), ("matched", self.matched), ("created", self.created)];
        for (place, (what, count)) in counts.into_iter().enumerate() {
            let before = if place == 0 { ": " } else { ", " };
            count.map_or(Ok(()), |count| write!(f, "{before}{what} {count}"))?;
        }
        if let Some(position) = &self.position {
            write!(f, ", up to {}", position.received)?;
        }
        match self.waiting.as_ref().or(self.reason.as_ref()) {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}

/// Runs the command against a running Waypost.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { subscription, since, until, wait, cancel, server } = arguments;
    let (client, uuid) = (server.client()?, subscription.to_string());
    let path = ["eventmatch", &uuid, "recover"];
    let request = match since {
        Some(since) => {
            let body = json!({"since": since.to_string(), "until": until.map(|time| time.to_string())});
            client
                .request(Method::POST, &path)
                .header("content-type", "application/json")
                .body(body.to_string())
        }
        None if cancel => client.request(Method::DELETE, &path),
        None => client.request(Method::GET, &path),
    };
    let mut progress: Progress = client.json(request).await?;
    if wait {
        progress = ended(&client, &path, progress).await?;
        if progress.state != "done" {
            bail!("the replay is {progress}");
        }
    }
    print::line(progress)?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of the replay, and shows its progress on stderr.
async fn ended(client: &Client, path: &[&str], mut progress: Progress) -> anyhow::Result<Progress> {
    let mut shown = String::new();
    while progress.state == "running" {
        let line = progress.to_string();
        if line != shown {
            print::notice(&line);
            shown = line;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        progress = client.json(client.request(Method::GET, path)).await?;
    }
    Ok(progress)
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
        let text = |json: &str| serde_json::from_str::<Progress>(json).unwrap().to_string();
        let running = r#"{"state": "running", "reason": null, "waiting": "the subscription is disabled", "looked_at": 7,
            "matched": 5, "created": 3, "position": {"event": "01", "received": "2026-11-22T00:00:00Z"}}"#;
        insta::assert_snapshot!(text(running), @"running: looked at 7, matched 5, created 3, up to 2026-11-22T00:00:00Z (the subscription is disabled)");
        let done = r#"{"state": "done", "looked_at": 0, "matched": 0, "created": 0, "position": null}"#;
        insta::assert_snapshot!(text(done), @"done: looked at 0, matched 0, created 0");
    }
}

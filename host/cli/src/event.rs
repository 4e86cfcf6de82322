//! `waypost event`: the log of a running Waypost, over REST.

use std::process::ExitCode;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, Url};
use waypost_api::v1;
use waypost_domain::EventId;

use crate::client::{Client, DEFAULT_SERVER, Identity};
use crate::{print, story};

/// The most events in one request.
const PAGE: u32 = 100;
/// How old an event has to be for a purge that names neither events nor a date.
const PURGE_AGE: SignedDuration = SignedDuration::from_hours(24);

/// Show, purge or retry events
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    Get(Get),
    Purge(Purge),
    Retry(Retry),
}

/// Show events, and what became of them
///
/// Prints each event's id and JSON, then a line for each subscription that matched: the time of the last attempt, and
/// the statuses of the policy server and of the target, or `-`. What the subscription's plugin decided and logged
/// follows. Each filter that failed on the event has a line of its own. Without ids, the newest event comes first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost event get
  waypost event get --limit 100 --start-date 2026-11-22
  waypost event get 019aa6c2-0000-7000-8000-000000000000 --user ann")]
pub(super) struct Get {
    /// The events to show [default: the newest]
    ids: Vec<EventId>,
    /// The most events to show
    #[arg(long, default_value_t = 10, conflicts_with = "ids")]
    limit: u32,
    /// Only events accepted at this time or later (RFC 3339, or a date in UTC)
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "ids")]
    start_date: Option<Timestamp>,
    /// Only events accepted before this time
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "ids")]
    end_date: Option<Timestamp>,
    #[command(flatten)]
    server: Server,
}

/// Remove events from the log
///
/// Events with pending deliveries are kept. Only an admin may purge.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost event purge
  waypost event purge --older-than-date 2026-11-01")]
pub(super) struct Purge {
    /// The events to remove
    ids: Vec<EventId>,
    /// Remove events accepted before this time (RFC 3339, or a date in UTC) [default: a day ago]
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "ids")]
    older_than_date: Option<Timestamp>,
    #[command(flatten)]
    server: Server,
}

/// Deliver events again to every subscription that matches now, and run the matching handler again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost event retry 019aa6c2-0000-7000-8000-000000000000")]
pub(super) struct Retry {
    /// The events to deliver
    #[arg(required = true)]
    ids: Vec<EventId>,
    #[command(flatten)]
    server: Server,
}

/// The server to ask, and for which user.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// The Waypost to ask
    #[arg(long = "server", value_name = "URL", default_value = DEFAULT_SERVER)]
    url: Url,
    #[command(flatten)]
    identity: Identity,
}

/// Runs the command against a running Waypost.
pub(super) async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Get(arguments) => get(arguments).await?,
        Command::Purge(arguments) => purge(arguments).await?,
        Command::Retry(arguments) => retry(arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn get(arguments: Get) -> anyhow::Result<()> {
    let client = arguments.server.client()?;
    if !arguments.ids.is_empty() {
        return show(&client, &arguments.ids).await;
    }
    let mut left = arguments.limit;
    let mut query = vec![("limit".to_owned(), left.min(PAGE).to_string())];
    query.extend(arguments.start_date.map(|time| ("since".to_owned(), time.to_string())));
    query.extend(arguments.end_date.map(|time| ("until".to_owned(), time.to_string())));
    while left > 0 {
        let page: v1::EventPage = client.json(client.query(Method::GET, &["events"], &query)).await?;
        let ids: Vec<_> =
            page.events.iter().map(|event| EventId::from_uuid(event.id)).take(left as usize).collect();
        show(&client, &ids).await?;
        left -= u32::try_from(ids.len()).unwrap_or(left);
        let Some(next) = page.next else { break };
        query = next_query(&next);
    }
    Ok(())
}

async fn show(client: &Client, ids: &[EventId]) -> anyhow::Result<()> {
    for id in ids {
        let story: v1::Story = client.json(client.request(Method::GET, &["events", &id.to_string()])).await?;
        print::text(&story::text(&story))?;
    }
    Ok(())
}

async fn purge(arguments: Purge) -> anyhow::Result<()> {
    let client = arguments.server.client()?;
    let mut all = v1::PurgeReport { purged: 0, kept: 0 };
    for id in &arguments.ids {
        let one: v1::PurgeReport =
            client.json(client.request(Method::DELETE, &["events", &id.to_string()])).await?;
        all = v1::PurgeReport { purged: all.purged + one.purged, kept: all.kept + one.kept };
    }
    if arguments.ids.is_empty() {
        let before = arguments.older_than_date.unwrap_or_else(a_day_ago);
        let query = [("before".to_owned(), before.to_string())];
        all = client.json(client.query(Method::DELETE, &["events"], &query)).await?;
    }
    print::line(count(all))?;
    Ok(())
}

async fn retry(arguments: Retry) -> anyhow::Result<()> {
    let client = arguments.server.client()?;
    for id in &arguments.ids {
        let path = ["events", &id.to_string(), "retry"];
        let retried: v1::Redelivery = client.json(client.request(Method::POST, &path)).await?;
        print::line(format_args!("Event - {id}"))?;
        for v1::RedeliveryTarget { subscription, handler, .. } in retried.deliveries {
            match handler {
                Some(handler) => print::line(format_args!("    RUN {handler} due again"))?,
                None => print::line(format_args!("    ELM {subscription} due again"))?,
            }
        }
        for v1::RedeliveryFailure { subscription, reason } in retried.filters_failed {
            print::line(format_args!("    FILTER {subscription} failed: {reason}"))?;
        }
    }
    Ok(())
}

impl Server {
    pub(super) fn client(self) -> anyhow::Result<Client> {
        Client::new(self.url, &self.identity, "--server")
    }
}

/// Says how many events are gone.
fn count(v1::PurgeReport { purged, kept }: v1::PurgeReport) -> String {
    let events = if purged == 1 { "event" } else { "events" };
    let kept = if kept == 0 { String::new() } else { format!(", kept {kept} with open deliveries") };
    format!("purged {purged} {events}{kept}")
}

/// Reads a point in time; without an offset it is UTC.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    let utc = |time: DateTime| time.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    let time = text.parse::<Timestamp>().or_else(|_| text.parse::<DateTime>().and_then(utc));
    time.map_err(|_| "expected a time such as `2026-11-22T12:00:00Z` or `2026-11-22`".to_owned())
}

#[expect(clippy::disallowed_methods, reason = "a command that runs once has no use for a clock to step")]
fn a_day_ago() -> Timestamp {
    Timestamp::now() - PURGE_AGE
}

/// Returns the query of the link to the next page; the path is known.
pub(super) fn next_query(link: &str) -> Vec<(String, String)> {
    let base = Url::parse(DEFAULT_SERVER).expect("the default is a URL");
    base.join(link).map_or_else(|_| Vec::new(), |url| url.query_pairs().into_owned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_or_utc() {
        let read = |text: &str| time(text).map(|time| time.to_string());
        assert_eq!(read("2026-11-22"), Ok("2026-11-22T00:00:00Z".to_owned()));
        assert_eq!(read("2026-11-22T10:30:00"), Ok("2026-11-22T10:30:00Z".to_owned()));
        assert_eq!(read("2026-11-22T10:30:00+01:00"), Ok("2026-11-22T09:30:00Z".to_owned()));
        assert!(read("yesterday").is_err());
    }

    #[test]
    fn a_purge_says_how_many() {
        let text = |purged, kept| count(v1::PurgeReport { purged, kept });
        assert_eq!(text(1, 0), "purged 1 event");
        assert_eq!(text(0, 2), "purged 0 events, kept 2 with open deliveries");
    }

    #[test]
    fn the_next_page_is_asked_for_by_its_query() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(next_query("/events?limit=2&before=a%20b"), [pair("limit", "2"), pair("before", "a b")]);
    }
}

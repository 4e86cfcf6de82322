//! A target that is down, with a million deliveries waiting for it: what it costs other subscriptions, those who ask for
//! lists, and a start after kill -9; and how soon what waits for a good target is delivered after one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::event::FILES_FILTER;
use crate::ledger::{Fan, Ledger};
use crate::percentile::Latency;
use crate::producer::Pace;
use crate::report::{MIB, Row};
use crate::rest::Rest;
use crate::sink::Gate;
use crate::stage::{Settings, Stage};

/// 50 events a second, for this long.
const STEADY: Duration = Duration::from_millis(20);
const LENGTH: Duration = Duration::from_secs(10);
/// How many deliveries wait when the server is killed.
const UNDELIVERED: usize = 10_000;
/// How often each list is asked for, and how many rows a page has.
const ASKED: usize = 50;
const PAGE: usize = 100;
/// Nothing listens there.
const DOWN: &str = "http://127.0.0.1:1/";

/// Measures a subscription alone, then beside one with `events` deliveries waiting, before and after a kill.
pub(crate) async fn play(settings: &Settings) -> Result<Row> {
    let alone = Stage::set(settings, Fan::All(1), 10_000, Gate::Open).await?;
    alone.subscribe(|_| FILES_FILTER.to_owned()).await?;
    let idle = alone.usage()?;
    let alone = steady(&alone).await?;

    let mut stage = Stage::set(settings, Fan::All(1), 10_000 + UNDELIVERED, Gate::Open).await?;
    let down = json!({"name": "down", "jsonpath": FILES_FILTER, "target_url": DOWN});
    let down = stage.rest().await?.create(down).await?;
    let fill = std::sync::Arc::new(Ledger::new(Fan::All(0), settings.events));
    let filled = stage.load_from(&fill, settings.connections, Pace::Until(settings.events)).await?;
    stage.subscribe(|_| FILES_FILTER.to_owned()).await?;
    let before = stage.usage()?;
    let beside = steady(&stage).await?;
    let with_backlog = stage.usage()?;
    let lists = Lists::of(&mut stage.rest().await?, &down, filled.accepted).await?;
    let asked = stage.usage()?;

    stage.kill_server();
    let (listening, ready) = stage.start_server().await?;
    let started = stage.usage()?;

    stage.sink.set(Gate::Held);
    let held = Pace::Until(stage.ledger.accepted() + UNDELIVERED);
    let sent = stage.load(settings.connections, held).await?;
    stage.kill_server();
    stage.sink.set(Gate::Open);
    let killed = stage.ledger.now();
    stage.start_server().await?;
    stage.drained().await;
    let recovered = stage.ledger.last_arrival().saturating_sub(killed);

    let mut row = Row::of("backlog", 1, &stage, &sent);
    (row.crashed, row.paced) = (true, true);
    row.used(before, with_backlog, sent.accepted);
    row.note(format!("the backlog was accepted at {:.0} events/s", filled.per_second()));
    let mib = |bytes: u64| bytes as f64 / MIB;
    row.note(format!(
        "accept to target: p50 {:.2} ms, p99 {:.2} ms alone; p50 {:.2} ms, p99 {:.2} ms with {} deliveries waiting: {:.2} of its p99",
        alone.p50_ms, alone.p99_ms, beside.p50_ms, beside.p99_ms, filled.accepted, beside.p99_ms / alone.p99_ms,
    ));
    row.note(format!(
        "RSS: idle {:.1} MiB; with the backlog {:.1}; after the lists {:.1}; after kill -9 and a start {:.1}",
        mib(idle.rss_bytes),
        mib(with_backlog.rss_bytes),
        mib(asked.rss_bytes),
        mib(started.rss_bytes),
    ));
    row.note(format!(
        "after kill -9: listening after {:.0} ms, ready after {:.0} ms; {UNDELIVERED} more that waited for a good target \
         arrived within {:.2} s of the start, {} of them for the second time",
        listening.as_secs_f64() * 1e3, ready.as_secs_f64() * 1e3, recovered.as_secs_f64(), row.audit.repeated,
    ));
    lists.0.into_iter().for_each(|line| row.note(line));
    Ok(row)
}

/// Measures the time from accepting to arriving of a stage's steady load.
async fn steady(stage: &Stage) -> Result<Latency> {
    stage.load(1, Pace::Every { every: STEADY, length: LENGTH }).await?;
    stage.drained().await;
    Latency::of(stage.ledger.arrival_nanos()).context("nothing arrived")
}

/// What lists cost, as sentences.
struct Lists(Vec<String>);

impl Lists {
    async fn of(rest: &mut Rest, down: &str, waiting: usize) -> Result<Self> {
        let shown = rest.json(&format!("/eventmatch/{down}")).await?;
        let mut lines = vec![format!("counts of the subscription: {}", shown["counts"])];
        let lists = [
            format!("/eventmatch/{down}"),
            format!("/eventmatch/{down}/deliveries?state=retrying&limit={PAGE}"),
            format!("/eventmatch/{down}/deliveries?state=pending&limit={PAGE}"),
            format!("/eventmatch/{down}/deliveries?state=dead&limit={PAGE}"),
            format!("/eventmatch/{down}/deliveries?limit={PAGE}"),
            format!("/events?limit={PAGE}"),
        ];
        for first in lists {
            // Each page after the first begins where the one before ended.
            let (mut path, mut took, mut rows) = (first.clone(), Vec::new(), 0);
            for _ in 0..ASKED {
                let asked = Instant::now();
                let page = rest.json(&path).await?;
                took.push(u64::try_from(asked.elapsed().as_nanos())?);
                rows += ["deliveries", "events"]
                    .iter()
                    .filter_map(|name| page[name].as_array())
                    .map(Vec::len)
                    .sum::<usize>();
                path = page["next"].as_str().unwrap_or(&first).to_owned();
            }
            let latency = Latency::of(took).context("nothing was asked")?;
            lines.push(format!(
                "GET {}: p50 {:.2} ms, p99 {:.2} ms ({ASKED} pages, {rows} rows, of {waiting})",
                first.replace(down, "…"),
                latency.p50_ms,
                latency.p99_ms
            ));
        }
        Ok(Self(lines))
    }
}

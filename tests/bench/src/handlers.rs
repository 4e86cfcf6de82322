//! The cost of a run itself: programs that do nothing, one run for each event.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::sleep;

use crate::ledger::Fan;
use crate::process::Usage;
use crate::producer::{Pace, Sent};
use crate::report::Row;
use crate::rest::Rest;
use crate::sink::Gate;
use crate::stage::{Settings, Stage};

/// How many runs may be in progress at once; the row shows the last one.
const PARALLEL: [usize; 3] = [2, 8, 4];
/// How often the log is polled.
const LOOK: Duration = Duration::from_millis(25);
/// The longest that all runs may take.
const RUNS_MAX: Duration = Duration::from_secs(300);
/// How many of the newest events are polled: more than run at once.
const NEWEST: usize = 16;
/// The most events that `/events` lists.
const PAGE: usize = 1000;
/// How often `/bin/true` is started without Waypost, for comparison.
const STARTS: usize = 1000;

/// Measures a component.
pub(crate) async fn component(settings: &Settings) -> Result<Row> {
    let program = format!("component = {:?}\nargs = [\"2\", \"2\"]\n", waypost_guests::ADD);
    runs("handler-component", settings, &program, 2000).await
}

/// Measures a native program, and how long the machine takes just to start it.
pub(crate) async fn command(settings: &Settings) -> Result<Row> {
    let mut row = runs("handler-command", settings, "command = [\"/bin/true\"]\n", 1000).await?;
    let begin = Instant::now();
    tokio::task::spawn_blocking(start_many).await??;
    let rate = STARTS as f64 / begin.elapsed().as_secs_f64();
    row.note(format!("the machine starts and ends /bin/true {rate:.0} times a second, one after the other"));
    Ok(row)
}

fn start_many() -> Result<()> {
    for _ in 0..STARTS {
        let status = Command::new("/bin/true").stdin(Stdio::null()).status().context("failed to start it")?;
        ensure!(status.success(), "/bin/true failed");
    }
    Ok(())
}

/// The result of one measurement.
struct Played {
    stage: Stage,
    sent: Sent,
    took: Duration,
    succeeded: usize,
    before: Usage,
    after: Usage,
}

async fn runs(name: &str, settings: &Settings, program: &str, count: usize) -> Result<Row> {
    let (mut rates, mut last) = (Vec::new(), None);
    for parallel in PARALLEL {
        let config =
            format!("[[handler]]\nname = \"bench\"\nfilter = \"$\"\nmax_parallel = {parallel}\n{program}");
        // Ends the server of the previous round first.
        drop(last.take());
        let played = play(settings, &config, count).await?;
        rates.push((parallel, played.succeeded as f64 / played.took.as_secs_f64()));
        last = Some(played);
    }
    let Played { stage, sent, took, succeeded, before, after } = last.context("nothing was played")?;
    let mut row = Row::of(name, settings.connections, &stage, &sent);
    row.ran(succeeded, took);
    row.used(before, after, count);
    let children = (after.children - before.children).as_secs_f64() * 1e6 / count as f64;
    rates.sort_unstable_by_key(|(parallel, _)| *parallel);
    let rates: Vec<_> = rates.iter().map(|(parallel, rate)| format!("{parallel}: {rate:.0}")).collect();
    row.note(format!(
        "runs/s by max_parallel: {}; the server's children used {children:.0} us a run besides",
        rates.join(", ")
    ));
    Ok(row)
}

/// Sends the events and waits until every run has ended.
async fn play(settings: &Settings, config: &str, count: usize) -> Result<Played> {
    let stage = Stage::configured(settings, Fan::All(0), count, Gate::Open, config).await?;
    let mut rest = stage.rest().await?;
    let (before, begin) = (stage.usage()?, Instant::now());
    let sent = stage.load(settings.connections, Pace::Until(count)).await?;
    // Runs begin in the order of the log: when the newest have ended, few are left.
    loop {
        let newest = rest.json(&format!("/events?limit={NEWEST}")).await?;
        if statuses(&newest).all(is_over) {
            break;
        }
        ensure!(begin.elapsed() < RUNS_MAX, "the runs do not end; the server's log: {}", stage.log());
        sleep(LOOK).await;
    }
    let took = begin.elapsed();
    let (after, succeeded) = (stage.usage()?, succeeded(&mut rest).await?);
    Ok(Played { stage, sent, took, succeeded, before, after })
}

/// Counts the events in the log whose run succeeded.
async fn succeeded(rest: &mut Rest) -> Result<usize> {
    let (mut path, mut succeeded) = (format!("/events?limit={PAGE}"), 0);
    loop {
        let page = rest.json(&path).await?;
        succeeded += statuses(&page).filter(|status| *status == "200 OK").count();
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut path),
            None => return Ok(succeeded),
        }
    }
}

fn statuses(page: &Value) -> impl Iterator<Item = &str> {
    let events = page["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(|event| event["status"].as_str().unwrap_or_default())
}

fn is_over(status: &str) -> bool {
    !matches!(status, "202 Accepted" | "102 Processing")
}

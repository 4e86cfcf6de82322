//! kill -9 under load with a large file: how soon the server is ready again, and that nothing accepted is lost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use hyper::StatusCode;
use tokio::time::sleep;

use crate::event::{EVENT_BYTES, FILES_FILTER};
use crate::ledger::{Fan, Ledger};
use crate::producer::Pace;
use crate::report::Row;
use crate::sink::Gate;
use crate::stage::{Settings, Stage, free_bytes};

/// How many events are sent between two checks of the file's size.
const FILL_STEP: usize = 20_000;
const GIGABYTE: u64 = 1_000_000_000;
/// How long the load lasts before the kill.
const KILL_AFTER: Duration = Duration::from_secs(3);
const LOAD_MAX: Duration = Duration::from_secs(10);

/// Fills the file with events that match nothing, then kills the server while it accepts and delivers.
pub(crate) async fn play(settings: &Settings) -> Result<Row> {
    let wanted = settings.gigabytes * GIGABYTE;
    ensure!(
        free_bytes(&settings.data_dir)? > wanted * 4,
        "less than four times --gigabytes is free on the disk"
    );
    let mut stage = Stage::set(settings, Fan::All(1), 800_000, Gate::Open).await?;

    let capacity = usize::try_from(wanted)? / EVENT_BYTES * 3 + FILL_STEP;
    let (fill, mut ids) = (Arc::new(Ledger::new(Fan::All(0), capacity)), Vec::new());
    while stage.data_bytes()? < wanted && fill.accepted() < capacity - FILL_STEP {
        let step = Pace::Until(fill.accepted() + FILL_STEP);
        ids.extend(stage.load_from(&fill, settings.connections, step).await?.ids);
    }
    let filled = stage.data_bytes()?;
    stage.subscribe(|_| FILES_FILTER.to_owned()).await?;

    let before = stage.usage()?;
    let load = stage.start_load(&stage.ledger, settings.connections, Pace::For(LOAD_MAX))?;
    let mut load = std::pin::pin!(load);
    tokio::select! {
        ended = &mut load => bail!("the load ended before the kill: {}", ended?.first_failure.unwrap_or_default()),
        () = sleep(KILL_AFTER) => {}
    }
    let after = stage.usage()?;
    stage.kill_server();
    let sent = load.await?;
    let (listening, ready) = stage.start_server().await?;
    stage.drained().await;

    let mut row = Row::of("recovery", settings.connections, &stage, &sent);
    row.crashed = true;
    row.used(before, after, sent.accepted);
    row.note(format!(
        "killed with {:.2} GB on disk, {} deliveries owed, {} requests unanswered; listening after {:.0} ms, ready after {:.0} ms",
        filled as f64 / GIGABYTE as f64, sent.lag, sent.broken, listening.as_secs_f64() * 1e3, ready.as_secs_f64() * 1e3,
    ));
    ids.extend(sent.ids);
    let (sampled, missing) = (ids.len(), missing(&stage, &ids).await?);
    row.audit.lost += missing;
    row.note(format!(
        "of {sampled} events sampled from {} in the log, {missing} are missing",
        fill.accepted() + sent.accepted
    ));
    Ok(row)
}

/// Counts the ids that the log does not know.
async fn missing(stage: &Stage, ids: &[String]) -> Result<usize> {
    let (mut rest, mut missing) = (stage.rest().await?, 0);
    for id in ids {
        missing += usize::from(rest.get(&format!("/events/{id}")).await? != StatusCode::OK);
    }
    Ok(missing)
}

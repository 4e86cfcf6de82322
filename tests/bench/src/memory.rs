//! Memory: at rest, after many events, and with as many deliveries waiting for a target that does not answer.

use anyhow::Result;

use crate::event::FILES_FILTER;
use crate::ledger::Fan;
use crate::producer::Pace;
use crate::report::{MIB, Row};
use crate::sink::Gate;
use crate::stage::{Settings, Stage};

/// Plays the scenario: idle, `events` delivered, `events` more held back, then those delivered as well.
pub(crate) async fn play(settings: &Settings) -> Result<Row> {
    let stage = Stage::set(settings, Fan::All(1), settings.events * 2, Gate::Open).await?;
    stage.subscribe(|_| FILES_FILTER.to_owned()).await?;
    let idle = stage.usage()?;
    let sent = stage.load(settings.connections, Pace::Until(settings.events)).await?;
    stage.drained().await;
    let after = stage.usage()?;
    let mut row = Row::of("memory", settings.connections, &stage, &sent);
    row.delivered(&stage, &sent);
    row.used(idle, after, sent.accepted);

    stage.sink.set(Gate::Held);
    let more = stage.load(settings.connections, Pace::Until(settings.events * 2)).await?;
    let (backlog, waiting) = (stage.usage()?, stage.ledger.owed() - stage.ledger.arrived());
    let opened = stage.ledger.now();
    stage.sink.set(Gate::Open);
    stage.drained().await;
    let end = stage.usage()?;
    let mib = |bytes: u64| bytes as f64 / MIB;
    row.note(format!(
        "RSS: idle {:.1} MiB; after {} events {:.1}; with {waiting} deliveries waiting {:.1}; those delivered {:.1}; peak {:.1}",
        mib(idle.rss_bytes), sent.accepted, mib(after.rss_bytes), mib(backlog.rss_bytes), mib(end.rss_bytes),
        mib(end.peak_rss_bytes),
    ));
    let took = (stage.ledger.last_arrival().saturating_sub(opened)).as_secs_f64();
    row.note(format!(
        "the backlog left in {took:.1} s; the data folder has {:.0} MiB",
        mib(stage.data_bytes()?)
    ));
    row.add(&stage, &more);
    Ok(row)
}

//! The five measured scenarios. Memory, soak, recovery, many subscriptions and plugins have files of their own.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde_json::json;

use crate::event::{FILES_FILTER, KEY, equality_filter};
use crate::ledger::Fan;
use crate::many::Form;
use crate::percentile::Latency;
use crate::producer::{Pace, Sent};
use crate::reference::Echo;
use crate::report::Row;
use crate::sink::Gate;
use crate::stage::{Settings, Stage};
use crate::{backlog, fetch, handlers, many, memory, plugins, recovery, safety, soak};

/// No run is faster, so a ledger of this many events a second does not end one early.
const PER_SECOND_MAX: usize = 80_000;
const MANY: usize = 1000;
/// 50 events a second.
const STEADY: Duration = Duration::from_millis(20);

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Durable accepting alone: one subscription whose target does not answer meanwhile
    Accept,
    /// End to end, one subscription
    Fanout1,
    /// End to end, ten subscriptions that all match
    Fanout10,
    /// End to end, each event matches one of 1,000 subscriptions
    #[value(name = "one-of-1000")]
    OneOf1000,
    /// End to end, one subscription in the order of 1,000 keys, beside one without an order
    #[value(name = "ordered-1000")]
    Ordered1000,
    /// 50 events a second on one connection
    Latency,
    /// Memory at rest, after many events, and with a backlog
    Memory,
    /// All kinds of subscriptions and targets at once, with kills: the ledger, memory and file over time
    Soak,
    /// kill -9 under load with a large file: time until ready, nothing lost
    Recovery,
    /// A million deliveries wait for a target that is down: another subscription, lists, a start after kill -9
    Backlog,
    /// Accepting with 100,000 subscriptions beside accepting with one: equalities on one attribute
    ManyEqual,
    /// The same: two conditions on one row of the data
    ManyTwo,
    /// The same in jsonpath2
    #[value(name = "many-jsonpath2")]
    ManyJsonpath2,
    /// The three of them
    ManySubscriptions,
    /// Deliveries through a Rust filter beside deliveries without one
    PluginFilter,
    /// Deliveries through 100 modules beside deliveries through one
    #[value(name = "plugin-100")]
    Plugin100,
    /// A module from PUT to active; a start with 1,000 subscriptions that share 20 modules
    PluginUpload,
    /// A subscription's latency beside one whose plugin spins
    PluginSpin,
    /// The latency of a subscription with a plugin beside six users whose plugins spin
    PluginCrowd,
    /// The five of them
    Plugins,
    /// Deliveries with token, signature, sealed credentials and limits beside deliveries without
    Safety,
    /// A handler between a cart and an ingest service beside tar and sha1sum on the same files
    HandlerFetch,
    /// 2,000 runs of a component that adds two numbers
    HandlerComponent,
    /// 1,000 runs of /bin/true
    HandlerCommand,
    /// The two of them
    HandlerRuns,
    /// The three of them
    Handlers,
    /// The first five
    All,
}

impl Scenario {
    /// Replaces `all` and the like with what they stand for, and puts the yardstick of `one-of-1000` before it.
    pub(crate) fn expand(asked: &[Self]) -> Vec<Self> {
        let mut plan = Vec::new();
        for &scenario in asked {
            let add: &[Self] = match scenario {
                Self::All => &[Self::Accept, Self::Fanout1, Self::Fanout10, Self::OneOf1000, Self::Latency],
                Self::OneOf1000 => &[Self::Fanout1, Self::OneOf1000],
                Self::Ordered1000 => &[Self::Fanout1, Self::Ordered1000],
                Self::ManySubscriptions => &[Self::ManyEqual, Self::ManyTwo, Self::ManyJsonpath2],
                Self::Plugins => &[
                    Self::PluginFilter,
                    Self::Plugin100,
                    Self::PluginUpload,
                    Self::PluginSpin,
                    Self::PluginCrowd,
                ],
                Self::HandlerRuns => &[Self::HandlerComponent, Self::HandlerCommand],
                Self::Handlers => &[Self::HandlerFetch, Self::HandlerComponent, Self::HandlerCommand],
                Self::ManyEqual
                | Self::ManyTwo
                | Self::ManyJsonpath2
                | Self::PluginFilter
                | Self::Plugin100
                | Self::PluginUpload
                | Self::PluginSpin
                | Self::PluginCrowd
                | Self::Safety
                | Self::HandlerFetch
                | Self::HandlerComponent
                | Self::HandlerCommand
                | Self::Accept
                | Self::Fanout1
                | Self::Fanout10
                | Self::Latency
                | Self::Memory
                | Self::Soak
                | Self::Recovery
                | Self::Backlog => &[scenario],
            };
            for &one in add {
                if one != Self::Fanout1 || scenario == Self::Fanout1 || !plan.contains(&one) {
                    plan.push(one);
                }
            }
        }
        plan
    }

    /// Plays the scenario on a stage of its own.
    pub(crate) async fn play(self, settings: &Settings, echo: &Echo) -> Result<Row> {
        let files = |_| FILES_FILTER.to_owned();
        match self {
            Self::Accept => accept(settings).await,
            Self::Fanout1 => fan_out("fanout1", settings, Fan::All(1), files).await,
            Self::Fanout10 => fan_out("fanout10", settings, Fan::All(10), files).await,
            Self::OneOf1000 => {
                fan_out("one-of-1000", settings, Fan::OneOf(MANY), |n| equality_filter(n, MANY)).await
            }
            Self::Ordered1000 => ordered(settings).await,
            Self::Latency => latency(settings, echo).await,
            Self::Memory => memory::play(settings).await,
            Self::Soak => soak::play(settings).await,
            Self::Recovery => recovery::play(settings).await,
            Self::Backlog => backlog::play(settings).await,
            Self::ManyEqual => many::play("many-equal", settings, Form::Equal).await,
            Self::ManyTwo => many::play("many-two", settings, Form::Two).await,
            Self::ManyJsonpath2 => many::play("many-jsonpath2", settings, Form::Jsonpath2).await,
            Self::PluginFilter => plugins::filter(settings).await,
            Self::Plugin100 => plugins::hundred(settings).await,
            Self::PluginUpload => plugins::upload(settings).await,
            Self::PluginSpin => plugins::spin(settings).await,
            Self::PluginCrowd => plugins::crowd(settings).await,
            Self::Safety => safety::play(settings).await,
            Self::HandlerFetch => fetch::play(settings).await,
            Self::HandlerComponent => handlers::component(settings).await,
            Self::HandlerCommand => handlers::command(settings).await,
            Self::All | Self::ManySubscriptions | Self::Plugins | Self::HandlerRuns | Self::Handlers => {
                bail!("it stands for several scenarios, and is none")
            }
        }
    }
}

/// Measures while the sink holds every answer back; then opens the sink, waits for the backlog and verifies it.
async fn accept(settings: &Settings) -> Result<Row> {
    let seconds = settings.seconds.unwrap_or(8);
    let stage = Stage::set(settings, Fan::All(1), capacity(seconds), Gate::Held).await?;
    stage.subscribe(|_| FILES_FILTER.to_owned()).await?;
    let before = stage.usage()?;
    let sent = stage.load(settings.connections, Pace::For(Duration::from_secs(seconds))).await?;
    let after = stage.usage()?;
    let (opened, held) = (stage.ledger.now(), stage.ledger.arrived());
    stage.sink.set(Gate::Open);
    stage.drained().await;
    let mut row = Row::of("accept", settings.connections, &stage, &sent);
    row.used(before, after, sent.accepted);
    let drained = stage.ledger.arrived() - held;
    let rate = drained as f64 / (stage.ledger.last_arrival().saturating_sub(opened)).as_secs_f64().max(1e-3);
    row.note(format!(
        "{held} attempts were held; after the gate opened, the backlog of {drained} left at {rate:.0}/s"
    ));
    Ok(row)
}

async fn fan_out(name: &str, settings: &Settings, fan: Fan, filter: impl Fn(usize) -> String) -> Result<Row> {
    let seconds = settings.seconds.unwrap_or(8);
    let stage = Stage::set(settings, fan, capacity(seconds), Gate::Open).await?;
    stage.subscribe(filter).await?;
    end_to_end(name, settings, &stage, seconds).await
}

async fn ordered(settings: &Settings) -> Result<Row> {
    let seconds = settings.seconds.unwrap_or(8);
    let stage = Stage::set(settings, Fan::Kinds(MANY), capacity(seconds), Gate::Open).await?;
    let (ordering, target_url) = (json!({"key": KEY}), stage.sink.url(0));
    let subscription =
        json!({"name": "ordered", "jsonpath": FILES_FILTER, "target_url": target_url, "ordering": ordering});
    stage.rest().await?.create(subscription).await?;
    end_to_end("ordered-1000", settings, &stage, seconds).await
}

async fn end_to_end(name: &str, settings: &Settings, stage: &Stage, seconds: u64) -> Result<Row> {
    let before = stage.usage()?;
    let sent = stage.load(settings.connections, Pace::For(Duration::from_secs(seconds))).await?;
    stage.drained().await;
    let after = stage.usage()?;
    let mut row = Row::of(name, settings.connections, stage, &sent);
    row.delivered(stage, &sent);
    row.used(before, after, sent.accepted);
    Ok(row)
}

async fn latency(settings: &Settings, echo: &Echo) -> Result<Row> {
    let length = Duration::from_secs(settings.seconds.unwrap_or(20));
    let stage = Stage::set(settings, Fan::All(1), capacity(length.as_secs()), Gate::Open).await?;
    stage.subscribe(|_| FILES_FILTER.to_owned()).await?;
    let before = stage.usage()?;
    let sent: Sent = stage.load(1, Pace::Every { every: STEADY, length }).await?;
    stage.drained().await;
    let after = stage.usage()?;
    let mut row = Row::of("latency", 1, &stage, &sent);
    row.arrival = Latency::of(stage.ledger.arrival_nanos());
    row.used(before, after, sent.accepted);
    if let Some(floor) = echo.round_trip(STEADY).await? {
        row.note(format!(
            "the echo at the same pace: p50 {:.2} ms, p99 {:.2} ms",
            floor.p50_ms, floor.p99_ms
        ));
    }
    // The pace sets both rates, so a ratio to the echo's would be meaningless.
    row.paced = true;
    Ok(row)
}

fn capacity(seconds: u64) -> usize {
    PER_SECOND_MAX * usize::try_from(seconds).unwrap_or(usize::MAX).clamp(1, 60)
}

#[cfg(test)]
mod tests {
    use super::Scenario::{Accept, All, Fanout1, OneOf1000};
    use super::*;

    #[test]
    fn one_of_1000_brings_its_yardstick_once() {
        assert_eq!(Scenario::expand(&[OneOf1000]), [Fanout1, OneOf1000]);
        assert_eq!(Scenario::expand(&[Fanout1, Accept, OneOf1000]), [Fanout1, Accept, OneOf1000]);
        assert_eq!(Scenario::expand(&[All]).len(), 5);
    }
}

//! The costs of plugins: deliveries through one, a hundred modules, uploads and starts, and hostile neighbours.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::event::{FILES_FILTER, equality_filter};
use crate::ledger::Fan;
use crate::percentile::Latency;
use crate::producer::{Pace, Sent};
use crate::report::Row;
use crate::sink::Gate;
use crate::stage::{Settings, Stage};

/// How often two contestants take turns.
const TURNS: u32 = 4;
/// More than a server delivers in a second.
const PER_SECOND_MAX: usize = 80_000;
/// How many modules are compared with one.
const HUNDRED: usize = 100;
/// The subscriptions of a start, and the modules that they share.
const SUBSCRIPTIONS: usize = 1000;
const MODULES: usize = 20;
/// 100 events a second.
const STEADY: Duration = Duration::from_millis(10);

/// Measures deliveries without and with a Rust filter that lets everything pass, in turns.
pub(crate) async fn filter(settings: &Settings) -> Result<Row> {
    let plain = stage(settings, Fan::All(1)).await?;
    plain.subscribe(|_| FILES_FILTER.to_owned()).await?;
    let filtered = stage(settings, Fan::All(1)).await?;
    let mut rest = filtered.rest().await?;
    let digest = rest.upload(module(waypost_guests::KEEP_FILES)?).await?;
    let wanted = json!({ "digest": digest, "config": {} });
    rest.create(subscription(&filtered, 0, FILES_FILTER, &wanted)).await?;
    race("plugin-filter", settings, &plain, &filtered, "without the filter").await
}

/// Measures deliveries through one module and through a hundred, each event to one of 100 subscriptions, in turns.
pub(crate) async fn hundred(settings: &Settings) -> Result<Row> {
    let one = sharing(settings, HUNDRED, 1).await?;
    let many = sharing(settings, HUNDRED, HUNDRED).await?;
    race("plugin-100", settings, &one, &many, "with one module").await
}

/// Measures from PUT to active, and a start with many subscriptions; then everything must still arrive.
pub(crate) async fn upload(settings: &Settings) -> Result<Row> {
    let mut stage = sharing(settings, SUBSCRIPTIONS, MODULES).await?;
    let mut rest = stage.rest().await?;
    let other = json!({ "name": "upload", "jsonpath": "$.absent", "target_url": stage.sink.url(0) });
    let uuid = rest.create(other).await?;
    let mut puts = Vec::new();
    let wasm = module(waypost_guests::KEEP_FILES)?;
    for n in 0..10 {
        let new = variant(&wasm, 1_000_000 + n);
        let begin = Instant::now();
        rest.put_plugin(&uuid, new).await?;
        puts.push(u64::try_from(begin.elapsed().as_nanos())?);
    }
    stage.kill_server();
    let (_, ready) = stage.start_server().await?;
    let before = stage.usage()?;
    let sent = stage.load(settings.connections, Pace::For(Duration::from_secs(3))).await?;
    stage.drained().await;
    let mut row = Row::of("plugin-upload", settings.connections, &stage, &sent);
    row.delivered(&stage, &sent);
    row.used(before, stage.usage()?, sent.accepted);
    let put = Latency::of(puts).context("nothing was put")?;
    row.note(format!(
        "PUT of a module of {} KB until active: p50 {:.0} ms, worst {:.0} ms; ready {:.2} s after kill -9 with \
         {SUBSCRIPTIONS} subscriptions that share {MODULES} modules",
        wasm.len() / 1000,
        put.p50_ms,
        put.p99_ms,
        ready.as_secs_f64(),
    ));
    Ok(row)
}

/// The load beside which a subscription's latency is measured.
struct Noise {
    name: &'static str,
    /// Whether the subscription has a plugin itself.
    has_plugin: bool,
    /// How many users subscribe to the same events with a slow plugin that skips all of them.
    users: usize,
    guest: &'static str,
    config: Value,
}

/// Measures a subscription's latency beside one whose plugin spins.
pub(crate) async fn spin(settings: &Settings) -> Result<Row> {
    let (guest, config) = (waypost_guests::SPIN, json!({}));
    latency(settings, Noise { name: "plugin-spin", has_plugin: false, users: 1, guest, config }).await
}

/// Measures the latency of a subscription with a plugin beside six users whose plugins take 230 ms each.
pub(crate) async fn crowd(settings: &Settings) -> Result<Row> {
    let (guest, config) = (waypost_guests::SIEVE, json!({ "spin_ms": "230", "filter": "no: it was late" }));
    latency(settings, Noise { name: "plugin-crowd", has_plugin: true, users: 6, guest, config }).await
}

/// Measures a subscription's latency at a steady pace: alone, and beside others, in turns.
async fn latency(settings: &Settings, noise: Noise) -> Result<Row> {
    let length = Duration::from_secs(settings.seconds.unwrap_or(16).div_ceil(2));
    let pace = Pace::Every { every: STEADY, length };
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut last = None;
    // The others' calls that ended in time, and those that did not.
    let mut calls = (0, 0);
    for _ in 0..2 {
        let quiet = neighbour(settings, &noise).await?;
        quiet.load(1, pace).await?;
        quiet.drained().await;
        alone.extend(quiet.ledger.arrival_nanos());
        drop(quiet);

        let noisy = neighbour(settings, &noise).await?;
        let mut rest = noisy.rest().await?;
        let digest = rest.upload(module(noise.guest)?).await?;
        let mut others = Vec::new();
        for user in 0..noise.users {
            let (user, wanted) =
                (format!("user {user}"), json!({ "digest": digest, "config": noise.config }));
            let uuid = rest.create_as(&user, subscription(&noisy, 1, FILES_FILTER, &wanted)).await?;
            others.push((user, uuid));
        }
        let before = noisy.usage()?;
        let sent = noisy.load(1, pace).await?;
        noisy.drained().await;
        beside.extend(noisy.ledger.arrival_nanos());
        let after = noisy.usage()?;
        for (user, uuid) in &others {
            let counts = rest.json_as(user, &format!("/eventmatch/{uuid}/deliveries?limit=1")).await?;
            let count = |state: &str| counts["counts"][state].as_u64().unwrap_or_default();
            calls.0 += count("skipped");
            calls.1 += count("retrying") + count("dead");
        }
        let mut row = Row::of(noise.name, 1, &noisy, &sent);
        row.used(before, after, sent.accepted);
        last = Some(row);
    }
    let mut row = last.context("nothing was played")?;
    let (alone, beside) =
        (Latency::of(alone).context("no samples")?, Latency::of(beside).context("no samples")?);
    row.arrival = Some(beside);
    row.paced = true;
    row.note(format!(
        "to the sink alone: p50 {:.2} ms, p99 {:.2} ms; beside {} {:.2} and {:.2}: {:.2} of its p99 alone",
        alone.p50_ms,
        alone.p99_ms,
        if noise.users == 1 { "a plugin that spins" } else { "users whose plugins spin" },
        beside.p50_ms,
        beside.p99_ms,
        beside.p99_ms / alone.p99_ms,
    ));
    if noise.has_plugin {
        row.note(format!("of the others' calls, {} ended in time and {} did not", calls.0, calls.1));
    }
    Ok(row)
}

/// Starts a server with the subscription whose latency is measured.
async fn neighbour(settings: &Settings, noise: &Noise) -> Result<Stage> {
    let stage = stage(settings, Fan::All(1)).await?;
    if noise.has_plugin {
        let mut rest = stage.rest().await?;
        let digest = rest.upload(module(waypost_guests::KEEP_FILES)?).await?;
        rest.create(subscription(&stage, 0, FILES_FILTER, &json!({ "digest": digest, "config": {} })))
            .await?;
    } else {
        stage.subscribe(|_| FILES_FILTER.to_owned()).await?;
    }
    Ok(stage)
}

async fn stage(settings: &Settings, fan: Fan) -> Result<Stage> {
    let seconds = usize::try_from(settings.seconds.unwrap_or(8)).unwrap_or(usize::MAX).clamp(1, 60);
    Stage::set(settings, fan, PER_SECOND_MAX * seconds, Gate::Open).await
}

/// Sets a stage with subscriptions that share this many modules; each event goes to one subscription.
async fn sharing(settings: &Settings, subscriptions: usize, modules: usize) -> Result<Stage> {
    let stage = stage(settings, Fan::OneOf(subscriptions)).await?;
    let mut rest = stage.rest().await?;
    let wasm = module(waypost_guests::KEEP_FILES)?;
    let mut digests = Vec::with_capacity(modules);
    for n in 0..modules {
        digests.push(rest.upload(variant(&wasm, n)).await?);
    }
    for n in 0..subscriptions {
        let wanted = json!({ "digest": digests[n % modules] });
        rest.create(subscription(&stage, n, &equality_filter(n, subscriptions), &wanted)).await?;
    }
    Ok(stage)
}

fn subscription(stage: &Stage, n: usize, jsonpath: &str, plugin: &Value) -> Value {
    json!({ "name": "bench", "jsonpath": jsonpath, "target_url": stage.sink.url(n), "plugin": plugin })
}

/// Loads both in turns, and compares the rates at which they deliver.
pub(crate) async fn race(
    name: &str,
    settings: &Settings,
    base: &Stage,
    other: &Stage,
    than: &str,
) -> Result<Row> {
    let seconds = settings.seconds.unwrap_or(8).div_ceil(u64::from(TURNS)).max(1);
    let pace = Pace::For(Duration::from_secs(seconds));
    let before = other.usage()?;
    let (mut total, mut ratios, mut accepted) = (Sent::default(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (base, without) = turn(base, settings, pace).await?;
        let (rate, sent) = turn(other, settings, pace).await?;
        ratios.push(rate / base);
        accepted.push(sent.per_second() / without.per_second());
        total.join(sent);
    }
    ratios.sort_by(f64::total_cmp);
    accepted.sort_by(f64::total_cmp);
    let mut row = Row::of(name, settings.connections, other, &total);
    row.delivered(other, &total);
    row.used(before, other.usage()?, total.accepted);
    row.note(format!(
        "delivers {:.2} of the rate {than} (median of {TURNS} turns, {:.2} to {:.2}), accepts {:.2} of it",
        (ratios[1] + ratios[2]) / 2.0,
        ratios[0],
        ratios[3],
        (accepted[1] + accepted[2]) / 2.0,
    ));
    Ok(row)
}

/// Plays one turn; returns how many deliveries arrived per second.
async fn turn(stage: &Stage, settings: &Settings, pace: Pace) -> Result<(f64, Sent)> {
    let arrived = stage.ledger.arrived();
    let sent = stage.load(settings.connections, pace).await?;
    stage.drained().await;
    let took = stage.ledger.last_arrival().saturating_sub(sent.started);
    Ok(((stage.ledger.arrived() - arrived) as f64 / took.as_secs_f64().max(1e-3), sent))
}

fn module(path: &str) -> Result<Bytes> {
    Ok(std::fs::read(path).with_context(|| format!("failed to read {path}"))?.into())
}

/// Returns a module with the same behaviour and another digest: a custom section has a number as its name.
fn variant(wasm: &[u8], n: usize) -> Bytes {
    let name = format!("{n:08}");
    let size = u8::try_from(name.len()).expect("eight digits");
    let section = [&[0, size + 1, size], name.as_bytes()].concat();
    [wasm, &section].concat().into()
}

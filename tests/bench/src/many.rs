//! Accepting with 100,000 subscriptions, in turns with accepting with one: subscriptions that do not match must cost
//! nothing.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use crate::event::FILES_FILTER;
use crate::ledger::Fan;
use crate::percentile::Latency;
use crate::producer::{Pace, Sent};
use crate::report::{MIB, Row};
use crate::sink::Gate;
use crate::stage::{Settings, Stage};

/// How many subscriptions do not match, beside the one that does.
const OTHERS: usize = 99_999;
/// How often both take turns.
const TURNS: u32 = 4;
/// How many subscriptions are created one by one, to measure the time.
const TIMED: usize = 100;
/// How long a server idles before its memory is read.
const SETTLED: Duration = Duration::from_secs(4);
/// More than a server accepts in a second.
const PER_SECOND_MAX: usize = 80_000;

/// The form of the subscriptions' filters; nothing matches the n-th.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// Equality on one attribute.
    Equal,
    /// Two conditions on one row of the data.
    Two,
    /// The same in jsonpath2.
    Jsonpath2,
}

impl Form {
    fn filter(self) -> fn(usize) -> String {
        match self {
            Self::Equal => |n| format!("$[?$.eventType=='other-{n}']"),
            Self::Two => {
                |n| format!("$.data[?@.destinationTable=='TransactionKeyValue' && @.key=='other-{n}']")
            }
            Self::Jsonpath2 => |n| {
                format!(
                    r#"$["data"][*][?(@["destinationTable"]="TransactionKeyValue" and @["key"]="other-{n}")]"#
                )
            },
        }
    }
}

/// Measures both in turns, while their sinks hold all answers back.
pub(crate) async fn play(name: &str, settings: &Settings, form: Form) -> Result<Row> {
    let seconds = settings.seconds.unwrap_or(8).div_ceil(u64::from(TURNS)).max(1);
    let capacity = PER_SECOND_MAX * usize::try_from(seconds * u64::from(TURNS))?;
    let one = Stage::set(settings, Fan::All(1), capacity, Gate::Held).await?;
    let mut many = Stage::set(settings, Fan::All(1), capacity, Gate::Held).await?;
    one.subscribe(|_| FILES_FILTER.to_owned()).await?;
    many.subscribe(|_| FILES_FILTER.to_owned()).await?;
    let begin = Instant::now();
    many.subscribe_others(OTHERS, form.filter()).await?;
    let created = begin.elapsed();
    let adding = add_one_by_one(&many, form).await?;
    many.kill_server();
    let (_, ready) = many.start_server().await?;
    // Until then the allocator returns the memory that the start has freed.
    sleep(SETTLED).await;
    let each = many.usage()?.rss_bytes.saturating_sub(one.usage()?.rss_bytes) as f64 / OTHERS as f64;

    let before = many.usage()?;
    let mut total = Sent::default();
    let mut ratios = Vec::new();
    for _ in 0..TURNS {
        let pace = Pace::For(Duration::from_secs(seconds));
        let alone = one.load(settings.connections, pace).await?;
        let among = many.load(settings.connections, pace).await?;
        ratios.push(among.per_second() / alone.per_second());
        total.join(among);
    }
    ratios.sort_by(f64::total_cmp);
    let after = many.usage()?;
    many.sink.set(Gate::Open);
    one.sink.set(Gate::Open);
    many.drained().await;
    let mut row = Row::of(name, settings.connections, &many, &total);
    row.used(before, after, total.accepted);
    row.note(format!(
        "accepts {:.2} of the rate with one subscription (median of {TURNS} turns, {:.2} to {:.2})",
        (ratios[1] + ratios[2]) / 2.0,
        ratios[0],
        ratios[3]
    ));
    row.note(format!(
        "{} created in {:.1} s; one more takes p50 {:.2} ms, p99 {:.2} ms; ready {:.2} s after kill -9; RSS {:.1} MiB \
         then, {each:.0} bytes each",
        OTHERS + 1,
        created.as_secs_f64(),
        adding.p50_ms,
        adding.p99_ms,
        ready.as_secs_f64(),
        before.rss_bytes as f64 / MIB,
    ));
    Ok(row)
}

async fn add_one_by_one(stage: &Stage, form: Form) -> Result<Latency> {
    let mut rest = stage.rest().await?;
    let mut nanos = Vec::with_capacity(TIMED);
    for n in 0..TIMED {
        let begin = Instant::now();
        rest.subscribe("one more", &form.filter()(OTHERS + n), &stage.sink.url(0)).await?;
        nanos.push(u64::try_from(begin.elapsed().as_nanos())?);
    }
    Latency::of(nanos).ok_or_else(|| anyhow::anyhow!("nothing was timed"))
}

//! A soak: all kinds of subscriptions and targets at once, kill -9 at random, and a ledger over time.
//!
//! The bench is also the operator: every ten seconds it purges what is older than a minute, and discards what waits for the
//! target that is down, so that what is on disk stays the same. What still grows is a leak.

mod book;
mod kinds;
mod targets;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::book::Book;
use self::kinds::{DOWN, KINDS, PRODUCERS, REFUSING};
use crate::event::equality_filter;
use crate::ledger::{Audit, Fan};
use crate::process::Usage;
use crate::producer::Sent;
use crate::report::{MIB, Row, print_progress};
use crate::rest::Rest;
use crate::sink::Gate;
use crate::stage::{Settings, Stage};

type Shared = Arc<Mutex<Book>>;

/// How often a line is printed, and the operator's work is done.
const TURN: Duration = Duration::from_secs(10);
/// How often memory and file are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How old an event becomes.
const KEPT: Duration = Duration::from_secs(60);
/// How long what is owed may take after the last event.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// How much the last third may have of what the middle one has.
const GROWTH_MAX: f64 = 1.10;
/// A shorter soak says how much has grown, and does not judge it: caches fill, and the first events are not yet purged.
const JUDGED_FROM: Duration = Duration::from_secs(300);

/// Plays it.
pub(crate) async fn play(settings: &Settings) -> Result<Row> {
    let length = settings.seconds.map_or(settings.soak.length, Duration::from_secs);
    let mut stage = Stage::set(settings, Fan::All(0), 0, Gate::Open).await?;
    let (book, mut tasks) = (Shared::default(), JoinSet::new());
    let targets = targets::start(&book, &mut tasks).await?;
    let mut soak = Soak { uuids: subscribe(&stage, targets).await?, book, discarded: 0, has_begun: false };

    let every = Duration::from_secs_f64(PRODUCERS as f64 / f64::from(settings.soak.rate));
    let (address, at) = watch::channel(stage.address()?);
    let (end, ends) = watch::channel(false);
    for number in 0..PRODUCERS {
        let book = Arc::clone(&soak.book);
        tasks.spawn(targets::produce(number, every, book, at.clone(), ends.clone()));
    }
    let (begun, idle, mut samples, mut kills) = (Instant::now(), stage.usage()?, Vec::new(), 0);
    let (mut look, mut turn) = (begun, begun + TURN);
    let mut kill = begun + until_kill(settings.soak.kills);
    while look < begun + length {
        look += LOOK;
        sleep_until(look).await;
        samples.push((stage.usage()?.rss_bytes as f64 / MIB, stage.data_bytes()? as f64 / MIB));
        if Instant::now() >= kill {
            stage.kill_server();
            stage.start_server().await?;
            address.send_replace(stage.address()?);
            kill = Instant::now() + until_kill(settings.soak.kills);
            kills += 1;
        }
        if Instant::now() >= turn {
            soak.operate(&stage).await?;
            print_progress(&soak.line(&stage, begun.elapsed()).await?);
            turn += TURN;
        }
    }
    end.send_replace(true);
    let took = begun.elapsed();
    let waiting = soak.drain(&stage).await?;
    soak.row(&stage, &Measured { took, idle, samples: &samples, kills, waiting: &waiting })
}

/// A filter that matches all that is sent, and nothing that Waypost tells its operators.
const EVENTS: &str = "$[?!match($.type, 'io[.]waypost[.].*')]";

/// Creates the subscriptions; returns their UUIDs.
async fn subscribe(stage: &Stage, targets: SocketAddr) -> Result<Vec<String>> {
    let (mut rest, mut uuids) = (stage.rest().await?, Vec::new());
    let probe = std::fs::read(waypost_guests::PROBE).context("failed to read the probe")?;
    let digest = rest.upload(probe.into()).await?;
    for (place, kind) in KINDS.iter().enumerate() {
        let filter = kind.of.map_or(EVENTS.to_owned(), |producer| equality_filter(producer, PRODUCERS));
        let mut wanted = kind.members(&digest);
        wanted["name"] = kind.name.into();
        wanted["jsonpath"] = filter.into();
        wanted["target_url"] = format!("http://{targets}/{place}").into();
        uuids.push(rest.create(wanted).await?);
    }
    Ok(uuids)
}

/// Returns how long until the next kill: half to one and a half times the mean.
fn until_kill(mean: Duration) -> Duration {
    if mean.is_zero() {
        return Duration::from_secs(u64::from(u32::MAX));
    }
    mean.mul_f64(0.5 + (targets::random() % 1_000) as f64 / 1_000.0)
}

struct Soak {
    uuids: Vec<String>,
    book: Shared,
    /// How many deliveries ended jobs have discarded.
    discarded: u64,
    /// Whether one was begun.
    has_begun: bool,
}

impl Soak {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no target panics")
    }

    /// Purges what is old, and discards what waits for the target that is down.
    async fn operate(&mut self, stage: &Stage) -> Result<()> {
        let mut rest = stage.rest().await?;
        rest.purge(KEPT).await?;
        let path = format!("/eventmatch/{}/discard", self.uuids[DOWN]);
        for state in ["pending", "retrying"] {
            if !self.has_begun || self.ended(&mut rest, &path).await? {
                let wanted = json!({"state": state, "reason": "the target is down for good"});
                rest.begin(&path, wanted).await?;
                self.has_begun = true;
            }
        }
        Ok(())
    }

    /// Waits a while for the last job's end, and counts what it has discarded.
    async fn ended(&mut self, rest: &mut Rest, path: &str) -> Result<bool> {
        let waited = timeout(TURN / 2, async {
            loop {
                let job = rest.json(path).await?;
                if job["state"] != "running" {
                    return anyhow::Ok(job);
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        let Ok(job) = waited.await else { return Ok(false) };
        let job = job?;
        self.discarded += job["changed"].as_u64().context("a job without numbers")?;
        Ok(true)
    }

    /// Returns how many deliveries of each subscription are in each state.
    async fn counts(&self, stage: &Stage) -> Result<Vec<Value>> {
        let (mut rest, mut all) = (stage.rest().await?, Vec::new());
        for uuid in &self.uuids {
            all.push(rest.json(&format!("/eventmatch/{uuid}/deliveries?limit=1")).await?["counts"].take());
        }
        Ok(all)
    }

    /// Returns the line of a turn.
    async fn line(&self, stage: &Stage, since: Duration) -> Result<String> {
        let waiting: Vec<u64> = self.counts(stage).await?.iter().map(waiting).collect();
        let most = (0..KINDS.len()).max_by_key(|place| waiting[*place]).map_or("", |place| KINDS[place].name);
        let waiting: u64 = waiting.iter().sum();
        let (usage, file) = (stage.usage()?, stage.data_bytes()?);
        let book = self.book();
        let (accepted, arrived): (u64, u64) = (book.accepted.iter().sum(), book.arrived.iter().sum());
        Ok(format!(
            "{:>5} s: accepted {accepted}, delivered {}, dead {}, discarded {}, waiting {waiting} (most: {most}), repeated {}, RSS {:.1} MiB, \
             file {:.1} MiB",
            since.as_secs(),
            arrived - book.arrived[REFUSING],
            book.arrived[REFUSING],
            self.discarded,
            book.repeated,
            usage.rss_bytes as f64 / MIB,
            file as f64 / MIB,
        ))
    }

    /// Waits for what is owed; returns how many deliveries of each subscription still wait.
    async fn drain(&mut self, stage: &Stage) -> Result<Vec<u64>> {
        let end = Instant::now() + DRAIN_MAX;
        loop {
            let counts = self.counts(stage).await?;
            let waiting: Vec<u64> = counts.iter().map(waiting).collect();
            let is_over = waiting.iter().enumerate().all(|(place, waiting)| place == DOWN || *waiting == 0);
            if Instant::now() >= end || (is_over && self.book().owed() == 0) {
                let mut rest = stage.rest().await?;
                let path = format!("/eventmatch/{}/discard", self.uuids[DOWN]);
                let ended = !self.has_begun || self.ended(&mut rest, &path).await?;
                ensure!(ended, "a job does not end");
                return Ok(self.counts(stage).await?.iter().map(self::waiting).collect());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What a soak has measured.
struct Measured<'a> {
    took: Duration,
    idle: Usage,
    /// Memory and file size, each second, in MiB.
    samples: &'a [(f64, f64)],
    kills: u32,
    /// How many deliveries of each subscription wait at the end.
    waiting: &'a [u64],
}

impl Soak {
    /// Returns the result: the ledger of each kind, and what has grown.
    fn row(&self, stage: &Stage, measured: &Measured<'_>) -> Result<Row> {
        let book = self.book();
        let accepted: u64 = book.accepted.iter().sum();
        let sent = Sent {
            ended: measured.took,
            accepted: usize::try_from(accepted)?,
            refused: usize::try_from(book.refused)?,
            broken: usize::try_from(book.unanswered.iter().sum::<u64>())?,
            ..Sent::default()
        };
        let mut row = Row::of("soak", PRODUCERS, stage, &sent);
        (row.crashed, row.paced) = (true, true);
        row.used(measured.idle, stage.usage()?, sent.accepted);
        row.note(format!("{} kills; accepted {accepted}, not answered {}", measured.kills, sent.broken));
        let mut lost = book.owed();
        for (place, kind) in KINDS.iter().enumerate() {
            let of = |numbers: &[u64; PRODUCERS]| -> u64 {
                kind.of.map_or(numbers.iter().sum(), |of| numbers[of])
            };
            let (owed, maybe) = (of(&book.accepted), of(&book.unanswered));
            let (name, waiting) = (kind.name, measured.waiting[place]);
            let ended = if place == DOWN { self.discarded } else { book.arrived[place] };
            let end = match place {
                DOWN => "discarded",
                REFUSING => "delivered or dead",
                _ => "delivered",
            };
            // What waits there has a target that will not have it: it is no end, and no loss.
            let missing = owed.saturating_sub(ended + waiting);
            if place == DOWN {
                lost += missing;
            }
            row.note(format!("{name}: accepted {owed} (and up to {maybe}) = {end} {ended} + waiting {waiting} + lost {missing}"));
            ensure!(ended + waiting <= owed + maybe, "{name}: more than was sent");
        }
        let audit = Audit {
            lost: usize::try_from(lost)?,
            repeated: usize::try_from(book.repeated)?,
            renamed: usize::try_from(book.renamed)?,
            strays: usize::try_from(book.strays)?,
        };
        row.arrived(usize::try_from(book.arrived.iter().sum::<u64>())?, audit);
        if book.altered > 0 {
            row.fail(format!("{} deliveries of plugins had not the event's data", book.altered));
        }
        if book.miscounted() > 0 {
            row.fail(format!("a plugin's state counted {} events twice, or not at all", book.miscounted()));
        }
        if book.disordered > 0 {
            row.fail(format!("{} events came after a newer one of their key", book.disordered));
        }
        let memory: Vec<_> = measured.samples.iter().map(|(memory, _)| *memory).collect();
        let file: Vec<_> = measured.samples.iter().map(|(_, file)| *file).collect();
        for (name, samples) in [("RSS", memory), ("file", file)] {
            let (middle, last) = thirds(&samples);
            let text = format!(
                "{name}: {last:.1} MiB in the last third, {middle:.1} in the middle one: {:.2}",
                last / middle
            );
            if last / middle > GROWTH_MAX && measured.took >= JUDGED_FROM {
                row.fail(format!("{text}, more than {GROWTH_MAX}"));
            } else {
                row.note(text);
            }
        }
        Ok(row)
    }
}

/// Returns the means of the middle and the last third.
fn thirds(samples: &[f64]) -> (f64, f64) {
    let third = (samples.len() / 3).max(1);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let last = samples.len().saturating_sub(third);
    (mean(&samples[last.saturating_sub(third)..last]), mean(&samples[last..]))
}

fn waiting(counts: &Value) -> u64 {
    ["pending", "retrying", "held"].iter().filter_map(|state| counts[state].as_u64()).sum()
}

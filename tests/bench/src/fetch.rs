//! A handler between a cart and an ingest service, in turns with `tar` and `sha1sum` on the same files.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::time::sleep;

use crate::depot::Depot;
use crate::event::with_data;
use crate::files::Files;
use crate::ledger::Fan;
use crate::producer::Sent;
use crate::report::{MIB, Row};
use crate::rest::Rest;
use crate::sink::Gate;
use crate::stage::{Settings, Stage, free_bytes};
use crate::tools::{self, Measured, Took};

/// How often both take turns.
const TURNS: usize = 3;
const LOOK: Duration = Duration::from_millis(50);
const RUN_MAX: Duration = Duration::from_secs(600);
/// The program does nearly nothing: it moves what was fetched into its output.
const PROGRAM: &str = r#"command = ["sh", "-c", "mv download/* output/"]"#;

/// How long one run took, and its parts.
struct Ours {
    took: Duration,
    fetch: Duration,
    program: Duration,
    /// From the first byte at the ingest service to the last.
    upload: Duration,
    bytes: u64,
}

/// Plays the scenario.
pub(crate) async fn play(settings: &Settings) -> Result<Row> {
    let files = Files::new(settings.files, settings.mebibytes << 20);
    ensure!(
        free_bytes(&settings.data_dir)? > 4 * files.bytes(),
        "less than four times --mebibytes is free on the disk"
    );
    let depot = Depot::start(files.clone())?;
    let config = format!("[[handler]]\nname = \"bench\"\nfilter = \"$\"\n{PROGRAM}\n{}", depot.toml());
    let stage = Stage::configured(settings, Fan::All(0), TURNS, Gate::Open, &config).await?;
    stage.forget_peak()?;
    let (before, started) = (stage.usage()?, stage.ledger.now());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let (measured, folder) = (files.clone(), settings.data_dir.clone());
        let measured = tokio::task::spawn_blocking(move || tools::measure(&measured, &folder)).await??;
        let event = with_data(&format!("fetch-{turn}"), files.rows(&measured.sums));
        theirs.push(measured);
        rustix::fs::sync();
        // One connection for each turn: the server would close it while the tools run.
        let mut rest = stage.rest().await?;
        let id = rest.receive(&event).await?;
        ours.push(run(&stage, &mut rest, &depot, &id).await?);
    }
    let after = stage.usage()?;
    let sent = Sent { started, ended: stage.ledger.now(), accepted: TURNS, ..Sent::default() };
    let mut row = Row::of("handler-fetch", 1, &stage, &sent);
    row.paced = true;
    row.used(before, after, TURNS);
    row.ran(ours.len(), sent.ended - sent.started);
    explain(&mut row, &files, &ours, &theirs);
    let more = after.peak_rss_bytes.saturating_sub(before.rss_bytes) as f64 / MIB;
    row.note(format!("RSS {:.1} MiB idle, at most {more:.1} MiB more", before.rss_bytes as f64 / MIB));
    Ok(row)
}

/// Waits for a run's end and reads its story.
async fn run(stage: &Stage, rest: &mut Rest, depot: &Depot, id: &str) -> Result<Ours> {
    let begin = Instant::now();
    loop {
        let status = rest.json(&format!("/status/{id}")).await?;
        match status.as_str().unwrap_or_default() {
            "200 OK" => break,
            "202 Accepted" | "102 Processing" => sleep(LOOK).await,
            status => bail!("the run ended with {status}; the server's log: {}", stage.log()),
        }
        ensure!(begin.elapsed() < RUN_MAX, "the run does not end; the server's log: {}", stage.log());
    }
    let story = rest.json(&format!("/events/{id}")).await?;
    let attempt = &story["deliveries"][0]["attempts"][0];
    let took = |value: &Value| {
        let took = value["took_ms"].as_u64().with_context(|| format!("no `took_ms` in {value}"));
        took.map(Duration::from_millis)
    };
    let upload = depot.take_upload().context("nothing was uploaded")?;
    Ok(Ours {
        took: took(attempt)?,
        fetch: took(&attempt["run"]["fetched"])?,
        program: took(&attempt["run"]["program"])?,
        upload: upload.last - upload.first,
        bytes: upload.bytes,
    })
}

/// Adds notes on all turns, and on the comparison.
fn explain(row: &mut Row, files: &Files, ours: &[Ours], theirs: &[Measured]) {
    let turns: Vec<_> = ours.iter().zip(theirs).collect();
    let fetches = turns.iter().map(|(ours, theirs)| (ours.fetch, &theirs.fetch));
    row.note(format!("fetch of {}", compare(files, &fetches.collect::<Vec<_>>())));
    let uploads = turns.iter().map(|(ours, theirs)| (ours.upload, &theirs.upload));
    row.note(format!("upload of {}", compare(files, &uploads.collect::<Vec<_>>())));
    let both = |theirs: &Measured| seconds(theirs.fetch.in_turn + theirs.upload.in_turn);
    let whole = middle(turns.iter().map(|(ours, theirs)| both(theirs) / seconds(ours.took)));
    let rest = middle(ours.iter().map(|ours| seconds(ours.took - ours.fetch - ours.program - ours.upload)));
    row.note(format!(
        "the whole run {:.2} s, {whole:.2} of both tools for both ways: besides the two, {:.2} s for the program and \
         {rest:.2} s for what no tool does, mostly making the output durable before its upload",
        middle(ours.iter().map(|ours| seconds(ours.took))),
        middle(ours.iter().map(|ours| seconds(ours.program))),
    ));
    if ours.iter().any(|ours| ours.bytes < files.bytes()) {
        row.note("a bundle was smaller than its files".to_owned());
        row.audit.lost += 1;
    }
}

/// Compares the times in one direction.
fn compare(files: &Files, times: &[(Duration, &Took)]) -> String {
    let mebibytes = files.bytes() as f64 / MIB;
    let against = |pick: fn(&Took) -> Duration| {
        middle(times.iter().map(|(ours, theirs)| seconds(pick(theirs)) / seconds(*ours)))
    };
    format!(
        "{mebibytes:.0} MiB in {} files: {:.0} MiB/s, {:.2} of tar and sha1sum one after the other ({:.0} MiB/s), {:.2} \
         of both at once (medians of {TURNS} turns)",
        files.count(),
        middle(times.iter().map(|(ours, _)| mebibytes / seconds(*ours))),
        against(|took| took.in_turn),
        middle(times.iter().map(|(_, theirs)| mebibytes / seconds(theirs.in_turn))),
        against(|took| took.at_once),
    )
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64().max(1e-3)
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

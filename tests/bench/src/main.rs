//! The load harness: `cargo run --release -p waypost-bench -- SCENARIO…`; README.md says how to read its table.
//!
//! It starts the release binary on a fresh folder, and acts as the producers and the sink. Before and after each scenario
//! it measures the limits of the machine (a bare hyper echo, grouped fsync): on a machine whose speed changes, ratios say
//! more than rates. It fails unless every accepted event arrived exactly as often as it should. It uses Waypost only
//! from outside.

mod backlog;
mod depot;
mod event;
mod fetch;
mod files;
mod handlers;
mod ledger;
mod many;
mod memory;
mod percentile;
mod plugins;
mod process;
mod producer;
mod recovery;
mod reference;
mod report;
mod rest;
mod safety;
mod scenario;
mod sink;
mod soak;
mod stage;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::reference::{ECHO_COMMAND, Echo};
use crate::report::Row;
use crate::scenario::Scenario;
use crate::stage::{Settings, SoakSettings};

/// Measures Waypost end to end on this machine, as figures and as ratios to what the machine can do at all.
#[derive(Parser)]
#[command(name = "waypost-bench", version)]
struct Args {
    /// What to measure, in this order
    #[arg(required = true, value_enum)]
    scenarios: Vec<Scenario>,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
    /// How long the producers send [default: 8, latency: 20]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: Option<u64>,
    /// How many connections the producers have (latency has one)
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// How often to play all scenarios, one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// How many events memory sends in each of its two parts, and how many wait in backlog
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    events: u32,
    /// How long a soak takes; --seconds makes it shorter
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// How many events a second a soak sends
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(16..=50_000))]
    rate: u32,
    /// How many seconds are between two kills of a soak, on average; 0 kills never
    #[arg(long, default_value_t = 60)]
    kills: u32,
    /// How large the file is when recovery kills the server
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=20))]
    gigabytes: u64,
    /// How many files handler-fetch fetches
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=3000))]
    files: u32,
    /// How many mebibytes they have together
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=20_480))]
    mebibytes: u32,
    /// The binary to measure [default: target/release/waypost, built when it is missing]
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where data folders are made, and where fsync is measured [default: the system's folder for temporary files]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// One more argument for `waypost serve`; may be given several times
    #[arg(long, allow_hyphen_values = true)]
    server_arg: Vec<String>,
}

#[expect(clippy::print_stderr, reason = "an error's chain is printed once, here")]
fn main() -> ExitCode {
    let outcome = if std::env::args().nth(1).is_some_and(|first| first == ECHO_COMMAND) {
        reference::serve_echo(|address| report::print_line(&format!("listening on http://{address}")))
            .map(|()| true)
    } else {
        run(Args::parse())
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Plays the scenarios; returns `true` if everything arrived as it should.
fn run(args: Args) -> Result<bool> {
    let data_dir = args.data_dir.unwrap_or_else(std::env::temp_dir);
    ensure!(
        !stage::is_in_memory(&data_dir),
        "{} is in memory: give a --data-dir on a disk",
        data_dir.display()
    );
    let settings = Settings {
        binary: args.binary.map_or_else(find_binary, Ok)?,
        data_dir,
        server_args: args.server_arg,
        connections: usize::from(args.connections),
        seconds: args.seconds,
        events: usize::try_from(args.events)?,
        gigabytes: args.gigabytes,
        files: usize::try_from(args.files)?,
        mebibytes: usize::try_from(args.mebibytes)?,
        soak: SoakSettings {
            length: Duration::from_secs(args.minutes * 60),
            rate: args.rate,
            kills: Duration::from_secs(args.kills.into()),
        },
    };
    let plan = Scenario::expand(&args.scenarios).repeat(usize::from(args.rounds));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(async {
        // A signal drops the scenario, which ends its processes and removes its folders.
        tokio::select! {
            rows = play_all(&plan, &settings) => rows,
            interrupted = interrupted() => interrupted.and_then(|()| bail!("interrupted")),
        }
    })?;
    if args.json {
        report::print_json(&rows)?;
    } else {
        report::print_table(&rows);
    }
    Ok(rows.iter().all(Row::passed))
}

async fn play_all(plan: &[Scenario], settings: &Settings) -> Result<Vec<Row>> {
    let echo = Echo::start().await?;
    let mut rows: Vec<Row> = Vec::new();
    let mut before = echo.measure(settings.connections, &settings.data_dir).await?;
    for scenario in plan {
        let played = Box::pin(scenario.play(settings, &echo)).await;
        let mut row = played.with_context(|| format!("{scenario:?} failed"))?;
        let after = echo.measure(settings.connections, &settings.data_dir).await?;
        row.compare(before.mean(after));
        if *scenario == Scenario::OneOf1000
            && let Some(yardstick) = rows.iter().rfind(|row| row.scenario == "fanout1")
        {
            row.relate(yardstick);
        }
        rows.push(row);
        before = after;
    }
    Ok(rows)
}

async fn interrupted() -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _received = interrupt.recv() => Ok(()),
        _received = terminate.recv() => Ok(()),
        _received = hangup.recv() => Ok(()),
    }
}

/// Returns the release binary beside this program's, and builds it first if it is missing.
fn find_binary() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(|target| PathBuf::from(target).join("release"));
    let beside = std::env::current_exe()?.parent().map(Path::to_path_buf);
    let folder = target.or(beside).context("no folder to look for the binary in")?;
    let binary = folder.join("waypost");
    if !binary.exists() {
        let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let built = Command::new("cargo")
            .args(["build", "--release", "-p", "waypost-cli"])
            .current_dir(workspace)
            .status();
        ensure!(
            built.context("failed to start cargo")?.success(),
            "cargo build --release -p waypost-cli failed"
        );
    }
    binary
        .exists()
        .then_some(binary)
        .ok_or_else(|| anyhow!("no waypost in {}: give --binary", folder.display()))
}

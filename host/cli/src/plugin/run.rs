//! `waypost plugin run`: runs a plugin on one event, without a server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use waypost_domain::plugin::{StateMap, Verdict};
use waypost_sandbox::CallResult;

use super::grants::Grants;
use super::state::{self, StateJson};
use super::trial::{Delivery, Trial, USER, told};
use super::{given, shown, units};
use crate::{EXIT_USAGE, print};

/// Run a plugin on an event, and show what it did
///
/// The plugin runs locally, in the server's sandbox and with the server's default limits and rules: policy, filter and
/// transform, as far as it exports them. Nothing is sent. Over HTTP it reaches only what the flags here allow. Exits
/// with 0 when the event would be delivered, with 1 when it would be skipped or denied, and with 2 when the plugin
/// fails or cannot be run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The component, a .wasm file
    file: PathBuf,
    /// The event: a file with its JSON, `-` for stdin, or the JSON itself
    #[arg(long)]
    event: String,
    /// The plugin's configuration: a file with a JSON object, `-` for stdin, or the object itself
    #[arg(long)]
    config: Option<String>,
    /// The owner of the subscription
    #[arg(long, value_name = "USER", default_value = USER)]
    user: String,
    /// Run it this many times, each time from the same state, and show how long the calls took
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    #[command(flatten)]
    grants: Grants,
    /// Keep its state in this JSON file, which is read before the run, and written after it unless the plugin failed
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  waypost plugin run filter.wasm --event event.json --config '{\"smallest\": 10}'
  waypost plugin run filter.wasm --event event.json --repeat 1000
  waypost plugin run once.wasm --event event.json --state state.json && echo first
  curl -s localhost:8070/events/ID | jq .event | waypost plugin run filter.wasm --event -";

/// How long the calls took.
struct Times {
    min: Duration,
    median: Duration,
    p99: Duration,
}

impl Times {
    /// Orders the times of at least one call.
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        Self { min: times[0], median: at(50), p99: at(99) }
    }
}

/// Runs the plugin. An error that keeps it from running exits with 2 as well, as the help says.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match try_run(&arguments).await {
        Err(error) if !error.is::<print::Error>() => {
            print::notice(&format!("error: {error:#}"));
            Ok(ExitCode::from(EXIT_USAGE))
        }
        ended => ended,
    }
}

async fn try_run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let event = given::event(&arguments.event)?;
    let config = given::config(arguments.config.as_deref())?;
    let kept = arguments.state.as_deref().map_or_else(|| Ok(StateJson::default()), StateJson::read)?;
    let mut state = kept.map()?;
    let trial = Trial::open(&arguments.file, &arguments.grants).await?;
    let problems = trial.problems(&config).await.map_err(anyhow::Error::msg)?;
    if !problems.is_empty() {
        anyhow::bail!("{}", told(&problems));
    }
    let delivery = Delivery {
        event,
        config,
        user: arguments.user.clone(),
        allow_hosts: arguments.grants.hosts.clone(),
        state: Arc::new(state.clone()),
        now: None,
    };
    let first = trial.run(&delivery).await;
    let mut times = vec![first.run.took];
    for _ in 1..arguments.repeat {
        times.push(trial.run(&delivery).await.run.took);
    }
    keep(arguments, &first, &mut state)?;
    let times = (arguments.repeat > 1).then(|| Times::of(times));
    show(arguments, &trial, &first, times)?;
    Ok(shown::exit_code(&first.run.verdict))
}

/// Writes the state after a call. A failed call has changed nothing.
fn keep(arguments: &Arguments, ran: &CallResult, state: &mut StateMap) -> anyhow::Result<()> {
    let Some(path) = &arguments.state else { return Ok(()) };
    if matches!(ran.run.verdict, Verdict::Failed(_)) {
        return Ok(());
    }
    state::apply(state, ran.state.changes());
    StateJson::of(state).write(path)
}

fn show(arguments: &Arguments, trial: &Trial, ran: &CallResult, times: Option<Times>) -> anyhow::Result<()> {
    if arguments.json {
        let mut shown = serde_json::to_value(shown::json(ran))?;
        shown["granted"] = json!(arguments.grants.shown());
        if let Some(Times { min, median, p99 }) = times {
            let [min, median, p99] = [min, median, p99].map(units::milliseconds);
            shown["calls"] =
                json!({"count": arguments.repeat, "min_ms": min, "median_ms": median, "p99_ms": p99});
        }
        return print::json(&shown);
    }
    let mut text = shown::text(ran, &trial.sandbox.limits);
    if let Some(granted) = arguments.grants.shown() {
        text.push_str(&format!("granted   {granted}\n"));
    }
    if let Some(Times { min, median, p99 }) = times {
        let [min, median, p99] = [min, median, p99].map(units::time);
        text.push_str(&format!("{} calls: min {min}, median {median}, p99 {p99}\n", arguments.repeat));
    }
    print::text(&text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ordered_by_their_rank() {
        let times = Times::of((1..=200).rev().map(Duration::from_micros).collect());
        let micros = [times.min, times.median, times.p99].map(|time| time.as_micros());
        assert_eq!(micros, [1, 100, 198]);
        let one = Times::of(vec![Duration::from_micros(7)]);
        assert_eq!((one.min, one.median, one.p99), (one.min, one.min, one.min));
    }
}

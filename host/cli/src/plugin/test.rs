//! `waypost plugin test`: runs case files against a module, without a server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use waypost_domain::plugin::Verdict;
use waypost_runtime::foreign;
use waypost_sandbox::CallResult;

use super::case::{self, Case};
use super::grants::Grants;
use super::trial::{Delivery, Trial, told};
use super::{compare, shown, state};
use crate::print;

/// Run case files: events, and what a plugin is expected to do with them
///
/// A case file holds one case, or a JSON array of cases. Each runs in the server's sandbox, with the server's default
/// limits and rules. A case that asks for hosts fails unless --allow-host grants them. Exits with 0 when all cases
/// pass, and with 1 when one fails or cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The component, a .wasm file
    file: PathBuf,
    /// The case files
    #[arg(required = true)]
    cases: Vec<PathBuf>,
    #[command(flatten)]
    grants: Grants,
}

const HELP: &str = r#"A case:
  {"name": "small files are skipped", "config": {"smallest": 10},
   "event": {"specversion": "1.0", "id": "1", "source": "/me", "type": "file", "data": {"size": 5}},
   "expect": {"verdict": "skipped", "reason": "size 5 < 10"}}

A case may also have `user`, `allow_hosts` (each must be granted by `--allow-host`), `state` (an
object: texts, whole numbers, {"base64": …}) and `now` (a time). To run several events with one
state, replace `event` and `expect` with `"steps": [{"event", "expect", "now"}, …]`.

`expect` has verdict (deliver, skipped, denied, transformed or failed), reason, outputs and logs.
What is left out is not compared; the same holds for outputs and log lines. With a configuration
that a server would refuse, the plugin runs only if the first verdict expected is `failed`.
Outputs and log lines:
  "outputs": [{"event": {"type": "file.big"}},
              {"raw": {"content_type": "text/plain", "body": "big"}}],
  "logs": [{"level": "info", "message": "looked"}]

Example:
  waypost plugin test filter.wasm cases.json"#;

/// Runs the cases.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut cases = Vec::new();
    for file in &arguments.cases {
        cases.extend(case::read(file)?);
    }
    let trial = Trial::open(&arguments.file, &arguments.grants).await?;
    if let Some(granted) = arguments.grants.shown() {
        print::line(format_args!("granted {granted}"))?;
    }
    let (all, mut failed) = (cases.len(), 0);
    for case in cases {
        let name = case.name.clone();
        let why = match arguments.grants.refuse(&case.allow_hosts) {
            Some(refused) => Some(refused),
            None => failure(&trial, case).await,
        };
        match why {
            None => print::line(format_args!("ok      {name}"))?,
            Some(why) => {
                failed += 1;
                print::line(format_args!("FAILED  {name}"))?;
                why.lines().try_for_each(|line| print::line(format_args!("        {line}")))?;
            }
        }
    }
    let cases = if all == 1 { "case" } else { "cases" };
    print::line(format_args!("{all} {cases}: {} passed, {failed} failed", all - failed))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one case up to its first difference, and returns that.
async fn failure(trial: &Trial, case: Case) -> Option<String> {
    if !case.expects_failure() {
        match trial.problems(&case.config).await {
            Ok(problems) if problems.is_empty() => {}
            Ok(problems) => return Some(told(&problems)),
            Err(reason) => return Some(reason),
        }
    }
    let (several, mut kept) = (case.steps.len() > 1, Arc::unwrap_or_clone(case.state));
    for (index, step) in case.steps.into_iter().enumerate() {
        let delivery = Delivery {
            event: step.event,
            config: case.config.clone(),
            user: case.user.clone(),
            allow_hosts: case.allow_hosts.clone(),
            state: Arc::new(kept.clone()),
            now: step.now,
        };
        let ran = trial.run(&delivery).await;
        if let Some(difference) = compare::difference(&step.expect, &ran) {
            let place = if several { format!("step {}: ", index + 1) } else { String::new() };
            return Some(told_difference(&place, &difference, &ran));
        }
        if !matches!(ran.run.verdict, Verdict::Failed(_)) {
            state::apply(&mut kept, ran.state.changes());
        }
    }
    None
}

/// Writes a difference, with what helps to find out why.
fn told_difference(place: &str, difference: &str, ran: &CallResult) -> String {
    let mut out = format!("{place}- expected, + found\n{difference}");
    if let Some(reason) = shown::reason(&ran.run.verdict) {
        out.push_str(&format!("reason    {}\n", foreign::continued(&reason, "          ")));
    }
    shown::said(&mut out, "", &ran.run);
    out
}

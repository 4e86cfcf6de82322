//! `waypost plugin check`: shows what an upload would answer, without a server.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use waypost::http::show_report;
use waypost_runtime::chain;
use waypost_runtime::foreign;
use waypost_sandbox::Refused;

use super::grants::Grants;
use super::report;
use super::trial::{self, Sandbox};
use crate::{input, print};

/// Show what an upload would answer: exports, imports, size, compile time
///
/// Exits with 0 when a server would accept the plugin; otherwise prints the reason and exits with 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost plugin check filter.wasm
  waypost plugin check filter.wasm --json | jq .exports")]
pub(crate) struct Arguments {
    /// The component, a .wasm file
    file: PathBuf,
    /// Print JSON: the report as `POST /plugins` answers it, or `refused` and, where there is one, `report`
    #[arg(long)]
    json: bool,
}

/// Checks the file.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let wasm = trial::read(&arguments.file)?;
    let (report, refused) = match Sandbox::new(&Grants::default())?.admit(wasm).await {
        Ok(report) => (Some(show_report(&report, None)), None),
        Err(refused) => {
            let report = match &refused {
                Refused::DoesNotFit { report, .. } => Some(show_report(report, None)),
                Refused::NotAComponent(_)
                | Refused::TooLarge { .. }
                | Refused::Precompiled
                | Refused::Invalid(_)
                | Refused::TooExpensive(_)
                | Refused::SchemaTooExpensive(_)
                | Refused::TriedLately { .. }
                | Refused::DoesNotLoad(_)
                | Refused::DoesNotStart(_)
                | Refused::Metadata(_)
                | Refused::Host(_) => None,
            };
            (report, Some(chain::text(&refused)))
        }
    };
    if arguments.json {
        let shown = match &refused {
            None => json!(report),
            Some(reason) => json!({"refused": reason, "report": report}),
        };
        print::json(&shown)?;
    } else if let Some(report) = report {
        print::text(&report::text(&report))?;
    }
    let Some(reason) = refused else { return Ok(ExitCode::SUCCESS) };
    if !arguments.json {
        print::notice(&format!(
            "error: {} is refused: {}",
            input::name(&arguments.file),
            foreign::line(&reason)
        ));
    }
    Ok(ExitCode::FAILURE)
}

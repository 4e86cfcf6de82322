//! `waypost match`: tries a filter without a server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::Value;
use waypost::matching::Filter;

use crate::cli::{EXIT_USAGE, input, print};

/// Try a filter on an event, and print the nodes it finds
///
/// One JSON value a line. Ends with 0 when there is a node, so that the event would match, 1 when there is none, and
/// 2 when the expression is wrong or there is no JSON to try it on.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The filter, a JSONPath (RFC 9535)
    #[arg(value_name = "EXPR")]
    expression: String,
    /// The event, or any other JSON; `-` for stdin
    #[arg(default_value = "-")]
    file: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  waypost match '$.data.files[*].name' event.json
  waypost match '$[?@.type == \"hello\"]' < event.json && echo matches";

/// Prints the nodes.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let filter = match Filter::parse(&arguments.expression) {
        Ok(filter) => filter,
        Err(error) => {
            print::notice(&format!("error: {error}\n{}", error.caret(&arguments.expression)));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    // As with grep, 1 is an answer and not a failure.
    let value = match read(&arguments.file) {
        Ok(value) => value,
        Err(error) => {
            print::notice(&format!("error: {error:#}"));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let nodes = filter.find(&value);
    for node in &nodes {
        print::line(node)?;
    }
    Ok(if nodes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let json = input::read(file)?;
    serde_json::from_slice(&json).with_context(|| format!("{} is not JSON", input::name(file)))
}

//! `waypost match`: tries a filter without a server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use waypost::matching::{Document, Filter};

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
    let filter = match Filter::parse(&arguments.expression, waypost::domain::FilterDialect::Auto) {
        Ok(filter) => filter,
        Err(error) => {
            print::notice(&format!("error: {error}\n{}", error.caret(&arguments.expression)));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    // As with grep, 1 is an answer and not a failure.
    let nodes = match find(&filter, &arguments.file) {
        Ok(nodes) => nodes,
        Err(error) => {
            print::notice(&format!("error: {error:#}"));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    for node in &nodes {
        print::line(node)?;
    }
    Ok(if nodes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn find(filter: &Filter, file: &Path) -> anyhow::Result<Vec<String>> {
    let json = input::read(file)?;
    let event = Document::parse(&json).with_context(|| format!("{} is not JSON", input::name(file)))?;
    Ok(filter.find(&event)?)
}

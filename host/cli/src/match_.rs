//! `waypost match`: tries a filter without a server.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use waypost_domain::FilterDialect;
use waypost_domain::json::check_depth;
use waypost_matching::{Document, Filter};
use waypost_runtime::foreign;

use crate::{EXIT_USAGE, explanation, input, print};

/// Try a filter on an event, and print the nodes it finds
///
/// Prints one JSON value per line. Exits with 0 when the filter finds a node, so that the event would match; with 1
/// when it finds none; and with 2 when the expression is wrong or too expensive, or the event cannot be read as JSON.
/// Warnings and explanations go to stderr.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The language of the filter; `auto` tells it from the text, as for a subscription
    #[arg(long, value_enum, default_value_t = Dialect::Auto)]
    dialect: Dialect,
    /// Explain step by step what was found, and which condition failed on which values
    #[arg(long)]
    explain: bool,
    /// The filter, a JSONPath
    #[arg(value_name = "EXPR")]
    expression: String,
    /// The event, or any other JSON; `-` for stdin
    #[arg(default_value = "-")]
    file: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  waypost match '$.data.files[*].name' event.json
  waypost match '$.data.files[?@.size > 10]' < event.json && echo matches
  waypost match --explain '$.data.files[*][?(@.size > 10 and @.name = \"a\")]' event.json";

/// The languages of `filter_dialect`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Dialect {
    /// Decided by the filter's text
    Auto,
    /// JSONPath as the IETF defines it
    Rfc9535,
    /// The language of Pacifica's subscriptions
    Jsonpath2,
}

impl From<Dialect> for FilterDialect {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Auto => Self::Auto,
            Dialect::Rfc9535 => Self::Rfc9535,
            Dialect::Jsonpath2 => Self::Jsonpath2,
        }
    }
}

/// Prints the nodes.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let filter = match Filter::parse(&arguments.expression, arguments.dialect.into()) {
        Ok(filter) => filter,
        Err(error) => {
            let sentence = error.to_string();
            let caret = error.caret(&arguments.expression);
            print::notices(&format!("error: {}\n{caret}", foreign::line(&sentence)));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    for warning in filter.warnings() {
        print::notices(&explanation::wrapped(&format!("warning: {}", foreign::line(warning))));
    }
    // As with grep, 1 is an answer and not a failure.
    let nodes = match find(&filter, &arguments) {
        Ok(nodes) => nodes,
        Err(error) => {
            print::notice(&format!("error: {error:#}"));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    for node in &nodes {
        print::json_text(node)?;
    }
    Ok(if nodes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn find(filter: &Filter, arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let file = &arguments.file;
    let json = input::read(file)?;
    check_depth(&json).with_context(|| format!("{} cannot be read", input::name(file)))?;
    let event = Document::parse(&json).with_context(|| format!("{} is not JSON", input::name(file)))?;
    if arguments.explain {
        print::notices(explanation::text(filter, &filter.explain(&event)).trim_end());
    }
    Ok(filter.find(&event)?)
}

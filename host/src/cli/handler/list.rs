//! `waypost handler list`: what would run on what.

use std::process::ExitCode;

use anyhow::Context;
use waypost::handler::fetch::Source;
use waypost::handler::upload::Destination;
use waypost::handler::{self, Definition, Program};

use crate::cli::print;

/// List the handlers in the order in which an event asks them, and check their filters
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    source: super::Source,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.source.load()?;
    handler::routes(&config.handlers).context("the handlers cannot be used")?;
    if config.handlers.is_empty() {
        print::notice("there is no [[handler]] in the configuration");
    }
    for handler in &config.handlers {
        print::text(&show(handler))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(handler: &Definition) -> String {
    let filter = handler
        .filter
        .as_ref()
        .map_or("none".to_owned(), |filter| filter.text.split_whitespace().collect::<Vec<_>>().join(" "));
    let dispatch = if handler.dispatch { format!("/dispatch/{}/…", handler.name) } else { "no".to_owned() };
    let lines = [
        ("filter", filter),
        ("dispatch", dispatch),
        ("runs", program(handler)),
        ("fetches from", source(&handler.source)),
        ("uploads to", destination(&handler.destination)),
    ];
    let lines: String = lines.iter().map(|(name, value)| format!("  {name:<13} {value}\n")).collect();
    format!("{}\n{lines}", handler.name)
}

fn program(handler: &Definition) -> String {
    let words = match &handler.program {
        Program::Component { path, .. } => vec![path.display().to_string()],
        Program::Command { command, .. } => command.clone(),
        Program::Closure(_) => vec!["a closure".to_owned()],
    };
    words.into_iter().chain(handler.arguments.clone()).collect::<Vec<_>>().join(" ")
}

fn source(source: &Source) -> String {
    match source {
        Source::Nothing => "nowhere".to_owned(),
        Source::Local(folder) => folder.display().to_string(),
        Source::Cart { url, .. } => format!("the cart {url}"),
    }
}

fn destination(destination: &Destination) -> String {
    match destination {
        Destination::Nowhere => "nowhere".to_owned(),
        Destination::Local(folder) => folder.display().to_string(),
        Destination::Ingest { url, .. } => format!("the ingest service {url}"),
        Destination::Events { folder, ty } => format!("{} and an event of type {ty}", folder.display()),
    }
}

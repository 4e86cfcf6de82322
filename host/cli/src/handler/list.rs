//! `waypost handler list`: shows which handler would run on which event.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use waypost_domain::json::check_depth;
use waypost_handlers::{self as handler, Definition, Destination, Program, Source};
use waypost_matching::{Document, Filter};
use waypost_runtime::foreign;

use super::deps;
use crate::{input, print};

/// List the handlers in the order in which events are matched, after all checks that a start makes
///
/// Exits with 0 when the service would start with them. A problem that would only show with the first event is a
/// warning.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: super::Source,
    /// Show which of them would run on this event: a JSON file, or `-` for stdin
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.source.load()?;
    let event = arguments.event.as_deref().map(input::read).transpose()?;
    event.as_deref().map(check_depth).transpose().context("the event cannot be read")?;
    let event = event.as_deref().map(Document::parse).transpose().context("the event is not JSON")?;
    if config.handlers.is_empty() {
        print::notice("there is no [[handler]] in the configuration: name its file with --config");
    }
    waypost_net::tls::install_provider();
    let folder = tempfile::tempdir().context("failed to make a folder")?;
    let deps = deps(&config, folder.path());
    let mut taken = None;
    for handler in &config.handlers {
        print::text(&show(handler))?;
        if let Some(event) = &event {
            print::line(format_args!("  {:<13} {}", "this event", verdict(handler, event, &mut taken)?))?;
        }
        for warning in handler.warnings() {
            print::notice(&format!("warning: handler `{}`: {warning}", handler.name));
        }
        handler::check(handler.clone(), &deps).await.context("the service would not start")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says whether a handler would run on an event; `taken` is the first handler that matched it.
fn verdict(handler: &Definition, event: &Document<'_>, taken: &mut Option<String>) -> anyhow::Result<String> {
    let Some(filter) = &handler.filter else { return Ok("does not run: it has no filter".to_owned()) };
    let explanation = Filter::parse(&filter.text, filter.dialect)?.explain(event);
    Ok(match (explanation.matches, &taken) {
        (true, None) => {
            *taken = Some(handler.name.to_string());
            "runs".to_owned()
        }
        (true, Some(first)) => format!("matches, but goes to `{first}`, which comes first"),
        (false, _) => format!("does not match: {}", explanation.reason()),
    })
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
    let line = |(name, value): &(&str, String)| format!("  {name:<13} {}\n", foreign::line(value));
    let lines: String = lines.iter().map(line).collect();
    format!("{}\n{lines}", handler.name)
}

/// Returns a command line, in which words that could be mistaken for several are quoted.
fn program(handler: &Definition) -> String {
    let words = match &handler.program {
        Program::Component { path, .. } => vec![path.display().to_string()],
        Program::Command { command, .. } => command.clone(),
        Program::Closure(_) => vec!["a closure".to_owned()],
    };
    let is_plain =
        |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control());
    let words = words.into_iter().chain(handler.arguments.clone());
    let words = words.map(|word| if is_plain(&word) { word } else { format!("{word:?}") });
    words.collect::<Vec<_>>().join(" ")
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

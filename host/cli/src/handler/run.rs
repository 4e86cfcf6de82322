//! `waypost handler run`: runs one handler on one event, without a service.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use waypost::config::Config;
use waypost_domain::Event;
use waypost_domain::handler::{HandlerRun, StreamTail};
use waypost_handlers::{self as handler, Definition, Destination, DryRun, Meter, Selection, Source};
use waypost_matching::{Document, Filter};
use waypost_runtime::clock;
use waypost_runtime::foreign;

use super::{deps, progress};
use crate::{input, print};

/// Run one handler on an event here, without a service
///
/// Files are fetched as the configuration says, or taken from --data. Nothing is uploaded without --upload: the outputs
/// stay in a folder whose name is printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost handler run sha512sum --config waypost.toml --event event.json --data ./files
  waypost handler run add --config waypost.toml --event event.json -- 2 2

Ends with 0 when the run succeeded, and with 1 when it failed.")]
pub(crate) struct Arguments {
    /// The handler's name
    name: String,
    #[command(flatten)]
    source: super::Source,
    /// The event: a JSON file, or `-` for stdin
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// Take the event's files from this folder instead of fetching them
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Upload the outputs as the configuration says; a follow-up event is printed instead of accepted
    #[arg(long)]
    upload: bool,
    /// Arguments to append to those of the configuration
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.source.load()?;
    let definition = find(&config, &arguments)?;
    let event = input::read(&arguments.event)?;
    let event = Event::from_json(event)
        .with_context(|| format!("{} is not an event", input::name(&arguments.event)))?;
    warn_of_filter(&definition, &event)?;
    waypost_net::tls::install_provider();
    // The folder is kept: the caller wants to see what is in it.
    let runs =
        tempfile::Builder::new().prefix("waypost-run-").tempdir().context("failed to make a folder")?;
    let runs = runs.keep();
    let meter = Arc::new(Meter::new(clock::now()));
    let deps = deps(&config, &runs);
    let running = Box::pin(handler::dry_run(definition, &deps, event, &runs, &meter));
    let dry_run = tokio::select! {
        dry_run = running => dry_run.context("the handler cannot be used")?,
        never = progress::report(Arc::clone(&meter)) => match never {},
        _ = tokio::signal::ctrl_c() => bail!("stopped; the run's folder is {}", runs.display()),
    };
    show(&dry_run)?;
    Ok(if dry_run.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Warns when the service would not run the handler on this event.
fn warn_of_filter(handler: &Definition, event: &Event) -> anyhow::Result<()> {
    let Some(Selection { text, dialect }) = &handler.filter else { return Ok(()) };
    let (filter, json) = (Filter::parse(text, *dialect)?, event.json());
    let explanation = filter.explain(&Document::parse(&json)?);
    if !explanation.matches {
        print::notice(&format!(
            "warning: its filter does not match this event, so the service would not run it: {}",
            explanation.reason()
        ));
    }
    Ok(())
}

/// Returns the named handler, with the changes that the arguments ask for.
fn find(config: &Config, arguments: &Arguments) -> anyhow::Result<Definition> {
    let found = config.handlers.iter().find(|handler| handler.name.as_str() == arguments.name);
    let Some(found) = found else {
        let names: Vec<_> = config.handlers.iter().map(|handler| handler.name.as_str()).collect();
        if names.is_empty() {
            bail!("there is no handler in the configuration: name its file with --config");
        }
        bail!("there is no handler `{}`; there are: {}", arguments.name, names.join(", "));
    };
    let mut definition = found.clone();
    if let Some(data) = &arguments.data {
        if !data.is_dir() {
            bail!("--data: {} is not a folder", data.display());
        }
        definition.source = Source::Local(data.clone());
    }
    if !arguments.upload {
        definition.destination = Destination::Nowhere;
    }
    definition.arguments.extend(arguments.arguments.iter().cloned());
    Ok(definition)
}

fn show(dry_run: &DryRun) -> anyhow::Result<()> {
    let DryRun { run, failure, folder } = dry_run;
    let HandlerRun { fetched, program, uploads, .. } = run;
    if let Some(fetched) = fetched {
        print::notice(&format!("fetched {} files, {} bytes", fetched.files, fetched.bytes));
    }
    if let Some(program) = program {
        said("stdout", &program.stdout)?;
        said("stderr", &program.stderr)?;
        print::notice(&format!("{} after {:.1?}", program.exit, program.took));
    }
    for upload in uploads {
        let (output, place) = (foreign::line(&upload.output), foreign::line(&upload.place));
        print::notice(&format!("uploaded {output}, {} files: {place}", upload.files));
    }
    print::notice(&format!("the run's folder is {}", folder.display()));
    match failure {
        Some(reason) => bail!("the run failed: {reason}"),
        None => Ok(()),
    }
}

/// Prints a program's output to the same stream.
fn said(stream: &str, said: &StreamTail) -> anyhow::Result<()> {
    if said.bytes > said.tail.len() as u64 {
        print::notice(&format!("{stream}: only the end of {} bytes", said.bytes));
    }
    match stream {
        // A pipe gets the output unchanged.
        "stdout" if io::stdout().is_terminal() => print::text(&foreign::quoted(&said.tail, ""))?,
        "stdout" => print::raw(&said.tail)?,
        _ if said.tail.is_empty() => {}
        _ => print::notices(foreign::quoted(said.tail.trim_end(), "").trim_end()),
    }
    Ok(())
}

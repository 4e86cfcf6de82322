//! `waypost plugin push`: uploads a new module for a subscription of a running Waypost.

use std::path::PathBuf;
use std::process::ExitCode;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use waypost_api::v1;
use waypost_domain::SubscriptionId;

use super::{report, trial};
use crate::event::Server;
use crate::print;

/// The content type of a module.
pub(super) const WASM: &str = "application/wasm";

/// Upload a plugin and make a subscription use it
///
/// The subscription keeps its plugin's configuration, grants and limits. New calls use the new module; running calls
/// finish with the old one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  waypost plugin push filter.wasm --subscription cb24d343-7891-407f-b8e9-8b9ce57fd3cc")]
pub(crate) struct Arguments {
    /// The component, a .wasm file
    file: PathBuf,
    /// The subscription's UUID
    #[arg(long, value_name = "UUID")]
    subscription: SubscriptionId,
    #[command(flatten)]
    server: Server,
}

/// Uploads the file.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let wasm = trial::read(&arguments.file)?;
    let client = arguments.server.client()?;
    let path = ["eventmatch", &arguments.subscription.to_string(), "plugin"];
    let request = client.request(Method::PUT, &path).header(CONTENT_TYPE, WASM).body(wasm);
    let module: v1::Module = client.json_in_time(request).await?;
    print::text(&report::brief(&module))?;
    print::line(format_args!("{} uses it from now on", arguments.subscription))?;
    Ok(ExitCode::SUCCESS)
}

//! `waypost docs`: the manual, from this binary.

use std::process::ExitCode;

use anyhow::bail;
use waypost::manual;

use crate::print;

/// Show the manual: its pages, or one of them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost docs
  waypost docs filters | less
  waypost docs api | less          each route of REST, and the form of each body")]
pub(super) struct Arguments {
    /// The page, by its name
    page: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let pages = manual::pages();
    match arguments.page {
        None => {
            let width = pages.iter().map(|page| page.name.len()).max().unwrap_or_default();
            for page in pages {
                print::line(format_args!("{:width$}  {}", page.name, page.subject()))?;
            }
        }
        Some(wanted) => {
            let wanted = wanted.trim_end_matches(".md").to_lowercase();
            let Some(page) = pages.iter().find(|page| page.name == wanted) else {
                let names: Vec<_> = pages.iter().map(|page| page.name).collect();
                bail!("the manual has no page `{wanted}`; it has: {}", names.join(", "));
            };
            print::text(&page.text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

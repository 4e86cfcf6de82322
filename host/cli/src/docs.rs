//! `waypost docs`: the manual, from this binary.

use std::process::ExitCode;

use anyhow::bail;
use include_dir::{Dir, include_dir};

use crate::print;

/// The pages, as they are in the repository.
static MANUAL: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../docs");

/// Show the manual: its pages, or one of them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost docs
  waypost docs filters | less")]
pub(super) struct Arguments {
    /// The page, by its name
    page: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.page {
        None => {
            let width = pages().map(|(name, _)| name.len()).max().unwrap_or_default();
            for (name, text) in pages() {
                print::line(format_args!("{name:width$}  {}", subject(text)))?;
            }
        }
        Some(wanted) => {
            let wanted = wanted.trim_end_matches(".md").to_lowercase();
            let Some((_, text)) = pages().find(|(name, _)| *name == wanted) else {
                let names: Vec<_> = pages().map(|(name, _)| name).collect();
                bail!("the manual has no page `{wanted}`; it has: {}", names.join(", "));
            };
            for line in text.lines().filter(|line| !is_for_the_runner(line)) {
                print::line(line)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns each page's name and text, in the order of their names.
fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    let pages = MANUAL.files().filter_map(|file| Some((file.path().to_str()?, file.contents_utf8()?)));
    let mut pages: Vec<_> =
        pages.filter_map(|(name, text)| Some((name.strip_suffix(".md")?, text))).collect();
    pages.sort_unstable();
    pages.into_iter()
}

/// Tells whether a line says how the page's commands are tested.
fn is_for_the_runner(line: &str) -> bool {
    line.starts_with("<!-- readme:")
}

/// Returns the first sentence below the title.
fn subject(text: &str) -> String {
    let below =
        text.lines().filter(|line| !is_for_the_runner(line)).skip_while(|line| !line.starts_with("# "));
    let lines = below.skip(1).skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty());
    let paragraph = lines.collect::<Vec<_>>().join(" ");
    match paragraph.split_once(". ") {
        Some((sentence, _)) => format!("{sentence}."),
        None => paragraph,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_says_what_it_is_about() {
        for (name, text) in pages() {
            let subject = subject(text);
            assert!(subject.len() > 10 && subject.ends_with(['.', ':']), "{name}: {subject}");
        }
        assert!(pages().any(|(name, _)| name == "filters"));
    }
}

//! Runs the commands of the READMEs as a reader would, and compares what they show: `cargo run -p waypost-readme`.
//!
//! `README.md` here says how comments in a page control it. [`markdown`] splits a page into blocks, [`plan`] requires that
//! each block is claimed, and a [`session`] carries out the plan in real terminals ([`terminal`]), in a fresh [`copy`] of
//! the repository.

mod copy;
mod markdown;
mod plan;
mod print;
mod session;
mod shown;
mod surroundings;
mod terminal;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Parser;

use crate::markdown::Fault;
use crate::plan::{Step, Text, Typed};
use crate::session::Session;
use crate::surroundings::Surroundings;

/// The main page: it puts waypost on the `PATH` itself.
const FIRST: &str = "README.md";
/// The command that does so for the other pages.
const INSTALL: &str = "cargo install -q --locked --path host/cli";
/// Pages that `waypost plugin new` writes, each with its command. It fills in names, so these pages run in the project that
/// it writes.
const WRITTEN: [(&str, &str); 3] = [
    ("host/cli/templates/rust/all/README.md", "waypost plugin new big-files --lang rust --kind filter"),
    ("host/cli/templates/js/all/README.md", "waypost plugin new to-chat --lang js --kind transform"),
    ("host/cli/templates/python/all/README.md", "waypost plugin new large --lang python --kind filter"),
];

/// Runs the commands of the READMEs, and compares what they show with what the READMEs say.
#[derive(Parser)]
struct Arguments {
    /// Only this page, by its path from the repository's root; may be given several times
    #[arg(long, value_name = "PAGE")]
    only: Vec<String>,
    /// Show what would be done with each block, and do nothing
    #[arg(long)]
    list: bool,
    /// Build waypost without optimisation: quicker while you write
    #[arg(long)]
    debug: bool,
    /// Use free ports in place of the pages', even if those are free
    #[arg(long)]
    other_ports: bool,
}

/// A page and what is to be done with it.
struct Page {
    path: String,
    steps: Vec<Step>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let files = copy::tracked(&root)?;
    let Some(pages) = pages(&root, &files, &arguments.only)? else { return Ok(ExitCode::FAILURE) };
    if arguments.list {
        for Page { path, steps } in &pages {
            steps.iter().for_each(|step| print::line(&session::describe(path, step)));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let copy = root.join("target/readme/waypost");
    let _lock = lock(&root.join("target/readme"))?;
    copy::share_builds(&root, &copy)?;
    let surroundings = Surroundings::new(&copy, arguments.debug, arguments.other_ports)?;
    for (page, here) in surroundings.other_ports() {
        print::line(&format!("port {here} takes the place of {page}"));
    }
    let (began, mut failed) = (Instant::now(), 0);
    for page in &pages {
        copy::refresh(&root, &files, &copy)?;
        if let Err(failure) = walk(page, &copy, &surroundings) {
            print::line(&format!("{failure:#}"));
            failed += 1;
        }
    }
    let skipped =
        pages.iter().flat_map(|page| &page.steps).filter(|step| matches!(step, Step::Skip { .. })).count();
    let seconds = began.elapsed().as_secs();
    print::line(&format!(
        "{} pages in {seconds} s: {failed} failed; {skipped} blocks are not run",
        pages.len()
    ));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads all pages, [`FIRST`] first. If any page has faults, it prints them and returns `None`.
fn pages(root: &Path, files: &[PathBuf], only: &[String]) -> Result<Option<Vec<Page>>> {
    let mut paths: Vec<_> =
        files.iter().filter_map(|path| path.to_str()).filter(|path| path.ends_with(".md")).collect();
    paths.sort_by_key(|path| (*path != FIRST, *path));
    if let Some(absent) = only.iter().find(|path| !paths.contains(&path.as_str())) {
        bail!("{absent} is no page that git tracks");
    }
    paths.retain(|path| only.is_empty() || only.iter().any(|only| only == path));
    let (mut pages, mut faults) = (Vec::new(), 0);
    for path in paths {
        let text =
            std::fs::read_to_string(root.join(path)).with_context(|| format!("failed to read {path}"))?;
        match markdown::read(&text).and_then(plan::plan) {
            Ok(steps) if steps.is_empty() => {}
            Ok(steps) => pages.push(Page { path: path.to_owned(), steps }),
            Err(found) => {
                faults += found.len();
                found.iter().for_each(|fault| print::line(&format!("{path}:{}: {}", fault.line, fault.what)));
            }
        }
    }
    Ok((faults == 0).then_some(pages))
}

/// Waits until no other runner uses the copy.
fn lock(folder: &Path) -> Result<File> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let file = File::create(folder.join("lock")).context("failed to make the lock's file")?;
    file.lock().context("failed to lock the copy")?;
    Ok(file)
}

/// Walks a page as its reader would.
fn walk(page: &Page, copy: &Path, surroundings: &Surroundings) -> Result<()> {
    let mut session = Session::begin(&page.path, copy, surroundings)?;
    if page.path != FIRST && !surroundings.installed().exists() {
        session.walk(&[unseen(INSTALL.to_owned(), false)])?;
    }
    match WRITTEN.iter().find(|(path, _)| *path == page.path) {
        None => session.walk(&page.steps)?,
        Some((_, command)) => {
            let name = command.split(' ').nth(3).context("the command has a name")?;
            session.walk(&[unseen(format!("{command} && cd {name}"), true), Step::Given { line: 0 }])?;
            let path = session.folder().join("README.md");
            let text = std::fs::read_to_string(&path);
            let text = text.with_context(|| format!("failed to read {}", path.display()))?;
            let faults = |faults: Vec<Fault>| anyhow!("{}: {}", path.display(), faults[0].what);
            session.walk(&markdown::read(&text).and_then(plan::plan).map_err(faults)?)?;
        }
    }
    session.end()
}

/// Commands that are on no page.
fn unseen(commands: String, empty_folder: bool) -> Step {
    Step::Type(Typed { empty_folder, ..Typed::of(Text { line: 0, text: commands + "\n" }) })
}

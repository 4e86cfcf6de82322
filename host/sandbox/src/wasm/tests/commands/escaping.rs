//! A program that tries to leave its folder, and what it sees and changes: nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use walkdir::WalkDir;

use super::*;

/// Returns what there is outside of the outputs, with what would tell that it was changed.
fn rest(run: &Run) -> BTreeMap<PathBuf, String> {
    let outputs = [run.output(), run.folder().join("results/deep")];
    let mut found = BTreeMap::new();
    for entry in WalkDir::new(run.outside.path()) {
        let entry = entry.unwrap();
        let is_below = |output: &PathBuf| entry.path().starts_with(output) && entry.path() != output;
        if outputs.iter().any(is_below) {
            continue;
        }
        let metadata = entry.metadata().unwrap();
        let content =
            if metadata.is_file() { std::fs::read_to_string(entry.path()).unwrap() } else { String::new() };
        // What is made in an output changes only the time of that output.
        let changed =
            if outputs.iter().any(|output| output == entry.path()) { None } else { metadata.modified().ok() };
        let about = format!(
            "{:?} {} {} {changed:?} {content}",
            metadata.file_type(),
            metadata.ino(),
            if metadata.is_dir() { 0 } else { metadata.nlink() },
        );
        found.insert(entry.path().to_owned(), about);
    }
    found
}

#[tokio::test]
pub(in super::super) async fn a_program_sees_and_changes_nothing_but_its_folder() {
    let sandbox = Sandbox::shared();
    let command = loaded(&sandbox, waypost_guests::ESCAPE).await;
    let run = Run::new();
    let before = rest(&run);
    let limits = CommandLimits { output_files: 1000, ..LIMITS };
    let end = sandbox.host.run_command(&command, run.call(&[], limits)).await;
    assert_eq!(end.exit, Exit::Code(0), "{}", run.stderr.text());
    assert_eq!(rest(&run), before);
    let said = run.stdout.text();
    assert_eq!(said, "folders: [\".\", \"download\", \"output\", \"results/deep\"]\n");
    let left: Vec<_> = WalkDir::new(run.output()).min_depth(1).into_iter().map(Result::unwrap).collect();
    // A program may create links that lead out. They are never followed.
    for entry in &left {
        assert!(entry.file_type().is_symlink() || entry.file_type().is_dir(), "{}", entry.path().display());
    }
}

//! `waypost plugin new`: writes a project that builds and passes its tests.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::templates::{self, Kind, Language};
use crate::print;

/// The longest name.
const NAME_CHARS_MAX: usize = 64;
/// Names that Rust's own crates and the SDK use.
const TAKEN: [&str; 9] =
    ["alloc", "core", "proc-macro", "sdk", "self", "std", "test", "waypost-plugin", "wit-bindgen"];

/// Write a project with a plugin, its tests and a case file
///
/// The project is written to a new folder of that name. It includes what it needs of Waypost: the SDK for Rust, the
/// interface (WIT) for other languages.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost plugin new big-files
  waypost plugin new to-slack --kind transform --lang js")]
pub(crate) struct Arguments {
    /// The name: lower case letters, digits and single hyphens
    #[arg(value_parser = name)]
    name: String,
    /// The language
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// What it does: a filter selects events, a policy decides who may see them, a transform changes what is sent
    #[arg(long, value_enum, default_value_t = Kind::Filter)]
    kind: Kind,
}

/// Writes the project, and prints the next steps.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { name, lang, kind } = arguments;
    let folder = Path::new(name);
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{name} exists already: nothing is overwritten; choose another name")
        }
        Err(error) => return Err(error).with_context(|| format!("failed to make the folder {name}")),
    }
    for (path, text) in templates::files(*lang, *kind, name) {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("failed to make {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    print::line(format_args!("{name} is written. Next:"))?;
    for line in templates::next_steps(*lang, name) {
        print::line(format_args!("  {line}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a name, which becomes that of a folder, a package, and modules in three languages.
fn name(text: &str) -> Result<String, String> {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
    if !text.starts_with(|first: char| first.is_ascii_lowercase()) || !text.split('-').all(is_word) {
        return Err(
            "a name has lower case letters, digits and single hyphens, and begins with a letter: `big-files`"
                .to_owned(),
        );
    }
    if text.len() > NAME_CHARS_MAX {
        return Err(format!("a name has at most {NAME_CHARS_MAX} characters"));
    }
    if TAKEN.contains(&text) {
        return Err(format!("`{text}` is the name of something that the project needs"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_suits_every_language() {
        for good in ["a", "big-files", "v2", "a-1-b"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in ["", "-", "a-", "-a", "a--b", "A", "2a", "a_b", "../a", "a/b", "ä", "test", "sdk"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert!(name(&"a".repeat(65)).is_err_and(|error| error.contains("64")));
    }
}

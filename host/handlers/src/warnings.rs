//! Warnings at the start about what would fail with the first event. They do not keep the service from starting, since
//! what is missing may still be added.

use std::env;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::definition::{Definition, Program};
use super::places::Source;
use super::program::DEFAULT_PATH;
use waypost_matching::Filter;

impl Definition {
    /// Returns warnings about what a run needs and does not find, and about the filter. Reads the disk.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Program::Command { command, environment } = &self.program {
            let path = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
            warnings.extend(command.first().and_then(|program| missing_program(program, path)));
        }
        if let Source::Local(folder) = &self.source
            && !folder.is_dir()
        {
            warnings.push(format!("there is no folder {} to fetch from", absolute(folder).display()));
        }
        let filter = self.filter.as_ref().and_then(|filter| Filter::parse(&filter.text, filter.dialect).ok());
        let of_filter = filter.iter().flat_map(Filter::warnings);
        warnings.extend(of_filter.map(|warning| format!("`filter`: {warning}")));
        warnings
    }
}

/// Warns that a program does not exist, or is not executable.
fn missing_program(program: &str, path: &str) -> Option<String> {
    if program.contains('/') {
        let place = absolute(Path::new(program));
        return match place.metadata() {
            Err(error) => Some(format!("the program {} cannot be used: {error}", place.display())),
            Ok(metadata) if !is_program(&metadata) => {
                Some(format!("{} is not executable: `chmod +x` makes it so", place.display()))
            }
            Ok(_) => None,
        };
    }
    let is_there = |folder: PathBuf| folder.join(program).metadata().is_ok_and(|found| is_program(&found));
    let is_anywhere = env::split_paths(path).any(is_there);
    (!is_anywhere).then(|| format!("there is no program `{program}` in {path} (its PATH, set in `env`)"))
}

fn is_program(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

/// Relative paths are resolved from the working directory, which may not be the one that the operator expects.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Selection;
    use waypost_domain::FilterDialect;

    fn command(program: &str) -> Definition {
        let (command, environment) = (vec![program.to_owned()], Default::default());
        Definition::new("h".parse().unwrap(), Program::Command { command, environment })
    }

    #[test]
    fn what_is_missing_is_named_with_its_whole_path() {
        assert!(command("sh").warnings().is_empty() && command("/bin/sh").warnings().is_empty());
        assert!(command("no-such-program").warnings()[0].contains("`no-such-program` in /usr/local/bin"));
        assert!(
            command("./none").warnings()[0].starts_with("the program /"),
            "{:?}",
            command("./none").warnings()
        );
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        assert!(command(plain.to_str().unwrap()).warnings()[0].contains("chmod +x"));
        let source = Source::Local(folder.path().join("nofiles"));
        let warnings = Definition { source, ..command("sh") }.warnings();
        assert!(warnings[0].contains("nofiles to fetch from"), "{warnings:?}");
        let text = "$[?match(@.a, '*')]".to_owned();
        let filter = Some(Selection { text, dialect: FilterDialect::Auto });
        let warnings = Definition { filter, ..command("sh") }.warnings();
        assert!(warnings[0].starts_with("`filter`: column 16: this pattern is no regular"), "{warnings:?}");
    }
}

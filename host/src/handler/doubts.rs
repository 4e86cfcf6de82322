//! What will fail with the first event, though nothing keeps the service from starting: it may yet come.

use std::env;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::definition::{Definition, Program};
use super::fetch::Source;
use super::program::DEFAULT_PATH;
use crate::matching::Filter;

impl Definition {
    /// Returns what is not there that a run needs. Looks at the disk.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if let Program::Command { command, environment } = &self.program {
            let path = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
            doubts.extend(command.first().and_then(|program| missing_program(program, path)));
        }
        if let Source::Local(folder) = &self.source
            && !folder.is_dir()
        {
            doubts.push(format!("there is no folder {} to fetch from", absolute(folder).display()));
        }
        let filter = self.filter.as_ref().and_then(|filter| Filter::parse(&filter.text, filter.dialect).ok());
        let warnings = filter.iter().flat_map(Filter::warnings);
        doubts.extend(warnings.map(|warning| format!("`filter`: {warning}")));
        doubts
    }
}

/// Says that a program is not there, or is none.
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

/// Relative paths are from the working directory, which is not always the one that people think of.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FilterDialect;
    use crate::handler::Selection;

    fn command(program: &str) -> Definition {
        let (command, environment) = (vec![program.to_owned()], Default::default());
        Definition::new("h".parse().unwrap(), Program::Command { command, environment })
    }

    #[test]
    fn what_is_missing_is_named_with_its_whole_path() {
        assert!(command("sh").doubts().is_empty() && command("/bin/sh").doubts().is_empty());
        assert!(command("no-such-program").doubts()[0].contains("`no-such-program` in /usr/local/bin"));
        assert!(
            command("./none").doubts()[0].starts_with("the program /"),
            "{:?}",
            command("./none").doubts()
        );
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        assert!(command(plain.to_str().unwrap()).doubts()[0].contains("chmod +x"));
        let source = Source::Local(folder.path().join("nofiles"));
        let doubts = Definition { source, ..command("sh") }.doubts();
        assert!(doubts[0].contains("nofiles to fetch from"), "{doubts:?}");
        let text = "$[?match(@.a, '*')]".to_owned();
        let filter = Some(Selection { text, dialect: FilterDialect::Auto });
        let doubts = Definition { filter, ..command("sh") }.doubts();
        assert!(doubts[0].starts_with("`filter`: column 16: this pattern is no regular"), "{doubts:?}");
    }
}

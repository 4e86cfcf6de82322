//! What `waypost plugin new` writes: the files of `host/cli/templates`, the SDK and the WIT, all embedded in this binary.
//!
//! `templates/LANGUAGE/all` is in every project of the language, `templates/LANGUAGE/KIND` in those of the kind, and
//! `templates/KIND` in those of the kind in any language: the same cases hold for all languages.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use include_dir::{Dir, include_dir};

/// The languages with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
    Js,
    Python,
}

/// What a new plugin exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Filter,
    Policy,
    Transform,
}

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");
/// The interface, for the languages that build against it.
static WIT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../wit");
/// The SDK is a path dependency of a new project: no registry has it.
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk");
/// The parts of the SDK that a project needs: all but its own tests.
const SDK_PARTS: [&str; 4] = ["Cargo.toml", "README.md", "src", "wit"];

/// A file's path in the project, and its content.
pub(super) type File = (PathBuf, Vec<u8>);

impl Language {
    fn folder(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Python => "python",
        }
    }

    /// Returns the commands that build and test a project, and the module that they make.
    fn commands(self, name: &str) -> (&'static [&'static str], String) {
        let here = format!("{name}.wasm");
        match self {
            Self::Rust => (
                &["cargo test", "cargo build --release --target wasm32-wasip2"],
                format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_")),
            ),
            Self::Js => (&["npm install", "npm test", "npm run build"], here),
            Self::Python => (
                &[
                    "python3 -m venv .venv && . .venv/bin/activate",
                    "pip install -r requirements.txt",
                    "python3 -m unittest",
                    "sh build.sh",
                ],
                here,
            ),
        }
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Policy => "policy",
            Self::Transform => "transform",
        }
    }
}

/// Returns the files of a project.
pub(super) fn files(language: Language, kind: Kind, name: &str) -> Vec<File> {
    let mut files = Vec::new();
    let (folder, kind) = (language.folder(), kind.word());
    for folder in [format!("{folder}/all"), format!("{folder}/{kind}"), kind.to_owned()] {
        let template = TEMPLATES.get_dir(&folder).expect("there is one for each language and kind");
        let before = files.len();
        collect(template, &folder, &mut files);
        files[before..].iter_mut().for_each(|(_, text)| *text = filled(text, kind, language, name));
    }
    match language {
        Language::Rust => {
            let is_needed =
                |path: &Path| SDK_PARTS.iter().any(|part| path.starts_with(Path::new("sdk").join(part)));
            within("sdk", &SDK, &mut files);
            files.retain(|(path, _)| !path.starts_with("sdk") || is_needed(path));
        }
        Language::Js | Language::Python => within("wit", &WIT, &mut files),
    }
    files
}

/// Returns the commands that come next.
pub(super) fn next_steps(language: Language, name: &str) -> Vec<String> {
    let (build, wasm) = language.commands(name);
    let mut steps = vec![format!("cd {name}")];
    steps.extend(build.iter().map(|command| (*command).to_owned()));
    steps.push(format!("waypost plugin test {wasm} cases.json"));
    steps.push(format!("waypost plugin push {wasm} --subscription UUID"));
    steps
}

/// Adds all files of a folder, at the same place below `to`.
fn within(to: &str, folder: &Dir<'_>, files: &mut Vec<File>) {
    let mut found = Vec::new();
    collect(folder, "", &mut found);
    files.extend(found.into_iter().map(|(path, text)| (PathBuf::from(to).join(path), text)));
}

/// Adds all files below a folder, by their paths from `root` on.
fn collect(folder: &Dir<'_>, root: &str, files: &mut Vec<File>) {
    for file in folder.files() {
        let path = file.path().strip_prefix(root).unwrap_or_else(|_| file.path());
        files.push((named(path), file.contents().to_vec()));
    }
    folder.dirs().for_each(|folder| collect(folder, root, files));
}

/// Returns a template file's name in a project. A file that git or cargo would use here, in the templates' folder, has
/// another name there.
fn named(path: &Path) -> PathBuf {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("gitignore") => path.with_file_name(".gitignore"),
        Some("Cargo.toml.template") => path.with_file_name("Cargo.toml"),
        Some(_) | None => path.to_owned(),
    }
}

/// Puts the names into a template.
fn filled(text: &[u8], kind: &str, language: Language, name: &str) -> Vec<u8> {
    let (_, wasm) = language.commands(name);
    let text = String::from_utf8_lossy(text);
    let text = text.replace("{{name}}", name).replace("{{kind}}", kind).replace("{{wasm}}", &wasm);
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_and_kind_has_a_project_with_a_readme_tests_and_cases() {
        for language in Language::value_variants() {
            for kind in Kind::value_variants() {
                let files = files(*language, *kind, "a-b");
                let has = |name: &str| files.iter().any(|(path, _)| path == Path::new(name));
                for name in ["README.md", "cases.json", "event.json", ".gitignore"] {
                    assert!(has(name), "{name} of {language:?} {kind:?}");
                }
                for (path, text) in files.iter().filter(|(path, _)| !path.starts_with("sdk")) {
                    let text = String::from_utf8_lossy(text);
                    assert!(!text.contains("{{"), "{} of {language:?} {kind:?}", path.display());
                }
            }
        }
    }

    #[test]
    fn a_rust_project_has_all_of_the_sdk() {
        let written = files(Language::Rust, Kind::Filter, "a");
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-sdk");
        let mut folders = vec![sdk.join("src"), sdk.join("wit")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = Path::new("sdk").join(path.strip_prefix(&sdk).unwrap());
                assert!(written.iter().any(|(path, _)| *path == name), "{} is missing", name.display());
            }
        }
    }
}

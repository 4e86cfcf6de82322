//! What a `[[handler]]` table runs: a component, a command, or each script of a folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::table::Table;
use waypost_domain::{FilterDialect, HandlerName};
use waypost_handlers::{Program, SCRIPT_FILTER};

/// Variables that Waypost sets itself.
const OWN_VARIABLES: &str = "WAYPOST_";

/// The suffixes of copies that editors, patch tools and package managers leave beside a file, with its
/// permissions.
const COPIES: [&str; 16] = [
    "~",
    ".bak",
    ".orig",
    ".rej",
    ".swp",
    ".tmp",
    ".old",
    ".dpkg-old",
    ".dpkg-new",
    ".dpkg-dist",
    ".dpkg-tmp",
    ".ucf-old",
    ".ucf-dist",
    ".rpmnew",
    ".rpmorig",
    ".rpmsave",
];

/// Returns the handlers of a table: one, or one for each script. Executable files that are only copies of
/// scripts are added to `skipped`.
pub(super) fn split(table: Table, skipped: &mut Vec<PathBuf>) -> Result<Vec<(HandlerName, Table)>, String> {
    if table.scripts_dir.is_some() {
        return scripts(table, skipped);
    }
    if table.scripts.is_some() {
        return Err("`scripts` goes with `scripts_dir`".to_owned());
    }
    let name = table.name.as_deref().ok_or("`name` is missing")?;
    let name = name.parse().map_err(|error| format!("`name`: {error}"))?;
    Ok(vec![(name, table)])
}

/// Returns what a table of one handler runs.
pub(super) fn of(table: &Table) -> Result<Program, String> {
    match (&table.component, &table.command) {
        (Some(path), None) => match &table.env {
            None => Ok(Program::Component {
                path: path.clone(),
                allow_hosts: table.allow_hosts.clone().unwrap_or_default(),
            }),
            Some(_) => Err("`env` goes with `command`".to_owned()),
        },
        (None, Some(command)) => {
            if table.allow_hosts.is_some() {
                return Err(
                    "`allow_hosts` goes with `component`: a native program is not sandboxed".to_owned()
                );
            }
            if command.first().is_none_or(String::is_empty) {
                return Err("`command`: expected a program and its arguments, found nothing".to_owned());
            }
            if let Some(text) = command.iter().find(|text| text.contains('\0')) {
                return Err(format!("`command`: expected no NUL, found {text:?}"));
            }
            let environment = table.env.clone().unwrap_or_default();
            let wrong = |name: &&String| {
                name.is_empty() || name.contains(['=', '\0']) || name.starts_with(OWN_VARIABLES)
            };
            if let Some(name) = environment.keys().find(wrong) {
                return Err(format!(
                    "`env`: expected names without `=` that do not begin with `{OWN_VARIABLES}`, found {name:?}"
                ));
            }
            Ok(Program::Command { command: command.clone(), environment })
        }
        (Some(_), Some(_)) | (None, None) => {
            Err("expected either `component`, `command` or `scripts_dir`".to_owned())
        }
    }
}

/// Makes a handler from each executable file of a folder, in the order of their names (Dispatcher-K8s).
fn scripts(table: Table, skipped: &mut Vec<PathBuf>) -> Result<Vec<(HandlerName, Table)>, String> {
    if let Some(key) = [
        ("name", table.name.is_some()),
        ("component", table.component.is_some()),
        ("command", table.command.is_some()),
    ]
    .iter()
    .find_map(|(key, is_set)| is_set.then_some(key))
    {
        return Err(format!(
            "`{key}` does not go with `scripts_dir`: each script becomes a handler with its own name"
        ));
    }
    let folder = table.scripts_dir.clone().unwrap_or_default();
    let fault = |reason: String| format!("`scripts_dir`: {}: {reason}", folder.display());
    let found = executables(&folder).map_err(|error| fault(error.to_string()))?;
    let (copies, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|path| is_copy(path));
    skipped.extend(copies);
    let mut own = table.scripts.clone().unwrap_or_default();
    let base = Table { scripts_dir: None, scripts: None, ..table };
    let mut handlers = Vec::with_capacity(found.len());
    for path in found {
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let over = own.remove(file).unwrap_or_default();
        if over.component.is_some() || over.command.is_some() || over.scripts_dir.is_some() {
            return Err(format!(
                "`scripts.{file}`: it runs the script: leave out `component`, `command` and `scripts_dir`"
            ));
        }
        let name = over.name.clone().unwrap_or_else(|| file.to_owned());
        let name = name.parse().map_err(|error| fault(format!("{error}")))?;
        let command = Some(vec![absolute(&path)]);
        let table = Table { command, ..base.clone().overlaid(over) };
        handlers.push((name, with_filter(table)));
    }
    match own.keys().next() {
        Some(missing) => {
            Err(fault(format!("there is no executable file `{missing}`, which `scripts` names")))
        }
        None if handlers.is_empty() => {
            Err(fault("there is no executable file (`chmod +x` makes one)".to_owned()))
        }
        None => Ok(handlers),
    }
}

/// Gives a script without a filter that of Dispatcher-K8s, which is in jsonpath2 whatever the default dialect
/// is.
fn with_filter(table: Table) -> Table {
    if table.filter.is_some() || table.filter_file.is_some() {
        return table;
    }
    let filter_dialect = Some(FilterDialect::Jsonpath2);
    Table { filter: Some(SCRIPT_FILTER.to_owned()), filter_dialect, ..table }
}

/// Tells whether a file is a copy of a script that an editor or another program left behind, and that must
/// not run.
fn is_copy(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    COPIES.iter().any(|end| name.ends_with(end)) || (name.starts_with('#') && name.ends_with('#'))
}

/// Returns the executable files of a folder, sorted by name and without hidden ones.
fn executables(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Hidden files include the locks of editors, which are dangling links without metadata.
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        let metadata = fs::metadata(&path)
            .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Makes a path absolute, because the program starts in another folder.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

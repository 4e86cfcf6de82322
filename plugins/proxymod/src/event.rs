//! Reads the key-values and the files from the Pacifica rows of an event. Other rows are ignored.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// Why an event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("failed to open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not JSON, or its data is not a list.
    #[error("it is no event whose `data` are rows")]
    NoRows(#[source] serde_json::Error),
    /// A member of a row has another type.
    #[error("data[{row}].{member} must be {wanted}")]
    Member {
        /// The row's index, from 0.
        row: usize,
        /// The member's name.
        member: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
}

#[derive(Deserialize)]
struct Document {
    data: Vec<Value>,
}

/// The rows that are read, in their order.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) key_values: Vec<KeyValue>,
    pub(crate) files: Vec<EventFile>,
}

/// A `TransactionKeyValue`.
#[derive(Debug)]
pub(crate) struct KeyValue {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// A row of `Files`. Missing members are empty.
#[derive(Debug)]
pub(crate) struct EventFile {
    pub(crate) name: String,
    pub(crate) subdir: String,
    pub(crate) mimetype: String,
}

impl EventFile {
    /// Returns whether it is in this folder. Pacifica's services write folders with or without a `/` at the end.
    pub(crate) fn is_in(&self, folder: &str) -> bool {
        self.subdir.trim_end_matches('/') == folder.trim_end_matches('/')
    }

    /// Returns its path in Pacifica's form.
    pub(crate) fn path(&self) -> String {
        let border = if self.subdir.is_empty() || self.subdir.ends_with('/') { "" } else { "/" };
        format!("{}{border}{}", self.subdir, self.name)
    }
}

/// Returns the path if it stays in the folder that it is relative to: no `..`, no leading `/`.
pub(crate) fn inside(path: &str) -> Option<PathBuf> {
    let stays = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    let path = Path::new(path);
    path.components().all(stays).then(|| path.to_owned())
}

/// Reads an event.
pub(crate) fn read(path: &Path) -> Result<Event, Error> {
    let file = File::open(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
    let document: Document = serde_json::from_reader(BufReader::new(file)).map_err(Error::NoRows)?;
    let mut event = Event::default();
    for (place, row) in document.data.iter().enumerate() {
        let text = |member| text(row, place, member);
        match row.get("destinationTable").and_then(Value::as_str) {
            Some("TransactionKeyValue") => {
                event.key_values.push(KeyValue { key: text("key")?, value: value(row, place)? });
            }
            Some("Files") => event.files.push(EventFile {
                name: text("name")?,
                subdir: text("subdir")?,
                mimetype: text("mimetype")?,
            }),
            Some(_) | None => {}
        }
    }
    Ok(event)
}

fn text(row: &Value, place: usize, member: &'static str) -> Result<String, Error> {
    match row.get(member) {
        Some(Value::String(text)) => Ok(text.clone()),
        None | Some(Value::Null) => Ok(String::new()),
        Some(_) => Err(Error::Member { row: place, member, wanted: "a string" }),
    }
}

fn value(row: &Value, place: usize) -> Result<String, Error> {
    match row.get("value") {
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => text(row, place, "value").map_err(|_| Error::Member {
            row: place,
            member: "value",
            wanted: "a string or a number",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside_or_is_refused() {
        for (path, inside_it) in [
            ("inputs/", true),
            ("a/./b", true),
            ("", true),
            ("a..b/...", true),
            ("../a", false),
            ("a/../../b", false),
            ("a/..", false),
            ("/etc/passwd", false),
        ] {
            assert_eq!(inside(path).is_some(), inside_it, "{path:?}");
        }
    }

    #[test]
    fn a_path_is_joined_once() {
        for (subdir, expected) in [("models/", "models/x.py"), ("models", "models/x.py"), ("", "x.py")] {
            let file =
                EventFile { name: "x.py".to_owned(), subdir: subdir.to_owned(), mimetype: String::new() };
            assert_eq!(file.path(), expected);
        }
    }
}

//! The `data` of Pacifica's events: rows that describe a transaction, its files and its key-values.

mod path;
mod read;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

pub use path::{FilePath, NAME_BYTES_MAX, PATH_BYTES_MAX, PathError};
use read::Row;
pub use read::RowError;

use crate::Event;
use crate::event::{Canonical, Payload};
use crate::json;

/// The rows of an event's `data`, by table (FACTS: `destinationTable` is `Transactions.<field>`, `Files` or
/// `TransactionKeyValue`). Rows of other tables are ignored; an event whose data are no rows has no parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// What is known of the transaction.
    pub transaction: Transaction,
    /// Its files, in the order of the rows.
    pub files: Vec<File>,
    /// Its key-values, in the order of the rows.
    pub key_values: Vec<KeyValue>,
}

/// The fields of a transaction: `submitter`, `instrument`, `project`, `_id` and whatever else there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// The value of each field, by its name after `Transactions.`.
    pub fields: BTreeMap<String, Value>,
}

/// One file of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Its id in Pacifica's archive: a number, or any other JSON value of the event; null if there is none.
    pub id: Value,
    /// Its path below the folder of all files: `subdir/name`.
    pub path: FilePath,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// Its hash sum.
    pub hash: Option<FileHash>,
    /// Its media type.
    pub mimetype: Option<String>,
    /// When it was made, as the event says it.
    pub ctime: Option<String>,
    /// When it was changed last, as the event says it.
    pub mtime: Option<String>,
}

/// A file's hash sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHash {
    /// The algorithm: `sha1`, `md5`, `sha256`, `sha512` and so on, in lower case.
    pub kind: String,
    /// The sum, hexadecimal, in lower case.
    pub sum: String,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value; null where the row has none.
    pub value: Value,
}

/// Why an event's rows are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// Two rows give the same field of the transaction; the text is the Dispatcher's.
    #[error("field 'Transactions.{}' is already defined", .0.replace('\'', "\\'"))]
    Duplicate(String),
    /// A row is not what its table needs. The first is 0.
    #[error("data[{0}]")]
    Row(usize, #[source] RowError),
    /// Two rows give the same file.
    #[error("data[{row}]: fields 'subdir' and 'name': data[{first}] has the file `{path}` already")]
    SameFile {
        /// The later row.
        row: usize,
        /// The earlier row.
        first: usize,
        /// The file.
        path: FilePath,
    },
    /// A file is in a folder that another row says is a file.
    #[error(
        "data[{row}]: fields 'subdir' and 'name': `{path}` needs the folder `{file}`, which is a file in data[{other}]"
    )]
    InFile {
        /// The row with the longer path.
        row: usize,
        /// Its file.
        path: FilePath,
        /// The row with the shorter path.
        other: usize,
        /// Its file.
        file: FilePath,
    },
}

impl Parts {
    /// Reads an event's data, whatever its version and mode.
    ///
    /// # Errors
    /// When two rows contradict each other, or a row of a file or key-value is not what it should be.
    pub fn of(event: &Event) -> Result<Self, PartsError> {
        let canonical = Canonical::from(event);
        let rows = match &canonical.data {
            Some(Payload::Json(json)) => serde_json::from_str(json),
            // JSON may also be encoded as base64, which does not change its meaning.
            Some(Payload::Binary(bytes)) if canonical.is_json() => {
                serde_json::from_slice(json::without_mark(bytes))
            }
            Some(Payload::Binary(_) | Payload::Text(_)) | None => return Ok(Self::default()),
        };
        match rows {
            Ok(Value::Array(rows)) => Self::of_rows(&rows),
            Ok(_) | Err(_) => Ok(Self::default()),
        }
    }

    fn of_rows(rows: &[Value]) -> Result<Self, PartsError> {
        let (mut parts, mut file_rows) = (Self::default(), Vec::new());
        for (i, row) in rows.iter().enumerate() {
            match Row::read(row).map_err(|error| PartsError::Row(i, error))? {
                Some(Row::Transaction { name, value }) => {
                    let before = parts.transaction.fields.insert(name.to_owned(), value.clone());
                    if before.is_some() {
                        return Err(PartsError::Duplicate(name.to_owned()));
                    }
                }
                Some(Row::File(file)) => {
                    parts.files.push(*file);
                    file_rows.push(i);
                }
                Some(Row::KeyValue(key_value)) => parts.key_values.push(key_value),
                None => {}
            }
        }
        check_paths(&parts.files, &file_rows)?;
        Ok(parts)
    }

    /// Returns the value of the first key-value with this key.
    pub fn value_of(&self, key: &str) -> Option<&Value> {
        self.key_values.iter().find(|pair| pair.key == key).map(|pair| &pair.value)
    }

    /// Returns the values of all key-values with this key, in the order of the rows.
    pub fn values_of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Value> {
        self.key_values.iter().filter(move |pair| pair.key == key).map(|pair| &pair.value)
    }

    /// Returns the file with this path (`subdir/name`).
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path.as_str() == path)
    }

    /// Returns the sizes of all files together, as far as they are known.
    pub fn bytes(&self) -> u64 {
        self.files.iter().filter_map(|file| file.size).fold(0, u64::saturating_add)
    }
}

/// Checks that all files can lie below one folder; `rows` has the row of each.
fn check_paths(files: &[File], rows: &[usize]) -> Result<(), PartsError> {
    let mut sorted: Vec<_> = files.iter().map(|file| &file.path).zip(rows).collect();
    sorted.sort_by(|(one, _), (other, _)| one.sort_key().cmp(other.sort_key()));
    for pair in sorted.windows(2) {
        let [(path, row), (next, next_row)] = *pair else { continue };
        if path == next {
            // The sort is stable: equal paths stand in the order of their rows.
            return Err(PartsError::SameFile { row: *next_row, first: *row, path: path.clone() });
        }
        if path.is_folder_of(next) {
            let (path, file) = (next.clone(), path.clone());
            return Err(PartsError::InFile { row: *next_row, path, other: *row, file });
        }
    }
    Ok(())
}

impl Transaction {
    /// Returns a field's value, by its name after `Transactions.`.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// Returns a field as text: a string's content, any other JSON value as it is written.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.field(name).map(text)
    }

    /// Returns the transaction's id (`_id`).
    pub fn id(&self) -> Option<&Value> {
        self.field("_id")
    }

    /// Returns the submitter.
    pub fn submitter(&self) -> Option<&Value> {
        self.field("submitter")
    }

    /// Returns the instrument.
    pub fn instrument(&self) -> Option<&Value> {
        self.field("instrument")
    }

    /// Returns the project.
    pub fn project(&self) -> Option<&Value> {
        self.field("project")
    }
}

impl File {
    /// Returns the file's own name.
    pub fn name(&self) -> &str {
        self.path.name()
    }

    /// Returns the folder that it is in, without a `/` at its end; empty for a file at the top.
    pub fn subdir(&self) -> &str {
        self.path.folder()
    }
}

impl KeyValue {
    /// Returns the value as text: a string's content, any other JSON value as it is written.
    pub fn text(&self) -> Cow<'_, str> {
        text(&self.value)
    }
}

fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

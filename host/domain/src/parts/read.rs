//! Reads the rows of an event's data, one by one, as their producer wrote them.

use serde_json::{Map, Value};

use super::{File, FileHash, FilePath, KeyValue, PathError};

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A field that must be there is not.
    #[error("field '{0}' is missing")]
    Missing(&'static str),
    /// A field has a value of another kind.
    #[error("field '{field}' must be {wanted}, and is {found}")]
    Kind {
        /// Its name.
        field: &'static str,
        /// What it must be.
        wanted: &'static str,
        /// What it is, cut off where it is long.
        found: String,
    },
    /// The path is none that a file may have.
    #[error("fields 'subdir' and 'name' make no path for a file")]
    Path(#[source] PathError),
}

/// The content of a row, as far as it is needed.
pub(super) enum Row<'a> {
    Transaction { name: &'a str, value: &'a Value },
    File(Box<File>),
    KeyValue(KeyValue),
}

impl<'a> Row<'a> {
    /// Reads a row; `None` for a row of another table or of none, and for a field of a transaction without its value.
    pub(super) fn read(row: &'a Value) -> Result<Option<Self>, RowError> {
        let Value::Object(row) = row else { return Ok(None) };
        let Some(Value::String(table)) = row.get("destinationTable") else { return Ok(None) };
        Ok(match table.as_str() {
            "Files" => Some(Self::File(Box::new(file(row)?))),
            "TransactionKeyValue" => Some(Self::KeyValue(key_value(row)?)),
            _ => table
                .strip_prefix("Transactions.")
                .zip(row.get("value"))
                .map(|(name, value)| Self::Transaction { name, value }),
        })
    }
}

fn file(row: &Map<String, Value>) -> Result<File, RowError> {
    let name = text(row, "name")?.ok_or(RowError::Missing("name"))?;
    let path = FilePath::join(text(row, "subdir")?.unwrap_or_default(), name).map_err(RowError::Path)?;
    let owned = |field| Ok(text(row, field)?.map(str::to_owned));
    Ok(File {
        id: row.get("_id").cloned().unwrap_or_default(),
        path,
        size: size(row)?,
        hash: hash(row)?,
        mimetype: owned("mimetype")?,
        ctime: owned("ctime")?,
        mtime: owned("mtime")?,
    })
}

fn key_value(row: &Map<String, Value>) -> Result<KeyValue, RowError> {
    let key = text(row, "key")?.ok_or(RowError::Missing("key"))?.to_owned();
    Ok(KeyValue { key, value: row.get("value").cloned().unwrap_or_default() })
}

/// Returns a field's text; nothing where it is absent or null.
fn text<'a>(row: &'a Map<String, Value>, field: &'static str) -> Result<Option<&'a str>, RowError> {
    match row.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(kind(field, "a string", other)),
    }
}

fn size(row: &Map<String, Value>) -> Result<Option<u64>, RowError> {
    let (value, size) = match row.get("size") {
        None | Some(Value::Null) => return Ok(None),
        Some(value @ Value::String(text)) => (value, text.trim().parse().ok()),
        Some(value) => (value, value.as_u64()),
    };
    let wanted = "a whole number of bytes";
    size.map(Some).ok_or_else(|| kind("size", wanted, value))
}

fn hash(row: &Map<String, Value>) -> Result<Option<FileHash>, RowError> {
    let (kind_of, sum) = match (text(row, "hashtype")?, text(row, "hashsum")?) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(RowError::Missing("hashtype")),
        (Some(_), None) => return Err(RowError::Missing("hashsum")),
        (Some(kind_of), Some(sum)) => (kind_of, sum),
    };
    if sum.is_empty() || !sum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(kind("hashsum", "hexadecimal digits", &Value::from(sum)));
    }
    Ok(Some(FileHash { kind: kind_of.to_ascii_lowercase(), sum: sum.to_ascii_lowercase() }))
}

fn kind(field: &'static str, wanted: &'static str, found: &Value) -> RowError {
    const SHOWN: usize = 100;
    let mut found = found.to_string();
    if found.len() > SHOWN {
        found.truncate(found.floor_char_boundary(SHOWN));
        found.push('…');
    }
    RowError::Kind { field, wanted, found }
}

//! What Pacifica's events carry as `data`: rows that describe a transaction, its files and its key-values.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::domain::Event;

/// The rows of an event's `data`, sorted out (FACTS: `destinationTable` is `Transactions.<field>`, `Files` or
/// `TransactionKeyValue`). Rows of other tables are left aside; an event whose data are no rows has no parts.
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
    /// Its id where the data are: a number, or whatever the event says.
    pub id: Value,
    /// Where it belongs, below the folder of all files: `subdir/name`.
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
    /// How it is made: `sha1`, `md5`, `sha256`, `sha512` and so on, in lower case.
    pub kind: String,
    /// The sum, hexadecimal, in lower case.
    pub sum: String,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
}

/// A path that stays below the folder that it is laid in: relative, of plain names only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

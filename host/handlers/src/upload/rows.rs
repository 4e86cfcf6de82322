//! The metadata of an upload: rows in the form of Pacifica's services and events (FACTS: The Dispatcher family).

use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::Origin;
use crate::output::{Output, OutputFile};
use waypost_domain::parts::KeyValue;

/// The fields of a transaction that an ingest service is told, in this order. The service itself assigns the id.
const INGESTED: [&str; 3] = ["submitter", "instrument", "project"];
/// The placeholder for a hash sum that is not known yet; all sums have this length.
pub(super) const HASH_UNKNOWN: &str = "0000000000000000000000000000000000000000";

/// One row.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Row<'a> {
    Transaction {
        #[serde(rename = "destinationTable")]
        table: String,
        value: &'a Value,
    },
    KeyValue {
        #[serde(rename = "destinationTable")]
        table: &'static str,
        key: &'a str,
        value: &'a Value,
    },
    File {
        #[serde(rename = "destinationTable")]
        table: &'static str,
        #[serde(rename = "_id", skip_serializing_if = "Option::is_none")]
        id: Option<usize>,
        name: &'a str,
        subdir: String,
        size: u64,
        mimetype: &'a str,
        mtime: String,
        ctime: String,
        hashtype: &'static str,
        hashsum: &'a str,
    },
}

/// Returns a bundle's `metadata.txt`. `sums` are the files' hash sums, in their order.
pub(super) fn metadata<'a>(output: &Output, origin: &Origin, sums: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let fields = &origin.transaction.fields;
    let known = INGESTED.iter().filter_map(|name| Some(transaction(name, fields.get(*name)?)));
    let files =
        output.files.iter().zip(sums).map(|(file, sum)| row(file, None, subdir(file.path.folder()), sum));
    let rows: Vec<_> = known.chain(output.key_values.iter().map(key_value)).chain(files).collect();
    serde_json::to_vec(&rows).expect("rows have string keys and no maps")
}

/// Returns a folder in the form that an ingest service expects. The service strips a leading `data`, which is also the
/// folder of the files in the bundle; a folder that is itself named `data` therefore needs one more.
fn subdir(folder: &str) -> String {
    match folder.split('/').next() {
        Some("data") => format!("data/{folder}"),
        Some(_) | None => folder.to_owned(),
    }
}

/// Returns the data of a follow-up event whose files lie below `folder`.
pub(super) fn event_data<'a>(
    output: &'a Output,
    origin: &'a Origin,
    folder: &str,
    sums: &'a [String],
) -> Vec<Row<'a>> {
    let fields = origin.transaction.fields.iter().map(|(name, value)| transaction(name, value));
    let files = output.files.iter().zip(sums).enumerate().map(|(n, (file, sum))| {
        let subdir = match file.path.folder() {
            "" => format!("{folder}/"),
            below => format!("{folder}/{below}/"),
        };
        row(file, Some(n + 1), subdir, sum)
    });
    fields.chain(output.key_values.iter().map(key_value)).chain(files).collect()
}

fn transaction<'a>(name: &str, value: &'a Value) -> Row<'a> {
    Row::Transaction { table: format!("Transactions.{name}"), value }
}

fn key_value(key_value: &KeyValue) -> Row<'_> {
    Row::KeyValue { table: "TransactionKeyValue", key: &key_value.key, value: &key_value.value }
}

fn row<'a>(file: &'a OutputFile, id: Option<usize>, subdir: String, sum: &'a str) -> Row<'a> {
    Row::File {
        table: "Files",
        id,
        name: file.path.name(),
        subdir,
        size: file.size,
        mimetype: &file.mimetype,
        mtime: time(file.modified),
        ctime: time(file.created),
        hashtype: "sha1",
        hashsum: sum,
    }
}

/// Writes a time as Pacifica's uploader does: UTC in whole seconds, without a time zone.
fn time(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The ingest service strips a leading `data`: it looked for the files of an output folder `data` one level too
    /// high.
    #[test]
    fn a_folder_that_is_called_data_keeps_its_name() {
        for (folder, expected) in [
            ("", ""),
            ("a/data", "a/data"),
            ("data", "data/data"),
            ("data/b", "data/data/b"),
            ("database", "database"),
        ] {
            assert_eq!(subdir(folder), expected);
        }
    }

    #[test]
    fn times_are_utc_in_whole_seconds() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_522_949_460_999);
        assert_eq!(time(at), "2018-04-05T17:31:00");
    }
}

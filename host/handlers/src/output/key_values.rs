//! `kvp.csv`: rows `key,value`, no header.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use super::OutputError;
use waypost_domain::parts::KeyValue;

/// The most bytes of the file.
const BYTES_MAX: u64 = 1024 * 1024;
/// The most rows of it.
const ROWS_MAX: usize = 10_000;

/// Reads the key-values of an output. Blocks on the disk.
pub(super) fn read(path: &Path) -> Result<Vec<KeyValue>, OutputError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|source| OutputError::Read { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|reason| OutputError::KeyValues { path: path.to_owned(), reason })
}

/// Parses rows. A byte order mark, which spreadsheets write, is skipped.
fn parse(bytes: &[u8]) -> Result<Vec<KeyValue>, String> {
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("it is longer than {BYTES_MAX} bytes"));
    }
    let mut key_values = Vec::new();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    for row in reader.records() {
        let row = row.map_err(explain)?;
        let line = row.position().map_or(0, csv::Position::line);
        let (Some(key), Some(value), 2) = (row.get(0), row.get(1), row.len()) else {
            return Err(format!(
                "line {line} has {} fields where a row is `key,value`; a comma within a value needs quotes: \
                 `key,\"a, b\"`",
                row.len()
            ));
        };
        if key.is_empty() {
            return Err(format!("line {line} has an empty key"));
        }
        if key_values.len() == ROWS_MAX {
            return Err(format!("line {line} exceeds the limit of {ROWS_MAX} rows"));
        }
        key_values.push(KeyValue { key: key.to_owned(), value: Value::String(value.to_owned()) });
    }
    Ok(key_values)
}

fn explain(error: csv::Error) -> String {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => format!("line {line} is not UTF-8"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_keys_with_values_whatever_a_spreadsheet_does_to_them() {
        let text = "\u{feff}do_processing,False\r\n\n\"a, b\",\"say \"\"hi\"\"\"\nempty,\ntwice,1\ntwice,2";
        let rows = parse(text.as_bytes()).unwrap();
        let rows: Vec<_> = rows.iter().map(|row| (row.key.as_str(), row.value.as_str().unwrap())).collect();
        let expected = [
            ("do_processing", "False"),
            ("a, b", "say \"hi\""),
            ("empty", ""),
            ("twice", "1"),
            ("twice", "2"),
        ];
        assert_eq!(rows, expected);
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn a_row_that_is_none_is_named_by_its_line() {
        for (text, part) in [
            (&b"a,1\nb\n"[..], "line 2 has 1 fields"),
            (b"a,1,2\n", "line 1 has 3 fields"),
            (b"a,1\n,x\n", "line 2 has an empty key"),
            (b"a,1\nb,\xff\n", "line 2 is not UTF-8"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn rows_and_bytes_are_bounded() {
        assert_eq!(parse("k,v\n".repeat(ROWS_MAX).as_bytes()).unwrap().len(), ROWS_MAX);
        let error = parse("k,v\n".repeat(ROWS_MAX + 1).as_bytes()).unwrap_err();
        assert!(error.contains("line 10001") && error.contains("10000 rows"), "{error}");
        let long = format!("k,{}", "v".repeat(1024 * 1024));
        assert!(parse(long.as_bytes()).unwrap_err().contains("1048576 bytes"));
    }
}

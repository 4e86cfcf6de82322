//! `waypost handler event`: prints an event that names the files of a folder, as Pacifica's ingest sends it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use uuid::Uuid;
use waypost_handlers::{Output, OutputLimits};
use waypost_runtime::clock;

use crate::print;

/// The most files of one event.
const FILES_MAX: usize = 10_000;

/// Print an event that names the files of a folder, with their sizes and hash sums
///
/// Pacifica's ingest sends such an event when files have arrived. A handler that fetches from this folder finds them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost handler event files | waypost send -
  waypost handler event files --key-value do_processing=True --project 7 > event.json")]
pub(crate) struct Arguments {
    /// The folder with the files
    folder: PathBuf,
    /// A key with its value; may be given several times
    #[arg(long = "key-value", value_name = "KEY=VALUE")]
    key_values: Vec<String>,
    /// The transaction's submitter
    #[arg(long, default_value = "1")]
    submitter: String,
    /// The transaction's instrument
    #[arg(long, default_value = "1")]
    instrument: String,
    /// The transaction's project
    #[arg(long, default_value = "1")]
    project: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let event = json!({
        "cloudEventsVersion": "0.1",
        "eventType": "org.pacifica.metadata.ingest",
        "source": "/pacifica/metadata/ingest",
        "eventID": Uuid::new_v4().to_string(),
        "eventTime": clock::text(clock::now()),
        "contentType": "application/json",
        "data": rows(arguments)?,
    });
    print::json(&event)?;
    Ok(ExitCode::SUCCESS)
}

fn rows(arguments: &Arguments) -> anyhow::Result<Vec<Value>> {
    let Arguments { folder, key_values, submitter, instrument, project } = arguments;
    let fields = [("submitter", submitter), ("instrument", instrument), ("project", project)];
    let mut rows: Vec<_> = fields
        .iter()
        .map(|(field, value)| json!({"destinationTable": format!("Transactions.{field}"), "value": value}))
        .collect();
    for key_value in key_values {
        let Some((key, value)) = key_value.split_once('=') else {
            bail!("`{key_value}` is not a key with a value: write KEY=VALUE");
        };
        rows.push(json!({"destinationTable": "TransactionKeyValue", "key": key, "value": value}));
    }
    // An event may name the files that an output folder may hold; here, none of them is a list of key-values.
    let limits = OutputLimits { files_max: FILES_MAX, bytes_max: u64::MAX };
    let found = Output::collect(0, "folder", folder, "", &[], limits);
    let found =
        found.with_context(|| format!("the files of {} cannot be named in an event", folder.display()))?;
    for (id, file) in (1..).zip(&found.files) {
        let sum = sha1(&file.place).with_context(|| format!("failed to read {}", file.place.display()))?;
        rows.push(json!({
            "destinationTable": "Files",
            "_id": id,
            "name": file.path.name(),
            "subdir": subdir(file.path.folder()),
            "size": file.size,
            "mimetype": file.mimetype,
            "hashtype": "sha1",
            "hashsum": sum,
        }));
    }
    Ok(rows)
}

/// Pacifica's own events end a folder's name with a slash.
fn subdir(folder: &str) -> String {
    if folder.is_empty() { String::new() } else { format!("{folder}/") }
}

fn sha1(path: &Path) -> io::Result<String> {
    let mut sum = Sha1::new();
    io::copy(&mut File::open(path)?, &mut Hashing(&mut sum))?;
    Ok(HEXLOWER.encode(&sum.finalize()))
}

/// Adds the bytes that are written to it to a hash sum.
struct Hashing<'a>(&'a mut Sha1);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

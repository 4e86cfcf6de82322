//! The record of a module, as JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Error, SEALED, body, seal};
use crate::domain::plugin::Report;
use crate::store::Module;

/// The format of a row: a version byte, then this as JSON.
#[derive(Serialize, Deserialize)]
struct Record {
    report: Report,
    uploaded: Timestamp,
    by: String,
    /// Absent in older rows, which have no more than `by`.
    #[serde(default)]
    uploads: BTreeMap<String, Timestamp>,
}

/// Writes a module.
pub(in crate::store::redb) fn encode_module(module: &Module) -> Vec<u8> {
    let Module { report, uploaded, by, uploads } = module.clone();
    let mut buffer = vec![SEALED];
    serde_json::to_writer(&mut buffer, &Record { report, uploaded, by, uploads })
        .expect("a report has only string keys");
    seal(buffer)
}

/// Reads a module.
pub(in crate::store::redb) fn decode_module(row: &[u8]) -> Result<Module, Error> {
    let Record { report, uploaded, by, mut uploads } = serde_json::from_slice(body(row)?)?;
    if uploads.is_empty() {
        uploads.insert(by.clone(), uploaded);
    }
    Ok(Module { report, uploaded, by, uploads })
}

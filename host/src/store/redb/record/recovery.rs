//! The record of a recovery, as JSON.

use super::{Error, SEALED, body, seal};
use crate::domain::Recovery;

/// Writes a recovery.
pub(in crate::store::redb) fn encode_recovery(recovery: &Recovery) -> Vec<u8> {
    let mut buffer = vec![SEALED];
    serde_json::to_writer(&mut buffer, recovery).expect("a recovery has only string keys");
    seal(buffer)
}

/// Reads a recovery.
pub(in crate::store::redb) fn decode_recovery(record: &[u8]) -> Result<Recovery, Error> {
    Ok(serde_json::from_slice(body(record)?)?)
}

//! The record of a subscription, as JSON.

use super::{Error, SEALED, body, seal};
use crate::domain::Subscription;

/// Writes a subscription.
pub(in crate::store::redb) fn encode_subscription(subscription: &Subscription) -> Vec<u8> {
    let mut buffer = vec![SEALED];
    serde_json::to_writer(&mut buffer, subscription).expect("a subscription has only string keys");
    seal(buffer)
}

/// Reads a subscription.
pub(in crate::store::redb) fn decode_subscription(record: &[u8]) -> Result<Subscription, Error> {
    Ok(serde_json::from_slice(body(record)?)?)
}

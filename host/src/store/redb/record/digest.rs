//! The record of a digest: its text, `sha256:` and 64 hexadecimal digits.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::domain::PluginDigest;

/// A digest in another record.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct DigestRecord<'a>(#[serde(borrow)] Cow<'a, str>);

impl From<PluginDigest> for DigestRecord<'_> {
    fn from(digest: PluginDigest) -> Self {
        Self(digest.to_string().into())
    }
}

impl TryFrom<DigestRecord<'_>> for PluginDigest {
    type Error = Error;

    fn try_from(DigestRecord(text): DigestRecord<'_>) -> Result<Self, Error> {
        Ok(text.parse()?)
    }
}

//! What is wrong with a plugin's configuration.

use serde::{Deserialize, Serialize};

use super::text;

/// The longest text of one, in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 300;

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A JSON pointer into it.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

impl Problem {
    /// Makes a problem of others' texts.
    pub(super) fn new(at: &str, message: &str) -> Self {
        Self { at: text::clean(at, MESSAGE_BYTES_MAX), message: text::clean(message, MESSAGE_BYTES_MAX) }
    }
}

//! What jsonpath-rust's grammar accepts and RFC 9535 does not.

use crate::matching::error::FilterError;
use crate::matching::limits;

/// Refuses what the grammar lets through.
pub(super) fn check(text: &str) -> Result<(), FilterError> {
    limits::check_spaces(text)
}

//! What jsonpath-rust's grammar accepts and RFC 9535 does not: the rest is found where the tree is converted.

use crate::error::FilterError;
use crate::limits;

/// Refuses what the grammar lets through.
pub(super) fn check(text: &str) -> Result<(), FilterError> {
    let end = text.trim_ascii_end().len();
    if end < text.len() {
        return Err(FilterError::at(text, end, "no space may stand behind the expression"));
    }
    limits::check_spaces(text)
}

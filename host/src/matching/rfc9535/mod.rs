//! RFC 9535.
use super::error::FilterError;
use super::form::Query;
pub(super) fn parse(text: &str) -> Result<Query, FilterError> {
    Err(FilterError::at(text, 0, "not there yet"))
}

//! RFC 9535: the crate jsonpath-rust reads a text, this module makes the internal form of its syntax tree.
//!
//! The crate's grammar lets through some texts that the standard does not: `strict` refuses them.

mod convert;
mod patterns;
mod strict;
#[cfg(test)]
mod tests;

use jsonpath_rust::parser::parse_json_path;

use super::error::FilterError;
use super::form::Query;
use super::limits;

/// Parses an expression.
///
/// # Errors
/// The text is none, or passes a limit.
pub(super) fn parse(text: &str) -> Result<Query, FilterError> {
    limits::check_text(text)?;
    let tree = parse_json_path(text).map_err(|error| FilterError::parse(text, &error))?;
    strict::check(text)?;
    convert::query(text, &tree)
}

/// Says what an author should know about an expression that [`parse`] made `query` of.
pub(super) fn warnings(text: &str, query: &Query) -> Vec<String> {
    patterns::warnings(text, query)
}

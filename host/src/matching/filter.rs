//! One filter: an RFC 9535 expression, parsed once and evaluated by the crate jsonpath-rust.

use std::fmt;

use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::Value;

use super::error::FilterError;
use super::limits;

/// A subscription's filter. An event matches when the expression finds at least one node in it.
#[derive(Clone)]
pub struct Filter {
    text: Box<str>,
    query: JpQuery,
}

impl Filter {
    /// Parses an RFC 9535 expression.
    ///
    /// # Errors
    ///
    /// The text is no such expression, or passes a limit (length, nesting, `..`, unions, joins).
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        limits::check_text(text)?;
        let query = parse_json_path(text).map_err(|error| FilterError::parse(text, &error))?;
        limits::check_query(text, &query)?;
        Ok(Self { text: text.into(), query })
    }

    /// Returns the expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the nodes that the expression finds, in the order of RFC 9535.
    pub fn find<'v>(&self, event: &'v Value) -> Vec<&'v Value> {
        // The evaluator's only error is a result that is no node, which a query from `$` does not have.
        let found = js_path_process(&self.query, event).unwrap_or_default();
        found.into_iter().map(|node| node.val()).collect()
    }

    /// Tells whether the expression finds anything.
    pub fn matches(&self, event: &Value) -> bool {
        !self.find(event).is_empty()
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

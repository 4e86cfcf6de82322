//! One filter: an expression of either dialect, parsed once and evaluated any number of times.

use std::fmt;

use super::dialect::{self, Dialect};
use super::document::Document;
use super::error::FilterError;
use super::evaluate::{self, Failure};
use super::explain::{self, Explanation};
use super::form::Query;
use waypost_domain::FilterDialect;

/// A subscription's filter. An event matches when the expression finds at least one node in it.
#[derive(Clone)]
pub struct Filter {
    text: Box<str>,
    dialect: Dialect,
    warnings: Box<[String]>,
    query: Query,
}

impl Filter {
    /// Parses an expression.
    ///
    /// # Errors
    ///
    /// The text is no expression of the dialect (of neither, for [`FilterDialect::Auto`]), or passes a limit.
    pub fn parse(text: &str, dialect: FilterDialect) -> Result<Self, FilterError> {
        let read = dialect::read(text, dialect)?;
        Ok(Self {
            text: text.into(),
            dialect: read.dialect,
            warnings: read.warnings.into(),
            query: read.query,
        })
    }

    /// Returns the expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the dialect that the expression was read in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Returns what the author should know: that the other dialect would have read something else, for one.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the internal form.
    pub(super) fn query(&self) -> &Query {
        &self.query
    }

    /// Tells whether the expression finds anything in an event.
    ///
    /// # Errors
    /// The evaluation passes its work budget, or (in jsonpath2) meets a slice with step 0.
    pub fn matches(&self, event: &Document<'_>) -> Result<bool, Failure> {
        evaluate::matches(&self.query, event, evaluate::limit(event)).0
    }

    /// The same within `limit` visits; returns how many it has taken, too.
    pub(super) fn matches_within(&self, event: &Document<'_>, limit: u64) -> (Result<bool, Failure>, u64) {
        evaluate::matches(&self.query, event, limit)
    }

    /// Returns the nodes that the expression finds, as JSON, in the order of RFC 9535.
    ///
    /// # Errors
    /// As [`Self::matches`].
    pub fn find(&self, event: &Document<'_>) -> Result<Vec<String>, Failure> {
        let mut found = Vec::new();
        evaluate::find(&self.query, event, &mut |node| found.push(node.to_string()))?;
        Ok(found)
    }

    /// Returns how many nodes the expression finds.
    ///
    /// # Errors
    /// As [`Self::matches`].
    pub fn count(&self, event: &Document<'_>) -> Result<usize, Failure> {
        let mut count = 0;
        evaluate::find(&self.query, event, &mut |_| count += 1)?;
        Ok(count)
    }

    /// Returns why the expression finds something in an event, or does not.
    pub fn explain(&self, event: &Document<'_>) -> Explanation {
        explain::explain(self, event)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

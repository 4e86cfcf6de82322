//! The two languages that filters are written in, and how a text decides between them.
//!
//! `auto` parses a text as both. Where only one accepts it, that one it is; where both do, it is RFC 9535, with a
//! warning if jsonpath2 would mean something else. What only jsonpath2 has (`=`, `and`, `or`, `not`, a function or a
//! path as a subscript) RFC 9535 never accepts, so that a text with such a mark is never read as RFC 9535. Where
//! neither accepts it, its marks choose whose error the author sees.
//!
//! In all of them a bare name is a path, as in the filters of Pacifica's documentation: `data` is `$.data`, and
//! `data.name` is `$.data.name`.

mod difference;
mod marks;
#[cfg(test)]
mod tests;

use std::fmt;

use super::error::FilterError;
use super::form::{Query, Segment, Selector, Start};
use super::{jsonpath2, limits, rfc9535};
use waypost_domain::FilterDialect;

/// The language of a filter, as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// JSONPath as the IETF defines it.
    Rfc9535,
    /// The language of Pacifica's subscriptions, of the Python package of that name.
    Jsonpath2,
}

impl Dialect {
    /// Returns the dialect's name in the REST API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rfc9535 => "rfc9535",
            Self::Jsonpath2 => "jsonpath2",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Rfc9535 => Self::Jsonpath2,
            Self::Jsonpath2 => Self::Rfc9535,
        }
    }

    fn parse(self, text: &str) -> Result<Query, FilterError> {
        match self {
            Self::Rfc9535 => rfc9535::parse(text),
            Self::Jsonpath2 => jsonpath2::parse(text),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An expression that has been read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) dialect: Dialect,
    pub(super) warnings: Vec<String>,
    pub(super) query: Query,
}

/// Reads an expression in the dialect that is asked for, or in the one that its text decides for.
pub(super) fn read(text: &str, dialect: FilterDialect) -> Result<Read, FilterError> {
    let mut read = read_as(text, dialect)?;
    match read.dialect {
        Dialect::Rfc9535 => read.warnings.extend(rfc9535::warnings(text, &read.query)),
        Dialect::Jsonpath2 => {}
    }
    Ok(read)
}

fn read_as(text: &str, dialect: FilterDialect) -> Result<Read, FilterError> {
    limits::check_length(text)?;
    let asked = match dialect {
        FilterDialect::Auto => None,
        FilterDialect::Rfc9535 => Some(Dialect::Rfc9535),
        FilterDialect::Jsonpath2 => Some(Dialect::Jsonpath2),
    };
    match (bare(text), asked) {
        (Some(query), asked) => {
            Ok(Read { dialect: asked.unwrap_or(Dialect::Rfc9535), warnings: Vec::new(), query })
        }
        (None, Some(dialect)) => {
            let query = dialect.parse(text).map_err(|error| with_dialect(error, dialect, text))?;
            Ok(Read { dialect, warnings: Vec::new(), query })
        }
        (None, None) => decide(text),
    }
}

/// Reads an expression in the dialect that its text decides for.
///
/// Space around it decides nothing: only jsonpath2 allows it, but it comes from files and shells, not from authors.
fn decide(text: &str) -> Result<Read, FilterError> {
    let trimmed = text.trim_ascii();
    match (rfc9535::parse(trimmed), jsonpath2::parse(text)) {
        (Ok(query), Ok(other)) => {
            let warnings = difference::warnings(&query, &other);
            Ok(Read { dialect: Dialect::Rfc9535, warnings, query })
        }
        (Ok(query), Err(_)) => {
            let each = marks::tests_each_element(text).then(|| EACH_ELEMENT.to_owned());
            Ok(Read { dialect: Dialect::Rfc9535, warnings: each.into_iter().collect(), query })
        }
        (Err(_), Ok(query)) => Ok(Read { dialect: Dialect::Jsonpath2, warnings: Vec::new(), query }),
        (Err(_), Err(other)) if marks::look_like_jsonpath2(text) => Err(other),
        (Err(standard), Err(other)) => {
            let before = text.len() - text.trim_ascii_start().len();
            Err(with_hint(FilterError { column: standard.column + before, ..standard }, other))
        }
    }
}

/// Adds that the other dialect would accept the text, where it would and nothing better is known.
fn with_dialect(error: FilterError, dialect: Dialect, text: &str) -> FilterError {
    if error.hint.is_some() || dialect.other().parse(text).is_err() {
        return error;
    }
    let hint = format!("{0} accepts it: set `filter_dialect` to `auto` or `{0}`", dialect.other());
    FilterError { hint: Some(hint), ..error }
}

/// What the author of `$.data[*][?@.size == 10]` should know.
const EACH_ELEMENT: &str = "in RFC 9535 `[?…]` tests the children of what stands before it, so that behind `[*]` these are \
    the members of each element: to test the elements themselves, leave the `[*]` out";

/// Adds what the other dialect's parser guesses about the same place, where the first one's guesses nothing.
fn with_hint(error: FilterError, other: FilterError) -> FilterError {
    // A text without the parentheses was meant as RFC 9535.
    let is_choice = other.hint.as_deref() == Some(jsonpath2::PARENTHESES);
    let is_better = error.hint.is_none() && error.column == other.column && !is_choice;
    FilterError { hint: if is_better { other.hint } else { error.hint }, ..error }
}

/// Reads a name, or names joined by dots, as the path from the event that they are.
fn bare(text: &str) -> Option<Query> {
    let segment = |name: &str| is_name(name).then(|| Segment::Child(Box::new([Selector::Name(name.into())])));
    let segments = text.trim_ascii().split('.').map(segment).collect::<Option<_>>()?;
    Some(Query { start: Start::Root, segments })
}

/// Tells whether RFC 9535 accepts a name without quotes.
fn is_name(text: &str) -> bool {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
    text.chars().all(in_name) && text.starts_with(|c: char| !c.is_ascii_digit())
}

//! The two languages that filters are written in.

use std::fmt;

use super::error::FilterError;
use super::form::Query;
use crate::domain::FilterDialect;

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
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An expression that has been read.
pub(super) struct Read {
    pub(super) dialect: Dialect,
    pub(super) warnings: Vec<String>,
    pub(super) query: Query,
}

/// Reads an expression in the dialect that is asked for, or in the one that its text decides for.
pub(super) fn read(text: &str, dialect: FilterDialect) -> Result<Read, FilterError> {
    match dialect {
        FilterDialect::Jsonpath2 => {
            let query = super::jsonpath2::parse(text)?;
            Ok(Read { dialect: Dialect::Jsonpath2, warnings: Vec::new(), query })
        }
        FilterDialect::Auto | FilterDialect::Rfc9535 => {
            let query = super::rfc9535::parse(text)?;
            Ok(Read { dialect: Dialect::Rfc9535, warnings: Vec::new(), query })
        }
    }
}

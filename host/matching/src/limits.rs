//! Limits of a filter's text, checked before and while it is parsed.
//!
//! Parsers of JSONPath can blow up on nesting (stack and backtracking). For RFC 9535, whose parser is not ours,
//! [`check_text`] refuses such texts in one pass beforehand. The parser of jsonpath2 counts while it parses, by
//! [`check_depth`] and [`check_filters`]. [`check_spaces`] refuses what jsonpath-rust 1 silently misreads.

use super::error::FilterError;

/// The longest text of a filter, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// The deepest nesting of brackets and parentheses.
const NESTING_MAX: usize = 32;
/// The deepest nesting of function calls: the grammar reads a call's argument twice, at each level again.
const CALLS_NESTING_MAX: usize = 4;
/// The most filters (`?…`) in one expression, those within filters included.
const FILTERS_MAX: usize = 64;

/// The characters of a filter outside its string literals, with their byte positions; quotes are left out too.
pub(super) struct Outside<'t> {
    chars: std::str::CharIndices<'t>,
    /// Where the string begins that the text ends in, once the iterator is at its end.
    pub(super) unclosed: Option<usize>,
}

impl<'t> Outside<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { chars: text.char_indices(), unclosed: None }
    }
}

impl Iterator for Outside<'_> {
    type Item = (usize, char);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, c) = self.chars.next()?;
            if c != '\'' && c != '"' {
                return Some((at, c));
            }
            self.unclosed = Some(at);
            while let Some((_, inner)) = self.chars.next() {
                if inner == c {
                    self.unclosed = None;
                    break;
                }
                if inner == '\\' {
                    self.chars.next();
                }
            }
        }
    }
}

/// Checks the text's length.
pub(super) fn check_length(text: &str) -> Result<(), FilterError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("a filter has at most {TEXT_BYTES_MAX} bytes, this one has {}", text.len());
        return Err(FilterError::at(text, TEXT_BYTES_MAX, message));
    }
    Ok(())
}

/// Checks how many brackets are open behind the one at the byte `at`.
pub(super) fn check_depth(text: &str, at: usize, depth: usize) -> Result<(), FilterError> {
    if depth > NESTING_MAX {
        return Err(FilterError::at(text, at, format!("brackets nest at most {NESTING_MAX} deep")));
    }
    Ok(())
}

/// Checks the number of filters up to the one at the byte `at`.
pub(super) fn check_filters(text: &str, at: usize, filters: usize) -> Result<(), FilterError> {
    if filters > FILTERS_MAX {
        return Err(FilterError::at(
            text,
            at,
            format!("an expression has at most {FILTERS_MAX} filters `?…`"),
        ));
    }
    Ok(())
}

/// Checks the length and the nesting of a text in RFC 9535, in one pass, before its parser sees it.
pub(super) fn check_text(text: &str) -> Result<(), FilterError> {
    check_length(text)?;
    // For every open bracket: whether it is a function's.
    let mut open = Vec::new();
    let (mut before, mut filters) = (' ', 0);
    for (at, c) in Outside::new(text) {
        match c {
            '(' | '[' => {
                open.push(c == '(' && (before.is_alphanumeric() || before == '_'));
                check_depth(text, at, open.len())?;
                if open.iter().filter(|call| **call).count() > CALLS_NESTING_MAX {
                    let message = format!("function calls nest at most {CALLS_NESTING_MAX} deep");
                    return Err(FilterError::at(text, at, message));
                }
            }
            ')' | ']' => drop(open.pop()),
            '?' => {
                filters += 1;
                check_filters(text, at, filters)?;
            }
            _ => {}
        }
        before = c;
    }
    Ok(())
}

/// Refuses a space within a name: the grammar reads `$.a b` as the member `a b`.
pub(super) fn check_spaces(text: &str) -> Result<(), FilterError> {
    let (mut before, mut spaced) = (None, false);
    for (at, c) in Outside::new(text) {
        let adjacent = before == Some(at);
        let named = c.is_alphanumeric() || c == '_' || !c.is_ascii();
        if named && spaced && adjacent {
            return Err(FilterError::at(text, at, "expected an operator, `.name`, `[…]` or the end"));
        }
        spaced = c.is_ascii_whitespace() && adjacent;
        before = (named || spaced).then(|| at + c.len_utf8());
    }
    Ok(())
}

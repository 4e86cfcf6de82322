//! I-Regexps (RFC 9485), compiled once a filter instead of once a node.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

use super::form::Operand;

/// The largest compiled regular expression, in bytes.
const COMPILED_BYTES_MAX: usize = 256 * 1024;

/// The second argument of `match()` or `search()`.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// A literal.
    Fixed(Fixed),
    /// A pattern that stands in the event.
    Found {
        /// Where.
        operand: Operand,
        /// How much of the text it has to cover.
        extent: Extent,
    },
}

/// How much of a text a pattern has to cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Extent {
    /// `match()`: all of it.
    Whole,
    /// `search()`: any part.
    Part,
}

/// A pattern that is known when the filter is written.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    /// The pattern as it was written.
    pub(super) text: Box<str>,
    pub(super) extent: Extent,
    /// Compiled at the first use: most filters are only ever looked up in the index.
    compiled: OnceLock<Option<Regex>>,
}

impl Fixed {
    pub(super) fn new(text: &str, extent: Extent) -> Self {
        Self { text: text.into(), extent, compiled: OnceLock::new() }
    }

    /// Returns the compiled pattern; none matches nothing (RFC 9535 §2.4.6).
    pub(super) fn regex(&self) -> Option<&Regex> {
        self.compiled.get_or_init(|| compile(&self.text, self.extent).unwrap_or_default()).as_ref()
    }
}

/// A pattern whose compiled form passes the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Compiles a pattern; `None` for what is no regular expression.
pub(super) fn compile(pattern: &str, extent: Extent) -> Result<Option<Regex>, TooLarge> {
    let Some(dotted) = without_line_ends(pattern) else { return Ok(None) };
    let text = match extent {
        Extent::Whole => format!(r"\A(?:{dotted})\z"),
        Extent::Part => dotted,
    };
    match RegexBuilder::new(&text).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX).build() {
        Ok(regex) => Ok(Some(regex)),
        Err(regex::Error::CompiledTooBig(_)) => Err(TooLarge),
        Err(_) => Ok(None),
    }
}

/// Writes each `.` outside of a class as I-Regexp means it: any character but a line feed and a carriage return. Returns
/// none where a `)` has no `(`: the group around the whole is not for the pattern to close.
fn without_line_ends(pattern: &str) -> Option<String> {
    let mut written = String::with_capacity(pattern.len());
    let (mut in_class, mut depth, mut chars) = (false, 0_usize, pattern.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                written.push(c);
                written.extend(chars.next());
                continue;
            }
            '.' if !in_class => {
                written.push_str(r"[^\n\r]");
                continue;
            }
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => depth += 1,
            ')' if !in_class => depth = depth.checked_sub(1)?,
            _ => {}
        }
        written.push(c);
    }
    Some(written)
}

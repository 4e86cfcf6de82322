//! I-Regexps (RFC 9485), compiled once a filter instead of once a node.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

use super::alphabet::Alphabet;
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
    /// Whether it is a regular expression at all.
    is_valid: bool,
    /// Compiled at the first use: most filters are only ever looked up in the index.
    compiled: OnceLock<Option<Compiled>>,
}

impl Fixed {
    /// Checks a pattern. What it compiles to is not kept: most filters are never evaluated.
    pub(super) fn new(text: &str, extent: Extent) -> Result<Self, TooLarge> {
        let is_valid = Compiled::of(text, extent)?.is_some();
        Ok(Self { text: text.into(), extent, is_valid, compiled: OnceLock::new() })
    }

    /// Returns why it can match nothing, where it cannot.
    pub(super) fn fault(&self) -> Option<Fault> {
        (!self.is_valid).then(|| Fault::of(&self.text))
    }

    /// Returns the compiled pattern; none matches nothing (RFC 9535 §2.4.6).
    pub(super) fn compiled(&self) -> Option<&Compiled> {
        let compile = || Compiled::of(&self.text, self.extent).unwrap_or_default();
        self.compiled.get_or_init(compile).as_ref()
    }
}

/// A pattern of a filter, compiled.
#[derive(Clone, Debug)]
pub(super) enum Compiled {
    /// As it is.
    Plain(Regex),
    /// Over kinds of characters, since it would be too large as it is.
    Kinds(Alphabet),
}

impl Compiled {
    /// Compiles a pattern; `None` for what is no regular expression.
    fn of(pattern: &str, extent: Extent) -> Result<Option<Self>, TooLarge> {
        match compile(pattern, extent) {
            Ok(regex) => Ok(regex.map(Self::Plain)),
            Err(TooLarge) => {
                let alphabet =
                    as_rust(pattern, extent).and_then(|text| Alphabet::compile(&text, COMPILED_BYTES_MAX));
                alphabet.map(|alphabet| Some(Self::Kinds(alphabet))).ok_or(TooLarge)
            }
        }
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Plain(regex) => regex.is_match(text),
            Self::Kinds(alphabet) => alphabet.is_match(text),
        }
    }
}

/// Why a pattern is no regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where in the pattern, in bytes.
    pub(super) at: usize,
    /// What is wrong there.
    pub(super) reason: String,
    /// Whether its author seems to think of the patterns of shells.
    pub(super) is_glob: bool,
}

impl Fault {
    fn of(pattern: &str) -> Self {
        let (at, reason) = match regex_syntax::Parser::new().parse(pattern) {
            Err(regex_syntax::Error::Parse(error)) => (error.span().start.offset, error.kind().to_string()),
            Err(regex_syntax::Error::Translate(error)) => {
                (error.span().start.offset, error.kind().to_string())
            }
            Err(_) | Ok(_) => (0, "it cannot be compiled".to_owned()),
        };
        Self { at, reason, is_glob: pattern.starts_with(['*', '?']) }
    }
}

/// A pattern whose compiled form passes the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this pattern is too large: compiled it has more than {COMPILED_BYTES_MAX} bytes; repeat less in it")]
pub(super) struct TooLarge;

/// Compiles a pattern as it is; `None` for what is no regular expression.
pub(super) fn compile(pattern: &str, extent: Extent) -> Result<Option<Regex>, TooLarge> {
    let Some(text) = as_rust(pattern, extent) else { return Ok(None) };
    match RegexBuilder::new(&text).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX).build() {
        Ok(regex) => Ok(Some(regex)),
        Err(regex::Error::CompiledTooBig(_)) => Err(TooLarge),
        Err(_) => Ok(None),
    }
}

/// Writes an I-Regexp for the regex crate. A `.` outside of a class is any character but a line feed and a carriage return;
/// `&&` and `~~` in a class are characters, and no operators on classes. Returns none where a `)` has no `(`: the group
/// around the whole is not for the pattern to close.
fn as_rust(pattern: &str, extent: Extent) -> Option<String> {
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
            '&' | '~' if in_class => written.push('\\'),
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => depth += 1,
            ')' if !in_class => depth = depth.checked_sub(1)?,
            _ => {}
        }
        written.push(c);
    }
    Some(match extent {
        Extent::Whole => format!(r"\A(?:{written})\z"),
        Extent::Part => written,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern, Extent::Whole).unwrap().is_some_and(|regex| regex.is_match(text))
    }

    /// RFC 9485 §3: these two are characters of a class like others.
    #[test]
    fn a_class_has_no_operators() {
        for text in ["a", "&", "b"] {
            assert!(matches("[a&&b]", text) && matches("[^~~c]", text), "{text}");
        }
        assert!(!matches("[a&&b]", "c") && !matches("[^~~c]", "~"));
        assert!(matches("a&&b~~", "a&&b~~"));
    }

    /// A name of up to 64 letters was too large.
    #[test]
    fn the_limit_has_room_for_a_name_of_sixty_four_letters() {
        for (pattern, good, bad) in [
            (r"\w{1,64}", "größe_7", "größe 7"),
            (r"\w{1,64}@\w{1,64}", "ann@größe", "ann@"),
            (r"[\p{L}\p{N}_.-]{1,64}\.tiff?", "größe.tif", ".tif"),
            (r".{1,255}", "x", "\n"),
        ] {
            let fixed = Fixed::new(pattern, Extent::Whole).unwrap();
            let matches = |text: &str| fixed.compiled().is_some_and(|compiled| compiled.is_match(text));
            assert!(matches(good) && !matches(bad), "{pattern}");
            assert!(Fixed::new(pattern, Extent::Part).is_ok(), "{pattern}");
        }
        let error = Fixed::new(r"((\w{99}){99}){9}", Extent::Whole).unwrap_err().to_string();
        assert!(error.contains("more than 262144 bytes"), "{error}");
    }
}

//! I-Regexps (RFC 9485), compiled once a filter instead of once a node.

use std::iter;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

use super::alphabet::Alphabet;
use super::form::Operand;

/// The largest compiled regular expression, in bytes.
const COMPILED_BYTES_MAX: usize = 256 * 1024;
/// What the smallest counts. The next ones count twice that each: the regex crate compares a size and does not tell it.
const COMPILED_BYTES_LEAST: usize = 8 * 1024;
/// The least memory for the states of a pattern's automaton while it is tried on a text, in bytes. With less, states
/// would be dropped before they are reused.
const STATES_BYTES_LEAST: usize = 32 * 1024;
/// The most that the patterns of one filter count together, in bytes.
const FILTER_COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// The part of the limit that the patterns of a filter may still use when they are compiled.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
}

impl Room {
    /// Returns the limit of a filter without patterns.
    pub(super) fn of_filter() -> Self {
        Self { bytes: FILTER_COMPILED_BYTES_MAX }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Oversize> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Oversize::Together)?;
        Ok(())
    }
}

/// Why a filter cannot have a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Oversize {
    /// By itself.
    #[error(transparent)]
    Alone(#[from] TooLarge),
    /// Beside the filter's others.
    #[error(
        "the patterns of this filter are too large: compiled they have more than {FILTER_COMPILED_BYTES_MAX} bytes \
         together; repeat less in them, or use fewer"
    )]
    Together,
}

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
    /// Checks a pattern, and takes its size from the filter's limit. The compiled form is not kept, because most
    /// filters are never evaluated.
    pub(super) fn new(text: &str, extent: Extent, room: &mut Room) -> Result<Self, Oversize> {
        let compiled = Compiled::of(text, extent)?;
        if let Some((_, bytes)) = &compiled {
            room.take(*bytes)?;
        }
        Ok(Self { text: text.into(), extent, is_valid: compiled.is_some(), compiled: OnceLock::new() })
    }

    /// Returns why it can match nothing, where it cannot.
    pub(super) fn fault(&self) -> Option<Fault> {
        (!self.is_valid).then(|| Fault::of(&self.text))
    }

    /// Returns the compiled pattern; none matches nothing (RFC 9535 §2.4.6).
    pub(super) fn compiled(&self) -> Option<&Compiled> {
        let compile = || {
            let compiled = Compiled::of(&self.text, self.extent).unwrap_or_default();
            compiled.map(|(compiled, _)| compiled)
        };
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
    /// Compiles a pattern, and returns with it how many bytes it counts; `None` for what is no regular expression.
    fn of(pattern: &str, extent: Extent) -> Result<Option<(Self, usize)>, TooLarge> {
        let Some(text) = as_rust(pattern, extent) else { return Ok(None) };
        for bytes in sizes() {
            match build(&text, bytes) {
                Ok(None) => return Ok(None),
                Ok(Some(regex)) => {
                    // With a named group, the only kind that is left, there may be a table of the largest size beside it.
                    let bytes = if regex.captures_len() > 1 { COMPILED_BYTES_MAX } else { bytes };
                    return Ok(Some((Self::Plain(regex), bytes)));
                }
                Err(TooLarge) => {}
            }
        }
        let kinds = |bytes| Some((Self::Kinds(Alphabet::compile(&text, bytes)?), bytes));
        sizes().find_map(kinds).map(Some).ok_or(TooLarge)
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
    as_rust(pattern, extent).map_or(Ok(None), |text| build(&text, COMPILED_BYTES_MAX))
}

/// Returns the sizes that a compiled pattern may count, in bytes.
fn sizes() -> impl Iterator<Item = usize> {
    iter::successors(Some(COMPILED_BYTES_LEAST), |bytes| Some(bytes * 2))
        .take_while(|bytes| *bytes <= COMPILED_BYTES_MAX)
}

fn build(text: &str, bytes_max: usize) -> Result<Option<Regex>, TooLarge> {
    let states_bytes = bytes_max.max(STATES_BYTES_LEAST);
    match RegexBuilder::new(text).size_limit(bytes_max).dfa_size_limit(states_bytes).build() {
        Ok(regex) => Ok(Some(regex)),
        Err(regex::Error::CompiledTooBig(_)) => Err(TooLarge),
        Err(_) => Ok(None),
    }
}

/// Writes an I-Regexp for the regex crate. A `.` outside of a class is any character but a line feed and a carriage return;
/// `&&` and `~~` in a class are characters, and no operators on classes. Returns none where a `)` has no `(`: the group
/// around the whole is not for the pattern to close. Groups capture nothing: what they find is never asked for, and takes
/// memory.
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
            '(' if !in_class => {
                depth += 1;
                // Behind spaces, since `(?x)` skips them.
                if !chars.as_str().trim_start().starts_with('?') {
                    written.push_str("(?:");
                    continue;
                }
            }
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
            let fixed = Fixed::new(pattern, Extent::Whole, &mut Room::of_filter()).unwrap();
            let matches = |text: &str| fixed.compiled().is_some_and(|compiled| compiled.is_match(text));
            assert!(matches(good) && !matches(bad), "{pattern}");
            assert!(Fixed::new(pattern, Extent::Part, &mut Room::of_filter()).is_ok(), "{pattern}");
        }
        let large = Fixed::new(r"((\w{99}){99}){9}", Extent::Whole, &mut Room::of_filter());
        let error = large.unwrap_err().to_string();
        assert!(error.contains("more than 262144 bytes"), "{error}");
    }

    /// A pattern's size was all that was bounded: 190 of 245 KB fit into the text of one filter.
    #[test]
    fn the_patterns_of_a_filter_have_a_limit_together() {
        let counted = |pattern: &str| {
            let mut room = Room::of_filter();
            (0..200).take_while(|_| Fixed::new(pattern, Extent::Part, &mut room).is_ok()).count()
        };
        assert_eq!([r"\w{5}", "(?P<name>a)", "(a)(?i)b"].map(counted), [4, 4, 128]);
        assert_eq!(counted("*.tif"), 200, "what is no regular expression takes nothing");
    }

    #[test]
    fn groups_capture_nothing_and_group_all_the_same() {
        let compiled = compile(r"(a|b)+(?i)(c)[(]\((?:d)", Extent::Whole).unwrap().unwrap();
        assert!(compiled.captures_len() == 1 && compiled.is_match("abC((D") && !compiled.is_match("aC"));
        assert!(matches("(?x)( ?:a )", "a") && !matches("()", "(") && matches("((a)|)", ""));
    }
}

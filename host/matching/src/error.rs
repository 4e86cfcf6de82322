//! What can be wrong with a filter's text, explained so that its author can correct it.

use jsonpath_rust::parser::errors::JsonPathError;
use pest::RuleType;
use pest::error::{ErrorVariant, InputLocation};

use super::limits::Outside;

/// An event that cannot be matched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The event's bytes are not JSON, or nest deeper than serde_json's 128 levels.
    #[error("failed to read the event as JSON")]
    Read {
        /// What serde_json found.
        source: serde_json::Error,
    },
}

/// A filter that is not accepted, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}{}", .hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct FilterError {
    /// The place, counted in characters from 1; one past the last character where the text ends too early.
    pub column: usize,
    /// What was expected there, or which limit is passed.
    pub message: String,
    /// What the author probably meant.
    pub hint: Option<String>,
}

impl FilterError {
    /// Makes an error about the byte `at` of `text`.
    pub(super) fn at(text: &str, at: usize, message: impl Into<String>) -> Self {
        let column = text.char_indices().take_while(|(start, _)| *start < at).count() + 1;
        Self { column, message: message.into(), hint: None }
    }

    /// Reads what the parser says about `text`.
    pub(super) fn parse(text: &str, error: &JsonPathError) -> Self {
        let found = unclosed(text).unwrap_or_else(|| match error {
            JsonPathError::PestError(error) => {
                let at = match error.location {
                    InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
                };
                Self::at(text, at, expected(&error.variant))
            }
            // The other errors are found after parsing. They carry no position, but quote the text that they are about.
            other => {
                let message = other.to_string();
                let quoted = message.split('`').skip(1).step_by(2).find_map(|part| text.find(part));
                let message = message.rsplit_once("path: ").map_or(message.as_str(), |(_, rest)| rest);
                Self::at(text, quoted.unwrap_or(0), message.replacen("Invalid", "invalid", 1))
            }
        });
        if let Some(long) = long_integer(text, &found) {
            return long;
        }
        let found = behind_literal(text, &found).unwrap_or(found);
        match habit(text) {
            Some(Habit { at, instead, hint }) => {
                let here = Self::at(text, at, instead);
                // The grammar often names the second-best thing in the place of an operator.
                if here.column == found.column {
                    Self { hint: Some(hint), ..here }
                } else {
                    Self { hint: Some(hint), ..found }
                }
            }
            None => found,
        }
    }

    /// Returns two lines for a terminal: the expression, and a caret under the place.
    pub fn caret(&self, expression: &str) -> String {
        let line: String = expression.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{line}\n{:>column$}", '^', column = self.column)
    }
}

/// Recognises an integer beyond those of I-JSON (RFC 7493 §2.2) in the place of an error: the grammar would only say that
/// it expected a value.
fn long_integer(text: &str, found: &FilterError) -> Option<FilterError> {
    let (at, _) = text.char_indices().nth(found.column - 1)?;
    let digits = text[at..].trim_start_matches('-').bytes().take_while(u8::is_ascii_digit).count();
    let message = "integers in RFC 9535 filters are at most 9007199254740991";
    (digits > 15).then(|| FilterError::at(text, at, message))
}

/// Finds what follows a valid literal where nothing like it is allowed: the grammar points at the literal, which is not
/// at fault.
fn behind_literal(text: &str, found: &FilterError) -> Option<FilterError> {
    let (at, first) = text.char_indices().nth(found.column - 1)?;
    let rest = &text[at..];
    let is_end = |c: char| !c.is_alphanumeric() && !matches!(c, '.' | '+' | '-');
    let len = match first {
        '\'' | '"' => {
            let mut escaped = false;
            let closing = rest.char_indices().skip(1).find(|(_, c)| {
                let closes = !escaped && *c == first;
                escaped = !escaped && *c == '\\';
                closes
            });
            closing?.0 + 1
        }
        '-' | '0'..='9' => rest.find(is_end).unwrap_or(rest.len()),
        _ => ["true", "false", "null"]
            .into_iter()
            .find(|word| rest.strip_prefix(word).is_some_and(|rest| !in_word(rest.chars().next())))?
            .len(),
    };
    let behind = rest[len..].trim_ascii_start();
    let may_follow = [")", "]", ",", "&&", "||", "==", "!=", "<", ">"];
    let is_wrong = !behind.is_empty() && !may_follow.iter().any(|sign| behind.starts_with(sign));
    let message = "expected an operator (`&&`, `||`, or a comparison) or a closing bracket";
    is_wrong.then(|| FilterError::at(text, text.len() - behind.len(), message))
}

/// Finds the quote or bracket that has no partner; the grammar would only say that it expected something else.
fn unclosed(text: &str) -> Option<FilterError> {
    let mut outside = Outside::new(text);
    let mut open = Vec::new();
    for (at, c) in outside.by_ref() {
        match c {
            '[' | '(' => open.push((at, c)),
            ']' | ')' => match open.pop() {
                Some((_, '[')) if c == ']' => {}
                Some((_, '(')) if c == ')' => {}
                Some((_, '[')) => return Some(FilterError::at(text, at, "expected `]`")),
                Some(_) => return Some(FilterError::at(text, at, "expected `)`")),
                None => return Some(FilterError::at(text, at, format!("this `{c}` closes nothing"))),
            },
            _ => {}
        }
    }
    if let Some(at) = outside.unclosed {
        return Some(FilterError::at(text, at, "this string is not closed"));
    }
    let (at, c) = open.pop()?;
    Some(FilterError::at(text, at, format!("this `{c}` is not closed")))
}

/// Names what the grammar could have read, in the words of RFC 9535 and each once.
fn expected<R: RuleType>(variant: &ErrorVariant<R>) -> String {
    let ErrorVariant::ParsingError { positives, .. } = variant else { return variant.message().into_owned() };
    let mut words: Vec<&str> = Vec::new();
    for rule in positives {
        let word = match format!("{rule:?}").as_str() {
            "main" | "jp_query" | "root" => "`$`",
            "segments"
            | "segment"
            | "child_segment"
            | "descendant_segment"
            | "bracketed_selection"
            | "name_segment"
            | "index_segment"
            | "singular_query_segments" => "`.name` or `[…]`",
            "selector" | "name_selector" | "wildcard_selector" | "index_selector" | "slice_selector"
            | "filter_selector" | "start" | "end" | "step" => "a selector (`'name'`, `*`, `0`, `0:1`, `?…`)",
            "member_name_shorthand" | "name_first" | "ALPHA" => "a name",
            "comp_op" => "a comparison such as `==`",
            "literal" | "comparable" | "number" | "int" | "frac" | "exp" | "string" | "bool" | "null" => {
                "a value"
            }
            "logical_expr" | "logical_expr_and" | "atom_expr" | "paren_expr" | "comp_expr" | "test_expr"
            | "not_op" => "a condition",
            "test" | "rel_query" | "singular_query" | "rel_singular_query" | "abs_singular_query" => "a path",
            "function_expr" | "function_name_one_arg" | "function_name_two_arg" => "a function",
            "function_argument" => "an argument",
            "EOI" => "the end",
            _ => continue,
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    match words.as_slice() {
        [] => "expected an operator or a closing bracket".to_owned(),
        [only] => format!("expected {only}"),
        [first @ .., last] => format!("expected {} or {last}", first.join(", ")),
    }
}

/// A piece of another JSONPath dialect.
struct Habit {
    at: usize,
    /// What RFC 9535 expects in its place.
    instead: String,
    hint: String,
}

impl Habit {
    fn new(at: usize, instead: &str, hint: impl Into<String>) -> Self {
        Self { at, instead: format!("expected {instead}"), hint: hint.into() }
    }

    fn operator(at: usize, written: &str, operator: &str) -> Self {
        let hint = format!("`{written}` is jsonpath2; RFC 9535 writes `{operator}`");
        Self::new(at, &format!("`{operator}`"), hint)
    }
}

/// Recognises what other dialects, jsonpath2 above all, would have written.
fn habit(text: &str) -> Option<Habit> {
    if !text.starts_with('$') {
        let hint = match text.trim_start().chars().next() {
            Some('$') => "no space may stand before the `$`",
            Some('@') => "a filter begins at `$`, the event; `@` stands inside `[?…]`",
            _ => "a filter begins at `$`, the event: `data` is written `$.data`",
        };
        return Some(Habit::new(0, "`$`", hint));
    }
    let outside: Vec<(usize, char)> = Outside::new(text).collect();
    let mut depth = 0_usize;
    for (position, &(at, c)) in outside.iter().enumerate() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            '=' => {
                let before = position.checked_sub(1).and_then(|position| outside.get(position));
                let after = outside.get(position + 1);
                let longer =
                    before.is_some_and(|(_, c)| "=!<>".contains(*c)) || after.is_some_and(|(_, c)| *c == '=');
                if after.is_some_and(|(_, c)| *c == '~') {
                    let hint =
                        "a text is compared with a pattern by `match()`, or `search()` for a part of it";
                    return Some(Habit::new(at, "a comparison such as `==`", hint));
                }
                if !longer {
                    return Some(Habit::operator(at, "=", "=="));
                }
            }
            'a' | 'o' | 'n' if depth > 0 && !in_word(text[..at].chars().next_back()) => {
                let word = [("and", "&&"), ("or", "||"), ("not", "!")].into_iter().find(|(word, _)| {
                    text[at..].strip_prefix(word).is_some_and(|rest| !in_word(rest.chars().next()))
                });
                if let Some((word, operator)) = word {
                    return Some(Habit::operator(at, word, operator));
                }
            }
            _ => {}
        }
    }
    None
}

/// Tells whether `neighbour` makes the letters beside it part of a longer name.
fn in_word(neighbour: Option<char>) -> bool {
    neighbour.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '@' | '$'))
}

#[cfg(test)]
mod tests {
    use crate::Filter;
    use waypost_domain::FilterDialect;

    fn told(text: &str) -> String {
        let error = Filter::parse(text, FilterDialect::Rfc9535).unwrap_err();
        format!("{}\n{error}", error.caret(text))
    }

    #[test]
    fn points_at_the_place_and_says_what_was_expected() {
        insta::assert_snapshot!(told("$.data[?@.value == ]"), @r#"
        $.data[?@.value == ]
                           ^
        column 20: expected a value
        "#);
        insta::assert_snapshot!(told("$.é['a]"), @r#"
        $.é['a]
            ^
        column 5: this string is not closed
        "#);
        insta::assert_snapshot!(told("$.a[?(@.b == 1]"), @r#"
        $.a[?(@.b == 1]
                      ^
        column 15: expected `)`
        "#);
        insta::assert_snapshot!(told("$.a[0"), @r#"
        $.a[0
           ^
        column 4: this `[` is not closed
        "#);
        insta::assert_snapshot!(told("$."), @r#"
        $.
          ^
        column 3: expected a selector (`'name'`, `*`, `0`, `0:1`, `?…`) or a name
        "#);
    }

    #[test]
    fn points_behind_a_literal_that_is_sound() {
        insta::assert_snapshot!(told("$.data[?@.name == \"x\" and @.y == 1]"), @r#"
        $.data[?@.name == "x" and @.y == 1]
                              ^
        column 23: expected `&&` (`and` is jsonpath2; RFC 9535 writes `&&`)
        "#);
        insta::assert_snapshot!(told("$.data[?@.name =~ 'x']"), @r#"
        $.data[?@.name =~ 'x']
                       ^
        column 16: expected a comparison such as `==` (a text is compared with a pattern by `match()`, or `search()` for a part of it)
        "#);
        insta::assert_snapshot!(told("$.data[?@.name == 'x' xor @.y]"), @r#"
        $.data[?@.name == 'x' xor @.y]
                              ^
        column 23: expected an operator (`&&`, `||`, or a comparison) or a closing bracket
        "#);
        insta::assert_snapshot!(told("$.data[?@.name == true & @.y]"), @r#"
        $.data[?@.name == true & @.y]
                               ^
        column 24: expected an operator (`&&`, `||`, or a comparison) or a closing bracket
        "#);
    }

    #[test]
    fn names_the_limit_of_integers() {
        insta::assert_snapshot!(told("$[?@.id == 1234567890123456789]"), @r#"
        $[?@.id == 1234567890123456789]
                   ^
        column 12: integers in RFC 9535 filters are at most 9007199254740991
        "#);
        assert_eq!(Filter::parse("$[9007199254740992]", FilterDialect::Rfc9535).unwrap_err().column, 3);
    }

    #[test]
    fn hints_at_the_other_dialect() {
        insta::assert_snapshot!(told("data[0]"), @r#"
        data[0]
        ^
        column 1: expected `$` (a filter begins at `$`, the event: `data` is written `$.data`)
        "#);
        insta::assert_snapshot!(told(r#"$[?(@["eventType"] = "x")]"#), @r#"
        $[?(@["eventType"] = "x")]
                           ^
        column 20: expected `==` (`=` is jsonpath2; RFC 9535 writes `==`)
        "#);
        insta::assert_snapshot!(told("$[?@.a == 1 and @.b == 'or']"), @r#"
        $[?@.a == 1 and @.b == 'or']
                    ^
        column 13: expected `&&` (`and` is jsonpath2; RFC 9535 writes `&&`)
        "#);
        insta::assert_snapshot!(told("$[?(not @.a)]"), @r#"
        $[?(not @.a)]
            ^
        column 5: expected `!` (`not` is jsonpath2; RFC 9535 writes `!`)
        "#);
        assert_eq!(Filter::parse("$.and[?@.or == '=' && ]", FilterDialect::Rfc9535).unwrap_err().hint, None);
    }
}

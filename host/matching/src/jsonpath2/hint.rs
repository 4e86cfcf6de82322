//! What an author probably meant, told from the token that does not fit.

use super::lexer::{Bracket, Foreign, Kind, Token};

/// What the author of `[?@.a]` should know.
pub(crate) const PARENTHESES: &str =
    "jsonpath2 puts a condition in parentheses, `?(…)`; without them it is RFC 9535";

/// Returns a hint about `token`, which follows `last` inside the bracket `open`.
pub(super) fn hint(text: &str, last: Token<'_>, token: Token<'_>, open: Option<Kind>) -> Option<String> {
    // Nothing has been read yet.
    if last.kind == Kind::End {
        return Some(start(token).to_owned());
    }
    let after_dot = matches!(last.kind, Kind::Dot | Kind::Dots);
    match token.kind {
        Kind::Foreign(foreign) => Some(of_foreign(foreign, token)),
        _ if last.kind == Kind::Question => Some(PARENTHESES.to_owned()),
        Kind::And | Kind::Or | Kind::Not | Kind::True | Kind::False | Kind::Null if after_dot => {
            Some(format!("`{0}` is a word of jsonpath2; the name is written `[\"{0}\"]`", token.text))
        }
        Kind::Open(Bracket::Square) if last.kind == Kind::Dot => {
            Some("no `.` stands before a `[`".to_owned())
        }
        Kind::String if after_dot => Some(format!("a name in quotes is written `[{}]`", token.text)),
        Kind::Number if after_dot => Some(number_after_dot(text, token)),
        Kind::Number if last.kind == Kind::Number => Some("a number has no leading zero".to_owned()),
        Kind::Unknown(c) => unknown(text, c, last, token),
        Kind::Name => name(text, last, token, open),
        Kind::Compare(_) if text[..token.at].ends_with(['<', '=']) => {
            Some("jsonpath2 has the comparisons `=`, `!=`, `<`, `<=`, `>` and `>=`".to_owned())
        }
        _ => None,
    }
}

/// Returns a hint about a function that jsonpath2 does not have.
pub(super) fn function(name: &str) -> Option<String> {
    let is_foreign = ["match", "search", "count", "value"].contains(&name);
    is_foreign.then(|| format!("`{name}()` is RFC 9535; jsonpath2 has nothing in its place"))
}

fn start(token: Token<'_>) -> &'static str {
    match token.kind {
        Kind::Current => "a filter begins at `$`, the event; `@` stands inside `[?(…)]`",
        Kind::Unknown('\u{feff}') => "a byte order mark stands before the `$`",
        _ => "a filter begins at `$`, the event: `data` is written `$.data`",
    }
}

fn of_foreign(foreign: Foreign, token: Token<'_>) -> String {
    let (theirs, ours) = match foreign {
        Foreign::Equal => ("==", "="),
        Foreign::And => ("&&", "and"),
        Foreign::Or => ("||", "or"),
        Foreign::Not => ("!", "not"),
        Foreign::SingleQuotes => {
            let inner = &token.text[1..token.text.len() - 1];
            let ours = if inner.len() > 40 { "…" } else { inner };
            return format!("single quotes are RFC 9535; jsonpath2 writes `\"{ours}\"`");
        }
    };
    format!("`{theirs}` is RFC 9535; jsonpath2 writes `{ours}`")
}

fn number_after_dot(text: &str, token: Token<'_>) -> String {
    let word = word(text, token.at);
    if word == token.text {
        format!("an index is written `[{word}]`, a name of digits `[\"{word}\"]`")
    } else {
        bracketed(word)
    }
}

fn unknown(text: &str, c: char, last: Token<'_>, token: Token<'_>) -> Option<String> {
    let after_dot = matches!(last.kind, Kind::Dot | Kind::Dots);
    let is_adjacent = last.at + last.text.len() == token.at;
    let continues_name = is_adjacent && matches!(last.kind, Kind::Name) && in_name(c);
    match c {
        _ if continues_name => Some(bracketed(word(text, last.at))),
        _ if after_dot && in_name(c) => Some(bracketed(word(text, token.at))),
        '&' => Some("jsonpath2 writes `and`".to_owned()),
        '|' => Some("jsonpath2 writes `or`".to_owned()),
        '~' | '/' => {
            Some("jsonpath2 has no regular expressions; RFC 9535 has `match()` and `search()`".to_owned())
        }
        c if c.is_whitespace() => Some(format!("U+{:04X} is no plain space", u32::from(c))),
        _ => None,
    }
}

fn name(text: &str, last: Token<'_>, token: Token<'_>, open: Option<Kind>) -> Option<String> {
    let lower = token.text.to_ascii_lowercase();
    if let "and" | "or" | "not" | "true" | "false" | "null" = lower.as_str() {
        return Some(format!("jsonpath2 writes `{lower}`"));
    }
    let rest = text[token.at + token.text.len()..].trim_start();
    match open {
        Some(Kind::Open(Bracket::Square)) if matches!(last.kind, Kind::Open(_) | Kind::Comma) => {
            Some(format!("a name in brackets is written `[\"{}\"]`", token.text))
        }
        Some(Kind::Open(Bracket::Round)) if rest.starts_with('(') => function(token.text).or_else(|| {
            Some(format!("jsonpath2 writes a function behind a path: `@.name.{}()`", token.text))
        }),
        Some(Kind::Open(Bracket::Round))
            if matches!(last.kind, Kind::Name | Kind::Close(_) | Kind::String) =>
        {
            None
        }
        Some(Kind::Open(Bracket::Round)) => Some(format!(
            "a path begins with `@` or `$`: `@.{0}`; a text stands in quotes: `\"{0}\"`",
            token.text
        )),
        _ => None,
    }
}

fn bracketed(name: &str) -> String {
    format!("such a name is written `[\"{name}\"]`")
}

/// Tells whether people expect a character to be part of a name.
fn in_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-') || (!c.is_ascii() && !c.is_whitespace() && !c.is_control())
}

/// Returns the name around a place, as its author sees it.
fn word(text: &str, at: usize) -> &str {
    let rest = &text[at..];
    let end = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
    &rest[..end]
}
